//! `turnaway daemon`: what is seen becomes incidents, which are told; metrics are served.
//!
//! Everything here is shown by the run ([`crate::trace::Watcher`]) and returns at once: delivery, the
//! state on disk, recording, the metrics' endpoint and the control socket each have a thread of their own.

mod accepted;
mod answers;
mod coverage;
mod endpoint;
mod heartbeat;
mod recorder;
mod state;
mod streaming;

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use crate::{
    alert::Severity,
    attribute::Who,
    context::Explainer,
    control::{Ask, Server, Serving, WaitingFields},
    event::{Count, Failure},
    incident::{Change, Engine, Now, What},
    kernel::{attach::HookStatus, jiffies, programs::Programs, session::Losses},
    metrics::{self, Metrics, Moment, ProcessState},
    notify::Notifiers,
    observation::Observation,
    record::{AcceptedRecord, Clock, CountRecord, Event, Failures, Lost, ProgramRecord, Summary},
    replay,
    rules::{self, Configuration},
    sockets::Poll,
    stream::Streams,
    text,
    top::Collector,
    trace::{self, Reading, Watcher},
};
use accepted::Accepted;
use endpoint::Endpoint;
use heartbeat::Heartbeat;
use recorder::Recorder;
pub use recorder::Recording;
use state::{Keeper, State};

/// Of the time that the end takes, so much is kept for what was delivered to be noted on disk.
const NOTING: Duration = Duration::from_millis(600);
/// Receivers that the configuration does not name any more get so long to take what waits.
const RELOADING: Duration = Duration::from_millis(500);
/// Nobody looks on who has not asked for so long.
const LOOKING: Duration = Duration::from_secs(15);
/// The state is saved at least so often.
const SAVING: Duration = Duration::from_secs(10);

/// How the daemon runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is traced, and how the run's own summary is shown.
    pub trace: trace::Options,
    /// The configuration; `None` is none.
    pub config: Option<PathBuf>,
    /// Where incidents and what waits to be delivered are kept; `None` keeps them in memory.
    pub state: Option<PathBuf>,
    /// Where metrics are served, if not where the configuration says; `None` within is nowhere.
    pub listen: Option<Option<metrics::Listen>>,
    /// Where those who ask are answered.
    pub socket: PathBuf,
    /// Where what is seen is recorded, if anywhere.
    pub recording: Option<Recording>,
    /// Incidents are written as records.
    pub json: bool,
}

/// Runs until it is told to stop.
pub fn run(options: &Options) -> Result<()> {
    let configuration = load(options)?;
    let host = text::json(rustix::system::uname().nodename().to_bytes());
    let state = State::open(options.state.as_deref())?;
    let server = Server::bind(&options.socket)?;
    let recorder = match &options.recording {
        Some(recording) => Some(Recorder::start(recording, &host)?),
        None => None,
    };
    let engine = state.restore(&configuration.rules);
    let notifiers = Arc::new(Notifiers::start(
        &configuration.notifiers,
        state.queue().as_deref(),
    )?);
    for alert in engine.alerts() {
        notifiers.resume(&alert);
    }
    let streams = Streams::start(&configuration.streams, state.streams().as_deref())?;
    let jiffy = jiffies::length();
    let metrics = Arc::new(Metrics::new(metrics::Config {
        max_series: max_series(&configuration),
        jiffy,
        ..metrics::Config::default()
    }));
    let endpoint = match listen(options, &configuration) {
        Some(listen) => Some(Endpoint::start(&metrics, &listen)?),
        None => None,
    };
    let keeper = Keeper::start(state, Arc::clone(&notifiers))?;
    let bell = Arc::new(Notify::new());
    let (ask, asks) = mpsc::channel();
    let serving = server
        .start(ask, Arc::clone(&bell))
        .context("cannot serve the control socket")?;
    let daemon = Daemon {
        options: options.clone(),
        host,
        engine,
        explainer: Explainer::start(options.state.as_deref())?,
        notifiers: Some(notifiers),
        streams,
        heartbeat: Heartbeat::new(configuration.heartbeat),
        metrics,
        endpoint,
        keeper,
        recorder,
        accepted: Accepted::default(),
        jiffy,
        asks,
        bell,
        serving: Some(serving),
        saved: Instant::now(),
        fired: metrics::BySeverity::default(),
        started: Started::now(),
        top: None,
        read: Timestamp::now(),
        refused: None,
        last: Last::default(),
    };
    trace::run_with(&options.trace, Some(Box::new(daemon)))
}

fn load(options: &Options) -> Result<Configuration> {
    match &options.config {
        Some(path) => Ok(rules::load(path)?),
        None => Ok(Configuration::default()),
    }
}

fn max_series(configuration: &Configuration) -> usize {
    let usual = metrics::Config::default().max_series;
    configuration.max_series.unwrap_or(usual)
}

/// Where metrics are to be served, if anywhere.
fn listen(options: &Options, configuration: &Configuration) -> Option<metrics::Listen> {
    match &options.listen {
        Some(listen) => listen.clone(),
        None => Some(configuration.listen.clone().unwrap_or_default()),
    }
}

struct Daemon {
    options: Options,
    host: String,
    engine: Engine,
    explainer: Explainer,
    /// `None` once it has ended.
    notifiers: Option<Arc<Notifiers>>,
    streams: Streams,
    heartbeat: Heartbeat,
    metrics: Arc<Metrics>,
    endpoint: Option<Endpoint>,
    keeper: Keeper,
    recorder: Option<Recorder>,
    accepted: Accepted,
    /// The kernel's unit of time, if that is known.
    jiffy: Option<Duration>,
    asks: mpsc::Receiver<Ask>,
    bell: Arc<Notify>,
    /// `None` once it answers no more.
    serving: Option<Serving>,
    saved: Instant,
    fired: metrics::BySeverity,
    started: Started,
    /// What is kept for `turnaway top --attach`, while somebody looks.
    top: Option<Looking>,
    /// When the configuration was read.
    read: Timestamp,
    /// Why it was not, or not all of it, when it should have been read again.
    refused: Option<(Timestamp, String)>,
    last: Last,
}

/// What is kept for those who look on.
struct Looking {
    collector: Collector,
    /// When somebody asked last.
    asked: Instant,
}

/// When the daemon started.
struct Started {
    wall: Timestamp,
    steady: Instant,
}

impl Started {
    fn now() -> Self {
        Self {
            wall: Timestamp::now(),
            steady: Instant::now(),
        }
    }
}

/// What the last reading told, for those who ask.
#[derive(Default)]
struct Last {
    at: Option<Instant>,
    events: u64,
    losses: Losses,
    output: u64,
    lag: Duration,
    hooks: Vec<HookStatus>,
    waiting: Vec<WaitingFields>,
}

impl Daemon {
    /// Tells of what changed, and says it in lines.
    fn tell(&mut self, changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|change| {
                if change.what == What::Fired {
                    *by_severity(&mut self.fired, change.record.severity) += 1;
                }
                if let (Some(alert), Some(notifiers)) = (&change.alert, &self.notifiers) {
                    notifiers.send(alert);
                }
                streaming::incident(&mut self.streams, change);
                self.line(change)
            })
            .collect()
    }

    fn line(&self, change: &Change) -> String {
        if !self.options.json {
            let mut text = replay::text::change(change);
            text.truncate(text.trim_end().len());
            return text;
        }
        // It fails for no value that a record may have.
        serde_json::to_string(&change.record).unwrap_or_default()
    }

    fn record_programs(&mut self) {
        let now = Timestamp::now();
        for run in self.explainer.runs() {
            if let Some(recorder) = &mut self.recorder {
                recorder.record(&ProgramRecord::new(&self.host, now, run));
            }
        }
    }

    fn save(&mut self) {
        self.keeper.save(self.engine.save());
        self.saved = Instant::now();
    }

    fn metrics(&self, reading: &Reading<'_>) {
        let now = Moment::now();
        self.metrics.set_health(
            &metrics::Health {
                events: reading.events,
                losses: reading.losses,
                output: reading.output,
                recording: self
                    .recorder
                    .as_ref()
                    .map(|recorder| recorder.progress().lost),
                lag: reading.lag,
                hooks: reading.hooks,
            },
            now,
        );
        if let Some(listeners) = &reading.listeners {
            let states: Vec<_> = listeners
                .iter()
                .map(|(one, since)| metrics::ListenerState::counted(one, *since))
                .collect();
            self.metrics.set_listeners(&states, now);
        }
        let short: Vec<ProcessState> = reading
            .short
            .iter()
            .map(|short| ProcessState {
                id: short.id,
                who: short.who.clone(),
                used: Some(short.descriptors.used),
                limit: short.descriptors.limit,
            })
            .collect();
        self.metrics.set_processes(&short);
        let mut firing = metrics::BySeverity::default();
        for (severity, count) in self.engine.firing() {
            *by_severity(&mut firing, severity) = count;
        }
        self.metrics.set_incidents(metrics::Incidents {
            firing,
            pending: self.engine.pending(),
            fired: self.fired,
        });
        if let Some(notifiers) = &self.notifiers {
            let states: Vec<_> = notifiers
                .health()
                .into_iter()
                .map(|health| metrics::NotifierState {
                    name: format!("{} {}", health.name, health.target),
                    delivered: health.delivered,
                    failed: health.failed_attempts,
                    dropped: health.dropped + health.refused,
                    queued: health.queued as u64,
                })
                .collect();
            self.metrics.set_notifiers(&states);
        }
        self.metrics.set_streams(self.streams.health());
    }
}

fn by_severity(numbers: &mut metrics::BySeverity, severity: Severity) -> &mut u64 {
    match severity {
        Severity::Info => &mut numbers.info,
        Severity::Warning => &mut numbers.warning,
        Severity::Critical => &mut numbers.critical,
    }
}

/// Now, by the clocks that incidents are timed by.
pub(crate) fn now() -> Now {
    let steady = clock_gettime(ClockId::Boottime);
    Now {
        wall: Timestamp::now(),
        steady: Duration::new(
            u64::try_from(steady.tv_sec).unwrap_or(0),
            u32::try_from(steady.tv_nsec).unwrap_or(0),
        ),
    }
}

impl Watcher for Daemon {
    fn begun(&mut self, hooks: &[HookStatus]) {
        self.last.hooks = hooks.to_vec();
        // Only under systemd is there anybody to hear it.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    }

    fn programs(&mut self, programs: Programs) {
        self.explainer.programs(programs);
    }

    fn failure(&mut self, failure: &Failure, who: &Who, fd_used: Option<u64>, clock: &Clock) {
        if let Some(top) = &mut self.top {
            top.collector.failure(failure);
        }
        let seen = Observation::of_failure(&self.host, failure, who, fd_used, clock);
        self.engine.pass(now());
        self.engine.observe(&seen);
        if self.recorder.is_none() && self.streams.is_empty() {
            return;
        }
        let record = Event::new(&self.host, failure, who, fd_used, clock);
        if let Some(recorder) = &mut self.recorder {
            recorder.record(&record);
        }
        streaming::event(&mut self.streams, failure, clock, &record);
    }

    fn lasting(&mut self, failure: &Failure, who: &Who, clock: &Clock) {
        if let Some(top) = &mut self.top {
            top.collector.lasting(failure);
        }
        let seen = Observation::of_lasting(&self.host, failure, who, clock);
        self.engine.pass(now());
        self.engine.observe(&seen);
    }

    fn count(&mut self, count: &Count, who: &Who, clock: &Clock) {
        if let Some(top) = &mut self.top {
            top.collector.count(count, who);
        }
        let at = Timestamp::now();
        let seen = Observation::of_count(&self.host, at, count, who, clock);
        self.engine.pass(now());
        self.engine.observe(&seen);
        self.explainer.counted(&seen);
        self.metrics.observe_count(count, who, Moment::now());
        let reason = count.key.reason;
        self.heartbeat.count(count);
        if self.recorder.is_none() && self.streams.is_empty() {
            return;
        }
        let failures = Failures::of_count(count, who);
        let record = CountRecord::new(&self.host, at, &failures, clock);
        if let Some(recorder) = &mut self.recorder {
            recorder.hold(&record);
        }
        streaming::count(&mut self.streams, reason, at, &record);
    }

    fn looked(&mut self, poll: &Poll) {
        if let Some(top) = &mut self.top {
            top.collector.looked(poll);
        }
    }

    fn wants_all(&self) -> bool {
        self.top.is_some()
    }

    fn reading(&mut self, reading: &Reading<'_>) -> Vec<String> {
        self.top.take_if(|top| top.asked.elapsed() > LOOKING);
        if let Some(top) = &mut self.top {
            top.collector.reading(reading);
        }
        for incident in self.explainer.late() {
            self.engine.learned(&incident);
        }
        let mut changes = self.take(reading);
        self.record_programs();
        self.explainer.explain(&mut changes);
        let lines = self.tell(&changes);
        let worst = self.engine.worst(Explainer::STANDING);
        let worst: Vec<_> = worst.into_iter().map(|(record, _)| record).collect();
        self.explainer.tick(&worst);
        self.metrics(reading);
        self.beat(reading);
        if !changes.is_empty() || self.saved.elapsed() >= SAVING {
            self.save();
        }
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
        lines
    }

    fn sockets(&self) -> Vec<u64> {
        self.engine.sockets()
    }

    fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    fn asked(&mut self) {
        while let Ok(ask) = self.asks.try_recv() {
            let reply = self.answer(ask.request);
            // Whoever asked may have gone.
            let _ = ask.answer.send(reply);
        }
    }

    fn reload(&mut self) {
        let now = Timestamp::now();
        let configuration = match load(&self.options) {
            Ok(configuration) => configuration,
            Err(error) => {
                log::error!("the configuration stays as it was: {error:#}");
                self.refused = Some((now, format!("{error:#}")));
                return;
            }
        };
        self.refused = None;
        self.read = now;
        if let Err(error) = self.move_metrics(&configuration) {
            let stays = format!("metrics stay where they were: {error:#}");
            log::error!("{stays}");
            self.refused = Some((now, stays));
        }
        if let Some(before) = self.notifiers.take() {
            self.keeper.pause();
            // What waits is on disk, or goes on from memory where there is none.
            let _ = before.stop(RELOADING);
        }
        self.engine.set_rules(configuration.rules);
        match Notifiers::start(&configuration.notifiers, self.keeper.queue().as_deref()) {
            Ok(notifiers) => {
                let notifiers = Arc::new(notifiers);
                for alert in self.engine.alerts() {
                    notifiers.resume(&alert);
                }
                self.keeper.resume(Arc::clone(&notifiers));
                self.notifiers = Some(notifiers);
            }
            Err(error) => {
                let nobody = format!("nobody is notified any more: {error:#}");
                log::error!("{nobody}");
                self.refused = Some((now, nobody));
            }
        }
        self.heartbeat.set_every(configuration.heartbeat);
        if let Err(error) = self.streams.reload(&configuration.streams, RELOADING) {
            let fewer = format!("not all streams go on: {error:#}");
            log::error!("{fewer}");
            self.refused = Some((now, fewer));
        }
        log::info!("the configuration was read again");
    }

    fn reopen(&mut self) {
        self.streams.reopen();
    }

    fn end(&mut self, last: &Reading<'_>, summary: &Summary, deadline: Instant) -> Vec<String> {
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
        self.serving = None;
        let mut changes = self.take(last);
        self.explainer.explain(&mut changes);
        let lines = self.tell(&changes);
        self.save();
        // Both go on meanwhile.
        self.keeper.close();
        self.explainer.stop();
        let delivering = deadline
            .saturating_duration_since(Instant::now())
            .saturating_sub(NOTING);
        // They share the time, and each has its own threads.
        self.finish(summary, Instant::now() + delivering / 2);
        let delivering = deadline
            .saturating_duration_since(Instant::now())
            .saturating_sub(NOTING);
        if let Some(notifiers) = self.notifiers.take() {
            for health in notifiers.stop(delivering) {
                if let Some(error) = &health.last_error {
                    log::warn!("{} ({}): {error}", health.name, health.target);
                }
            }
        }
        self.keeper.wait(deadline);
        if let Some(recorder) = &mut self.recorder {
            let lost = Lost {
                ring: last.losses.ring,
                map: last.losses.map,
                missed: last.losses.missed,
                output: 0,
            };
            recorder.end(lost, deadline);
        }
        lines
    }
}

impl Daemon {
    /// Takes a reading in; returns what became of incidents.
    fn take(&mut self, reading: &Reading<'_>) -> Vec<Change> {
        let now = now();
        let accepts = reading.see.accepts;
        self.engine.sees_accepted(accepts);
        let engine = &self.engine;
        let grown = self
            .accepted
            .grow(reading, self.jiffy, now.wall, |netns, inode| {
                engine.wants_accepted(netns, inode)
            });
        let mut records = Vec::new();
        for growth in grown {
            let listener = (growth.inode, &growth.listener);
            if self.recorder.is_some() {
                let waits = growth.waits.as_ref();
                let record =
                    AcceptedRecord::new(&self.host, now.wall, listener, growth.count, waits);
                records.push(recorder::line(&record));
            }
            let seen = Observation::of_accepted(
                &self.host,
                now.wall,
                listener,
                growth.count,
                growth.waits.clone(),
            );
            self.engine.observe(&seen);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.reading(records, accepts);
        }
        self.remember(reading);
        self.engine.tick(now)
    }

    /// Serves metrics where the configuration says now, and no more of them than it says.
    fn move_metrics(&mut self, configuration: &Configuration) -> Result<()> {
        self.metrics.set_max_series(max_series(configuration));
        let wanted = listen(&self.options, configuration);
        if wanted.as_ref() == self.endpoint.as_ref().map(|endpoint| &endpoint.listen) {
            return Ok(());
        }
        // The new one first: where it cannot be, the old one stays.
        self.endpoint = match wanted {
            Some(listen) => Some(Endpoint::start(&self.metrics, &listen)?),
            None => None,
        };
        Ok(())
    }
}
