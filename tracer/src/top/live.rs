//! Hooks of its own.

use std::{
    sync::{
        Arc,
        mpsc::{self, SyncSender, TrySendError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use jiff::Timestamp;
use tokio::sync::Notify;

use super::{
    Collector, Link, Options, Update,
    batch::Batch,
    sample::{IncidentSample, MAX_INCIDENTS},
    screen,
};
use crate::{
    attribute::Who,
    daemon,
    event::{Count, Failure},
    incident::{Engine, IncidentRecord},
    kernel::attach::HookStatus,
    observation::{Code, Observation},
    record::{Clock, Summary},
    rules::Configuration,
    sockets::Poll,
    text,
    trace::{self, Reading, Watcher},
};

/// Samples that may wait for a terminal.
const WAITING: usize = 4;
/// Most exemplars that incidents are made of in a second, beside counts.
const EXEMPLARS: u32 = 200;
/// How long the screen may take to give the terminal back.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn run(options: &Options) -> Result<()> {
    let host = text::json(rustix::system::uname().nodename().to_bytes());
    let link = Arc::new(Link::default());
    let (outcome, ended) = mpsc::channel();
    let live = Live {
        collector: Collector::start(&host)?,
        engine: Engine::new(Configuration::default().rules),
        host,
        told: 0,
        link: Arc::clone(&link),
        show: match options.tables {
            Some(tables) => Show::Batch(Box::new(Batch::new(options, tables))),
            None => Show::Screen(None),
        },
        options: options.clone(),
        outcome,
    };
    screen::guard();
    let traced = trace::run_with(&options.trace, Some(Box::new(live)));
    screen::restore();
    traced?;
    match ended.try_recv() {
        Ok(outcome) => outcome,
        Err(_) => Ok(()),
    }
}

/// The screen's thread.
struct Screen {
    samples: SyncSender<Update>,
    thread: JoinHandle<Result<()>>,
}

enum Show {
    /// `None` before hooks are in place.
    Screen(Option<Screen>),
    Batch(Box<Batch>),
}

/// Shows what a run sees.
struct Live {
    collector: Collector,
    engine: Engine,
    host: String,
    /// Exemplars that were shown to the engine since the last reading.
    told: u32,
    link: Arc<Link>,
    show: Show,
    options: Options,
    /// What became of the screen.
    outcome: mpsc::Sender<Result<()>>,
}

impl Live {
    fn observe(&mut self, seen: &Observation) {
        self.engine.pass(daemon::now());
        self.engine.observe(seen);
    }

    fn incidents(&mut self) -> Vec<IncidentSample> {
        // What changed is in what there is.
        let _ = self.engine.tick(daemon::now());
        incidents(self.engine.worst(MAX_INCIDENTS))
    }
}

/// Incidents as samples have them.
pub(crate) fn incidents(worst: Vec<(IncidentRecord, bool)>) -> Vec<IncidentSample> {
    let safe = |text: &str| text::terminal(text.as_bytes());
    worst
        .into_iter()
        .map(|(record, silenced)| IncidentSample {
            severity: record.severity.name().to_owned(),
            started: record.started,
            statement: safe(&record.statement),
            silenced,
            reasons: record
                .reasons
                .iter()
                .map(|one| (one.reason.clone(), one.count))
                .collect(),
            timeline: record
                .timeline
                .iter()
                .map(|one| (one.time, safe(&one.text)))
                .collect(),
            id: record.id,
        })
        .collect()
}

impl Watcher for Live {
    fn begun(&mut self, _hooks: &[HookStatus]) {
        self.collector.begin();
        if let Show::Screen(screen) = &mut self.show {
            let (samples, updates) = mpsc::sync_channel(WAITING);
            match screen::start(self.options.clone(), Arc::clone(&self.link), updates) {
                Ok(thread) => *screen = Some(Screen { samples, thread }),
                Err(error) => {
                    let _ = self.outcome.send(Err(error));
                    self.link.end();
                }
            }
        }
    }

    fn failure(&mut self, failure: &Failure, who: &Who, fd_used: Option<u64>, clock: &Clock) {
        self.collector.failure(failure);
        // They say more of what is counted anyway.
        self.told += 1;
        if self.told > EXEMPLARS && !Code::from(failure.key.reason).lasts() {
            return;
        }
        let seen = Observation::of_failure(&self.host, failure, who, fd_used, clock);
        self.observe(&seen);
    }

    fn lasting(&mut self, failure: &Failure, who: &Who, clock: &Clock) {
        self.collector.lasting(failure);
        let seen = Observation::of_lasting(&self.host, failure, who, clock);
        self.observe(&seen);
    }

    fn count(&mut self, count: &Count, who: &Who, clock: &Clock) {
        self.collector.count(count, who);
        let seen = Observation::of_count(&self.host, Timestamp::now(), count, who, clock);
        self.observe(&seen);
    }

    fn looked(&mut self, poll: &Poll) {
        self.collector.looked(poll);
    }

    fn reading(&mut self, reading: &Reading<'_>) -> Vec<String> {
        self.told = 0;
        self.collector.reading(reading);
        self.collector.want(self.link.wanted());
        let mut sample = self.collector.sample();
        sample.incidents = self.incidents();
        match &mut self.show {
            Show::Screen(Some(screen)) => {
                match screen.samples.try_send(Update::Sample(Box::new(sample))) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => self.collector.skipped(),
                    // It has ended, and says why at the end.
                    Err(TrySendError::Disconnected(_)) => self.link.end(),
                }
                Vec::new()
            }
            Show::Screen(None) => Vec::new(),
            Show::Batch(batch) => {
                let text = batch.take(sample);
                if batch.is_over() {
                    self.link.end();
                }
                text.into_iter().collect()
            }
        }
    }

    fn sockets(&self) -> Vec<u64> {
        Vec::new()
    }

    fn wants_all(&self) -> bool {
        true
    }

    fn has_terminal(&self) -> bool {
        true
    }

    fn done(&self) -> bool {
        self.link.is_done()
    }

    fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.link.bell)
    }

    fn asked(&mut self) {
        self.collector.want(self.link.wanted());
        self.collector.ask();
    }

    /// The terminal has gone.
    fn reload(&mut self) {
        self.link.end();
    }

    fn end(&mut self, _: &Reading<'_>, _: &Summary, _: Instant) -> Vec<String> {
        self.link.end();
        if let Show::Screen(screen) = &mut self.show
            && let Some(Screen { samples, thread }) = screen.take()
        {
            drop(samples);
            let _ = self.outcome.send(ended(thread));
        }
        Vec::new()
    }
}

/// Waits for the screen to end; one whose terminal hangs is left behind.
fn ended(thread: JoinHandle<Result<()>>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !thread.is_finished() {
        if Instant::now() > deadline {
            bail!("the terminal does not take what is written to it");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    match thread.join() {
        Ok(outcome) => outcome,
        // What it said is on stderr.
        Err(_) => bail!("the screen ended by a defect of turnaway"),
    }
}
