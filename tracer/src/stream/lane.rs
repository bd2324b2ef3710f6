//! One sink's lane: what waits for it, who delivers it, and how that goes. Lanes share nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    config::{Stream, Wants},
    entry::{Entry, add_field},
    health::Health,
    privacy::Filter,
    queue::{Queue, Waiting},
    sinks::{Outcome, Sink},
    store::{Place, Store},
};
use crate::notify::{backoff, receiver::Failure};

/// Records that are taken out of the queue at once.
const PIECE: usize = 4_096;
/// Between two looks at a connection on which something is under way.
const LOOK: Duration = Duration::from_millis(100);

/// What a lane's threads share.
pub(super) struct Lane {
    wants: Wants,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    queue: Queue,
    health: Health,
    /// When to give up, once it is to end.
    ends: Option<Instant>,
    reopen: bool,
    /// The thread sleeps.
    idle: bool,
}

impl Lane {
    pub(super) fn new(stream: &Stream) -> Self {
        Self {
            wants: stream.wants.clone(),
            state: Mutex::new(State {
                queue: Queue::new(stream.queue, stream.rate, Instant::now()),
                health: Health {
                    name: stream.name.clone(),
                    kind: stream.kind.name().to_owned(),
                    target: stream.target.to_string(),
                    ..Health::default()
                },
                ends: None,
                reopen: false,
                idle: false,
            }),
            wake: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record in, if it is wanted and there is room. Never waits for anybody.
    pub(super) fn push(&self, entry: &Arc<Entry>, now: Instant) {
        if !self.wants.accept(entry) {
            return;
        }
        let mut state = self.lock();
        state.queue.push(entry, now);
        let sleeps = std::mem::take(&mut state.idle);
        drop(state);
        // Waking a thread is a system call: one that is awake looks by itself.
        if sleeps {
            self.wake.notify_one();
        }
    }

    /// Has files opened anew.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.wake.notify_one();
    }

    /// Ends the lane when nothing waits, at the latest at `deadline`.
    pub(super) fn end(&self, deadline: Instant) {
        self.lock().ends = Some(deadline);
        self.wake.notify_one();
    }

    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        Health {
            waiting: state.health.waiting + state.queue.len() as u64,
            in_memory: state.health.in_memory + state.queue.len() as u64,
            withheld: state.queue.withheld,
            overflowed: state.queue.overflowed,
            ..state.health.clone()
        }
    }

    /// Delivers what comes until the lane ends.
    pub(super) fn run(
        &self,
        stream: &Stream,
        place: Option<Place>,
        filter: Option<Filter>,
        sink: &mut dyn Sink,
    ) {
        let now = Instant::now();
        let mut courier = Courier {
            lane: self,
            stream,
            filter,
            store: Store::new(place, now),
            flying: VecDeque::new(),
            failures: 0,
            not_before: now,
            most: stream.batch,
            looked: now,
        };
        courier.publish();
        while courier.turn(sink) {}
        courier.store.close(Instant::now());
        courier.publish();
        let left = courier.store.in_memory() + self.lock().queue.len() as u64;
        if left > 0 {
            let name = &stream.name;
            log::warn!("stream {name}: {left} records were not delivered and are lost");
        }
    }
}

/// Who delivers.
struct Courier<'a> {
    lane: &'a Lane,
    stream: &'a Stream,
    filter: Option<Filter>,
    store: Store,
    /// Batches that were sent and may yet be lost: the last record of each, and how many.
    flying: VecDeque<(u64, u64)>,
    /// Failures in a row.
    failures: u32,
    not_before: Instant,
    /// Records in a batch, fewer while one of them is looked for that is refused.
    most: usize,
    looked: Instant,
}

impl Courier<'_> {
    /// Does what there is to do, once. False when it is to end.
    fn turn(&mut self, sink: &mut dyn Sink) -> bool {
        let (came, ends, reopen) = self.wait(&*sink);
        let now = Instant::now();
        if reopen {
            sink.reopen();
        }
        if came.is_empty() {
            self.store.store(now);
        } else {
            let entries = came.into_iter();
            let filter = self.filter.as_ref();
            let entries = entries.map(|waiting| prepare(waiting, filter)).collect();
            self.store.put(entries, now);
        }
        self.look(sink);
        self.deliver(sink);
        self.publish();
        let now = Instant::now();
        let Some(deadline) = ends else {
            return true;
        };
        let is_done = self.store.waiting() == 0 && self.lane.lock().queue.is_empty();
        // What is on disk, the next start delivers.
        !(is_done || now >= deadline || self.not_before >= deadline)
    }

    /// Waits for something to do.
    fn wait(&self, sink: &dyn Sink) -> (Vec<Waiting>, Option<Instant>, bool) {
        let mut state = self.lane.lock();
        loop {
            let now = Instant::now();
            let reopen = std::mem::take(&mut state.reopen);
            let takes = self.store.has_room() && !state.queue.is_empty();
            let mut until = [state.ends, self.store.due(), sink.due()]
                .into_iter()
                .flatten()
                .min();
            let mut wants = |time: Instant| {
                until = Some(until.map_or(time, |until| until.min(time)));
            };
            if self.store.has_more() {
                wants(self.not_before);
            }
            if !self.flying.is_empty() {
                wants(self.looked + LOOK);
            }
            let due = until.is_some_and(|until| until <= now);
            if takes || reopen || due {
                let mut came = Vec::new();
                while takes
                    && came.len() < PIECE
                    && let Some(waiting) = state.queue.pop()
                {
                    came.push(waiting);
                }
                // They are nowhere else until they are stored.
                state.health.in_memory += came.len() as u64;
                state.health.waiting += came.len() as u64;
                return (came, state.ends, reopen);
            }
            if state.ends.is_some() {
                // It ends: whether all has arrived is looked at often.
                let pause = until.map_or(LOOK, |until| until.saturating_duration_since(now));
                let waited = self.lane.wake.wait_timeout(state, pause.min(LOOK));
                let state = waited.unwrap_or_else(PoisonError::into_inner).0;
                return (Vec::new(), state.ends, false);
            }
            state.idle = true;
            state = match until {
                Some(until) => {
                    let left = until.saturating_duration_since(now);
                    let waited = self.lane.wake.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .lane
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
            state.idle = false;
        }
    }

    /// Sees what arrived of what was sent.
    fn look(&mut self, sink: &mut dyn Sink) {
        self.looked = Instant::now();
        match sink.arrived() {
            Ok(None) => {}
            Ok(Some(until)) => self.arrived(until),
            Err(failure) => self.failed(failure),
        }
    }

    fn arrived(&mut self, until: u64) {
        let mut records = 0;
        while let Some((last, count)) = self.flying.front()
            && *last <= until
        {
            records += count;
            self.flying.pop_front();
        }
        if records > 0 {
            self.store.arrived(until, records, Instant::now());
            let mut state = self.lane.lock();
            state.health.delivered += records;
            state.health.last_success = Some(Timestamp::now());
        }
        if self.flying.is_empty() && !self.store.has_more() {
            self.store.is_at_end(true);
        }
    }

    fn deliver(&mut self, sink: &mut dyn Sink) {
        // A batch at a time: meanwhile the queue is emptied, too.
        if !self.store.has_more() || Instant::now() < self.not_before {
            return;
        }
        let batch = match self.store.next(self.most) {
            Ok(batch) => batch,
            Err(error) => {
                self.failed(Failure::later(format!("cannot read what waits: {error}")));
                return;
            }
        };
        let Some((last, _)) = batch.last() else {
            self.store.is_at_end(self.flying.is_empty());
            return;
        };
        let (last, count) = (*last, batch.len());
        match sink.deliver(&batch) {
            Ok(Outcome::Busy(why)) => {
                self.not_before = Instant::now() + LOOK;
                self.lane.lock().health.last_error = Some(why);
            }
            Ok(Outcome::Sent) => {
                self.sent(last, count);
                self.succeeded();
            }
            Ok(Outcome::Took { records, refused }) => {
                let Some((until, _)) = records.checked_sub(1).and_then(|index| batch.get(index))
                else {
                    return;
                };
                self.sent(*until, records);
                self.arrived(*until);
                if refused > 0 {
                    let health = &mut self.lane.lock().health;
                    health.refused += refused as u64;
                    health.delivered -= refused as u64;
                }
                self.succeeded();
            }
            Err(Failure::Never(_)) if count > 1 => {
                // One of them is wrong: the others are not to suffer for it.
                self.most = (count / 2).max(1);
            }
            Err(Failure::Never(why)) => {
                self.sent(last, count);
                self.arrived(last);
                let mut state = self.lane.lock();
                let health = &mut state.health;
                health.refused += 1;
                health.delivered -= 1;
                health.failed_attempts += 1;
                if health.refused == 1 {
                    log::error!("stream {}: {why}; it will not be sent again", health.name);
                }
                health.last_error = Some(why);
            }
            Err(failure) => self.failed(failure),
        }
    }

    fn sent(&mut self, last: u64, count: usize) {
        self.store.sent(last);
        self.flying.push_back((last, count as u64));
        // Whoever refused one is tried with more again.
        self.most = (self.most * 2).min(self.stream.batch);
    }

    fn succeeded(&mut self) {
        let failures = std::mem::take(&mut self.failures);
        let mut state = self.lane.lock();
        let health = &mut state.health;
        if failures > 0 {
            let (name, target) = (&health.name, &health.target);
            log::info!("stream {name}: {target} takes records again, after {failures} failures");
        }
        health.last_error = None;
        health.connected = Some(true);
    }

    fn failed(&mut self, failure: Failure) {
        let (why, after) = match failure {
            Failure::Later { why, after } => (why, after),
            Failure::Never(why) => (why, None),
        };
        self.flying.clear();
        self.store.rewind();
        self.failures = self.failures.saturating_add(1);
        let mut state = self.lane.lock();
        let health = &mut state.health;
        // A receiver that is down for an hour is one line, not a thousand.
        if self.failures == 1 {
            let (name, target) = (&health.name, &health.target);
            log::warn!("stream {name}: cannot deliver to {target}: {why}; trying again");
        }
        health.failed_attempts += 1;
        health.connected = Some(false);
        health.last_error = Some(why);
        self.not_before = Instant::now() + backoff::wait(self.failures, fastrand::f64(), after);
    }

    /// Tells how it goes.
    fn publish(&mut self) {
        let dropped = self.store.take_dropped();
        let damage = self.store.take_damage();
        let mut state = self.lane.lock();
        let State { queue, health, .. } = &mut *state;
        queue.tell_lost(dropped + damage.records);
        let (name, target) = (&health.name, &health.target);
        if dropped > 0 && health.dropped == 0 {
            log::warn!(
                "stream {name}: more waits for {target} than its spool has room for; the oldest \
                 records are dropped"
            );
        }
        if damage.bytes + damage.records > 0 {
            let file = damage.file.as_ref();
            let place = file.map_or_else(String::new, |file| format!(" in {}", file.display()));
            log::warn!(
                "stream {name}: the spool is damaged{place}: skipped {} bytes; {} records are \
                 known to be lost",
                damage.bytes,
                damage.records
            );
        }
        match (&health.not_stored, &self.store.not_stored) {
            (None, Some(why)) => log::warn!(
                "stream {name}: what waits cannot be kept on disk: {why}; it is in memory until it \
                 can"
            ),
            (Some(_), None) => log::info!("stream {name}: what waits is kept on disk again"),
            _ => {}
        }
        health.dropped += dropped;
        health.damaged += damage.records;
        health.waiting = self.store.waiting();
        health.in_memory = self.store.in_memory();
        health.spooled_bytes = self.store.bytes();
        health.not_stored.clone_from(&self.store.not_stored);
    }
}

/// A record without what is nobody's business, and with what is to be said in it.
fn prepare(waiting: Waiting, filter: Option<&Filter>) -> Arc<Entry> {
    let note = waiting.note.json();
    if note.is_none() && filter.is_none() {
        return waiting.entry;
    }
    let mut entry = Entry::clone(&waiting.entry);
    if let Some(filter) = filter {
        entry.line = filter.line(&entry.line);
    }
    if let Some(note) = note {
        add_field(&mut entry.line, "stream", &note);
    }
    Arc::new(entry)
}

#[cfg(test)]
mod tests;
