//! What was accepted since the last look, by listener (pure).

use std::collections::HashMap;

use jiff::Timestamp;
use turnaway_common::ListenerStats;

use crate::{
    event::Listener,
    record::{Listening, Waits},
    trace::Reading,
};

/// A listener's growth.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Growth {
    /// Socket inode.
    pub(super) inode: u64,
    /// The listener.
    pub(super) listener: Listener,
    /// When it was read.
    pub(super) time: Timestamp,
    /// Connections that were accepted.
    pub(super) count: u64,
    /// How long they waited.
    pub(super) waits: Option<Waits>,
}

/// Where each listener's counter stood. No more are followed than the kernel side counts for.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    before: HashMap<u64, Before>,
    /// Number of the reading.
    reading: u64,
}

#[derive(Clone, Debug)]
struct Before {
    /// When it was there last.
    reading: u64,
    accepted: u64,
    waits: Option<Waits>,
}

impl Accepted {
    /// Takes in a reading; returns what grew at listeners that are `wanted`. A listener that was
    /// not there before has grown by all that it has: counting begins with the hooks, and what is
    /// closed is forgotten.
    pub(super) fn grow(
        &mut self,
        reading: &Reading<'_>,
        jiffy: Option<std::time::Duration>,
        time: Timestamp,
        wanted: impl Fn(Option<u32>, u64) -> bool,
    ) -> Vec<Growth> {
        if !reading.see.accepts {
            return Vec::new();
        }
        self.reading += 1;
        let mut grown = Vec::new();
        for (inode, stats) in reading.stats {
            if let Some(before) = self.before.get_mut(inode)
                && before.accepted == stats.accepted
            {
                before.reading = self.reading;
                continue;
            }
            let listening = Listening::new(*inode, stats, reading.see, jiffy);
            if let Some(growth) = self.one(&listening, stats, time)
                && wanted(growth.listener.netns, *inode)
            {
                grown.push(growth);
            }
        }
        if reading.all {
            let now = self.reading;
            self.before.retain(|_, before| before.reading == now);
        }
        grown
    }

    fn one(
        &mut self,
        listening: &Listening,
        stats: &ListenerStats,
        time: Timestamp,
    ) -> Option<Growth> {
        let now = Before {
            reading: self.reading,
            accepted: stats.accepted,
            waits: listening.waited.clone(),
        };
        let before = self.before.insert(listening.inode, now);
        // Another listener may have got the inode's number.
        let before = before.filter(|before| before.accepted <= stats.accepted);
        let count = stats.accepted - before.as_ref().map_or(0, |before| before.accepted);
        let waits = before.as_ref().and_then(|before| before.waits.as_ref());
        (count > 0).then(|| Growth {
            inode: listening.inode,
            listener: listening.listener.clone(),
            time,
            count,
            waits: listening.waited.as_ref().and_then(|all| all.since(waits)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{kernel::session::Losses, record::Seen};

    const JIFFY: Duration = Duration::from_millis(4);

    fn stats(accepted: u64, waited: &[u64]) -> ListenerStats {
        // SAFETY: all of it is numbers, of which zero is one.
        let mut stats: ListenerStats = unsafe { std::mem::zeroed() };
        stats.accepted = accepted;
        stats.waited[..waited.len()].copy_from_slice(waited);
        stats
    }

    fn reading(stats: &[(u64, ListenerStats)], all: bool, accepts: bool) -> Reading<'_> {
        Reading {
            events: 0,
            losses: Losses::default(),
            output: 0,
            lag: Duration::ZERO,
            hooks: &[],
            see: Seen {
                accepts,
                shed: false,
                cookies: false,
            },
            stats,
            all,
            listeners: None,
            short: Vec::new(),
        }
    }

    /// Inode and growth.
    fn grow(accepted: &mut Accepted, of: &[(u64, ListenerStats)], all: bool) -> Vec<(u64, u64)> {
        accepted
            .grow(
                &reading(of, all, true),
                Some(JIFFY),
                Timestamp::now(),
                |_, _| true,
            )
            .into_iter()
            .map(|growth| (growth.inode, growth.count))
            .collect()
    }

    #[test]
    fn each_connection_is_in_one_growth() {
        let mut accepted = Accepted::default();
        let mut at = |of: &[(u64, ListenerStats)], all| grow(&mut accepted, of, all);
        assert_eq!(
            at(&[(1, stats(5, &[])), (2, stats(7, &[]))], true),
            [(1, 5), (2, 7)]
        );
        assert_eq!(at(&[(1, stats(6, &[]))], false), [(1, 1)]);
        assert_eq!(
            at(&[(1, stats(6, &[])), (2, stats(9, &[]))], true),
            [(2, 2)]
        );
        // Another listener has its number now.
        assert_eq!(
            at(&[(1, stats(2, &[])), (2, stats(9, &[]))], true),
            [(1, 2)]
        );
        // One that is not asked for is no one that is gone.
        assert_eq!(at(&[(1, stats(3, &[]))], false), [(1, 1)]);
        assert_eq!(
            at(&[(1, stats(3, &[])), (2, stats(10, &[]))], true),
            [(2, 1)]
        );
        // One that is gone, and another with its number and more than that had.
        assert_eq!(at(&[(1, stats(3, &[]))], true), []);
        assert_eq!(
            at(&[(1, stats(3, &[])), (2, stats(11, &[]))], true),
            [(2, 11)]
        );
    }

    #[test]
    fn how_long_they_waited_is_that_of_the_growth() {
        let mut accepted = Accepted::default();
        let mut waits = |accepted_now, waited: &[u64]| {
            let of = [(1, stats(accepted_now, waited))];
            let grown = accepted.grow(
                &reading(&of, true, true),
                Some(JIFFY),
                Timestamp::now(),
                |_, _| true,
            );
            let waits = grown.into_iter().next()?.waits?;
            Some(waits.slots)
        };
        assert_eq!(waits(3, &[3]), Some(vec![(JIFFY, 3)]));
        assert_eq!(waits(5, &[3, 2]), Some(vec![(JIFFY * 2, 2)]));
        // Their waits are not known.
        assert_eq!(waits(6, &[3, 2]), None);
    }

    #[test]
    fn what_no_hook_sees_is_nothing_known() {
        let mut accepted = Accepted::default();
        let of = [(1, stats(5, &[]))];
        let grown = accepted.grow(
            &reading(&of, true, false),
            None,
            Timestamp::now(),
            |_, _| true,
        );
        assert_eq!(grown, []);
    }
}
