//! Delivery of alerts to people and to other programs.
//!
//! [`Notifiers::send`] puts an alert into the queue of each receiver that wants it and returns at once.
//! Each receiver has a thread that delivers, tries again and keeps count; one more thread keeps
//! the queues on disk. A receiver that is down or slow holds up nobody but itself, and so does a
//! disk. Every alert is delivered at least once, in order for each incident, unless the receiver
//! refuses it for good or so many wait that the oldest are dropped: both are counted.

mod address;
mod alertmanager;
pub(crate) mod backoff;
mod command;
pub mod config;
pub(crate) mod datagram;
mod health;
pub(crate) mod http;
mod journald;
mod keeper;
mod lane;
mod queue;
pub(crate) mod receiver;
pub(crate) mod secret;
mod spool;
mod stdout;
pub(crate) mod syslog;
mod webhook;
pub(crate) mod wording;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

pub use self::{address::Address, health::Health};
use self::{
    config::{Notifier, Place},
    keeper::Bell,
    lane::Lane,
    queue::{Keep, Queue},
    receiver::Receiver,
    spool::Spool,
};
use crate::{
    alert::Alert,
    privileges::{self, Duty},
};

/// The queues' last round on disk gets so much time, also when delivery took all there was.
const LAST_ROUND: Duration = Duration::from_millis(500);
/// Between two looks at whether all is on disk.
const PAUSE: Duration = Duration::from_millis(5);

/// All receivers, at work.
pub struct Notifiers {
    lanes: Vec<Arc<Lane>>,
    bell: Bell,
    /// Each thread holds one end; all have ended when nobody does.
    couriers: Mutex<mpsc::Receiver<()>>,
    keeper: Mutex<mpsc::Receiver<()>>,
}

impl Notifiers {
    /// Takes up what waits in `folder` and begins to deliver. Each receiver has a folder in there;
    /// without one, what waits is lost with the process.
    ///
    /// Whoever calls makes sure that nobody else uses the folder. A folder that cannot be read or
    /// written is no error: it is said once, and the queues are in memory until it can.
    pub fn start(notifiers: &[Notifier], folder: Option<&Path>) -> Result<Self> {
        let bell = Bell::default();
        let (courier_ends, couriers) = mpsc::channel();
        let (keeper_ends, keeper) = mpsc::channel();
        let mut lanes = Vec::new();
        for notifier in notifiers {
            for (index, (target, mut receiver)) in receivers(notifier).into_iter().enumerate() {
                let spool = folder.map(|folder| {
                    let suffix = if index == 0 {
                        String::new()
                    } else {
                        format!(".{}", index + 1)
                    };
                    Spool::new(folder.join(format!("{}{suffix}", notifier.name)))
                });
                let lane = Arc::new(lane(notifier, target, spool));
                lanes.push(Arc::clone(&lane));
                let (bell, end) = (bell.clone(), courier_ends.clone());
                spawn(&format!("to-{}", notifier.name), move || {
                    lane.run(&mut *receiver, &bell);
                    drop(end);
                })?;
            }
        }
        let (kept, rung) = (lanes.clone(), bell.clone());
        spawn("alert-queue", move || {
            keeper::run(&kept, &rung);
            drop(keeper_ends);
        })?;
        // Files of alerts that were dropped while reading are removed.
        bell.ring();
        Ok(Self {
            lanes,
            bell,
            couriers: Mutex::new(couriers),
            keeper: Mutex::new(keeper),
        })
    }

    /// Hands an alert to every receiver that wants it, and returns at once.
    pub fn send(&self, alert: &Alert) {
        let mut is_wanted = false;
        for lane in &self.lanes {
            is_wanted |= lane.send(alert);
        }
        if is_wanted {
            self.bell.ring();
        }
    }

    /// Takes up an incident that still lasts and was sent before turnaway restarted or its
    /// configuration changed. Whoever is told of beginnings and ends is not told again, but will be
    /// told of the end; an Alertmanager, which would forget it, is told that it lasts.
    pub fn resume(&self, alert: &Alert) {
        let mut is_wanted = false;
        for lane in &self.lanes {
            is_wanted |= lane.resume(alert);
        }
        if is_wanted {
            self.bell.ring();
        }
    }

    /// How each receiver is doing, in the order of the configuration.
    #[must_use]
    pub fn health(&self) -> Vec<Health> {
        self.lanes.iter().map(|lane| lane.health()).collect()
    }

    /// Waits until everything that was sent is delivered or on disk, so that it survives the
    /// process. False if that took longer than `patience`, or if there is no disk to keep it on.
    #[must_use]
    pub fn settle(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let is_settled = self.lanes.iter().all(|lane| {
                let state = lane.lock();
                let is_kept = lane.spool.is_some() && state.queue.is_stored();
                state.queue.is_empty() || is_kept
            });
            if is_settled || Instant::now() >= deadline {
                return is_settled;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Delivers what can still be delivered within `patience`, leaves the rest on disk, and says how
    /// it went. Takes no longer than `patience` and half a second, whatever receivers and disks do.
    #[must_use]
    pub fn stop(&self, patience: Duration) -> Vec<Health> {
        let deadline = Instant::now() + patience;
        for lane in &self.lanes {
            lane.end(deadline);
        }
        ended(&self.couriers, deadline);
        self.bell.end();
        ended(&self.keeper, deadline.max(Instant::now() + LAST_ROUND));
        self.health()
    }
}

impl Drop for Notifiers {
    fn drop(&mut self) {
        let now = Instant::now();
        for lane in &self.lanes {
            lane.end(now);
        }
        self.bell.end();
    }
}

/// Waits until nobody holds the other end.
fn ended(ends: &Mutex<mpsc::Receiver<()>>, deadline: Instant) {
    let ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
    let left = deadline.saturating_duration_since(Instant::now());
    if ends.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
        log::debug!("left behind: a thread that is still busy");
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            privileges::keep(Duty::Serve);
            body();
        })
        .with_context(|| format!("cannot start thread {name}"))?;
    Ok(())
}

fn lane(notifier: &Notifier, target: String, spool: Option<Spool>) -> Lane {
    let keep = match notifier.receiver {
        config::Receiver::Alertmanager { .. } => Keep::Newest,
        _ => Keep::Story,
    };
    let mut queue = Queue::new(keep, notifier.queue);
    let kind = notifier.receiver.kind().name();
    let mut health = Health::new(notifier.name.clone(), kind, target);
    if let Some(spool) = &spool {
        match spool.load() {
            Ok(found) => {
                health.damaged = found.damaged;
                if found.damaged > 0 {
                    let (name, damaged) = (&health.name, found.damaged);
                    log::warn!("notifier {name}: {damaged} damaged files of its queue are lost");
                }
                let out = queue.restore(found.alerts);
                health.dropped = out.dropped;
                health.superseded = out.superseded;
            }
            Err(error) => {
                let name = &health.name;
                log::warn!("notifier {name}: the queue on disk cannot be read: {error}");
                health.not_stored = Some(error.to_string());
            }
        }
    }
    Lane::new(notifier.wants.clone(), spool, queue, health)
}

/// The receivers of one notifier: several where it has several instances.
fn receivers(notifier: &Notifier) -> Vec<(String, Box<dyn Receiver>)> {
    use config::Receiver::{Alertmanager, Command, Journald, Stdout, Syslog, Webhook};

    let timeout = notifier.timeout;
    let boxed = |target: String, receiver: Box<dyn Receiver>| vec![(target, receiver)];
    match &notifier.receiver {
        Alertmanager {
            urls,
            access,
            resend,
            generator_url,
        } => urls
            .iter()
            .map(|url: &Place| {
                let client = http::Client::new(url.clone(), access, timeout);
                let receiver =
                    alertmanager::Alertmanager::new(client, *resend, generator_url.clone());
                (url.to_string(), Box::new(receiver) as Box<dyn Receiver>)
            })
            .collect(),
        Webhook { url, access, body } => {
            let client = http::Client::new(url.clone(), access, timeout);
            let receiver = webhook::Webhook::new(client, body.clone());
            boxed(url.to_string(), Box::new(receiver))
        }
        Command(words) => {
            let target = words.first().cloned().unwrap_or_default();
            boxed(
                target,
                Box::new(command::Command::new(words.clone(), timeout)),
            )
        }
        Journald(path) => boxed(
            path.display().to_string(),
            Box::new(journald::Journald::new(path.clone(), timeout)),
        ),
        Syslog(path, facility) => boxed(
            path.display().to_string(),
            Box::new(syslog::Syslog::new(path.clone(), *facility, timeout)),
        ),
        Stdout(format) => boxed("stdout".to_owned(), Box::new(stdout::Stdout::new(*format))),
    }
}

/// An alert for tests.
#[cfg(test)]
fn sample(id: &str, status: crate::alert::Status) -> Alert {
    use crate::alert::{Severity, Status};

    let time = |text: &str| text.parse().expect("a time");
    let pairs = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    Alert {
        id: id.to_owned(),
        status,
        severity: Severity::Critical,
        starts_at: time("2026-03-03T03:12:00.123456789Z"),
        ends_at: (status == Status::Resolved).then(|| time("2026-03-03T03:13:30Z")),
        updated_at: time("2026-03-03T03:13:30Z"),
        labels: pairs(&[
            ("alertname", "TurnawayAcceptEmfile"),
            ("severity", "critical"),
            ("host", "db1"),
            ("reason", "accept.emfile"),
            ("comm", "pgbouncer"),
            ("unit", "pgbouncer.service"),
            ("listener", "0.0.0.0:6432"),
        ]),
        annotations: pairs(&[
            (
                "summary",
                "pgbouncer turns clients away: 1024 of 1024 descriptors",
            ),
            ("description", "Two lines,\nof which <one> & \"quotes\""),
            ("now", "prlimit --nofile=4096 -p 17"),
            ("lasting", "LimitNOFILE=4096 in pgbouncer.service"),
        ]),
    }
}

#[cfg(test)]
mod tests;
