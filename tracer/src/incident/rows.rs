//! Exact totals per (process, cgroup, listener, reason), within bounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hashlink::LinkedHashMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::window::Window;
use crate::observation::{Code, Fd, Kind, Listener, Observation, Process};

/// Most keys that are told apart.
pub const MAX_ROWS: usize = 100_000;
/// Most clients of one key that are told apart.
const MAX_PEERS: usize = 64;
/// Most reasons that are told apart; there are fewer unless records are made up.
const MAX_REASONS: usize = 1000;
/// Within which a row's rate is.
const RATE: Duration = Duration::from_mins(1);

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct RowKey {
    pid: Option<u32>,
    start_time: Option<Timestamp>,
    cgroup: Option<String>,
    netns: Option<u32>,
    inode: Option<u64>,
    place: Option<String>,
    reason: Code,
}

impl RowKey {
    fn new(seen: &Observation) -> Self {
        let process = seen.process.as_ref();
        let listener = seen.listener.as_ref();
        let of_client = seen.reason.is_of_client();
        let target = seen.peer.as_ref().filter(|_| of_client);
        Self {
            pid: process.map(|process| process.pid),
            start_time: process.and_then(|process| process.start_time),
            cgroup: process.and_then(|process| process.cgroup.clone()),
            netns: listener.and_then(|listener| listener.netns).or(seen.netns),
            inode: listener
                .filter(|_| !of_client)
                .and_then(|listener| listener.inode),
            place: target
                .and_then(crate::observation::Peer::place)
                .or_else(|| listener.and_then(Listener::place)),
            reason: seen.reason.clone(),
        }
    }
}

/// What one key came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Why.
    pub reason: Code,
    /// Who.
    pub process: Option<Process>,
    /// On what; of a connect, what listens at the other end.
    pub listener: Option<Listener>,
    /// Of a connect: where to.
    pub target: Option<String>,
    /// Failures, exact.
    pub count: u64,
    /// First of them.
    pub first: Timestamp,
    /// Last of them.
    pub last: Timestamp,
    /// Clients that exemplars named, at most 64.
    pub peers: BTreeSet<String>,
    /// The most that waited in the queue.
    pub queue_max: Option<u32>,
    /// The longest that one waited.
    pub waited_max: Option<Duration>,
    /// Descriptors, when last seen.
    pub fd: Fd,
    /// Only the sum over several rows is exact.
    pub approximate: bool,
    window: Window,
}

/// The rows; those not seen for longest make room, and are counted on as one.
#[derive(Clone, Debug)]
pub struct Rows {
    told_apart: LinkedHashMap<RowKey, Row>,
    most: usize,
    totals: BTreeMap<Code, u64>,
    other: BTreeMap<Code, u64>,
}

/// The same as it is saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SavedRows {
    rows: Vec<(RowKey, Row)>,
    totals: BTreeMap<Code, u64>,
    other: BTreeMap<Code, u64>,
}

impl Rows {
    /// None, with room for so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            told_apart: LinkedHashMap::new(),
            most: most.max(1),
            totals: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }

    /// Adds what was seen at `now` of the engine's time.
    pub fn add(&mut self, seen: &Observation, now: Duration) {
        if matches!(seen.kind, Kind::Accepted { .. }) {
            return;
        }
        let count = seen.count();
        if count > 0 {
            add(&mut self.totals, &seen.reason, count);
        }
        let key = RowKey::new(seen);
        if let Some(row) = self.told_apart.to_back(&key) {
            row.add(seen, now);
            return;
        }
        if self.told_apart.len() >= self.most
            && let Some((_, gone)) = self.told_apart.pop_front()
            && gone.count > 0
        {
            add(&mut self.other, &gone.reason, gone.count);
        }
        let mut row = Row {
            reason: seen.reason.clone(),
            process: seen.process.clone(),
            listener: seen.listener.clone(),
            target: key.place.clone().filter(|_| seen.reason.is_of_client()),
            count: 0,
            first: seen.first(),
            last: seen.last(),
            peers: BTreeSet::new(),
            queue_max: None,
            waited_max: None,
            fd: Fd::default(),
            approximate: false,
            window: Window::new(RATE),
        };
        row.add(seen, now);
        self.told_apart.insert(key, row);
    }

    /// The rows, those not seen for longest first.
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.told_apart.values()
    }

    /// Failures by reason: all that were ever counted.
    #[must_use]
    pub fn totals(&self) -> &BTreeMap<Code, u64> {
        &self.totals
    }

    /// Failures by reason that are in no row any more.
    #[must_use]
    pub fn other(&self) -> &BTreeMap<Code, u64> {
        &self.other
    }

    /// Failures by (unit, else cgroup, else nothing; reason).
    #[must_use]
    pub fn by_unit(&self) -> BTreeMap<(Option<String>, Code), u64> {
        let mut sums = BTreeMap::new();
        for row in self.iter() {
            let process = row.process.as_ref();
            let unit = process.and_then(|process| process.unit.clone().or(process.cgroup.clone()));
            let sum: &mut u64 = sums.entry((unit, row.reason.clone())).or_default();
            *sum = sum.saturating_add(row.count);
        }
        sums
    }

    pub(super) fn save(&self) -> SavedRows {
        SavedRows {
            rows: self
                .told_apart
                .iter()
                .map(|(key, row)| (key.clone(), row.clone()))
                .collect(),
            totals: self.totals.clone(),
            other: self.other.clone(),
        }
    }

    pub(super) fn restore(saved: SavedRows, most: usize) -> Self {
        let mut rows = Self::new(most);
        rows.totals = saved.totals;
        rows.other = saved.other;
        let too_many = saved.rows.len().saturating_sub(rows.most);
        for (index, (key, row)) in saved.rows.into_iter().enumerate() {
            if index >= too_many {
                rows.told_apart.insert(key, row);
            } else if row.count > 0 {
                add(&mut rows.other, &row.reason, row.count);
            }
        }
        rows
    }
}

fn add(sums: &mut BTreeMap<Code, u64>, reason: &Code, count: u64) {
    if let Some(sum) = sums.get_mut(reason) {
        *sum = sum.saturating_add(count);
    } else if sums.len() < MAX_REASONS {
        sums.insert(reason.clone(), count);
    } else {
        let sum = sums.entry(Code::new("other")).or_default();
        *sum = sum.saturating_add(count);
    }
}

impl Row {
    fn add(&mut self, seen: &Observation, now: Duration) {
        self.count = self.count.saturating_add(seen.count());
        self.first = self.first.min(seen.first());
        self.last = self.last.max(seen.last());
        self.waited_max = self.waited_max.max(seen.waited);
        self.approximate |= seen.approximate;
        self.fd.limit = seen.fd.limit.or(self.fd.limit);
        self.fd.used = seen.fd.used.or(self.fd.used);
        let listener = seen.listener.as_ref();
        self.queue_max = self.queue_max.max(listener.and_then(|one| one.queue));
        if !seen.reason.is_of_client()
            && self.peers.len() < MAX_PEERS
            && let Some(peer) = &seen.peer
            && let Some(peer) = peer.address.as_ref().or(peer.path.as_ref())
            && !self.peers.contains(peer)
        {
            self.peers.insert(peer.clone());
        }
        let exemplars = u64::from(matches!(seen.kind, Kind::Exemplar | Kind::Began));
        self.window.add(now, seen.count(), exemplars);
    }

    /// Failures a second over the last minute.
    #[must_use]
    pub fn rate(&self, now: Duration) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate is no exact count")]
        let sum = self.window.clone().sum(now) as f64;
        sum / RATE.as_secs_f64()
    }
}
