//! One receiver's lane: what waits for it, who delivers it, and how that goes. Lanes share nothing
//! but the thread that writes to disk, so that none blocks another.

use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    backoff,
    config::{Wants, is_reason},
    health::Health,
    keeper::Bell,
    queue::Queue,
    receiver::{Failure, Receiver},
    spool::Spool,
};
use crate::alert::{Alert, Status};

/// Incidents that are remembered as told at most.
const MAX_TOLD: usize = 10_000;

/// What a lane's threads share.
pub(super) struct Lane {
    wants: Wants,
    /// Where its queue is kept, if anywhere.
    pub(super) spool: Option<Spool>,
    state: Mutex<State>,
    wake: Condvar,
}

/// What changes.
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) health: Health,
    /// Incidents whose beginning was accepted into the queue: they are told to their end.
    told: BTreeSet<String>,
    /// When to give up, once it is to end.
    ends: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// No attempt before this.
    not_before: Option<Instant>,
}

impl Lane {
    pub(super) fn new(wants: Wants, spool: Option<Spool>, queue: Queue, health: Health) -> Self {
        let told = queue.ids().map(str::to_owned).collect();
        Self {
            wants,
            spool,
            state: Mutex::new(State {
                queue,
                health,
                told,
                ends: None,
                failures: 0,
                not_before: None,
            }),
            wake: Condvar::new(),
        }
    }

    /// The state; whoever panicked with it in hand left counts, not promises.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an alert in, if it is wanted.
    pub(super) fn send(&self, alert: &Alert) -> bool {
        let mut state = self.lock();
        if !state.accepts(&self.wants, alert) {
            return false;
        }
        state.push(alert);
        drop(state);
        self.wake.notify_all();
        true
    }

    /// Takes up an incident that was told before turnaway started. True if there is something to
    /// deliver.
    pub(super) fn resume(&self, alert: &Alert) -> bool {
        let mut state = self.lock();
        let waits = state.queue.ids().any(|id| id == alert.id);
        if !state.accepts(&self.wants, alert) || waits || !state.queue.is_of_the_present() {
            return false;
        }
        state.push(alert);
        drop(state);
        self.wake.notify_all();
        true
    }

    /// Ends the lane when its queue is empty, at the latest at `deadline`.
    pub(super) fn end(&self, deadline: Instant) {
        self.lock().ends = Some(deadline);
        self.wake.notify_all();
    }

    /// How it is doing.
    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        Health {
            queued: state.queue.len(),
            ..state.health.clone()
        }
    }

    /// Delivers what comes until the lane ends.
    pub(super) fn run(&self, receiver: &mut dyn Receiver, bell: &Bell) {
        receiver.prepare();
        while let Some(work) = self.next(receiver) {
            let result = match &work {
                Work::Deliver(_, alert) => receiver.deliver(alert),
                Work::Refresh => receiver.refresh(),
            };
            self.settle(&work, result);
            bell.ring();
        }
    }

    fn next(&self, receiver: &dyn Receiver) -> Option<Work> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let due = receiver.due();
            if let Some(ends) = state.ends {
                let cannot = state.not_before.is_some_and(|start| start >= ends);
                if state.queue.is_empty() || now >= ends || cannot {
                    return None;
                }
            }
            let start = state.not_before.unwrap_or(now);
            if start <= now {
                if state.ends.is_none() && due.is_some_and(|due| due <= now) {
                    return Some(Work::Refresh);
                }
                if let Some((number, alert)) = state.queue.take() {
                    return Some(Work::Deliver(number, alert));
                }
            }
            let wanted = if state.queue.is_empty() {
                due
            } else {
                Some(start)
            };
            let until = [wanted.map(|wanted| wanted.max(start)), state.ends];
            state = match until.into_iter().flatten().min() {
                Some(until) => {
                    let wait = until.saturating_duration_since(now);
                    let waited = self.wake.wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn settle(&self, work: &Work, result: Result<(), Failure>) {
        let mut state = self.lock();
        match (work, &result) {
            (Work::Deliver(number, _), Ok(())) => {
                state.queue.done(*number);
                state.health.delivered += 1;
            }
            (Work::Deliver(number, _), Err(Failure::Never(_))) => {
                state.queue.done(*number);
                state.health.refused += 1;
            }
            (Work::Deliver(number, _), Err(Failure::Later { .. })) => {
                if state.queue.failed(*number) {
                    state.health.superseded += 1;
                }
            }
            (Work::Refresh, _) => {}
        }
        match result {
            Ok(()) => state.succeeded(),
            Err(Failure::Never(why)) => {
                let health = &mut state.health;
                health.failed_attempts += 1;
                log::error!("notifier {}: {why}; it will not be sent again", health.name);
                health.last_error = Some(why);
            }
            Err(Failure::Later { why, after }) => state.failed(why, after),
        }
    }
}

enum Work {
    Deliver(u64, Arc<Alert>),
    Refresh,
}

impl State {
    fn push(&mut self, alert: &Alert) {
        let out = self.queue.push(alert.clone());
        let health = &mut self.health;
        health.superseded += out.superseded;
        if out.dropped > 0 && health.dropped == 0 {
            let (name, target) = (&health.name, &health.target);
            log::warn!(
                "notifier {name}: too many alerts wait for {target}; the oldest are dropped"
            );
        }
        health.dropped += out.dropped;
    }

    /// An incident that was told is told to its end, however harmless it becomes.
    fn accepts(&mut self, wants: &Wants, alert: &Alert) -> bool {
        let was_told = self.told.contains(&alert.id);
        let is_wanted = was_told || wants.accept(alert);
        match alert.status {
            Status::Firing if is_wanted && !was_told => {
                if self.told.len() >= MAX_TOLD {
                    self.told.pop_first();
                }
                self.told.insert(alert.id.clone());
            }
            Status::Resolved => {
                self.told.remove(&alert.id);
            }
            Status::Firing => {}
        }
        is_wanted
    }

    fn succeeded(&mut self) {
        let health = &mut self.health;
        if self.failures > 0 {
            let (name, target) = (&health.name, &health.target);
            let failures = self.failures;
            log::info!("notifier {name}: {target} takes alerts again, after {failures} failures");
        }
        health.last_error = None;
        health.last_success = Some(Timestamp::now());
        self.failures = 0;
        self.not_before = None;
    }

    fn failed(&mut self, why: String, after: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let health = &mut self.health;
        // A receiver that is down for an hour is one line, not a thousand.
        if self.failures == 1 {
            let (name, target) = (&health.name, &health.target);
            log::warn!("notifier {name}: cannot deliver to {target}: {why}; trying again");
        }
        health.failed_attempts += 1;
        health.last_error = Some(why);
        let wait = backoff::wait(self.failures, fastrand::f64(), after);
        self.not_before = Some(Instant::now() + wait);
    }
}

impl Wants {
    /// Whether an alert is wanted for what it says itself.
    #[must_use]
    pub fn accept(&self, alert: &Alert) -> bool {
        let is_any = |named: &[String]| {
            let reason = alert.labels.get("reason");
            reason.is_some_and(|reason| named.iter().any(|named| is_reason(reason, named)))
        };
        alert.severity >= self.min_severity
            && (self.only.is_empty() || is_any(&self.only))
            && !is_any(&self.except)
    }
}

#[cfg(test)]
mod tests;
