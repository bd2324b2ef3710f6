//! Finds what is to be told: in the history, or in recorded lines.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, BufRead},
};

use anyhow::{Result, bail};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::{Entry, Facts, facts::again, remedies};
use crate::{
    history::{Incident, Reader, Run, Wanted},
    record::SCHEMA,
    recurrence::{Ran, Span},
    replay::{self, Replay},
    rules::Rules,
};

/// Incidents of which more is told than a line.
pub const DETAILED: usize = 100;
/// How much before an incident is shown.
const BEFORE: SignedDuration = SignedDuration::from_hours(1);
/// … and after it.
const AFTER: SignedDuration = SignedDuration::from_mins(10);

/// What the history says of these incidents.
pub fn from_history(
    reader: &Reader,
    wanted: &Wanted,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Facts> {
    let found = reader.incidents(wanted)?;
    if let Some(id) = &wanted.id {
        one(id, &found)?;
    }
    let mut incidents = Vec::new();
    for (number, incident) in found.into_iter().enumerate() {
        let mut entry = entry(incident);
        if number < DETAILED {
            let id = &entry.incident.id;
            let context = reader.context(id)?;
            entry.explanation =
                context.and_then(|context| serde_json::from_value(context.context).ok());
            entry.remedies = remedies(&entry.incident, entry.explanation.as_ref());
            entry.samples = reader.samples(id)?;
            let end = entry.incident.ended.unwrap_or(now);
            entry.pressures = reader.pressures(entry.incident.started - BEFORE, end + AFTER)?;
        }
        incidents.push(entry);
    }
    // What was before is known of all, whichever are to be told.
    let all = reader.incidents(&Wanted::default())?;
    let runs: Vec<Ran> = reader.runs(Timestamp::MIN, now)?.iter().map(ran).collect();
    let watched: Vec<Span> = reader
        .watches()?
        .into_iter()
        .map(|watch| Span {
            from: watch.from,
            until: watch.until,
        })
        .collect();
    Ok(facts(incidents, &all, &runs, &watched, now, zone))
}

/// What recorded lines say: incidents among them as they are, and those that these rules see in the
/// rest.
pub fn from_lines(
    lines: impl BufRead,
    rules: Rules,
    wanted: &Wanted,
    zone: &TimeZone,
) -> io::Result<(Facts, replay::Totals)> {
    let mut incidents: BTreeMap<String, Entry> = BTreeMap::new();
    let mut replayed = Replay::new(rules);
    let mut latest = Timestamp::UNIX_EPOCH;
    let mut take = |incident: Incident, line: Option<&str>| {
        latest = latest.max(incident.ended.unwrap_or(incident.started));
        let explanation = line.and_then(explanation);
        let entry = incidents
            .entry(incident.id.clone())
            .or_insert_with(|| entry(incident.clone()));
        entry.explanation = explanation.or(entry.explanation.take());
        entry.remedies = remedies(&incident, entry.explanation.as_ref());
        entry.incident = incident;
    };
    let mut around = Around::default();
    replay::lines(lines, |line| {
        if let Ok(line) = line
            && let Ok(head) = serde_json::from_str::<Head<'_>>(line)
        {
            if head.r#type == "incident"
                && let Ok(incident) = serde_json::from_str(line)
            {
                take(incident, Some(line));
                return Ok(true);
            }
            around.line(&head, line);
        }
        for change in replayed.line(line).1 {
            if let Some(incident) = Incident::of(&change.record) {
                take(incident, None);
            }
        }
        Ok(true)
    })?;
    let (changes, _, totals) = replayed.finish();
    for change in changes {
        if let Some(incident) = Incident::of(&change.record) {
            take(incident, None);
        }
    }
    let all: Vec<Incident> = incidents.values().map(|one| one.incident.clone()).collect();
    let mut told: Vec<Entry> = incidents
        .into_values()
        .filter(|one| is_wanted(&one.incident, wanted))
        .collect();
    told.sort_by_key(|one| std::cmp::Reverse(one.incident.started));
    told.truncate(wanted.newest.unwrap_or(usize::MAX));
    // By the clock of the records: what comes next is counted from where they end.
    let (runs, watched) = around.finish(latest);
    let facts = facts(told, &all, &runs, &watched, latest, zone);
    Ok((facts, totals))
}

/// What tells what a line is.
#[derive(serde::Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    time: Option<Timestamp>,
    #[serde(borrow)]
    state: Option<Cow<'a, str>>,
}

/// What recorded lines say of what went on, and of when somebody watched.
#[derive(Debug, Default)]
struct Around {
    /// Programs by their process and start: of one that is told twice, the last says when it ended.
    runs: BTreeMap<(u32, Timestamp), Run>,
    watched: Vec<Span>,
    /// Since when somebody watches.
    since: Option<Timestamp>,
    /// The time of the last line.
    last: Option<Timestamp>,
}

impl Around {
    fn line(&mut self, head: &Head<'_>, line: &str) {
        match (&*head.r#type, head.state.as_deref(), head.time) {
            ("program", ..) => {
                if let Ok(run) = serde_json::from_str::<Run>(line) {
                    self.runs.insert((run.pid, run.started), run);
                }
            }
            ("run", Some("ended"), Some(time)) => self.until(time),
            ("run", state, Some(time)) => {
                // One that was killed said nothing of its end.
                if let Some(last) = self.last.filter(|_| state == Some("began")) {
                    self.until(last);
                }
                self.since = self.since.or(Some(time));
            }
            _ => {}
        }
        self.last = self.last.max(head.time);
    }

    fn until(&mut self, until: Timestamp) {
        if let Some(from) = self.since.take() {
            self.watched.push(Span { from, until });
        }
    }

    fn finish(mut self, latest: Timestamp) -> (Vec<Ran>, Vec<Span>) {
        self.until(self.last.unwrap_or(latest));
        (self.runs.values().map(ran).collect(), self.watched)
    }
}

/// Says what is wrong with an id that finds none, or several.
pub fn one(id: &str, found: &[Incident]) -> Result<()> {
    match found {
        [] => bail!("there is no incident {id}; turnaway report lists them"),
        [_] => Ok(()),
        several => bail!(
            "{} incidents begin with {id}: give more of the id, such as {}",
            several.len(),
            several[0].id
        ),
    }
}

fn explanation(line: &str) -> Option<super::Explanation> {
    #[derive(serde::Deserialize)]
    struct Explained {
        explanation: Option<super::Explanation>,
    }
    serde_json::from_str::<Explained>(line).ok()?.explanation
}

fn is_wanted(incident: &Incident, wanted: &Wanted) -> bool {
    wanted
        .id
        .as_ref()
        .is_none_or(|id| incident.id.starts_with(id))
        && wanted.since.is_none_or(|since| {
            incident.started >= since || incident.ended.is_none_or(|ended| ended >= since)
        })
        && wanted.until.is_none_or(|until| incident.started < until)
        && wanted.filter.wants_incident(incident)
}

fn entry(incident: Incident) -> Entry {
    Entry {
        remedies: remedies(&incident, None),
        incident,
        explanation: None,
        samples: Vec::new(),
        pressures: Vec::new(),
    }
}

fn ran(run: &Run) -> Ran {
    let unit = run.unit.as_ref().filter(|unit| unit.ends_with(".service"));
    Ran {
        program: match unit {
            Some(unit) => format!("{} in {unit}", run.program),
            None => run.program.clone(),
        },
        started: run.started,
        ended: run.ended,
    }
}

fn facts(
    incidents: Vec<Entry>,
    all: &[Incident],
    runs: &[Ran],
    watched: &[Span],
    now: Timestamp,
    zone: &TimeZone,
) -> Facts {
    let mut recurrences = again(all, runs, watched, now, zone);
    let is_told = |subject: &str| {
        let mut told = incidents.iter();
        told.any(|one| one.incident.subject() == subject)
    };
    recurrences.retain(|again| is_told(&again.subject));
    Facts {
        schema: SCHEMA,
        generated: now,
        zone: zone
            .iana_name()
            .map_or_else(|| "local time".to_owned(), str::to_owned),
        incidents,
        recurrences,
    }
}
