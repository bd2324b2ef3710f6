//! What the screen shows, from samples (pure).

mod ring;
mod row;
mod sort;
mod wanted;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

pub use ring::{Ring, SECONDS};
pub use row::{ByReason, Owner, Row};
pub use sort::Sort;

use super::sample::{
    Detail, FailureSample, IncidentSample, ListenerSample, LostSample, ProcessSample, RowId, Sample,
};
use crate::{filter::Filter, observation::Code};

/// Counting that began no longer ago than this belongs to the first interval.
const FRESH_NS: u64 = 5_000_000_000;
/// What failed without a listener, or whose listener is closed, is shown for so many seconds.
const KEPT: u64 = 60;
/// From so many thousandths of its limit on, a process is shown before others that hold the same.
const NEAR: u64 = 800;

/// All that is shown.
#[derive(Debug, Default)]
pub struct Model {
    filter: Filter,
    /// Numbers the samples.
    generation: u64,
    /// When the last one was taken, nanoseconds.
    pub at_ns: u64,
    /// The same by wall time.
    pub time: Timestamp,
    /// When counting began, nanoseconds.
    pub since_ns: u64,
    /// Name of the host.
    pub host: String,
    /// Listeners that there was no room for.
    pub more: u64,
    /// Why some listeners may be missing.
    pub problems: Vec<String>,
    /// Every process was looked at for owners.
    pub owners_complete: bool,
    /// What could not be kept.
    pub lost: LostSample,
    /// What is not seen.
    pub unseen: Vec<String>,
    /// Incidents that fire.
    pub incidents: Vec<IncidentSample>,
    /// More of one row.
    pub detail: Option<Detail>,
    /// Failures by reason.
    pub reasons: Vec<Reason>,
    /// Processes by id.
    pub processes: HashMap<u32, ProcessSample>,
    rows: HashMap<RowId, Row>,
    /// Counts of failures before.
    counts: HashMap<FailureId, (u64, u64)>,
}

type FailureId = (RowId, Option<u32>, Code, Option<Arc<str>>);

/// All failures of one reason.
#[derive(Clone, Debug)]
pub struct Reason {
    /// Which.
    pub reason: Code,
    /// Since counting began.
    pub count: u64,
    /// A second, in the last interval.
    pub rate: f64,
    /// When the last was, nanoseconds.
    pub last_ns: u64,
    /// By second.
    pub by_second: Ring,
}

/// Sums over all rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Listeners.
    pub listeners: usize,
    /// Accepted a second; `None` where no hook sees it.
    pub accepts: Option<f64>,
    /// Failures a second.
    pub failures: f64,
    /// Failures of the last minute.
    pub failures_60s: u64,
    /// Failures since counting began.
    pub all_failures: u64,
    /// Listeners at which nobody accepts.
    pub stalled: usize,
}

impl Model {
    /// Nothing yet; shows only what the filter wants.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            ..Self::default()
        }
    }

    /// Whether there was a sample.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.generation > 0
    }

    /// Takes in a sample.
    pub fn take(&mut self, sample: Sample) {
        let first = self.generation == 0;
        self.generation += 1;
        let before = match first {
            // What began just now grew from nothing.
            true => (sample.at_ns.saturating_sub(sample.since_ns) <= FRESH_NS)
                .then_some(sample.since_ns),
            // Another run counts from nothing.
            false if sample.since_ns != self.since_ns => {
                self.counts.clear();
                self.reasons.clear();
                None
            }
            false => Some(self.at_ns),
        };
        let seconds = before.map(|before| {
            std::time::Duration::from_nanos(sample.at_ns.saturating_sub(before)).as_secs_f64()
        });
        self.at_ns = sample.at_ns;
        self.processes = sample
            .processes
            .into_iter()
            .map(|process| (process.pid, process))
            .collect();
        for one in &sample.listeners {
            self.listener(one, seconds);
        }
        let second = self.second();
        for row in self.rows.values_mut() {
            row.failure_rate = 0.0;
            if row.generation != self.generation {
                // Of one that was never looked at it is not known.
                row.closed = row.cookie != 0;
                row.queue = None;
                row.accept_rate = None;
                row.stalled_ns = None;
            }
        }
        let mut sums: BTreeMap<Code, (u64, u64)> = BTreeMap::new();
        for one in &sample.failures {
            if wanted::failure(&self.filter, one) {
                let (count, last_ns) = sums.entry(one.reason.clone()).or_default();
                *count += one.count;
                *last_ns = (*last_ns).max(one.last_ns);
                self.failure(one, seconds);
            }
        }
        // What has no room among failures is in the sums, and there alone.
        if self.filter == Filter::default() {
            sums = sample
                .reasons
                .into_iter()
                .map(|one| (one.reason, (one.count, one.last_ns)))
                .collect();
        }
        self.sum_reasons(sums, seconds);
        let generation = self.generation;
        self.counts.retain(|_, (_, seen)| *seen == generation);
        self.rows.retain(|_, row| {
            row.failures_60s = row.failures_by_second.sum(second, SECONDS);
            row.reasons.sort_by_cached_key(|one| {
                let lately = one.by_second.sum(second, SECONDS);
                std::cmp::Reverse((lately, one.count))
            });
            let lately = row
                .last_failure_ns
                .is_some_and(|ns| second.saturating_sub(ns / 1_000_000_000) <= KEPT);
            row.generation == generation && !row.is_other() || lately
        });
        self.time = sample.time;
        self.since_ns = sample.since_ns;
        self.host = sample.host;
        self.more = sample.more;
        self.problems = sample.problems;
        self.owners_complete = sample.owners_complete;
        self.lost = sample.lost;
        self.unseen = sample.unseen;
        self.incidents = sample.incidents;
        self.detail = sample.detail;
    }

    /// The second of the last sample.
    #[must_use]
    pub fn second(&self) -> u64 {
        self.at_ns / 1_000_000_000
    }

    fn listener(&mut self, one: &ListenerSample, seconds: Option<f64>) {
        let pids = one.owners.iter().copied().chain(one.acceptor);
        if !wanted::listener(&self.filter, one.port, pids, &self.processes) {
            return;
        }
        let owner = self.owner(one);
        let id = RowId::Listener(one.inode);
        // The inode of one that was closed may be used again.
        if self
            .rows
            .get(&id)
            .is_some_and(|row| row.cookie != one.cookie && row.cookie != 0)
        {
            self.rows.remove(&id);
        }
        let row = self
            .rows
            .entry(id)
            .or_insert_with_key(|id| Row::new(id.clone(), &one.name));
        row.generation = self.generation;
        row.take(one, self.at_ns, seconds);
        row.owner = owner;
        if row.owners != one.owners {
            row.owners.clone_from(&one.owners);
        }
    }

    /// Whose it is: who is nearest to its limit, if anybody is near; else who accepts; else the first
    /// that holds it.
    fn owner(&self, one: &ListenerSample) -> Option<Owner> {
        let fullness = |pid: u32| {
            let process = self.processes.get(&pid)?;
            Some(process.used?.saturating_mul(1000) / process.limit?.max(1))
        };
        let near = one
            .owners
            .iter()
            .filter_map(|pid| Some((fullness(*pid)?, *pid)))
            .filter(|(full, _)| *full >= NEAR)
            .max();
        // One that has handed the listener on and closed it is not its owner.
        let accepts = one
            .acceptor
            .filter(|pid| one.owners.is_empty() || one.owners.contains(pid));
        let pid = near
            .map(|(_, pid)| pid)
            .or(accepts)
            .or_else(|| one.owners.first().copied())?;
        let process = self.processes.get(&pid);
        Some(Owner {
            pid,
            comm: process.map(|it| Arc::clone(&it.comm)).unwrap_or_default(),
            place: process.map(|it| Arc::clone(&it.place)).unwrap_or_default(),
            used: process.and_then(|it| it.used),
            limit: process.and_then(|it| it.limit),
            others: one.owners.len().saturating_sub(1),
        })
    }

    fn failure(&mut self, one: &FailureSample, seconds: Option<f64>) {
        let listener = one.inode.map(RowId::Listener);
        let id = match listener {
            Some(id) if one.about.is_empty() || self.rows.contains_key(&id) => id,
            Some(id) if one.reason.as_str() != "listener.closed" => id,
            _ => RowId::Other {
                about: Arc::clone(&one.about),
                pid: one.pid,
            },
        };
        let key = (id.clone(), one.pid, one.reason.clone(), one.errno.clone());
        let before = match (self.counts.get(&key), seconds) {
            (Some((before, _)), _) => *before,
            (None, Some(_)) => 0,
            (None, None) => one.count,
        };
        // A key that made room and came back begins anew.
        let grown = if one.count < before {
            one.count
        } else {
            one.count - before
        };
        self.counts.insert(key, (one.count, self.generation));
        let second = self.second();
        let row = self
            .rows
            .entry(id)
            .or_insert_with_key(|id| Row::new(id.clone(), &one.about));
        if row.generation != self.generation {
            row.port = row.port.or(one.port);
            if let Some(pid) = one.pid {
                let process = self.processes.get(&pid);
                row.owner = Some(Owner {
                    pid,
                    comm: Arc::clone(&one.comm),
                    place: Arc::clone(&one.place),
                    used: process.and_then(|it| it.used),
                    limit: process.and_then(|it| it.limit),
                    others: 0,
                });
            }
        }
        row.approximate |= one.approximate;
        if grown > 0 {
            row.fail(&one.reason, one.errno.as_ref(), grown, one.last_ns, second);
            row.failure_rate += row::rate(grown, seconds);
        }
    }

    fn sum_reasons(&mut self, sums: BTreeMap<Code, (u64, u64)>, seconds: Option<f64>) {
        let second = self.second();
        let mut before: HashMap<Code, Reason> = self
            .reasons
            .drain(..)
            .map(|one| (one.reason.clone(), one))
            .collect();
        for (reason, (count, last_ns)) in sums {
            let known = before.remove(&reason);
            let had = match (&known, seconds) {
                (Some(known), _) => known.count,
                (None, Some(_)) => 0,
                (None, None) => count,
            };
            let grown = count.saturating_sub(had);
            let mut by_second = known.map(|known| known.by_second).unwrap_or_default();
            by_second.add(second, grown);
            self.reasons.push(Reason {
                reason,
                count,
                rate: row::rate(grown, seconds),
                last_ns,
                by_second,
            });
        }
        self.reasons.sort_by_cached_key(|one| {
            std::cmp::Reverse((one.by_second.sum(second, SECONDS), one.count))
        });
    }

    /// A row.
    #[must_use]
    pub fn row(&self, id: &RowId) -> Option<&Row> {
        self.rows.get(id)
    }

    /// All rows, in no order.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The rows that have `text` in them, as they are sorted.
    #[must_use]
    pub fn order(&self, sort: Sort, reverse: bool, text: &str) -> Vec<RowId> {
        let text = text.to_lowercase();
        let rows = self.rows.values().filter(|row| wanted::text(row, &text));
        sort::order(rows, sort, reverse)
    }

    /// Sums over all rows.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let second = self.second();
        let mut sums = Sums::default();
        for row in self.rows.values() {
            sums.listeners += usize::from(!row.closed && !row.is_other());
            sums.stalled += usize::from(row.stalled_ns.is_some());
            if let Some(rate) = row.accept_rate {
                *sums.accepts.get_or_insert(0.0) += rate;
            }
        }
        for one in &self.reasons {
            sums.failures += one.rate;
            sums.failures_60s += one.by_second.sum(second, SECONDS);
            sums.all_failures = sums.all_failures.saturating_add(one.count);
        }
        sums
    }
}

impl Row {
    /// Whether no listener of this host is known for it.
    #[must_use]
    pub fn is_other(&self) -> bool {
        matches!(self.id, RowId::Other { .. })
    }
}
