//! What listeners dropped between two polls.
//!
//! Two of the kernel's numbers are needed. `sk_drops` says whose packets were discarded, but
//! counts more than drops: an ACK that finds the queue full twice, and one that
//! `TCP_DEFER_ACCEPT` ignores once. The namespace's `ListenDrops` counts drops alone, but does
//! not say whose.

use std::collections::{HashMap, HashSet};

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
    /// Listeners that were closed after the last poll had begun.
    pending: Vec<Closed>,
}

#[derive(Debug, Default)]
struct Known {
    cookie: u64,
    drops: u64,
    /// The poll that saw it last.
    poll: u64,
}

/// Drops that a namespace has counted, and that no listener has been found for yet.
#[derive(Debug)]
struct Credit {
    cookie: Option<u64>,
    /// The poll that saw it first.
    first: u64,
    counters: TcpExt,
    left: Left,
    /// What the last poll added.
    added: Left,
}

/// Numbers of drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    overflows: u64,
    request_drops: u64,
    /// In all.
    drops: u64,
}

/// Growth of a listener's `sk_drops`.
struct Grown {
    inode: u64,
    discarded: u64,
    listener: Listener,
    last_ns: u64,
}

/// Drops of one listener by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Causes {
    overflows: u64,
    request_drops: u64,
    unknown: u64,
}

impl Drops {
    /// What listeners dropped since the last poll; the first one only says what was there
    /// before.
    ///
    /// A listener that appears later has dropped what it has dropped since then. Times are
    /// those of the polls between which it happened.
    pub fn poll(&mut self, poll: &Poll, now_ns: u64) -> Vec<Count> {
        let is_first = self.polls == 0;
        // What was dropped while the poll was under way may be in it.
        let end_ns = now_ns.saturating_add(u64::try_from(poll.took.as_nanos()).unwrap_or(0));
        self.polls += 1;
        let mut counts = Vec::new();
        for namespace in &poll.namespaces {
            self.credit(namespace, is_first);
            let mut grown = Vec::new();
            for found in &namespace.listeners {
                let Some(drops) = found.drops else { continue };
                let known = self.listeners.entry(found.inode).or_default();
                if known.cookie != found.cookie {
                    // Another socket took over the inode number.
                    *known = Known {
                        cookie: found.cookie,
                        ..Known::default()
                    };
                }
                let discarded = drops.wrapping_sub(known.drops) % WRAP;
                known.drops = drops;
                known.poll = self.polls;
                if discarded > 0 && !is_first {
                    grown.push(Grown {
                        inode: found.inode,
                        discarded,
                        listener: listener_of(found, namespace.inode),
                        last_ns: end_ns,
                    });
                }
            }
            self.share(namespace.inode, &grown, false, &mut counts);
        }
        // One that is closed is handed to `closed`, which is called after each poll.
        let oldest = self.polls.saturating_sub(2);
        self.listeners.retain(|_, known| known.poll >= oldest);
        let there: HashSet<u32> = poll.namespaces.iter().map(|one| one.inode).collect();
        // The number of one that is gone may be another's soon.
        self.namespaces.retain(|inode, _| there.contains(inode));
        self.polled_ns = now_ns;
        counts
    }

    /// What listeners dropped between the last poll that saw them and their end. `closed` are
    /// those that were closed since the last call; with the `last` call, there is no other poll
    /// to wait for.
    pub fn closed(&mut self, closed: Vec<Closed>, last: bool) -> Vec<Count> {
        let mut namespaces: HashMap<u32, Vec<Grown>> = HashMap::new();
        // What a namespace counted for one that was closed later shows with the next poll.
        let (late, known): (Vec<Closed>, Vec<Closed>) = std::mem::take(&mut self.pending)
            .into_iter()
            .chain(closed)
            .partition(|closed| !last && closed.monotonic_ns > self.polled_ns);
        self.pending = late;
        for closed in known {
            let before = self
                .listeners
                .remove(&closed.inode)
                .map_or(0, |known| known.drops);
            let discarded = closed.drops.wrapping_sub(before) % WRAP;
            if discarded > 0 {
                let netns = closed.listener.netns.unwrap_or(0);
                namespaces.entry(netns).or_default().push(Grown {
                    inode: closed.inode,
                    discarded,
                    listener: closed.listener,
                    last_ns: closed.monotonic_ns,
                });
            }
        }
        let mut counts = Vec::new();
        for (netns, grown) in namespaces {
            self.share(netns, &grown, true, &mut counts);
        }
        counts
    }

    /// Takes in what a namespace has counted.
    fn credit(&mut self, namespace: &Namespace, is_first: bool) {
        let Some(now) = namespace.counters else {
            self.namespaces.remove(&namespace.inode);
            return;
        };
        let none = TcpExt {
            listen_overflows: 0,
            listen_drops: 0,
            cookies: 0,
            request_drops: 0,
        };
        // The number of one that is gone may be another's by now: then counters begin anew.
        let is_another = self.namespaces.get(&namespace.inode).is_some_and(|credit| {
            credit.cookie != namespace.cookie || now.listen_drops < credit.counters.listen_drops
        });
        if is_another {
            self.namespaces.remove(&namespace.inode);
        }
        let credit = self.namespaces.entry(namespace.inode).or_insert(Credit {
            cookie: namespace.cookie,
            first: self.polls,
            // One that was not there before has begun from nothing.
            counters: if is_first { now } else { none },
            left: Left::default(),
            added: Left::default(),
        });
        let before = credit.counters;
        let added = Left {
            overflows: now.listen_overflows.saturating_sub(before.listen_overflows),
            request_drops: now.request_drops.saturating_sub(before.request_drops),
            drops: now.listen_drops.saturating_sub(before.listen_drops),
        };
        // Counters are read after sockets: what the last poll counted may show at a socket
        // only now. What has waited for longer will find no listener any more.
        let left = credit.left.min(credit.added);
        credit.left = left.plus(added);
        credit.added = added;
        credit.counters = now;
    }

    /// Shares what a namespace has counted among the listeners that discarded something.
    fn share(&mut self, netns: u32, grown: &[Grown], closed: bool, counts: &mut Vec<Count>) {
        let newest = self.polls;
        let credit = self.namespaces.get_mut(&netns).filter(|credit| {
            // One that has just come, and has dropped nothing, took over the number of the one
            // that the closed listener was in.
            !closed || credit.first < newest || credit.left.drops > 0
        });
        let Some(credit) = credit else {
            // A namespace that came and went between two polls: nobody saw its counters.
            for grown in grown {
                let is_full = grown
                    .listener
                    .queue
                    .is_some_and(|queue| queue.depth > queue.backlog);
                let causes = if is_full {
                    Causes {
                        overflows: grown.discarded,
                        ..Causes::default()
                    }
                } else {
                    Causes {
                        unknown: grown.discarded,
                        ..Causes::default()
                    }
                };
                count(self.polled_ns, grown, causes, true, counts);
            }
            return;
        };
        let discarded: u64 = grown.iter().map(|grown| grown.discarded).sum();
        let alone = grown.len() == 1;
        // With more discarded than dropped, nothing says how many drops each has.
        let approximate = !alone && discarded > credit.left.drops;
        for grown in grown {
            let drops = grown.discarded.min(credit.left.drops);
            let causes = credit.left.take(drops, alone);
            count(self.polled_ns, grown, causes, approximate, counts);
        }
    }
}

impl Left {
    fn plus(self, other: Self) -> Self {
        Self {
            overflows: self.overflows + other.overflows,
            request_drops: self.request_drops + other.request_drops,
            drops: self.drops + other.drops,
        }
    }

    fn min(self, other: Self) -> Self {
        Self {
            overflows: self.overflows.min(other.overflows),
            request_drops: self.request_drops.min(other.request_drops),
            drops: self.drops.min(other.drops),
        }
    }

    /// Takes a listener's drops out, and tells their causes as far as that leaves no doubt:
    /// where they are all that the namespace dropped, or where it dropped for one cause.
    fn take(&mut self, drops: u64, alone: bool) -> Causes {
        let one_cause =
            self.drops == self.overflows || self.drops == self.request_drops && self.overflows == 0;
        let causes = if one_cause || alone && drops == self.drops {
            let overflows = drops.min(self.overflows);
            let request_drops = (drops - overflows).min(self.request_drops);
            Causes {
                overflows,
                request_drops,
                unknown: drops - overflows - request_drops,
            }
        } else {
            Causes {
                unknown: drops,
                ..Causes::default()
            }
        };
        self.overflows -= causes.overflows;
        self.request_drops -= causes.request_drops;
        self.drops -= drops;
        causes
    }
}

fn count(
    polled_ns: u64,
    grown: &Grown,
    causes: Causes,
    approximate: bool,
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
                    call: None,
                    level: None,
                    target: None,
                    process: None,
                    socket_inode: Some(grown.inode),
                    reason,
                    errno: None,
                    op: Op::Network,
                    tier: Tier::Poll,
                },
                count,
                first_ns: polled_ns.min(grown.last_ns),
                last_ns: grown.last_ns,
                process: None,
                listener: grown.listener.clone(),
                waited_max_ns: None,
                approximate,
            });
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

    fn counters(overflows: u64, request_drops: u64, drops: u64) -> TcpExt {
        TcpExt {
            listen_overflows: overflows,
            listen_drops: drops,
            cookies: 0,
            request_drops,
        }
    }

    fn poll(counters: TcpExt, drops: &[(u64, u64)]) -> Poll {
        let listeners = drops
            .iter()
            .map(|(inode, drops)| sockets::Listener {
                drops: Some(*drops),
                ..listener(*inode, 4)
            })
            .collect();
        let mut poll = poll_of(listeners);
        poll.namespaces[0].counters = Some(counters);
        poll
    }

    fn told(counts: &[Count]) -> Vec<(u64, Reason, u64)> {
        counts
            .iter()
            .map(|count| {
                (
                    count.key.socket_inode.unwrap(),
                    count.key.reason,
                    count.count,
                )
            })
            .collect()
    }

    #[test]
    fn what_was_there_before_is_not_counted() {
        let mut drops = Drops::default();
        drops.poll(&poll(counters(5, 0, 5), &[(1, 5)]), 10);
        assert!(
            drops
                .poll(&poll(counters(5, 0, 5), &[(1, 5)]), 20)
                .is_empty()
        );
        let grown = drops.poll(&poll(counters(8, 0, 8), &[(1, 8)]), 30);
        assert_eq!(told(&grown), [(1, Reason::QueueOverflow, 3)]);
        assert_eq!((grown[0].first_ns, grown[0].last_ns), (20, 30));
    }

    #[test]
    fn one_listener_s_drops_are_told_apart_exactly() {
        let mut drops = Drops::default();
        drops.poll(&poll(counters(0, 0, 0), &[(1, 0)]), 10);
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
        drops.poll(&poll(counters(0, 0, 0), &[(1, 0), (2, 0)]), 10);
        // Two listeners, two causes: whose was which is not known, how many each had is.
        let grown = drops.poll(&poll(counters(2, 3, 5), &[(1, 3), (2, 2)]), 20);
        let told = told(&grown);
        assert_eq!(told[0], (1, Reason::QueueDropped, 3));
        assert_eq!(told.iter().map(|(_, _, count)| count).sum::<u64>(), 5);
        assert!(!grown[0].approximate);
    }

    #[test]
    fn what_was_discarded_but_not_dropped_is_not_counted() {
        let mut drops = Drops::default();
        drops.poll(&poll(counters(0, 0, 0), &[(1, 0), (2, 0)]), 10);
        assert!(
            drops
                .poll(&poll(counters(0, 0, 0), &[(1, 9), (2, 0)]), 20)
                .is_empty()
        );
        // ACKs that found no room are counted twice by the socket.
        let grown = drops.poll(&poll(counters(7, 0, 7), &[(1, 23), (2, 0)]), 30);
        assert_eq!(told(&grown), [(1, Reason::QueueOverflow, 7)]);
        assert!(!grown[0].approximate);
        // At two listeners at once, only the sum is sure.
        let grown = drops.poll(&poll(counters(15, 0, 15), &[(1, 33), (2, 6)]), 40);
        assert_eq!(grown.iter().map(|count| count.count).sum::<u64>(), 8);
        assert!(grown.iter().all(|count| count.approximate));
    }

    #[test]
    fn a_drop_that_shows_at_its_socket_a_poll_later_is_counted_then() {
        let mut drops = Drops::default();
        drops.poll(&poll(counters(0, 0, 0), &[(1, 0)]), 10);
        assert!(
            drops
                .poll(&poll(counters(2, 0, 2), &[(1, 0)]), 20)
                .is_empty()
        );
        let grown = drops.poll(&poll(counters(2, 0, 2), &[(1, 2)]), 30);
        assert_eq!(told(&grown), [(1, Reason::QueueOverflow, 2)]);
    }

    #[test]
    fn the_last_drops_of_a_listener_are_counted_once() {
        let mut drops = Drops::default();
        drops.poll(&poll(counters(0, 0, 0), &[(1, 0)]), 10);
        drops.poll(&poll(counters(2, 0, 2), &[(1, 2)]), 20);
        let closed = Closed {
            inode: 1,
            monotonic_ns: 25,
            drops: 7,
            listener: listener_of(&listener(1, 4), 99),
        };
        // The poll that follows no longer has it, but the namespace has counted.
        assert!(drops.poll(&poll(counters(7, 0, 7), &[]), 30).is_empty());
        let grown = drops.closed(vec![closed], false);
        assert_eq!(told(&grown), [(1, Reason::QueueOverflow, 5)]);
        assert_eq!(grown[0].last_ns, 25);
    }

    #[test]
    fn a_namespace_that_took_over_a_number_begins_anew() {
        let mut drops = Drops::default();
        let mut first = poll(counters(6, 0, 6), &[(1, 6)]);
        first.namespaces[0].cookie = Some(1);
        drops.poll(&first, 10);
        let mut second = poll(counters(7, 0, 7), &[(2, 7)]);
        second.namespaces[0].cookie = Some(2);
        assert_eq!(
            told(&drops.poll(&second, 20)),
            [(2, Reason::QueueOverflow, 7)]
        );
    }

    #[test]
    fn a_listener_s_namespace_may_be_gone_and_its_number_another_s() {
        let mut drops = Drops::default();
        let mut first = poll_of(Vec::new());
        first.namespaces.clear();
        drops.poll(&first, 10);
        let closed = Closed {
            inode: 1,
            monotonic_ns: 15,
            drops: 5,
            listener: listener_of(&listener(1, 4), 99),
        };
        drops.poll(&poll(counters(0, 0, 0), &[(2, 0)]), 20);
        let grown = drops.closed(vec![closed], false);
        assert_eq!(told(&grown), [(1, Reason::QueueOverflow, 5)]);
        assert!(grown[0].approximate);
    }

    #[test]
    fn one_that_is_closed_while_a_poll_is_under_way_waits_for_the_next() {
        let mut drops = Drops::default();
        drops.poll(&poll(counters(0, 0, 0), &[(1, 0)]), 10);
        let closed = Closed {
            inode: 1,
            monotonic_ns: 11,
            drops: 4,
            listener: listener_of(&listener(1, 4), 99),
        };
        assert!(drops.closed(vec![closed.clone()], false).is_empty());
        drops.poll(&poll(counters(4, 0, 4), &[]), 20);
        let grown = drops.closed(Vec::new(), false);
        assert_eq!(told(&grown), [(1, Reason::QueueOverflow, 4)]);
        assert!(!grown[0].approximate);

        // With its namespace gone, its own number is all there is.
        let mut gone = poll_of(Vec::new());
        gone.namespaces.clear();
        drops.poll(&gone, 30);
        let grown = drops.closed(vec![closed], true);
        assert_eq!(told(&grown), [(1, Reason::QueueOverflow, 4)]);
        assert!(grown[0].approximate);
    }

    #[test]
    fn a_counter_that_wraps_and_an_inode_that_is_used_again() {
        let mut drops = Drops::default();
        drops.poll(&poll(counters(0, 0, 0), &[(1, WRAP - 1)]), 10);
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
