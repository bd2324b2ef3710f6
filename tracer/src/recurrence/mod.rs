//! Whether it happened before, and when it will again (pure).
//!
//! [`recurrence`] takes when incidents of one victim and reason began, and says whether they follow a
//! [`Rhythm`]. Chance makes patterns, too: for every rhythm the probability that incidents at random
//! times would fit as well is bounded, over all rhythms that were tried, and only what is unlikely to
//! be chance is claimed. [`precursors`] says what always ran before them.

mod chance;
mod precursor;
mod rhythm;
mod search;
mod words;

#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::Serialize;

pub use precursor::{Precursor, Ran, precursors};
pub use rhythm::Rhythm;
pub use words::lasting;

/// A pattern is claimed only if chance would make one as good as it in fewer cases than this.
pub const UNLIKELY: f64 = 0.005;
/// Fewer incidents make no pattern.
pub const FEWEST: usize = 3;
/// Most incidents that are looked at, the newest: more would tell nothing new.
const MOST: usize = 500;

/// A time in which somebody watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its begin.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

/// What is known of incidents of one victim and reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recurrence {
    /// How many there were.
    pub incidents: usize,
    /// When the first began.
    pub first: Timestamp,
    /// When the last began.
    pub last: Timestamp,
    /// Where there were two: how far apart, which is all that two can say.
    #[serde(
        rename = "apart_s",
        serialize_with = "maybe_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub apart: Option<SignedDuration>,
    /// The pattern that they follow, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Pattern>,
    /// All of that in words.
    pub words: String,
}

/// A pattern in time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pattern {
    /// The rhythm.
    pub rhythm: Rhythm,
    /// It in words, such as `weekly, Tuesday 03:12 ± 2 min`.
    pub words: String,
    /// It as crontab(5) has it, where that can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The time zone whose clock it follows.
    pub zone: String,
    /// How far from it incidents began, rounded up to minutes.
    #[serde(rename = "tolerance_s", serialize_with = "seconds")]
    pub tolerance: SignedDuration,
    /// When those incidents began that fit.
    pub hits: Vec<Timestamp>,
    /// How many did not fit.
    pub others: usize,
    /// When there should have been one since the first, somebody watched, and there was none.
    pub missed: Vec<Timestamp>,
    /// How often there should have been one and nobody watched.
    pub unwatched: usize,
    /// When there should be one again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// At most how likely incidents at random times are to make a pattern as good as this.
    pub chance: f64,
}

/// What the incidents that began at these times say together. `watched` are the times of which it is
/// known that there was no other incident; where none is given, all of the time is. `None` where
/// there is no incident.
#[must_use]
pub fn recurrence(
    onsets: &[Timestamp],
    watched: &[Span],
    now: Timestamp,
    zone: &TimeZone,
) -> Option<Recurrence> {
    let mut onsets = onsets.to_vec();
    onsets.sort_unstable();
    onsets.dedup();
    let (first, last) = (*onsets.first()?, *onsets.last()?);
    let newest = &onsets[onsets.len().saturating_sub(MOST)..];
    let pattern = search::best(newest, watched, now, zone);
    let mut recurrence = Recurrence {
        incidents: onsets.len(),
        first,
        last,
        apart: (onsets.len() == 2).then(|| last.duration_since(first)),
        pattern,
        words: String::new(),
    };
    recurrence.words = words::recurrence(&recurrence, zone);
    Some(recurrence)
}

fn seconds<S: serde::Serializer>(time: &SignedDuration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_i64(time.as_secs())
}

#[expect(clippy::ref_option, reason = "serde hands out a reference")]
fn maybe_seconds<S: serde::Serializer>(
    time: &Option<SignedDuration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => seconds(time, to),
        None => to.serialize_none(),
    }
}
