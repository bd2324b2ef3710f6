//! What ran before.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{FEWEST, Span, chance, words::lasting};

/// What began longer before an incident has nothing to do with it.
const LONGEST: SignedDuration = SignedDuration::from_hours(6);
/// Moments agree no better than this.
const FINEST: SignedDuration = SignedDuration::from_mins(1);
/// At most so likely may it be that chance puts a program before incidents.
const UNLIKELY: f64 = 0.01;

/// A program that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What tells it from other programs: its name, and its unit where it has one.
    pub program: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended, if it has.
    pub ended: Option<Timestamp>,
}

/// A program that ran before incidents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Precursor {
    /// It.
    pub program: String,
    /// Before so many incidents.
    pub before: usize,
    /// Of so many.
    pub of: usize,
    /// How long before them it began, at least.
    #[serde(rename = "lag_min_s", serialize_with = "super::seconds")]
    pub lag_min: SignedDuration,
    /// … as a rule.
    #[serde(rename = "lag_median_s", serialize_with = "super::seconds")]
    pub lag_median: SignedDuration,
    /// … at most.
    #[serde(rename = "lag_max_s", serialize_with = "super::seconds")]
    pub lag_max: SignedDuration,
    /// How often it ran while somebody watched.
    pub runs: usize,
    /// How often of that no incident followed as long after as those did.
    pub without: usize,
    /// At most how likely chance puts it there.
    pub chance: f64,
    /// All of that in words.
    pub words: String,
}

/// What ran before these incidents, what fits best first. `all` are all incidents of the same victim and
/// reason: a run before one that does not fit the pattern was not without an incident. Both are in
/// order.
#[must_use]
pub fn precursors(
    onsets: &[Timestamp],
    all: &[Timestamp],
    runs: &[Ran],
    watched: &[Span],
) -> Vec<Precursor> {
    if onsets.len() < FEWEST {
        return Vec::new();
    }
    let mut programs: BTreeMap<&str, Vec<&Ran>> = BTreeMap::new();
    for run in runs {
        programs.entry(&run.program).or_default().push(run);
    }
    let tried = programs.len();
    let mut found: Vec<Precursor> = programs
        .into_iter()
        .filter_map(|(program, runs)| precursor(program, &runs, onsets, all, watched, tried))
        .collect();
    found.sort_by(|one, other| {
        let is_alone =
            |one: &Precursor| chance::count(one.before) / chance::count(one.before + one.without);
        other
            .before
            .cmp(&one.before)
            .then(is_alone(other).total_cmp(&is_alone(one)))
            .then(one.chance.total_cmp(&other.chance))
            .then(one.program.cmp(&other.program))
    });
    found
}

fn precursor(
    program: &str,
    runs: &[&Ran],
    onsets: &[Timestamp],
    all: &[Timestamp],
    watched: &[Span],
    tried: usize,
) -> Option<Precursor> {
    let mut lags: Vec<SignedDuration> = onsets
        .iter()
        .filter_map(|onset| lag(runs, *onset))
        .collect();
    let before = lags.len();
    // What usually did not run before them explains none.
    if before < FEWEST || before * 3 < onsets.len() * 2 {
        return None;
    }
    lags.sort_unstable();
    let (lag_min, lag_max) = (lags[0], lags[before - 1]);
    let width = (lag_max - lag_min).max(FINEST);
    let first = runs.iter().map(|run| run.started).min()?;
    let last = runs.iter().map(|run| run.started).max()?;
    let observed = observed(
        watched,
        first.min(onsets[0]),
        last.max(onsets[onsets.len() - 1]),
    );
    // The lag of one incident says what the others' must be, give or take the width.
    let each =
        chance::count(runs.len()) * 2.0 * width.as_secs_f64() / observed.as_secs_f64().max(1.0);
    let chance = chance::meet(onsets.len(), before, each) * chance::count(tried);
    if chance > UNLIKELY {
        return None;
    }
    let slack = FINEST.max(width / 2);
    let without = runs
        .iter()
        .filter(|run| {
            let from = run.started + lag_min - slack;
            let until = run.started + lag_max + slack;
            !all.iter().any(|onset| (from..=until).contains(onset))
        })
        .count();
    let mut found = Precursor {
        program: program.to_owned(),
        before,
        of: onsets.len(),
        lag_min,
        lag_median: lags[before / 2],
        lag_max,
        runs: runs.len(),
        without,
        chance,
        words: String::new(),
    };
    found.words = words(&found);
    Some(found)
}

/// How long before an incident the program began: the run that was still under way, or else the last.
fn lag(runs: &[&Ran], onset: Timestamp) -> Option<SignedDuration> {
    let before = runs.iter().filter(|run| {
        let lag = onset.duration_since(run.started);
        !lag.is_negative() && lag <= LONGEST
    });
    let best = before.max_by_key(|run| {
        let is_under_way = run.ended.is_none_or(|ended| ended >= onset);
        (is_under_way, run.started)
    })?;
    Some(onset.duration_since(best.started))
}

fn observed(watched: &[Span], from: Timestamp, until: Timestamp) -> SignedDuration {
    if watched.is_empty() {
        return until.duration_since(from);
    }
    let spans = watched.iter().map(|span| {
        let (from, until) = (span.from.max(from), span.until.min(until));
        until.duration_since(from).max(SignedDuration::ZERO)
    });
    spans.sum()
}

fn words(found: &Precursor) -> String {
    let Precursor {
        program,
        before,
        of,
        without,
        ..
    } = found;
    let minutes = |lag: SignedDuration| lag.as_secs() / 60;
    let lag = match (minutes(found.lag_min), minutes(found.lag_max)) {
        (0, 0) => format!("{} to {}", lasting(found.lag_min), lasting(found.lag_max)),
        (min, max) if min == max => format!("{min} min"),
        (min, max) => format!("{min} to {max} min"),
    };
    let otherwise = match without {
        0 => "never without an incident".to_owned(),
        1 => "once without an incident".to_owned(),
        times => format!("{times} times without an incident"),
    };
    format!("{program} began {lag} before in {before} of {of}, and {otherwise}")
}
