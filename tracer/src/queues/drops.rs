//! What listeners dropped between two polls.

use std::collections::HashMap;

use turnaway_common::Reason;

use super::listener_of;
use crate::{
    event::{Closed, Count, Key, Listener, Op, Tier},
    sockets::{Namespace, Poll, TcpExt},
};

/// `sk_drops` wraps here.
const WRAP: u64 = 1 << 32;

/// Listeners and counters as they were at the last poll.
#[derive(Debug, Default)]
pub struct Drops {
    listeners: HashMap<u64, Known>,
    namespaces: HashMap<u32, Credit>,
    polled_ns: u64,
    polls: u64,
}

#[derive(Debug)]
struct Known {
    cookie: u64,
    drops: u64,
    /// The poll that saw it last.
    poll: u64,
}

/// Drops of a namespace whose causes the kernel has counted, and that no listener has been
/// found for yet.
#[derive(Debug)]
struct Credit {
    counters: TcpExt,
    overflows: u64,
    request_drops: u64,
    /// Drops in all.
    drops: u64,
}

/// Drops of one listener by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Causes {
    overflows: u64,
    request_drops: u64,
    unknown: u64,
}

impl Drops {
    /// Takes a poll as what was there before anything is counted.
    pub fn baseline(&mut self, poll: &Poll, now_ns: u64) {
        self.poll(poll, now_ns);
    }

    /// What listeners dropped since the last poll.
    ///
    /// A listener that was not there before, in the first poll or later, has dropped what it
    /// has dropped since then. Times are those of the polls between which it happened.
    pub fn poll(&mut self, poll: &Poll, now_ns: u64) -> Vec<Count> {
        let is_baseline = self.polls == 0;
        self.polls += 1;
        let mut counts = Vec::new();
        for namespace in &poll.namespaces {
            self.credit(namespace);
            for found in &namespace.listeners {
                let Some(drops) = found.drops else { continue };
                let known = self.listeners.entry(found.inode).or_insert(Known {
                    cookie: found.cookie,
                    drops: 0,
                    poll: 0,
                });
                if known.cookie != found.cookie {
                    // Another socket took over the inode number.
                    *known = Known {
                        cookie: found.cookie,
                        drops: 0,
                        poll: 0,
                    };
                }
                let grown = drops.wrapping_sub(known.drops) % WRAP;
                known.drops = drops;
                known.poll = self.polls;
                if grown > 0 && !is_baseline {
                    let listener = listener_of(found, namespace.inode);
                    let is_full = found.depth > found.limit;
                    let causes = self.causes(namespace.inode, grown, is_full);
                    self.count(found.inode, &listener, causes, now_ns, &mut counts);
                }
            }
        }
        // One that is closed is handed to `closed`, which is called after each poll.
        let oldest = self.polls.saturating_sub(1);
        self.listeners.retain(|_, known| known.poll >= oldest);
        self.polled_ns = now_ns;
        counts
    }

    /// What listeners dropped between the last poll that saw them and their end.
    pub fn closed(&mut self, closed: &[Closed]) -> Vec<Count> {
        let mut counts = Vec::new();
        for closed in closed {
            let before = self
                .listeners
                .remove(&closed.inode)
                .map_or(0, |known| known.drops);
            let grown = closed.drops.wrapping_sub(before) % WRAP;
            if grown == 0 {
                continue;
            }
            let is_full = closed
                .listener
                .queue
                .is_some_and(|queue| queue.depth > queue.backlog);
            let causes = self.causes(closed.listener.netns.unwrap_or(0), grown, is_full);
            self.count(
                closed.inode,
                &closed.listener,
                causes,
                closed.monotonic_ns,
                &mut counts,
            );
        }
        counts
    }

    fn credit(&mut self, namespace: &Namespace) {
        let Some(now) = namespace.counters else {
            self.namespaces.remove(&namespace.inode);
            return;
        };
        let credit = self.namespaces.entry(namespace.inode).or_insert(Credit {
            counters: now,
            overflows: 0,
            request_drops: 0,
            drops: 0,
        });
        let grown = |now: u64, before: u64| now.saturating_sub(before);
        credit.overflows += grown(now.listen_overflows, credit.counters.listen_overflows);
        credit.request_drops += grown(now.request_drops, credit.counters.request_drops);
        credit.drops += grown(now.listen_drops, credit.counters.listen_drops);
        credit.counters = now;
    }

    /// Tells drops apart by what the namespace has counted meanwhile: it says how many were
    /// of which kind, but not whose. Only where that leaves no doubt is a cause named.
    fn causes(&mut self, netns: u32, drops: u64, is_full: bool) -> Causes {
        let Some(credit) = self.namespaces.get_mut(&netns) else {
            // A namespace that came and went between two polls.
            return if is_full {
                Causes {
                    overflows: drops,
                    ..Causes::default()
                }
            } else {
                Causes {
                    unknown: drops,
                    ..Causes::default()
                }
            };
        };
        let causes = if credit.drops == credit.overflows || drops == credit.drops {
            // Every drop of the namespace was an overflow, or every drop was this listener's.
            let overflows = drops.min(credit.overflows);
            let request_drops = (drops - overflows).min(credit.request_drops);
            Causes {
                overflows,
                request_drops,
                unknown: drops - overflows - request_drops,
            }
        } else if credit.overflows == 0 && credit.drops == credit.request_drops {
            let request_drops = drops.min(credit.request_drops);
            Causes {
                request_drops,
                unknown: drops - request_drops,
                ..Causes::default()
            }
        } else {
            Causes {
                unknown: drops,
                ..Causes::default()
            }
        };
        credit.overflows = credit.overflows.saturating_sub(causes.overflows);
        credit.request_drops = credit.request_drops.saturating_sub(causes.request_drops);
        credit.drops = credit.drops.saturating_sub(drops);
        causes
    }

    fn count(
        &self,
        inode: u64,
        listener: &Listener,
        causes: Causes,
        now_ns: u64,
        counts: &mut Vec<Count>,
    ) {
        for (reason, count) in [
            (Reason::QueueOverflow, causes.overflows),
            (Reason::QueueSynFlood, causes.request_drops),
            (Reason::QueueDropped, causes.unknown),
        ] {
            if count > 0 {
                counts.push(Count {
                    key: Key {
                        target: None,
                        process: None,
                        socket_inode: Some(inode),
                        reason,
                        errno: None,
                        op: Op::Network,
                        tier: Tier::Poll,
                    },
                    count,
                    first_ns: self.polled_ns.min(now_ns),
                    last_ns: now_ns,
                    process: None,
                    listener: listener.clone(),
                    waited_max_ns: None,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        queues::stalls::tests::{listener, poll_of},
        sockets,
    };

    fn counters(overflows: u64, request_drops: u64, drops: u64) -> Option<TcpExt> {
        Some(TcpExt {
            listen_overflows: overflows,
            listen_drops: drops,
            cookies: 0,
            request_drops,
        })
    }

    fn poll(counters: Option<TcpExt>, drops: &[(u64, u64)]) -> Poll {
        let listeners = drops
            .iter()
            .map(|(inode, drops)| sockets::Listener {
                drops: Some(*drops),
                ..listener(*inode, 4)
            })
            .collect();
        let mut poll = poll_of(listeners);
        poll.namespaces[0].counters = counters;
        poll
    }

    fn told(counts: &[Count]) -> Vec<(u64, Reason, u64)> {
        counts
            .iter()
            .map(|count| (count.key.socket_inode.unwrap(), count.key.reason, count.count))
            .collect()
    }

    #[test]
    fn what_was_there_before_is_not_counted() {
        let mut drops = Drops::default();
        drops.baseline(&poll(counters(5, 0, 5), &[(1, 5)]), 10);
        assert!(drops.poll(&poll(counters(5, 0, 5), &[(1, 5)]), 20).is_empty());
        let grown = drops.poll(&poll(counters(8, 0, 8), &[(1, 8)]), 30);
        assert_eq!(told(&grown), [(1, Reason::QueueOverflow, 3)]);
        assert_eq!((grown[0].first_ns, grown[0].last_ns), (20, 30));
    }

    #[test]
    fn one_listener_s_drops_are_told_apart_exactly() {
        let mut drops = Drops::default();
        drops.baseline(&poll(counters(0, 0, 0), &[(1, 0)]), 10);
        let grown = drops.poll(&poll(counters(2, 3, 9), &[(1, 9)]), 20);
        assert_eq!(
            told(&grown),
            [
                (1, Reason::QueueOverflow, 2),
                (1, Reason::QueueSynFlood, 3),
                (1, Reason::QueueDropped, 4),
            ]
        );
    }

    #[test]
    fn what_cannot_be_told_apart_is_not() {
        let mut drops = Drops::default();
        drops.baseline(&poll(counters(0, 0, 0), &[(1, 0), (2, 0)]), 10);
        // Two listeners, two causes: whose was which is not known.
        let grown = drops.poll(&poll(counters(2, 3, 5), &[(1, 3), (2, 2)]), 20);
        assert_eq!(told(&grown)[0], (1, Reason::QueueDropped, 3));
        // One cause: no doubt.
        let grown = drops.poll(&poll(counters(7, 3, 10), &[(1, 5), (2, 5)]), 30);
        assert_eq!(grown.iter().map(|count| count.count).sum::<u64>(), 5);
        let other = Drops::default().poll(&poll(None, &[(1, 3)]), 10);
        assert!(other.is_empty(), "a first poll is a baseline");
    }

    #[test]
    fn the_last_drops_of_a_listener_are_counted_once() {
        let mut drops = Drops::default();
        drops.baseline(&poll(counters(0, 0, 0), &[(1, 0)]), 10);
        drops.poll(&poll(counters(2, 0, 2), &[(1, 2)]), 20);
        let closed = Closed {
            inode: 1,
            monotonic_ns: 25,
            drops: 7,
            listener: listener_of(&listener(1, 4), 99),
        };
        // The poll that follows no longer has it, but the namespace has counted.
        assert!(drops.poll(&poll(counters(7, 0, 7), &[]), 30).is_empty());
        let grown = drops.closed(std::slice::from_ref(&closed));
        assert_eq!(told(&grown), [(1, Reason::QueueOverflow, 5)]);
        assert_eq!(grown[0].last_ns, 25);
    }

    #[test]
    fn a_counter_that_wraps_and_an_inode_that_is_used_again() {
        let mut drops = Drops::default();
        drops.baseline(&poll(counters(0, 0, 0), &[(1, WRAP - 1)]), 10);
        let grown = drops.poll(&poll(counters(3, 0, 3), &[(1, 2)]), 20);
        assert_eq!(told(&grown), [(1, Reason::QueueOverflow, 3)]);
        let mut other = poll(counters(5, 0, 5), &[(1, 2)]);
        other.namespaces[0].listeners[0].cookie += 1;
        assert_eq!(
            told(&drops.poll(&other, 30)),
            [(1, Reason::QueueOverflow, 2)]
        );
    }
}
