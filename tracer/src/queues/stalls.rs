//! Queues in which connections wait while nobody accepts.

use std::{collections::HashMap, time::Duration};

use turnaway_common::Reason;

use super::listener_of;
use crate::{
    event::{Address, Failure, Key, Op, Tier},
    sockets::{Poll, Waiting},
};

/// Most ports that are looked at: for each, the kernel goes through all its connections.
const SUSPECTS: usize = 32;

/// What hooks know of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The last accept was then, nanoseconds of `CLOCK_MONOTONIC`.
    At(u64),
    /// None since the hooks are in place.
    Never,
    /// No hook watches.
    Unknown,
}

/// A TCP port whose waiting connections are to be looked at with the next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suspect {
    /// Network namespace.
    pub netns: u32,
    /// Port.
    pub port: u16,
}

/// A stall that began or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The stall; `waited_ns` is how long it lasts, or lasted.
    pub failure: Failure,
    /// It has ended.
    pub ended: bool,
}

/// Follows queues from poll to poll.
#[derive(Debug)]
pub struct Stalls {
    after: Duration,
    queues: HashMap<u64, Queue>,
}

#[derive(Debug)]
struct Queue {
    cookie: u64,
    /// The first of the polls in a row that found connections waiting.
    since_ns: u64,
    /// The oldest of them when it was last looked at.
    oldest: Option<u64>,
    /// When that came.
    oldest_ns: Option<u64>,
    /// It was looked at sooner than others because it waits for long.
    hurried: bool,
    /// When the stall began that was told of.
    stalled_ns: Option<u64>,
    last: Option<Failure>,
}

impl Stalls {
    /// Follows queues, and tells of those where nobody has accepted for `after`.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self {
            after,
            queues: HashMap::new(),
        }
    }

    /// What began or ended since the last poll. `waiting` has the connections of those
    /// [`suspects`](Self::suspects) that were asked for.
    pub fn poll(
        &mut self,
        poll: &Poll,
        waiting: &HashMap<Suspect, Vec<Waiting>>,
        served: impl Fn(u64) -> Served,
        now_ns: u64,
    ) -> Vec<Stall> {
        let mut told = Vec::new();
        let mut seen = HashMap::new();
        for namespace in &poll.namespaces {
            let mut sharing: HashMap<Suspect, u32> = HashMap::new();
            for listener in &namespace.listeners {
                if let Some(suspect) = suspect_of(namespace.inode, listener.address.as_ref()) {
                    *sharing.entry(suspect).or_default() += 1;
                }
            }
            for found in namespace.listeners.iter().filter(|found| found.depth > 0) {
                let mut queue = self
                    .queues
                    .remove(&found.inode)
                    .filter(|queue| queue.cookie == found.cookie)
                    .unwrap_or(Queue {
                        cookie: found.cookie,
                        since_ns: now_ns,
                        oldest: None,
                        oldest_ns: None,
                        hurried: false,
                        stalled_ns: None,
                        last: None,
                    });
                let oldest = suspect_of(namespace.inode, found.address.as_ref())
                    // Listeners that share a port cannot be told apart by what waits there.
                    .filter(|suspect| sharing.get(suspect) == Some(&1))
                    .and_then(|suspect| waiting.get(&suspect))
                    // Of several that came within a tick, the first is whichever is told first:
                    // as long as the one from before is there, it is the oldest.
                    .and_then(|waiting| {
                        let before = |one: &&Waiting| queue.oldest == Some(one.cookie);
                        waiting.iter().find(before).or(waiting.first())
                    });
                // Hooks do not see every way of accepting; that the oldest stays is sure.
                let same_oldest =
                    oldest.is_none() || queue.oldest == oldest.map(|oldest| oldest.cookie);
                let began = self.began(&queue, oldest, served(found.inode), same_oldest, now_ns);
                // Where it was not looked at this time, the one before is still known.
                if let Some(oldest) = oldest {
                    queue.oldest = Some(oldest.cookie);
                    queue.oldest_ns = Some(came(oldest, now_ns));
                }
                let failure = |since_ns: u64| Failure {
                    target_path: None,
                    key: Key {
                        call: None,
                        level: None,
                        target: None,
                        process: None,
                        socket_inode: Some(found.inode),
                        reason: Reason::QueueStalled,
                        errno: None,
                        op: Op::Network,
                        tier: Tier::Poll,
                    },
                    monotonic_ns: now_ns,
                    process: None,
                    listener: listener_of(found, namespace.inode),
                    peer: oldest.map(|oldest| oldest.peer),
                    waited_ns: Some(now_ns.saturating_sub(since_ns)),
                    descriptors: None,
                    ended: false,
                };
                match (began, queue.stalled_ns) {
                    (Some(since_ns), None) => {
                        queue.stalled_ns = Some(since_ns);
                        queue.last = Some(failure(since_ns));
                        told.push(Stall {
                            failure: failure(since_ns),
                            ended: false,
                        });
                    }
                    (Some(_), Some(since_ns)) => {
                        let before = queue.last.take().and_then(|last| last.peer);
                        let now = failure(since_ns);
                        queue.last = Some(Failure {
                            peer: now.peer.or(before),
                            ..now
                        });
                    }
                    (None, Some(_)) => {
                        told.extend(queue.end(now_ns));
                        queue.since_ns = now_ns;
                    }
                    (None, None) => {}
                }
                seen.insert(found.inode, queue);
            }
        }
        // What is left is empty now, or closed.
        for (_, mut queue) in self.queues.drain() {
            told.extend(queue.end(now_ns));
        }
        self.queues = seen;
        told
    }

    /// Since when nobody has accepted, if that is long enough.
    fn began(
        &self,
        queue: &Queue,
        oldest: Option<&Waiting>,
        served: Served,
        same_oldest: bool,
        now_ns: u64,
    ) -> Option<u64> {
        // The oldest came before the poll that saw it first.
        let since = match oldest {
            Some(oldest) => came(oldest, now_ns),
            None => queue.since_ns,
        };
        let since = match served {
            Served::At(accepted_ns) => since.max(accepted_ns),
            // Before that, nobody looked.
            Served::Never => since,
            // A queue is first in, first out: while the oldest stays, nobody accepts.
            Served::Unknown if oldest.is_some() => since.max(queue.since_ns),
            Served::Unknown => return None,
        };
        let lasts = Duration::from_nanos(now_ns.saturating_sub(since));
        (lasts >= self.after && same_oldest).then_some(since)
    }

    /// Ports to look at with the next poll, not more than are looked at quickly: a queue that
    /// is not among them is told by the hooks alone.
    #[must_use]
    pub fn suspects(&self, poll: &Poll) -> Vec<Suspect> {
        // Those whose stall is told already come last.
        let mut suspects: Vec<(bool, Suspect)> = poll
            .namespaces
            .iter()
            .flat_map(|namespace| {
                namespace.listeners.iter().filter_map(|found| {
                    let queue = self.queues.get(&found.inode)?;
                    let suspect = suspect_of(namespace.inode, found.address.as_ref())?;
                    Some((queue.stalled_ns.is_some(), suspect))
                })
            })
            .collect();
        suspects.sort_by_key(|(told, suspect)| (*told, suspect.netns, suspect.port));
        let mut suspects: Vec<Suspect> = suspects.into_iter().map(|(_, suspect)| suspect).collect();
        suspects.dedup();
        suspects.truncate(SUSPECTS);
        suspects
    }

    /// Stalls that last, as they are now: the end of a run does not end them.
    #[must_use]
    pub fn lasting(&self) -> Vec<Failure> {
        self.queues
            .values()
            .filter(|queue| queue.stalled_ns.is_some())
            .filter_map(|queue| queue.last.clone())
            .collect()
    }

    /// How long until a queue may have been waiting for long enough. One that is served slowly
    /// is not looked at more often for that.
    #[must_use]
    pub fn next(&mut self, now_ns: u64) -> Option<Duration> {
        let after = self.after;
        self.queues
            .values_mut()
            .filter(|queue| queue.stalled_ns.is_none())
            .filter_map(|queue| {
                let begun = queue
                    .oldest_ns
                    .unwrap_or(queue.since_ns)
                    .min(queue.since_ns);
                let left = after.saturating_sub(Duration::from_nanos(now_ns.saturating_sub(begun)));
                if left.is_zero() {
                    // Once: to see whether the oldest stays.
                    (!std::mem::replace(&mut queue.hurried, true)).then_some(left)
                } else {
                    Some(left)
                }
            })
            .min()
    }
}

impl Queue {
    fn end(&mut self, now_ns: u64) -> Option<Stall> {
        let since_ns = self.stalled_ns.take()?;
        let failure = self.last.take()?;
        Some(Stall {
            failure: Failure {
                monotonic_ns: now_ns,
                waited_ns: Some(now_ns.saturating_sub(since_ns)),
                ended: true,
                ..failure
            },
            ended: true,
        })
    }
}

fn came(waiting: &Waiting, now_ns: u64) -> u64 {
    let waited = u64::try_from(waiting.waited.as_nanos()).unwrap_or(u64::MAX);
    now_ns.saturating_sub(waited)
}

fn suspect_of(netns: u32, address: Option<&Address>) -> Option<Suspect> {
    match address? {
        Address::Inet(address) => Some(Suspect {
            netns,
            port: address.port(),
        }),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sockets::{Listener, Namespace};

    const S: u64 = 1_000_000_000;

    pub(crate) fn listener(inode: u64, depth: u32) -> Listener {
        Listener {
            inode,
            cookie: inode + 1000,
            family: 2,
            socket_type: 1,
            protocol: 6,
            address: Some(Address::Inet(
                ([127, 0, 0, 1], u16::try_from(inode).unwrap()).into(),
            )),
            depth,
            limit: 3,
            drops: Some(0),
        }
    }

    pub(crate) fn poll_of(listeners: Vec<Listener>) -> Poll {
        Poll {
            namespaces: vec![Namespace {
                inode: 99,
                listeners,
                complete: true,
                ..Namespace::default()
            }],
            ..Poll::default()
        }
    }

    fn waits(inode: u64, cookie: u64, ms: u64) -> HashMap<Suspect, Vec<Waiting>> {
        let waiting = Waiting {
            cookie,
            peer: ([127, 0, 0, 1], 40_000).into(),
            local: ([127, 0, 0, 1], 80).into(),
            waited: Duration::from_millis(ms),
            closed_by_peer: false,
        };
        let suspect = Suspect {
            netns: 99,
            port: u16::try_from(inode).unwrap(),
        };
        HashMap::from([(suspect, vec![waiting])])
    }

    fn stalls() -> Stalls {
        Stalls::new(Duration::from_secs(2))
    }

    #[test]
    fn a_stall_begins_after_its_time_and_ends_with_an_accept() {
        let mut stalls = stalls();
        let queue = |depth| poll_of(vec![listener(1, depth)]);
        let none = HashMap::new();
        assert!(
            stalls
                .poll(&queue(2), &none, |_| Served::Never, 10 * S)
                .is_empty()
        );
        assert_eq!(stalls.suspects(&queue(2)).len(), 1);
        assert_eq!(stalls.next(11 * S), Some(Duration::from_secs(1)));
        // The oldest waits since before the first poll.
        let waiting = waits(1, 5, 1_400);
        assert!(
            stalls
                .poll(&queue(2), &waiting, |_| Served::Never, 11 * S)
                .is_empty()
        );
        assert_eq!(stalls.next(11 * S), Some(Duration::from_millis(600)));
        let told = stalls.poll(&queue(2), &waits(1, 5, 2_400), |_| Served::Never, 12 * S);
        assert_eq!(told.len(), 1);
        assert!(!told[0].ended);
        assert_eq!(told[0].failure.waited_ns, Some(2_400_000_000));
        assert!(told[0].failure.peer.is_some());
        // It lasts: nothing new.
        let waiting = waits(1, 5, 3_400);
        assert!(
            stalls
                .poll(&queue(3), &waiting, |_| Served::Never, 13 * S)
                .is_empty()
        );
        assert_eq!(stalls.lasting().len(), 1);
        let told = stalls.poll(&queue(0), &none, |_| Served::At(13 * S + 1), 14 * S);
        assert!(told[0].ended);
        assert_eq!(told[0].failure.waited_ns, Some(4_400_000_000));
        assert!(stalls.lasting().is_empty());
    }

    #[test]
    fn a_queue_that_is_served_slowly_is_no_stall() {
        let mut stalls = stalls();
        let queue = poll_of(vec![listener(1, 3)]);
        for (second, oldest) in [(10, 1), (11, 2), (12, 3), (13, 4), (14, 5)] {
            // Every connection waits long, but each second another is accepted.
            let served = move |_| Served::At((second - 1) * S + S / 2);
            let told = stalls.poll(&queue, &waits(1, oldest, 5_000), served, second * S);
            assert!(told.is_empty(), "{second}");
        }
    }

    #[test]
    fn an_accept_that_no_hook_saw_is_seen_by_the_oldest_leaving() {
        let mut stalls = stalls();
        let queue = poll_of(vec![listener(1, 3)]);
        for (second, oldest) in [(10, 1), (11, 2), (12, 3), (13, 4), (14, 5)] {
            let waiting = waits(1, oldest, 5_000);
            let told = stalls.poll(&queue, &waiting, |_| Served::Never, second * S);
            assert!(told.is_empty(), "{second}: {told:?}");
        }
    }

    #[test]
    fn a_queue_that_is_long_in_waiting_is_looked_at_sooner_once() {
        let mut stalls = stalls();
        let queue = poll_of(vec![listener(1, 3)]);
        let served = |_| Served::At(9 * S);
        stalls.poll(&queue, &waits(1, 1, 5_000), served, 10 * S);
        assert_eq!(stalls.next(10 * S), Some(Duration::ZERO));
        stalls.poll(&queue, &waits(1, 2, 5_000), |_| Served::At(10 * S), 11 * S);
        assert_eq!(stalls.next(11 * S), None);
    }

    #[test]
    fn without_hooks_only_a_queue_that_can_be_looked_into_stalls() {
        let mut stalls = stalls();
        let mut unix = listener(1, 3);
        unix.address = None;
        let queue = poll_of(vec![unix, listener(2, 1)]);
        let mut told = Vec::new();
        for second in 10..14 {
            let waiting = waits(2, 7, (second - 10) * 1000 + 500);
            told.extend(stalls.poll(&queue, &waiting, |_| Served::Unknown, second * S));
        }
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].failure.key.socket_inode, Some(2));
    }

    #[test]
    fn a_stall_lasts_although_its_queue_is_not_looked_into_each_time() {
        let mut stalls = stalls();
        let queue = poll_of(vec![listener(1, 1)]);
        let mut told = Vec::new();
        for second in 10..20 {
            let waiting = match second {
                14 | 15 => HashMap::new(),
                _ => waits(1, 5, (second - 10) * 1000 + 500),
            };
            told.extend(stalls.poll(&queue, &waiting, |_| Served::Never, second * S));
        }
        assert_eq!(told.len(), 1, "{told:?}");
        // Whose connection waits longest is known from before.
        stalls.poll(&queue, &HashMap::new(), |_| Served::Never, 20 * S);
        assert!(stalls.lasting()[0].peer.is_some());
    }

    #[test]
    fn connections_that_came_within_a_tick_may_change_places() {
        let mut stalls = stalls();
        let queue = poll_of(vec![listener(1, 2)]);
        let mut told = Vec::new();
        for second in 10..20 {
            let mut waiting = waits(1, 5, (second - 10) * 1000 + 500);
            for both in waiting.values_mut() {
                let other = Waiting {
                    cookie: 6,
                    ..both[0].clone()
                };
                both.insert(usize::from(second % 2 == 0), other);
            }
            told.extend(stalls.poll(&queue, &waiting, |_| Served::Never, second * S));
        }
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn a_listener_that_is_closed_ends_its_stall() {
        let mut stalls = stalls();
        let queue = poll_of(vec![listener(1, 1)]);
        let none = HashMap::new();
        stalls.poll(&queue, &none, |_| Served::Never, S);
        assert_eq!(
            stalls.poll(&queue, &none, |_| Served::Never, 4 * S).len(),
            1
        );
        let told = stalls.poll(&poll_of(Vec::new()), &none, |_| Served::Never, 5 * S);
        assert!(told[0].ended);
    }
}
