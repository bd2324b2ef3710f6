//! Recorded lines through the same engine, with a clock that follows them (pure but for the reader
//! and the writer that are handed in).

pub(crate) mod text;

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    filter::Filter,
    incident::{Change, Engine, IncidentRecord, Now},
    observation::{Code, Line, Observation, parse},
    rules::Rules,
};

pub use text::{change, end};

/// Longest line that is read; the longest records are of some kilobytes.
const MAX_LINE: u64 = 1 << 20;
/// How far a record may lie behind those before it: exemplars are told at once, counts within a
/// second or two. What lies further behind is of a clock that was set back.
const LATE: Duration = Duration::from_mins(1);
/// So long after a record each second is looked at, …
const CLOSELY: Duration = Duration::from_hours(1);
/// … and so long each minute. Where nothing is recorded for longer, nobody watched: what lasted is believed no more,
/// …
const WATCHED: Duration = Duration::from_hours(24);
/// … and is over after this, at the latest.
const DOUBT: Duration = Duration::from_mins(2);
/// Most broken lines that are kept to be shown.
const SHOWN: usize = 5;

/// Follows the times of records, second by second.
///
/// A clock that was set back makes no time pass.
#[derive(Debug, Default)]
pub struct Clock {
    /// The latest of the records' times since the clock was last set back.
    latest: Option<Timestamp>,
    steady: Duration,
    ticked: Option<Duration>,
}

impl Clock {
    /// Goes on to the time of a record; returns how much time passed.
    pub fn follow(&mut self, time: Timestamp) -> Duration {
        let Some(latest) = self.latest else {
            self.latest = Some(time);
            return Duration::ZERO;
        };
        let Ok(passed) = Duration::try_from(time.duration_since(latest)) else {
            if latest.duration_since(time).unsigned_abs() > LATE {
                self.latest = Some(time);
            }
            return Duration::ZERO;
        };
        self.latest = Some(time);
        self.steady = self.steady.saturating_add(passed);
        passed
    }

    /// Now, or some time before.
    fn now(&self, before: Duration) -> Now {
        let wall = self.latest.unwrap_or(Timestamp::UNIX_EPOCH);
        Now {
            wall: wall.checked_sub(before).unwrap_or(wall),
            steady: self.steady.saturating_sub(before),
        }
    }
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records that were counted or looked at.
    pub records: u64,
    /// Failures by reason.
    pub failures: BTreeMap<Code, u64>,
    /// Failures that rules say to ignore, which are among those.
    pub ignored: u64,
    /// Lines that could not be read.
    pub broken: u64,
    /// The first of them: number, and what is wrong.
    pub examples: Vec<(u64, String)>,
    /// Incidents that fired.
    pub fired: u64,
}

/// A replay.
#[derive(Debug)]
pub struct Replay {
    engine: Engine,
    clock: Clock,
    totals: Totals,
    lines: u64,
    filter: Filter,
}

impl Replay {
    /// A replay by these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            engine: Engine::new(rules),
            clock: Clock::default(),
            totals: Totals::default(),
            lines: 0,
            filter: Filter::default(),
        }
    }

    /// The same of nothing but what is wanted.
    #[must_use]
    pub fn of(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Takes a line; returns how long after the line before it was written, and what changed.
    pub fn line(&mut self, line: Result<&str, String>) -> (Duration, Vec<Change>) {
        self.lines += 1;
        match line.and_then(parse) {
            Ok(Line::Seen(seen)) if !self.filter.wants_seen(&seen) => {
                (self.clock.follow(seen.time), self.ticks())
            }
            Ok(Line::Seen(seen)) => {
                self.totals.records += 1;
                self.observe(&seen)
            }
            Ok(Line::End) => {
                self.engine.interrupted();
                self.engine.sees_accepted(false);
                (Duration::ZERO, Vec::new())
            }
            Ok(Line::Run(run)) => {
                if run.began {
                    self.engine.interrupted();
                }
                self.engine.sees_accepted(run.sees_accepted);
                (Duration::ZERO, Vec::new())
            }
            Ok(Line::Other) => (Duration::ZERO, Vec::new()),
            Err(what) => {
                self.totals.broken += 1;
                if self.totals.examples.len() < SHOWN {
                    self.totals.examples.push((self.lines, what));
                }
                (Duration::ZERO, Vec::new())
            }
        }
    }

    /// Takes what was seen, at its own time.
    pub fn observe(&mut self, seen: &Observation) -> (Duration, Vec<Change>) {
        let passed = self.clock.follow(seen.time);
        let changes = self.ticks();
        self.engine.observe(seen);
        (passed, changes)
    }

    /// Lets time pass in which nothing is recorded.
    pub fn pass(&mut self, time: Duration) -> Vec<Change> {
        let latest = self.clock.latest.unwrap_or(Timestamp::UNIX_EPOCH);
        let later = latest.checked_add(time).unwrap_or(Timestamp::MAX);
        self.clock.follow(later);
        self.ticks()
    }

    /// A tick for each second that has passed, as the daemon would have.
    fn ticks(&mut self) -> Vec<Change> {
        let now = self.clock.steady;
        let mut changes = Vec::new();
        let mut at = match self.clock.ticked {
            // Nothing happens while there is no incident.
            Some(ticked) if !self.engine.is_idle() => ticked + Duration::from_secs(1),
            Some(ticked) if now < ticked + Duration::from_secs(1) => return changes,
            _ => now,
        };
        let begun = at;
        let mut doubted = None;
        while at <= now {
            changes.extend(self.tick(now.saturating_sub(at)));
            let quiet = at.saturating_sub(begun);
            let is_over = doubted.is_some_and(|since| at.saturating_sub(since) > DOUBT);
            at = if self.engine.is_idle() || is_over {
                now.max(at + Duration::from_secs(1))
            } else if quiet < CLOSELY || doubted.is_some() {
                at + Duration::from_secs(1)
            } else if quiet < WATCHED {
                at + Duration::from_mins(1)
            } else {
                self.engine.interrupted();
                doubted = Some(at);
                at + Duration::from_secs(1)
            };
        }
        changes
    }

    fn tick(&mut self, before: Duration) -> Vec<Change> {
        let now = self.clock.now(before);
        self.clock.ticked = Some(now.steady);
        let changes = self.engine.tick(now);
        let fired = changes.iter();
        let fired = fired.filter(|one| one.what == crate::incident::What::Fired);
        // One that was silent fires twice: it is written, and told when the silence ends.
        let fired = fired.filter(|one| one.record.fired == Some(one.record.time()));
        self.totals.fired += fired.count() as u64;
        changes
    }

    /// The end of the records: what changes by their last second, and what still fires then.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Change>, Vec<IncidentRecord>, Totals) {
        // A failure of the last second is told at its end.
        let changes = self.pass(Duration::from_secs(1));
        self.totals.failures = self.engine.totals().by_reason().clone();
        self.totals.ignored = self.engine.ignored();
        (changes, self.engine.incidents(), self.totals)
    }
}

/// Reads lines, none of which may be longer than a megabyte or other than UTF-8; `each` says whether
/// to go on.
pub fn lines(
    mut from: impl BufRead,
    mut each: impl FnMut(Result<&str, String>) -> io::Result<bool>,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut from, MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        let goes_on = if read as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            skip(&mut from)?;
            each(Err(format!("longer than {MAX_LINE} bytes")))?
        } else {
            match std::str::from_utf8(&line) {
                Ok(text) => each(Ok(text))?,
                Err(_) => each(Err("not UTF-8".to_owned()))?,
            }
        };
        if !goes_on {
            return Ok(());
        }
    }
}

/// Skips the rest of a line.
fn skip(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = from.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        if let Some(end) = memchr::memchr(b'\n', buffer) {
            from.consume(end + 1);
            return Ok(());
        }
        let all = buffer.len();
        from.consume(all);
    }
}

#[cfg(test)]
mod tests;
