//! All that a report knows.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::Remedy;
use crate::{
    context::Explanation,
    history::{Incident, Pressure, Sample},
    recurrence::{Precursor, Ran, Recurrence, Span, precursors, recurrence},
};

/// All that a report knows.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// `turnaway/1`.
    pub schema: &'static str,
    /// When it was made.
    pub generated: Timestamp,
    /// The time zone in which times are shown and patterns are looked for.
    pub zone: String,
    /// Incidents, newest first.
    pub incidents: Vec<Entry>,
    /// What is known of incidents of one victim and reason together, what came last first.
    pub recurrences: Vec<Again>,
}

/// An incident and what is known around it.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// It.
    pub incident: Incident,
    /// What was found when it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// How it stood.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// Pressure around it, minute by minute.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pressures: Vec<Pressure>,
    /// What helps.
    pub remedies: Vec<Remedy>,
}

/// Incidents of one victim and reason, together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Again {
    /// Whose.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// When they began, in order.
    pub onsets: Vec<Timestamp>,
    /// What follows.
    pub recurrence: Recurrence,
    /// What always ran before them.
    pub before: Vec<Precursor>,
}

/// What incidents say together. `all` are all that are known, in whatever order.
#[must_use]
pub(super) fn again(
    all: &[Incident],
    runs: &[Ran],
    watched: &[Span],
    now: Timestamp,
    zone: &TimeZone,
) -> Vec<Again> {
    let mut together: BTreeMap<(String, String), Vec<Timestamp>> = BTreeMap::new();
    for incident in all {
        let reason = incident.reason().map_or("", |code| code.as_str());
        let key = (incident.subject(), reason.to_owned());
        together.entry(key).or_default().push(incident.started);
    }
    let mut found: Vec<Again> = together
        .into_iter()
        .filter_map(|((subject, reason), mut onsets)| {
            onsets.sort_unstable();
            let recurrence = recurrence(&onsets, watched, now, zone)?;
            // What ran before those that fit the pattern explains the pattern.
            let fitting = recurrence
                .pattern
                .as_ref()
                .map_or(&onsets, |pattern| &pattern.hits);
            let before = precursors(fitting, &onsets, runs, watched);
            Some(Again {
                subject,
                reason,
                onsets,
                recurrence,
                before,
            })
        })
        .collect();
    found.sort_by_key(|again| std::cmp::Reverse(again.recurrence.last));
    found
}
