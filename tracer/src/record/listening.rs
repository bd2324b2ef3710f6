//! What went well at a listener: the other half of what failed there.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use turnaway_common::{ListenerStats, failure::WAIT_SLOTS};

use super::ListenerFields;
use crate::{
    attribute::Who,
    event::{Listener, ProcessId},
    text,
};

/// What went well at a listener since hooks are in place.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Socket inode.
    pub inode: u64,
    /// The listener when it was first seen.
    pub listener: Listener,
    /// The process that accepted last.
    pub acceptor: Option<ProcessId>,
    /// Whose it is.
    pub who: Who,
    /// Connections that were accepted; `None` where no hook sees them.
    pub accepted: Option<u64>,
    /// Connections that the program closed at once, unused; `None` where no hook sees them.
    pub shed: Option<u64>,
    /// SYN cookies that were sent; `None` where no hook sees them.
    pub cookies: Option<u64>,
    /// How long connections waited in the queue.
    pub waited: Option<Waits>,
}

/// What hooks see of listeners: what they do not, is unknown, and not none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Connections that are accepted.
    pub accepts: bool,
    /// Connections that are thrown away.
    pub shed: bool,
    /// SYN cookies.
    pub cookies: bool,
}

/// A histogram of waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Upper bounds, exclusive, and how many waited that long, shortest first; none are empty.
    pub slots: Vec<(Duration, u64)>,
    /// The longest, to a jiffy; of a part of a histogram, what it was not longer than.
    pub longest: Duration,
}

impl Listening {
    /// Decodes what the kernel side counted, as far as hooks `see` it; `jiffy` is its unit of
    /// time, without which waits are unknown.
    #[must_use]
    pub fn new(inode: u64, stats: &ListenerStats, see: Seen, jiffy: Option<Duration>) -> Self {
        Self {
            inode,
            listener: Listener::decode(&stats.listener),
            acceptor: (stats.acceptor_tgid != 0).then_some(ProcessId {
                pid: stats.acceptor_tgid,
                start_boottime_ns: stats.acceptor_start_ns,
            }),
            who: Who::default(),
            accepted: see.accepts.then_some(stats.accepted),
            shed: see.shed.then_some(stats.shed),
            cookies: see.cookies.then_some(stats.cookies),
            waited: jiffy.and_then(|jiffy| Waits::new(stats, jiffy)),
        }
    }
}

impl Waits {
    fn new(stats: &ListenerStats, jiffy: Duration) -> Option<Self> {
        let slots: Vec<(Duration, u64)> = (0..WAIT_SLOTS)
            .zip(stats.waited)
            .filter(|(_, count)| *count > 0)
            .map(|(slot, count)| (jiffy.saturating_mul(1 << slot), count))
            .collect();
        (!slots.is_empty()).then_some(Self {
            slots,
            longest: jiffy.saturating_mul(stats.waited_max),
        })
    }

    /// How many waited.
    #[must_use]
    pub fn count(&self) -> u64 {
        let counts = self.slots.iter().map(|(_, count)| count);
        counts.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// What it has more than it had before; `None` where that is nothing.
    #[must_use]
    pub fn since(&self, before: Option<&Self>) -> Option<Self> {
        let had = |bound: &Duration| {
            let slots = before.iter().flat_map(|before| &before.slots);
            slots
                .filter(|(other, _)| other == bound)
                .map(|(_, count)| *count)
                .sum()
        };
        let slots: Vec<(Duration, u64)> = self
            .slots
            .iter()
            .map(|(bound, count)| (*bound, count.saturating_sub(had(bound))))
            .filter(|(_, count)| *count > 0)
            .collect();
        let (bound, _) = slots.last()?;
        Some(Self {
            longest: self.longest.min(*bound),
            slots,
        })
    }

    /// Adds what another has.
    pub fn add(&mut self, other: &Self) {
        for (bound, count) in &other.slots {
            match self.slots.binary_search_by_key(bound, |(own, _)| *own) {
                Ok(at) => self.slots[at].1 = self.slots[at].1.saturating_add(*count),
                // Powers of two: no more than there are bits.
                Err(at) if self.slots.len() < WAIT_SLOTS => self.slots.insert(at, (*bound, *count)),
                Err(_) => {}
            }
        }
        self.longest = self.longest.max(other.longest);
    }

    /// The bound that so many percent of the waits lie below.
    #[must_use]
    pub fn below(&self, percent: u64) -> Duration {
        let all: u64 = self.slots.iter().map(|(_, count)| count).sum();
        let mut seen = 0;
        for (bound, count) in &self.slots {
            seen += count;
            if u128::from(seen) * 100 >= u128::from(percent) * u128::from(all) {
                return *bound;
            }
        }
        self.longest
    }
}

/// What is known of the waits at one or several listeners: each number is one that the wait was
/// shorter than, a power of two of the kernel's tick, and not the wait itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "waits")]
pub struct Percentiles {
    /// Connections that were accepted and whose wait is known.
    pub count: u64,
    /// Half of them waited for less, nanoseconds.
    pub p50_below_ns: u64,
    /// 95 of 100 did.
    pub p95_below_ns: u64,
    /// 99 of 100 did.
    pub p99_below_ns: u64,
}

impl Percentiles {
    /// Those of a histogram.
    #[must_use]
    pub fn of(waits: &Waits) -> Self {
        Self {
            count: waits.count(),
            p50_below_ns: nanos(waits.below(50)),
            p95_below_ns: nanos(waits.below(95)),
            p99_below_ns: nanos(waits.below(99)),
        }
    }
}

/// A listener in a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "listening")]
pub struct ListeningFields {
    /// The listener; `queue` is how many waited when it was first seen.
    listener: ListenerFields,
    /// The process that accepts there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    /// Connections that were accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<u64>,
    /// Connections that were accepted and closed by the program at once, unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    shed: Option<u64>,
    /// SYN cookies that were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    cookies: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<WaitFields>,
}

/// How long connections waited in the accept queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "waited")]
pub struct WaitFields {
    /// The longest wait, nanoseconds.
    max_ns: u64,
    histogram: Vec<SlotFields>,
}

impl WaitFields {
    pub(super) fn new(waits: &Waits) -> Self {
        Self {
            max_ns: nanos(waits.longest),
            histogram: waits
                .slots
                .iter()
                .map(|(bound, count)| SlotFields {
                    below_ns: nanos(*bound),
                    count: *count,
                })
                .collect(),
        }
    }
}

/// One slot of a histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "wait_slot")]
pub struct SlotFields {
    /// Upper bound, exclusive, nanoseconds.
    below_ns: u64,
    /// Connections that waited that long, and longer than the slot before.
    count: u64,
}

impl ListeningFields {
    /// The fields of a listener.
    #[must_use]
    pub fn new(listening: &Listening) -> Self {
        let party = listening.who.party.as_ref();
        Self {
            listener: ListenerFields::new(Some(listening.inode), &listening.listener),
            pid: party.map(|party| party.id.pid),
            comm: party
                .map(|party| text::json(&party.facts.comm))
                .filter(|comm| !comm.is_empty()),
            accepted: listening.accepted,
            shed: listening.shed,
            cookies: listening.cookies,
            waited: listening.waited.as_ref().map(WaitFields::new),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(slots: &[(u64, u64)], longest: u64) -> Waits {
        let ms = Duration::from_millis;
        Waits {
            slots: slots
                .iter()
                .map(|(bound, count)| (ms(*bound), *count))
                .collect(),
            longest: ms(longest),
        }
    }

    #[test]
    fn what_came_later_is_the_rest() {
        let before = waits(&[(4, 100), (16, 5)], 13);
        let after = waits(&[(4, 100), (8, 3), (16, 6)], 13);
        assert_eq!(after.since(None), Some(after.clone()));
        assert_eq!(
            after.since(Some(&before)),
            Some(waits(&[(8, 3), (16, 1)], 13))
        );
        assert_eq!(after.since(Some(&after)), None);
        // The longest of all was in the part before.
        let later = waits(&[(4, 101), (8, 3), (16, 6)], 13);
        assert_eq!(later.since(Some(&after)), Some(waits(&[(4, 1)], 4)));
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let mut sum = waits(&[(16, 1)], 13);
        sum.add(&waits(&[(4, 7)], 4));
        sum.add(&waits(&[(16, 2), (64, 1)], 50));
        assert_eq!(sum, waits(&[(4, 7), (16, 3), (64, 1)], 50));
        let told = Percentiles::of(&sum);
        let ms = |ms: u64| ms * 1_000_000;
        assert_eq!(told.count, 11);
        assert_eq!(
            [told.p50_below_ns, told.p95_below_ns, told.p99_below_ns],
            [ms(4), ms(64), ms(64)]
        );
    }
}
