//! What is known of listeners: those that are named, and the rest together.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{label, table::Reading};
use crate::{
    attribute::Who,
    event::{Address, Queue},
    record::{Listening, Waits},
    sockets,
};

/// Slots of a histogram of waits that are shown: those up to this long. The rest is in `+Inf`.
const LONGEST: Duration = Duration::from_secs(70);
/// Slots that the kernel side counts in.
const SLOTS: usize = turnaway_common::failure::WAIT_SLOTS;
/// Most listeners whose growth is followed, named or not.
const FOLLOWED: usize = 65_536;

/// A listener as it is now.
#[derive(Clone, Debug)]
pub struct ListenerState {
    /// Socket inode.
    pub inode: u64,
    /// Where it is bound.
    pub address: Option<Address>,
    /// Inode number of its network namespace.
    pub netns: Option<u32>,
    /// Whose it is.
    pub who: Who,
    /// Its accept queue now; `None` where that was not looked at.
    pub queue: Option<Queue>,
    /// Since something was last accepted; `None` where nothing was, or no hook sees it.
    pub since_accept: Option<Duration>,
    /// Connections that were accepted since hooks are in place; `None` where no hook sees them.
    pub accepted: Option<u64>,
    /// Connections that the program closed at once, unused.
    pub shed: Option<u64>,
    /// SYN cookies that were sent.
    pub cookies: Option<u64>,
    /// How long connections waited in the queue.
    pub waited: Option<Waits>,
}

impl ListenerState {
    /// One that the kernel was asked for: its queue is known, and nothing of what went well.
    #[must_use]
    pub fn polled(netns: u32, listener: &sockets::Listener, who: Who) -> Self {
        Self {
            inode: listener.inode,
            address: listener.address.clone(),
            netns: Some(netns),
            who,
            queue: Some(Queue {
                depth: listener.depth,
                backlog: listener.limit,
            }),
            since_accept: None,
            accepted: None,
            shed: None,
            cookies: None,
            waited: None,
        }
    }

    /// One that hooks counted for. Its queue is not known: what [`Listening`] has of it is from
    /// when it was first seen.
    #[must_use]
    pub fn counted(listening: &Listening, since_accept: Option<Duration>) -> Self {
        Self {
            inode: listening.inode,
            address: listening.listener.address.clone(),
            netns: listening.listener.netns,
            who: listening.who.clone(),
            queue: None,
            since_accept: None,
            accepted: None,
            shed: None,
            cookies: None,
            waited: None,
        }
        .with(listening, since_accept)
    }

    /// The same with what hooks counted for it.
    #[must_use]
    pub fn with(self, listening: &Listening, since_accept: Option<Duration>) -> Self {
        Self {
            since_accept,
            accepted: listening.accepted,
            shed: listening.shed,
            cookies: listening.cookies,
            waited: listening.waited.clone(),
            ..self
        }
    }
}

/// What names a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListenerLabels {
    pub(super) listener: Arc<str>,
    pub(super) netns: Arc<str>,
    pub(super) socket: Arc<str>,
    pub(super) comm: Arc<str>,
    pub(super) unit: Arc<str>,
}

impl ListenerLabels {
    fn of(state: &ListenerState) -> Self {
        Self {
            listener: label::address(state.address.as_ref()),
            netns: state
                .netns
                .map(|netns| netns.to_string())
                .unwrap_or_default()
                .into(),
            socket: state.inode.to_string().into(),
            comm: label::comm(&state.who),
            unit: label::unit(&state.who),
        }
    }

    pub(super) fn other() -> Self {
        let other: Arc<str> = super::OTHER.into();
        Self {
            listener: other.clone(),
            netns: other.clone(),
            socket: other.clone(),
            comm: other.clone(),
            unit: other,
        }
    }
}

/// The values of a listener, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    /// Depth and limit.
    pub(super) queue: Option<(u64, u64)>,
    pub(super) last_accept: Option<Instant>,
    pub(super) accepted: Option<u64>,
    pub(super) shed: Option<u64>,
    pub(super) cookies: Option<u64>,
    /// Counts by slot.
    pub(super) waited: Option<[u64; SLOTS]>,
}

/// A listener that is followed.
#[derive(Clone, Debug)]
struct Followed {
    labels: Arc<ListenerLabels>,
    /// It has series of its own.
    named: bool,
    values: Values,
    accepted: Reading,
    shed: Reading,
    cookies: Reading,
    waited: [Reading; SLOTS],
    seen: Instant,
}

/// All listeners.
#[derive(Clone, Debug)]
pub(super) struct Listeners {
    most: usize,
    jiffy: Option<Duration>,
    named: usize,
    followed: HashMap<u64, Followed>,
    /// Those without series of their own, together, once there are any.
    other: Option<Values>,
    dropped: u64,
}

impl Listeners {
    pub(super) fn new(most: usize, jiffy: Option<Duration>) -> Self {
        Self {
            most,
            jiffy: jiffy.filter(|jiffy| !jiffy.is_zero()),
            named: 0,
            followed: HashMap::new(),
            other: None,
            dropped: 0,
        }
    }

    /// So many are named from now on; those that are stay so.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Takes in all listeners that there are. One that is gone has no queue; what was counted
    /// for it is shown for `keep` longer.
    pub(super) fn set(&mut self, states: &[ListenerState], now: Instant, keep: Duration) {
        for followed in self.followed.values_mut() {
            followed.values.queue = None;
            followed.values.last_accept = None;
        }
        if let Some(other) = &mut self.other {
            other.queue = None;
        }
        let named = &mut self.named;
        self.followed.retain(|_, followed| {
            let stays = now.saturating_duration_since(followed.seen) <= keep;
            *named -= usize::from(followed.named && !stays);
            stays
        });
        for state in states {
            self.take(state, now);
        }
    }

    fn take(&mut self, state: &ListenerState, now: Instant) {
        let labels = ListenerLabels::of(state);
        let reused = self
            .followed
            .get(&state.inode)
            .is_some_and(|known| known.labels.listener != labels.listener);
        if reused && let Some(gone) = self.followed.remove(&state.inode) {
            self.named -= usize::from(gone.named);
        }
        if !self.followed.contains_key(&state.inode) {
            let named = self.named < self.most;
            self.named += usize::from(named);
            self.dropped += u64::from(!named);
            if self.followed.len() >= FOLLOWED {
                return;
            }
            self.followed.insert(
                state.inode,
                Followed {
                    labels: Arc::new(labels.clone()),
                    named,
                    values: Values::default(),
                    accepted: Reading::default(),
                    shed: Reading::default(),
                    cookies: Reading::default(),
                    waited: [Reading::default(); SLOTS],
                    seen: now,
                },
            );
        }
        let Some(followed) = self.followed.get_mut(&state.inode) else {
            return;
        };
        followed.seen = now;
        // Whose it is may become known later.
        if *followed.labels != labels {
            followed.labels = Arc::new(labels);
        }
        let grown = followed.grow(state, self.jiffy, now);
        if !followed.named {
            self.other.get_or_insert_default().add(&grown);
        }
    }

    /// What is shown.
    pub(super) fn rows(&self) -> Vec<(Arc<ListenerLabels>, Values)> {
        let mut rows: Vec<(Arc<ListenerLabels>, Values)> = self
            .followed
            .values()
            .filter(|followed| followed.named)
            .map(|followed| (followed.labels.clone(), followed.values.clone()))
            .collect();
        if let Some(other) = &self.other {
            rows.push((Arc::new(ListenerLabels::other()), other.clone()));
        }
        rows
    }

    /// How often a listener found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Upper bounds of the slots that are shown.
    pub(super) fn bounds(&self) -> Vec<Duration> {
        let Some(jiffy) = self.jiffy else {
            return Vec::new();
        };
        (0..SLOTS)
            .map(|slot| jiffy.saturating_mul(1 << slot))
            .take_while(|bound| *bound <= LONGEST)
            .collect()
    }
}

impl Followed {
    /// Takes in what it is now; returns what it grew by, and its queue.
    fn grow(&mut self, state: &ListenerState, jiffy: Option<Duration>, now: Instant) -> Values {
        let read =
            |reading: &mut Reading, value: Option<u64>| value.map(|value| reading.read(value));
        let mut grown = Values {
            queue: state
                .queue
                .map(|queue| (u64::from(queue.depth), u64::from(queue.backlog))),
            last_accept: None,
            accepted: read(&mut self.accepted, state.accepted),
            shed: read(&mut self.shed, state.shed),
            cookies: read(&mut self.cookies, state.cookies),
            waited: None,
        };
        if let (Some(waits), Some(jiffy)) = (&state.waited, jiffy) {
            let slots = slots(waits, jiffy);
            let mut more = [0; SLOTS];
            for ((reading, now), more) in self.waited.iter_mut().zip(slots).zip(&mut more) {
                *more = reading.read(now);
            }
            grown.waited = Some(more);
        }
        let values = &mut self.values;
        values.queue = grown.queue;
        values.last_accept = state.since_accept.and_then(|since| now.checked_sub(since));
        // What is not told this time was all the same.
        values.accepted = grown
            .accepted
            .map(|_| self.accepted.total)
            .or(values.accepted);
        values.shed = grown.shed.map(|_| self.shed.total).or(values.shed);
        values.cookies = grown.cookies.map(|_| self.cookies.total).or(values.cookies);
        if grown.waited.is_some() {
            values.waited = Some(self.waited.map(|reading| reading.total));
        }
        grown
    }
}

impl Values {
    /// What there is more.
    fn add(&mut self, grown: &Self) {
        let more = |sum: &mut Option<u64>, grown: Option<u64>| {
            if let Some(grown) = grown {
                *sum.get_or_insert(0) += grown;
            }
        };
        more(&mut self.accepted, grown.accepted);
        more(&mut self.shed, grown.shed);
        more(&mut self.cookies, grown.cookies);
        if let Some((depth, limit)) = grown.queue {
            let (all, most) = self.queue.get_or_insert((0, 0));
            *all += depth;
            *most += limit;
        }
        if let Some(grown) = grown.waited {
            let sums = self.waited.get_or_insert([0; SLOTS]);
            for (sum, grown) in sums.iter_mut().zip(grown) {
                *sum += grown;
            }
        }
    }
}

/// Counts by slot: slot n ends at 2^n jiffies.
fn slots(waits: &Waits, jiffy: Duration) -> [u64; SLOTS] {
    let mut slots = [0; SLOTS];
    for (bound, count) in &waits.slots {
        let jiffies = bound.as_nanos() / jiffy.as_nanos().max(1);
        let slot = jiffies.checked_ilog2().unwrap_or(0) as usize;
        slots[slot.min(SLOTS - 1)] += count;
    }
    slots
}
