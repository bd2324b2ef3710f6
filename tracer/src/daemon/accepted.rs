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
