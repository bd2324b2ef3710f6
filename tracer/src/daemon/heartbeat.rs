//! That turnaway lives, and what it sees: a reader of the stream must tell silence from blindness.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Last, Started};
use crate::{
    event::Count,
    kernel::attach::HookStatus,
    record::{Clock, SCHEMA},
};

/// How often it is said where nothing else is configured.
pub(super) const EVERY: Duration = Duration::from_mins(1);

/// When it was last said, and what was counted since.
pub(super) struct Heartbeat {
    every: Duration,
    since: Timestamp,
    last: Instant,
    /// Failures since then, by reason.
    counts: BTreeMap<&'static str, u64>,
    totals: BTreeMap<&'static str, Total>,
}

/// What a reason came to in this run.
#[derive(Serialize)]
struct Total {
    count: u64,
    first: String,
    last: String,
}

impl Heartbeat {
    pub(super) fn new(every: Option<Duration>) -> Self {
        Self {
            every: every.unwrap_or(EVERY),
            since: Timestamp::now(),
            last: Instant::now(),
            counts: BTreeMap::new(),
            totals: BTreeMap::new(),
        }
    }

    /// From now on it is said so often.
    pub(super) fn set_every(&mut self, every: Option<Duration>) {
        self.every = every.unwrap_or(EVERY);
    }

    /// Failures of a reason were counted.
    pub(super) fn count(&mut self, count: &Count, clock: &Clock) {
        let reason = count.key.reason.code();
        *self.counts.entry(reason).or_default() += count.count;
        let time = |ns| format!("{:.9}", clock.wall_of_monotonic(ns));
        let total = self.totals.entry(reason).or_insert_with(|| Total {
            count: 0,
            first: time(count.first_ns),
            last: String::new(),
        });
        total.count += count.count;
        total.last = time(count.last_ns);
    }

    /// The record of the whole run.
    pub(super) fn summary(
        &self,
        host: &str,
        started: &Started,
        last: &Last,
    ) -> impl Serialize + use<> {
        let totals: Vec<Value> = self
            .totals
            .iter()
            .map(|(reason, total)| {
                json!({
                    "reason": reason,
                    "count": total.count,
                    "first": total.first,
                    "last": total.last,
                })
            })
            .collect();
        let losses = &last.losses;
        json!({
            "schema": SCHEMA,
            "type": "summary",
            "time": format!("{:.9}", Timestamp::now()),
            "host": host,
            "duration_s": started.steady.elapsed().as_secs_f64(),
            "totals": totals,
            "other": 0,
            "lost": {
                "ring": losses.ring,
                "map": losses.map,
                "missed": losses.missed,
                "output": last.output,
            },
            "hooks": last.hooks.iter().map(hook).collect::<Vec<_>>(),
            "listeners": [],
        })
    }

    /// The record, when it is time for one.
    pub(super) fn beat(
        &mut self,
        host: &str,
        started: &Started,
        last: &Last,
        listeners: Option<usize>,
    ) -> Option<impl Serialize + use<>> {
        if self.last.elapsed() < self.every {
            return None;
        }
        let now = Timestamp::now();
        let since = std::mem::replace(&mut self.since, now);
        self.last = Instant::now();
        let hooks: Vec<Value> = last.hooks.iter().map(hook).collect();
        let losses = &last.losses;
        let mut record = json!({
            "schema": SCHEMA,
            "type": "heartbeat",
            "time": format!("{now:.9}"),
            "host": host,
            "since": format!("{since:.9}"),
            "until": format!("{now:.9}"),
            "uptime_s": started.steady.elapsed().as_secs_f64(),
            "version": env!("CARGO_PKG_VERSION"),
            "kernel": rustix::system::uname().release().to_string_lossy(),
            "hooks": hooks,
            "counts": std::mem::take(&mut self.counts),
            "lost": { "ring": losses.ring, "map": losses.map, "missed": losses.missed },
        });
        if let Some(listeners) = listeners {
            record["listeners"] = listeners.into();
        }
        Some(record)
    }
}

fn hook(status: &HookStatus) -> Value {
    match &status.attached {
        Some((tier, _)) => json!({
            "name": status.hook.name(), "tier": tier.name(), "status": "attached",
        }),
        None => json!({ "name": status.hook.name(), "status": "unavailable" }),
    }
}
