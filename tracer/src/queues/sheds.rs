//! Accepted connections that their program closes at once: more than is usual for it?
//!
//! Some programs always do: they answer without being asked, or hand connections on. So what is
//! counted is set against the listener's own past, and told while it is more than that.

use std::collections::HashMap;

use turnaway_common::Reason;

use crate::event::Count;

/// Most listeners that are followed.
const LISTENERS: usize = 4096;
/// Readings, a second apart, before a share may be called usual.
const LEARNING: u32 = 900;
/// What the past weighs after one more reading: half after an hour.
const MEMORY: f64 = 0.999_807_5;
/// This much more than usual is nothing new.
const SLACK: f64 = 0.01;

/// Follows listeners from reading to reading.
#[derive(Debug, Default)]
pub struct Sheds {
    listeners: HashMap<u64, Book>,
}

#[derive(Clone, Copy, Debug)]
struct Book {
    /// What it had accepted at the last reading.
    accepted: u64,
    /// Readings so far.
    readings: u32,
    /// Accepted and closed at once in the past, what is long ago counting less.
    past: (f64, f64),
    /// At the last reading it was as usual.
    usual: bool,
}

impl Sheds {
    /// Takes in what a second brought. `accepted` is how many connections a listener has
    /// accepted so far, `None` where it is closed.
    pub fn reading(&mut self, counts: &[Count], accepted: impl Fn(u64) -> Option<u64>) {
        let mut shed: HashMap<u64, u64> = HashMap::new();
        for count in counts {
            if count.key.reason == Reason::AcceptShed
                && let Some(inode) = count.key.socket_inode
            {
                *shed.entry(inode).or_default() += count.count;
            }
        }
        self.listeners.retain(|inode, book| {
            let Some(accepted) = accepted(*inode) else {
                return false;
            };
            book.reading(accepted, shed.remove(inode).unwrap_or(0));
            true
        });
        for (inode, shed) in shed {
            if self.listeners.len() < LISTENERS
                && let Some(accepted) = accepted(inode)
            {
                self.listeners.insert(inode, Book::new(accepted, shed));
            }
        }
    }

    /// Whether a listener's program closes no more connections at once than it always does. As
    /// long as that is not known, none are usual.
    #[must_use]
    pub fn is_usual(&self, inode: u64) -> bool {
        self.listeners.get(&inode).is_some_and(|book| book.usual)
    }
}

impl Book {
    /// It has closed some for the first time.
    fn new(accepted: u64, shed: u64) -> Self {
        Self {
            accepted,
            readings: 0,
            past: (number(accepted), number(shed)),
            usual: false,
        }
    }

    fn reading(&mut self, accepted: u64, shed: u64) {
        // Accepts may be counted later than what became of them.
        let new = accepted.saturating_sub(self.accepted).max(shed);
        self.accepted = accepted.max(self.accepted);
        let (all, before) = self.past;
        if new > 0 && all > 0.0 {
            let (now, usually) = (number(shed) / number(new), before / all);
            self.usual = self.readings >= LEARNING && now <= (2.0 * usually).max(usually + SLACK);
        }
        self.readings = self.readings.saturating_add(1);
        self.past = (
            all.mul_add(MEMORY, number(new)),
            before.mul_add(MEMORY, number(shed)),
        );
    }
}

/// Close enough: it is for shares.
#[expect(clippy::cast_precision_loss, reason = "shares need no more precision")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Key, Op, Tier},
        record::samples,
    };

    const INODE: u64 = 7;

    fn count(count: u64) -> Count {
        let (failure, _) = samples::rich();
        Count {
            key: Key {
                reason: Reason::AcceptShed,
                errno: None,
                op: Op::Syscall,
                tier: Tier::Tracepoint,
                socket_inode: Some(INODE),
                ..failure.key
            },
            count,
            first_ns: 1,
            last_ns: 1,
            process: None,
            listener: failure.listener,
            waited_max_ns: None,
            approximate: false,
        }
    }

    /// So many accepted and closed at once, each second for so many seconds; the last verdict.
    fn seconds(sheds: &mut Sheds, total: &mut u64, seconds: u32, new: u64, shed: u64) -> bool {
        for _ in 0..seconds {
            *total += new;
            let counts = if shed > 0 { vec![count(shed)] } else { vec![] };
            let total = *total;
            sheds.reading(&counts, |_| Some(total));
        }
        sheds.is_usual(INODE)
    }

    #[test]
    fn what_was_never_seen_before_is_told() {
        let (mut sheds, mut total) = (Sheds::default(), 1_000_000);
        assert!(!seconds(&mut sheds, &mut total, 1, 100, 1));
        assert!(!seconds(&mut sheds, &mut total, 60, 100, 90));
    }

    #[test]
    fn what_a_program_always_does_becomes_usual_and_more_of_it_does_not() {
        let (mut sheds, mut total) = (Sheds::default(), 0);
        assert!(!seconds(&mut sheds, &mut total, LEARNING, 100, 10));
        assert!(seconds(&mut sheds, &mut total, 2, 100, 10));
        assert!(seconds(&mut sheds, &mut total, 1, 100, 18));
        assert!(!seconds(&mut sheds, &mut total, 1, 100, 40));
        // Quiet seconds say nothing.
        assert!(!seconds(&mut sheds, &mut total, 5, 0, 0));
        assert!(seconds(&mut sheds, &mut total, 1, 100, 10));
    }

    #[test]
    fn an_incident_of_half_an_hour_stays_one() {
        let (mut sheds, mut total) = (Sheds::default(), 0);
        seconds(&mut sheds, &mut total, 1, 100, 1);
        seconds(&mut sheds, &mut total, 3_600, 100, 0);
        assert!(!seconds(&mut sheds, &mut total, 1_800, 100, 100));
    }

    #[test]
    fn a_listener_that_is_closed_is_forgotten() {
        let (mut sheds, mut total) = (Sheds::default(), 0);
        seconds(&mut sheds, &mut total, LEARNING + 2, 1, 1);
        assert!(sheds.is_usual(INODE));
        sheds.reading(&[], |_| None);
        assert!(!sheds.is_usual(INODE));
    }
}
