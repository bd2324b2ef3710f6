//! What full tables of tracked connections dropped between two polls.
//!
//! nf_conntrack counts a packet in `drop` when it cannot make an entry for its connection
//! (`nf_conntrack_in`, net/netfilter/nf_conntrack_core.c), which it does for no other reason
//! than a full table or no memory. Packets that do not fit their connection may be dropped and
//! counted there, too; those are also in `invalid` or `insert_failed`.

use std::collections::HashMap;

use turnaway_common::Reason;

use crate::{
    event::{Count, Key, Listener, Op, Queue, Target, Tier},
    sockets::{Conntrack, Poll, Statistics},
};

/// A table that is this full may have been full since the last poll, percent: the kernel makes
/// room down to 95 when it must.
const FULL: u64 = 90;
/// For how many polls a namespace is remembered that they do not find: who keeps it may move or
/// end while it is looked for.
const REMEMBERED: u64 = 10;

/// Tables as they were when they were seen last.
#[derive(Debug, Default)]
pub struct Tables {
    namespaces: HashMap<u32, Known>,
    polled_ns: u64,
    polls: u64,
}

#[derive(Debug, Default)]
struct Known {
    cookie: Option<u64>,
    processors: Vec<Statistics>,
    full: bool,
    /// The poll that saw it last, and when that began.
    poll: u64,
    polled_ns: u64,
}

impl Known {
    /// Whether a namespace with the same inode number is this one. Without a cookie (before Linux
    /// 5.14, or not to be had this time) it is taken for that if the last poll saw it.
    fn is(&self, cookie: Option<u64>, last: u64) -> bool {
        match (self.cookie, cookie) {
            (Some(before), Some(now)) => before == now,
            _ => self.poll == last,
        }
    }
}

/// What was counted between two polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Grown {
    dropped: u64,
    /// Packets that may be among them for another reason.
    other: u64,
}

impl Tables {
    /// What tables dropped since the last poll; the first one only says what was there before.
    /// A namespace that appears later has dropped what it has dropped since then; one that
    /// polls have missed, what it has dropped since one saw it.
    pub fn poll(&mut self, poll: &Poll, now_ns: u64) -> Vec<Count> {
        let end_ns = now_ns.saturating_add(u64::try_from(poll.took.as_nanos()).unwrap_or(0));
        let last = self.polls;
        self.polls += 1;
        // That of the host holds for all.
        let host = poll
            .namespaces
            .first()
            .and_then(|own| own.conntrack.as_ref()?.max);
        let mut counts = Vec::new();
        for namespace in &poll.namespaces {
            let Some(table) = &namespace.conntrack else {
                continue;
            };
            let Some(processors) = &table.processors else {
                continue;
            };
            let max = table.limit(host);
            let full = is_full(table, max);
            let known = self
                .namespaces
                .remove(&namespace.inode)
                .filter(|known| known.is(namespace.cookie, last))
                .unwrap_or_default();
            let grown = grown(&known.processors, processors);
            if last > 0 && grown.dropped > 0 && (full || known.full) {
                let first_ns = if known.poll == 0 {
                    self.polled_ns
                } else {
                    known.polled_ns
                };
                counts.push(count(namespace.inode, table, max, grown, first_ns, end_ns));
            }
            self.namespaces.insert(
                namespace.inode,
                Known {
                    cookie: namespace.cookie.or(known.cookie),
                    processors: processors.clone(),
                    full,
                    poll: self.polls,
                    polled_ns: now_ns,
                },
            );
        }
        let oldest = self.polls.saturating_sub(REMEMBERED);
        self.namespaces.retain(|_, known| known.poll >= oldest);
        self.polled_ns = now_ns;
        counts
    }
}

fn is_full(table: &Conntrack, max: Option<u64>) -> bool {
    max.is_some_and(|max| u128::from(table.count) * 100 >= u128::from(max) * u128::from(FULL))
}

/// How much counters grew that wrap at 2^32.
fn grown(before: &[Statistics], now: &[Statistics]) -> Grown {
    let mut grown = Grown::default();
    for (index, now) in now.iter().enumerate() {
        let before = before.get(index).copied().unwrap_or_default();
        let since = |now: u32, before: u32| match now.wrapping_sub(before) {
            // Not that much within a second: counters began anew, in another namespace that has
            // the number by now (no cookie before Linux 5.14).
            more if more > u32::MAX / 2 => u64::from(now),
            more => u64::from(more),
        };
        grown.dropped += since(now.dropped, before.dropped);
        grown.other += since(now.invalid, before.invalid);
        grown.other += since(now.insert_failed, before.insert_failed);
    }
    grown
}

fn count(
    netns: u32,
    table: &Conntrack,
    max: Option<u64>,
    grown: Grown,
    first_ns: u64,
    last_ns: u64,
) -> Count {
    let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Count {
        key: Key {
            call: None,
            level: None,
            process: None,
            socket_inode: None,
            target: Some(Target::Netns(netns)),
            reason: Reason::NetConntrackFull,
            errno: None,
            op: Op::Network,
            tier: Tier::Poll,
        },
        count: grown.dropped,
        first_ns: first_ns.min(last_ns),
        last_ns,
        process: None,
        // The table takes a queue's place.
        listener: Listener {
            fd: None,
            family: None,
            socket_type: None,
            protocol: None,
            address: None,
            netns: Some(netns),
            queue: max.map(|max| Queue {
                depth: number(table.count),
                backlog: number(max),
            }),
        },
        waited_max_ns: None,
        approximate: grown.other > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::Namespace;

    fn statistics(dropped: u32, other: u32) -> Statistics {
        Statistics {
            dropped,
            invalid: other,
            insert_failed: 0,
        }
    }

    fn namespace(inode: u32, count: u64, max: u64, processors: &[Statistics]) -> Namespace {
        Namespace {
            inode,
            cookie: Some(u64::from(inode)),
            conntrack: Some(Conntrack {
                count,
                max: Some(max),
                processors: Some(processors.to_vec()),
            }),
            complete: true,
            ..Namespace::default()
        }
    }

    fn poll(namespaces: Vec<Namespace>) -> Poll {
        Poll {
            namespaces,
            ..Poll::default()
        }
    }

    /// The last of several polls of one namespace.
    fn last(polls: &[Namespace]) -> Vec<(u64, bool)> {
        let mut tables = Tables::default();
        let mut told = Vec::new();
        for (at_ns, namespace) in (1..).zip(polls) {
            let counts = tables.poll(&poll(vec![namespace.clone()]), at_ns * 10);
            told = counts
                .iter()
                .map(|count| (count.count, count.approximate))
                .collect();
        }
        told
    }

    #[test]
    fn what_was_there_before_is_not_counted() {
        let full = |dropped| namespace(1, 100, 100, &[statistics(dropped, 0)]);
        assert_eq!(last(&[full(7)]), []);
        assert_eq!(last(&[full(7), full(7)]), []);
        assert_eq!(last(&[full(7), full(12)]), [(5, false)]);
        assert_eq!(last(&[full(7), full(12), full(12)]), []);
    }

    #[test]
    fn a_record_names_the_namespace_and_how_full_it_is() {
        let mut tables = Tables::default();
        let other = |dropped| namespace(2, 50, 50, &[statistics(dropped, 0)]);
        let own = namespace(1, 3, 100, &[statistics(0, 0)]);
        tables.poll(&poll(vec![own.clone(), other(1)]), 10);
        let counts = tables.poll(&poll(vec![own, other(4)]), 20);
        let [count] = &counts[..] else {
            panic!("{counts:?}");
        };
        assert_eq!(count.key.reason, Reason::NetConntrackFull);
        assert_eq!(count.key.target, Some(Target::Netns(2)));
        assert_eq!(count.key.process, None);
        assert_eq!(count.count, 3);
        assert_eq!(count.listener.netns, Some(2));
        let queue = count.listener.queue.unwrap();
        assert_eq!((queue.depth, queue.backlog), (50, 50));
        assert_eq!((count.first_ns, count.last_ns), (10, 20));
    }

    #[test]
    fn processors_are_added_up_and_wrap_one_by_one() {
        let full = |processors: &[Statistics]| namespace(1, 100, 100, processors);
        let before = full(&[statistics(u32::MAX, 0), statistics(5, 0)]);
        let after = full(&[statistics(1, 0), statistics(6, 0)]);
        assert_eq!(last(&[before, after]), [(3, false)]);
    }

    #[test]
    fn what_may_be_dropped_for_another_reason_makes_it_inexact() {
        let full = |dropped, other| namespace(1, 100, 100, &[statistics(dropped, other)]);
        assert_eq!(last(&[full(0, 0), full(9, 1)]), [(9, true)]);
        let mut clash = full(9, 0);
        let processors = clash.conntrack.as_mut().unwrap().processors.as_mut();
        processors.unwrap()[0].insert_failed = 1;
        assert_eq!(last(&[full(0, 0), clash]), [(9, true)]);
    }

    #[test]
    fn only_a_full_table_drops_for_being_full() {
        let at = |count, dropped| namespace(1, count, 100, &[statistics(dropped, 1)]);
        assert_eq!(last(&[at(50, 0), at(50, 9)]), [], "invalid packets");
        assert_eq!(last(&[at(100, 0), at(50, 9)]), [(9, false)], "it was");
        assert_eq!(last(&[at(50, 0), at(90, 9)]), [(9, false)], "it is");
        let mut unlimited = at(100, 9);
        unlimited.conntrack.as_mut().unwrap().max = None;
        assert_eq!(last(&[at(10, 0), unlimited]), []);
    }

    #[test]
    fn the_limit_of_the_host_holds_for_all() {
        let mut tables = Tables::default();
        let own = namespace(1, 3, 60, &[statistics(0, 0)]);
        let other = |dropped| namespace(2, 60, 100, &[statistics(dropped, 0)]);
        tables.poll(&poll(vec![own.clone(), other(0)]), 10);
        let counts = tables.poll(&poll(vec![own, other(4)]), 20);
        assert_eq!(counts[0].listener.queue.unwrap().backlog, 60);
    }

    #[test]
    fn a_namespace_that_is_new_began_from_nothing() {
        let mut tables = Tables::default();
        let own = namespace(1, 3, 100, &[statistics(0, 0)]);
        let mut other = namespace(2, 100, 100, &[statistics(4, 0)]);
        tables.poll(&poll(vec![own.clone()]), 10);
        let told = |tables: &mut Tables, other: &Namespace, at_ns| -> Vec<u64> {
            let counts = tables.poll(&poll(vec![own.clone(), other.clone()]), at_ns);
            counts.iter().map(|count| count.count).collect()
        };
        assert_eq!(told(&mut tables, &other, 20), [4]);
        // Its number is another's, by its cookie, and where there is none.
        other.cookie = Some(77);
        assert_eq!(told(&mut tables, &other, 30), [4]);
        let processors = other.conntrack.as_mut().unwrap().processors.as_mut();
        processors.unwrap()[0].dropped = 3;
        assert_eq!(told(&mut tables, &other, 40), [3]);
    }

    #[test]
    fn what_a_poll_missed_is_not_counted_again() {
        let own = namespace(1, 3, 100, &[statistics(0, 0)]);
        let other = |dropped| namespace(2, 100, 100, &[statistics(dropped, 0)]);
        let mut without_cookie = other(37);
        without_cookie.cookie = None;
        // What each poll finds beside the poller's own.
        let told = |polls: &[Option<Namespace>]| -> Vec<u64> {
            let mut tables = Tables::default();
            let mut told = Vec::new();
            for (at_ns, found) in (1..).zip(polls) {
                let found = [Some(own.clone()), found.clone()];
                let counts = tables.poll(&poll(found.into_iter().flatten().collect()), at_ns * 10);
                told.extend(counts.iter().map(|count| count.count));
            }
            told
        };
        let seen = |dropped| Some(other(dropped));
        assert_eq!(told(&[seen(0), seen(37), None, seen(37)]), [37]);
        assert_eq!(
            told(&[seen(0), None, None, seen(37), None, seen(40)]),
            [37, 3]
        );
        assert_eq!(told(&[seen(5), None, seen(5)]), [0; 0], "before the first");
        let mut unread = other(37);
        unread.conntrack = None;
        assert_eq!(told(&[seen(0), seen(37), Some(unread), seen(37)]), [37]);

        // One that has the number by now began from nothing.
        let mut another = other(37);
        another.cookie = Some(77);
        assert_eq!(told(&[seen(0), seen(37), None, Some(another)]), [37, 37]);
        // Without a cookie this may be another, too: only what the last poll saw is the same.
        let bare = Some(without_cookie);
        assert_eq!(told(&[seen(0), bare.clone(), bare.clone()]), [37]);
        assert_eq!(told(&[seen(0), bare.clone(), None, bare]), [37, 37]);

        // It is not remembered for ever.
        let mut polls = vec![seen(0), seen(37)];
        polls.extend(std::iter::repeat_n(None, 10));
        polls.push(seen(37));
        assert_eq!(told(&polls), [37]);
        polls.extend(std::iter::repeat_n(None, 11));
        polls.push(seen(37));
        assert_eq!(told(&polls), [37, 37]);
    }

    #[test]
    fn what_was_dropped_while_it_was_missed_began_when_it_was_seen() {
        let mut tables = Tables::default();
        let seen = |dropped| poll(vec![namespace(1, 100, 100, &[statistics(dropped, 0)])]);
        tables.poll(&seen(1), 10);
        tables.poll(&poll(Vec::new()), 20);
        let counts = tables.poll(&seen(4), 30);
        assert_eq!((counts[0].first_ns, counts[0].last_ns), (10, 30));
    }

    #[test]
    fn where_the_kernel_does_not_tell_nothing_is_claimed() {
        let mut silent = namespace(1, 100, 100, &[]);
        silent.conntrack.as_mut().unwrap().processors = None;
        assert_eq!(last(&[silent.clone(), silent.clone()]), []);
        silent.conntrack = None;
        assert_eq!(last(&[silent.clone(), silent]), []);
    }
}
