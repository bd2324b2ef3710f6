//! When it is time to say that turnaway lives, and what was counted since it was last said.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    Last, Started,
    coverage::{self, Watch},
};
use crate::{
    event::Count,
    record::{Beat, HeartbeatRecord, Lost},
    trace::hook,
};

/// How often it is said where nothing else is configured.
const EVERY: Duration = Duration::from_mins(1);

/// When it was last said, and what was counted since.
pub(super) struct Heartbeat {
    every: Duration,
    since: Timestamp,
    last: Instant,
    /// Failures since then, by reason.
    counts: BTreeMap<&'static str, u64>,
    /// What was watched then. Before the first nothing is known of that.
    watch: Option<Watch>,
}

impl Heartbeat {
    pub(super) fn new(every: Option<Duration>) -> Self {
        Self {
            every: every.unwrap_or(EVERY),
            since: Timestamp::now(),
            last: Instant::now(),
            counts: BTreeMap::new(),
            watch: None,
        }
    }

    /// From now on it is said so often.
    pub(super) fn set_every(&mut self, every: Option<Duration>) {
        self.every = every.unwrap_or(EVERY);
    }

    /// Failures of a reason were counted.
    pub(super) fn count(&mut self, count: &Count) {
        *self.counts.entry(count.key.reason.code()).or_default() += count.count;
    }

    /// The record, when it is time for one.
    pub(super) fn beat(
        &mut self,
        host: &str,
        started: &Started,
        last: &Last,
        listeners: Option<usize>,
    ) -> Option<HeartbeatRecord> {
        if self.last.elapsed() < self.every {
            return None;
        }
        let now = Timestamp::now();
        let since = std::mem::replace(&mut self.since, now);
        self.last = Instant::now();
        let counts = std::mem::take(&mut self.counts);
        let watch = Watch::new(&last.hooks, last.losses);
        let before = self.watch.replace(watch.clone());
        let beat = Beat {
            since,
            ruled_out: before.map_or_else(Vec::new, |before| {
                coverage::ruled_out(&before, &watch, &counts)
            }),
            blind: coverage::blind(&last.hooks),
            uptime: started.steady.elapsed(),
            // How many runs the kernel left out of each is read at the end only.
            hooks: last.hooks.iter().map(|status| hook(status, None)).collect(),
            counts,
            lost: Lost {
                ring: last.losses.ring,
                map: last.losses.map,
                missed: last.losses.missed,
                output: last.output,
            },
            listeners,
        };
        Some(HeartbeatRecord::new(host, now, beat))
    }
}
