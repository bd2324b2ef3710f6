//! Metrics for Prometheus: what was counted, how queues are, and how turnaway itself is.
//!
//! Whoever captures tells [`Metrics`] what it knows; that takes a lock for a moment and never
//! waits for a reader. [`Metrics::serve`] answers those who ask. `docs/metrics.md` documents
//! every metric.

mod accept;
mod encode;
mod label;
mod listeners;
mod own;
mod server;
mod streams;
mod table;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;
use turnaway_common::Reason;

use crate::{
    alert::Severity,
    attribute::Who,
    event::{Count, ProcessId, Tier},
    kernel::{
        attach::HookStatus,
        plan::{HookName, Target},
        session::Losses,
    },
    stream,
};
use listeners::Listeners;
use table::Table;

pub use accept::Format;
pub use listeners::ListenerState;
#[cfg(any(test, fuzzing))]
pub(crate) use server::connection;
pub use server::{Listen, Server};

/// The value of every label of the series that takes what there was no room for.
pub const OTHER: &str = "other";
/// Where metrics are served if nobody says otherwise.
pub const PORT: u16 = 9754;

/// How much is kept, and when turnaway is ready.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most sets of labels in a family; what more there is goes into [`OTHER`].
    pub max_series: usize,
    /// How long failures are shown of what fails no more.
    pub keep_failures: Duration,
    /// How long is shown what was counted for a listener that is gone.
    pub keep_listeners: Duration,
    /// From this long without a reading of the counters, turnaway is not ready.
    pub ready_within: Duration,
    /// The kernel's unit of time, without which waits are unknown
    /// ([`crate::kernel::jiffies::length`]).
    pub jiffy: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_series: 2000,
            keep_failures: Duration::from_hours(24),
            keep_listeners: Duration::from_mins(5),
            ready_within: Duration::from_secs(10),
            jiffy: None,
        }
    }
}

/// A process that has, or may soon have, too few descriptors.
#[derive(Clone, Debug)]
pub struct ProcessState {
    /// Which.
    pub id: ProcessId,
    /// Its name and its unit are taken from this.
    pub who: Who,
    /// Open descriptors.
    pub used: Option<u64>,
    /// Its soft limit; `None` where it has none, or it is not known.
    pub limit: Option<u64>,
}

/// A number for each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BySeverity {
    /// [`Severity::Info`].
    pub info: u64,
    /// [`Severity::Warning`].
    pub warning: u64,
    /// [`Severity::Critical`].
    pub critical: u64,
}

impl BySeverity {
    fn each(self) -> [(Severity, u64); 3] {
        [
            (Severity::Info, self.info),
            (Severity::Warning, self.warning),
            (Severity::Critical, self.critical),
        ]
    }
}

/// Incidents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incidents {
    /// Those that are firing now.
    pub firing: BySeverity,
    /// Those that may soon.
    pub pending: u64,
    /// All that ever began to fire since the start.
    pub fired: BySeverity,
}

/// What became of notifications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifierState {
    /// The notifier's name in the configuration.
    pub name: String,
    /// Notifications that arrived.
    pub delivered: u64,
    /// Attempts that failed; each is tried again.
    pub failed: u64,
    /// Notifications that were given up.
    pub dropped: u64,
    /// Notifications that wait.
    pub queued: u64,
}

/// How capturing goes.
#[derive(Clone, Copy, Debug)]
pub struct Health<'a> {
    /// Exemplars that were taken from the ring.
    pub events: u64,
    /// What was not seen or not kept.
    pub losses: Losses,
    /// Records that were not written since the reader was too slow.
    pub output: u64,
    /// Records that were not written to a file (`--record`); `None` where none is.
    pub recording: Option<u64>,
    /// How late the last reading of the counters was.
    pub lag: Duration,
    /// What became of each hook.
    pub hooks: &'a [HookStatus],
}

/// When something is.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For how long ago something was.
    pub monotonic: Instant,
    /// For people and for Prometheus.
    pub wall: SystemTime,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// All metrics of a daemon.
#[derive(Debug)]
pub struct Metrics {
    config: Config,
    state: Mutex<State>,
}

/// What names failures.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FailureLabels {
    reason: Reason,
    comm: Arc<str>,
    unit: Arc<str>,
    port: Arc<str>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    count: u64,
    last: SystemTime,
}

impl Failed {
    fn add(&mut self, count: u64, now: SystemTime) {
        self.count = self.count.saturating_add(count);
        self.last = self.last.max(now);
    }
}

#[derive(Clone, Debug)]
struct Descriptors {
    pid: Arc<str>,
    comm: Arc<str>,
    unit: Arc<str>,
    used: Option<u64>,
    limit: Option<u64>,
}

/// What became of a hook.
#[derive(Clone, Debug)]
struct HookState {
    hook: HookName,
    tier: Option<Tier>,
    /// Why it is not in place.
    refused: Option<String>,
}

#[derive(Clone, Debug)]
struct OwnHealth {
    events: u64,
    losses: Losses,
    output: u64,
    recording: Option<u64>,
    lag: Duration,
    hooks: Vec<HookState>,
    read: Instant,
}

/// Everything; a copy of it is what a reader gets.
#[derive(Clone, Debug)]
struct State {
    max_series: usize,
    failures: Table<Arc<FailureLabels>, Failed>,
    other_failures: BTreeMap<Reason, Failed>,
    listeners: Listeners,
    processes: Vec<Descriptors>,
    processes_dropped: u64,
    incidents: Option<Incidents>,
    notifiers: BTreeMap<Arc<str>, NotifierState>,
    streams: Vec<stream::Health>,
    health: Option<OwnHealth>,
    /// When this process started.
    started: Option<SystemTime>,
}

impl Metrics {
    /// Metrics of a daemon that starts now.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let state = State {
            max_series: config.max_series,
            failures: Table::new(config.max_series),
            other_failures: BTreeMap::new(),
            listeners: Listeners::new(config.max_series, config.jiffy),
            processes: Vec::new(),
            processes_dropped: 0,
            incidents: None,
            notifiers: BTreeMap::new(),
            streams: Vec::new(),
            health: None,
            started: own::started(SystemTime::now()),
        };
        Self {
            config,
            state: Mutex::new(state),
        }
    }

    /// Adds the growth of a counter.
    pub fn observe_count(&self, count: &Count, who: &Who, now: Moment) {
        let reason = count.key.reason;
        let port = if reason.is_of_connect() {
            count.key.target.and_then(|target| target.port())
        } else {
            label::port(&count.listener)
        };
        let labels = Arc::new(FailureLabels {
            reason,
            comm: label::comm(who),
            unit: label::unit(who),
            port: port.map(|port| port.to_string()).unwrap_or_default().into(),
        });
        let none = || Failed {
            count: 0,
            last: now.wall,
        };
        let keep = self.config.keep_failures;
        let mut state = self.state();
        let state = &mut *state;
        let failed = state
            .failures
            .row(labels, now.monotonic, keep, none)
            .unwrap_or_else(|| state.other_failures.entry(reason).or_insert_with(none));
        failed.add(count.count, now.wall);
    }

    /// Tells all listeners as they are now: those that are left out are gone.
    pub fn set_listeners(&self, listeners: &[ListenerState], now: Moment) {
        let keep = self.config.keep_listeners;
        self.state().listeners.set(listeners, now.monotonic, keep);
    }

    /// Tells all processes whose descriptors are of interest, those of most interest first.
    pub fn set_processes(&self, processes: &[ProcessState]) {
        let mut rows: Vec<Descriptors> = processes
            .iter()
            .map(|process| Descriptors {
                pid: process.id.pid.to_string().into(),
                comm: label::comm(&process.who),
                unit: label::unit(&process.who),
                used: process.used,
                limit: process.limit,
            })
            .collect();
        let mut state = self.state();
        let rest = rows.split_off(rows.len().min(state.max_series));
        if !rest.is_empty() {
            state.processes_dropped += rest.len() as u64;
            let sum = |field: fn(&Descriptors) -> Option<u64>| rest.iter().map(field).sum();
            let other: Arc<str> = OTHER.into();
            rows.push(Descriptors {
                pid: other.clone(),
                comm: other.clone(),
                unit: other,
                used: sum(|row| row.used),
                limit: sum(|row| row.limit),
            });
        }
        state.processes = rows;
    }

    /// From now on there are no more sets of labels in a family than that. What has series keeps
    /// them until they end.
    pub fn set_max_series(&self, most: usize) {
        let mut state = self.state();
        state.max_series = most;
        state.failures.set_most(most);
        state.listeners.set_most(most);
    }

    /// Tells what incidents there are.
    pub fn set_incidents(&self, incidents: Incidents) {
        self.state().incidents = Some(incidents);
    }

    /// Tells how sinks of records are. Those that are left out are gone.
    pub fn set_streams(&self, streams: Vec<stream::Health>) {
        self.state().streams = streams;
    }

    /// Tells what became of notifications. A notifier that is left out stays as it was.
    pub fn set_notifiers(&self, notifiers: &[NotifierState]) {
        let mut state = self.state();
        for notifier in notifiers {
            let name = label::clean(notifier.name.as_bytes());
            let known = state.notifiers.entry(name).or_default();
            // One that was started anew counts from zero.
            known.delivered = known.delivered.max(notifier.delivered);
            known.failed = known.failed.max(notifier.failed);
            known.dropped = known.dropped.max(notifier.dropped);
            known.queued = notifier.queued;
        }
    }

    /// Tells how capturing goes, after each reading of the counters.
    pub fn set_health(&self, health: &Health<'_>, now: Moment) {
        let hooks = health.hooks.iter().map(HookState::of).collect();
        let mut state = self.state();
        state.health = Some(OwnHealth {
            events: health.events,
            losses: health.losses,
            output: health.output,
            recording: health.recording,
            lag: health.lag,
            hooks,
            read: now.monotonic,
        });
    }

    /// Whether failures are being captured; if not, why, in words.
    pub fn readiness(&self, now: Instant) -> Result<(), String> {
        let state = self.state();
        let Some(health) = &state.health else {
            return Err("hooks are not in place yet".to_owned());
        };
        let blind = |hook: &&HookState| hook.tier.is_none();
        let all = !health.hooks.is_empty() && health.hooks.iter().all(|hook| blind(&hook));
        // As `trace` does: one that is blind to its main job is not ready.
        if let Some(hook) = health
            .hooks
            .iter()
            .find(|hook| blind(hook) && (all || hook.hook == HookName::Accept))
        {
            let why = hook
                .refused
                .as_deref()
                .unwrap_or("no way to attach it here");
            return Err(format!("hook {} is not in place: {why}", hook.hook.name()));
        }
        let age = now.saturating_duration_since(health.read);
        if age > self.config.ready_within {
            return Err(format!(
                "counters were last read {:.1} s ago, which should be no more than {:.1} s",
                age.as_secs_f64(),
                self.config.ready_within.as_secs_f64()
            ));
        }
        Ok(())
    }

    /// All metrics as text.
    pub fn render(&self, format: Format, now: Moment) -> Result<String> {
        let snapshot = {
            let mut state = self.state();
            let keep = self.config.keep_failures;
            state.failures.forget(now.monotonic, keep);
            state.clone()
        };
        encode::encode(snapshot, format, now)
    }

    /// Serves metrics until it is dropped. Errors only if it cannot listen there.
    pub async fn serve(self: Arc<Self>, listen: Listen) -> Result<()> {
        Server::bind(&listen)?.run(self).await;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HookState {
    fn of(status: &HookStatus) -> Self {
        let tier = status.attached.as_ref().map(|(tier, targets)| {
            if targets.contains(&Target::SockDiag) {
                Tier::Poll
            } else {
                *tier
            }
        });
        let refused = status
            .refused
            .iter()
            .map(|(tier, why)| format!("{}: {why}", tier.name()))
            .collect::<Vec<String>>()
            .join("; ");
        Self {
            hook: status.hook,
            tier,
            refused: (!refused.is_empty()).then_some(refused),
        }
    }
}
