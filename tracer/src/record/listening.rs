//! What went well at a listener: the other half of what failed there.

use std::time::Duration;

use serde::Serialize;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Upper bounds, exclusive, and how many waited that long, shortest first; none are empty.
    pub slots: Vec<(Duration, u64)>,
    /// The longest, to a jiffy.
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

/// A listener in a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListeningFields {
    /// The listener; `queue` is how many waited when it was first seen.
    listener: ListenerFields,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookies: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<WaitFields>,
}

/// How long connections waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitFields {
    max_ns: u64,
    histogram: Vec<SlotFields>,
}

/// One slot of a histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlotFields {
    below_ns: u64,
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
            waited: listening.waited.as_ref().map(|waits| WaitFields {
                max_ns: nanos(waits.longest),
                histogram: waits
                    .slots
                    .iter()
                    .map(|(bound, count)| SlotFields {
                        below_ns: nanos(*bound),
                        count: *count,
                    })
                    .collect(),
            }),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
