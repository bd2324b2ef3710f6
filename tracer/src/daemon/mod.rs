//! `turnaway daemon`: what is seen becomes incidents, which are told; metrics are served.
//!
//! Everything here is shown by the run ([`crate::trace::Watcher`]) and returns at once: delivery, the
//! state on disk and the metrics' endpoint each have a thread of their own.

mod state;

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    alert::Severity,
    attribute::Who,
    context::Explainer,
    event::{Count, Failure},
    incident::{Change, Engine, Now, What},
    kernel::{jiffies, programs::Programs},
    metrics::{self, Metrics, Moment},
    notify::Notifiers,
    observation::Observation,
    record::Clock,
    replay,
    rules::{self, Configuration},
    text,
    trace::{self, Reading, Watcher},
};
use state::{Keeper, State};

/// How long what waits may take to be delivered at the end.
const FAREWELL: Duration = Duration::from_secs(4);
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
    /// Incidents are written as records.
    pub json: bool,
}

/// Runs until it is told to stop.
pub fn run(options: &Options) -> Result<()> {
    let configuration = load(options)?;
    let state = State::open(options.state.as_deref())?;
    let engine = state.restore(&configuration.rules);
    let notifiers = Arc::new(Notifiers::start(
        &configuration.notifiers,
        state.queue().as_deref(),
    )?);
    for alert in engine.alerts() {
        notifiers.resume(&alert);
    }
    let metrics = Arc::new(Metrics::new(metrics::Config {
        max_series: configuration
            .max_series
            .unwrap_or(metrics::Config::default().max_series),
        jiffy: jiffies::length(),
        ..metrics::Config::default()
    }));
    let listen = match options.listen.clone() {
        Some(listen) => listen,
        None => Some(configuration.listen.unwrap_or_default()),
    };
    if let Some(listen) = listen {
        serve(Arc::clone(&metrics), &listen)?;
    }
    let keeper = Keeper::start(state, Arc::clone(&notifiers))?;
    let daemon = Daemon {
        options: options.clone(),
        host: text::json(rustix::system::uname().nodename().to_bytes()),
        engine,
        explainer: Explainer::start(options.state.as_deref())?,
        notifiers: Some(notifiers),
        metrics,
        keeper,
        saved: Instant::now(),
        fired: metrics::BySeverity::default(),
    };
    trace::run_with(&options.trace, Some(Box::new(daemon)))
}

fn load(options: &Options) -> Result<Configuration> {
    match &options.config {
        Some(path) => Ok(rules::load(path)?),
        None => Ok(Configuration::default()),
    }
}

/// Serves metrics from a thread of its own: a scrape takes no time of the capture's.
fn serve(metrics: Arc<Metrics>, listen: &metrics::Listen) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the metrics' runtime")?;
    let server = {
        let _entered = runtime.enter();
        metrics::Server::bind(listen)?
    };
    thread::Builder::new()
        .name("turnaway-metrics".to_owned())
        .spawn(move || runtime.block_on(server.run(metrics)))
        .context("cannot start a thread to serve metrics")?;
    Ok(())
}

struct Daemon {
    options: Options,
    host: String,
    engine: Engine,
    explainer: Explainer,
    /// `None` once it has ended.
    notifiers: Option<Arc<Notifiers>>,
    metrics: Arc<Metrics>,
    keeper: Keeper,
    saved: Instant,
    fired: metrics::BySeverity,
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
        let mut firing = metrics::BySeverity::default();
        for incident in self.engine.incidents() {
            *by_severity(&mut firing, incident.severity) += 1;
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
    }
}

fn by_severity(numbers: &mut metrics::BySeverity, severity: Severity) -> &mut u64 {
    match severity {
        Severity::Info => &mut numbers.info,
        Severity::Warning => &mut numbers.warning,
        Severity::Critical => &mut numbers.critical,
    }
}

fn now() -> Now {
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
    fn begun(&mut self) {
        // Only under systemd is there anybody to hear it.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    }

    fn programs(&mut self, programs: Programs) {
        self.explainer.programs(programs);
    }

    fn failure(&mut self, failure: &Failure, who: &Who, clock: &Clock) {
        let seen = Observation::of_failure(&self.host, failure, who, None, clock);
        self.engine.observe(&seen);
    }

    fn lasting(&mut self, failure: &Failure, who: &Who, clock: &Clock) {
        let seen = Observation::of_lasting(&self.host, failure, who, clock);
        self.engine.observe(&seen);
    }

    fn count(&mut self, count: &Count, who: &Who, clock: &Clock) {
        let seen = Observation::of_count(&self.host, Timestamp::now(), count, who, clock);
        self.engine.observe(&seen);
        self.explainer.counted(&seen);
        self.metrics.observe_count(count, who, Moment::now());
    }

    fn reading(&mut self, reading: &Reading<'_>) -> Vec<String> {
        let mut changes = self.engine.tick(now());
        self.explainer.explain(&mut changes);
        let lines = self.tell(&changes);
        self.explainer.tick(&self.engine.incidents());
        self.metrics(reading);
        if !changes.is_empty() || self.saved.elapsed() >= SAVING {
            self.save();
        }
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
        lines
    }

    fn reload(&mut self) {
        let configuration = match load(&self.options) {
            Ok(configuration) => configuration,
            Err(error) => {
                log::error!("the configuration stays as it was: {error:#}");
                return;
            }
        };
        if let Some(before) = self.notifiers.take() {
            self.keeper.pause();
            match Arc::try_unwrap(before) {
                // What waits is on disk, or goes on from memory where there is none.
                Ok(before) => drop(before.stop(Duration::from_millis(500))),
                Err(before) => self.notifiers = Some(before),
            }
        }
        self.engine.set_rules(configuration.rules);
        if self.notifiers.is_none() {
            match Notifiers::start(&configuration.notifiers, self.keeper.queue().as_deref()) {
                Ok(notifiers) => {
                    let notifiers = Arc::new(notifiers);
                    for alert in self.engine.alerts() {
                        notifiers.resume(&alert);
                    }
                    self.keeper.resume(Arc::clone(&notifiers));
                    self.notifiers = Some(notifiers);
                }
                Err(error) => log::error!("nobody is notified any more: {error:#}"),
            }
        }
        log::info!("the configuration was read again");
    }

    fn end(&mut self) -> Vec<String> {
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
        let mut changes = self.engine.tick(now());
        self.explainer.explain(&mut changes);
        let lines = self.tell(&changes);
        self.save();
        self.keeper.stop();
        self.explainer.stop();
        if let Some(notifiers) = self.notifiers.take()
            && let Ok(notifiers) = Arc::try_unwrap(notifiers)
        {
            for health in notifiers.stop(FAREWELL) {
                if let Some(error) = &health.last_error {
                    log::warn!("{} ({}): {error}", health.name, health.target);
                }
            }
        }
        lines
    }
}
