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
}

#[derive(Clone, Debug)]
struct Before {
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
        if reading.all {
            let mut there = HashMap::with_capacity(reading.stats.len());
            for (inode, _) in reading.stats {
                if let Some(before) = self.before.remove(inode) {
                    there.insert(*inode, before);
                }
            }
            self.before = there;
        }
        reading
            .stats
            .iter()
            .filter_map(|(inode, stats)| {
                let before = self.before.get(inode);
                if before.is_some_and(|before| before.accepted == stats.accepted) {
                    return None;
                }
                let listening = Listening::new(*inode, stats, reading.see, jiffy);
                let growth = self.one(&listening, stats, time)?;
                wanted(growth.listener.netns, *inode).then_some(growth)
            })
            .collect()
    }

    fn one(
        &mut self,
        listening: &Listening,
        stats: &ListenerStats,
        time: Timestamp,
    ) -> Option<Growth> {
        let now = Before {
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
