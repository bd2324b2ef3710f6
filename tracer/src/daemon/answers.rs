//! What the daemon says of itself to those who ask.

use std::{cmp::Reverse, time::Instant};

use super::{Daemon, Last, Looking};
use crate::{
    control::{
        Answer, HookFields, IncidentFields, Incidents, ListedSilence, LossFields, MAX_INCIDENTS,
        NotifierFields, OpenIncident, RecordingFields, ReloadFields, Reply, Request, RuleFields,
        Silenced, StateFields, Status, Unsilenced, WaitingFields,
    },
    event::Tier,
    kernel::{attach::HookStatus, plan::Target},
    notify::Health,
    observation::Listener,
    record::Percentiles,
    rules::Silence,
    text,
    top::{self, Collector, sample::RowId},
    trace::Reading,
};

/// Most incidents in a status.
const INCIDENTS: usize = 20;
/// Most listeners in a status.
const WAITING: usize = 10;
/// Longest comment of a silence, bytes, and longest text to match.
const MAX_TEXT: usize = 1024;
/// Most texts or ports in a silence.
const MAX_TEXTS: usize = 100;

impl Daemon {
    /// Keeps what a reading tells for those who ask.
    pub(super) fn remember(&mut self, reading: &Reading<'_>) {
        let last = &mut self.last;
        last.at = Some(Instant::now());
        last.events = reading.events;
        last.losses = reading.losses;
        last.output = reading.output;
        last.lag = reading.lag;
        if let Some(listeners) = &reading.listeners {
            let mut waiting: Vec<WaitingFields> = listeners
                .iter()
                .filter_map(|(one, _)| {
                    let party = one.who.party.as_ref();
                    Some(WaitingFields {
                        listener: Listener::of(one.inode, &one.listener).place()?,
                        pid: party.map(|party| party.id.pid),
                        comm: party.map(|party| text::json(&party.facts.comm)),
                        waits: Percentiles::of(one.waited.as_ref()?),
                    })
                })
                .collect();
            waiting.sort_by_key(|one| {
                let waits = one.waits;
                Reverse((waits.p99_below_ns, waits.p95_below_ns, waits.count))
            });
            waiting.truncate(WAITING);
            last.waiting = waiting;
        }
    }

    /// Does what is asked.
    pub(super) fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Top { detail } => Reply::now(self.top(detail)),
            Request::Status {} => Reply::now(Answer::Status(Box::new(self.status()))),
            Request::Incidents {} => Reply::now(Answer::Incidents(self.incidents())),
            Request::Silences {} => Reply::now(Answer::Silences(self.silences())),
            Request::Silence(silence) => self.silence(silence),
            Request::Unsilence { id } => self.unsilence(id),
        }
    }

    /// How listeners are, counted from when somebody asked first.
    fn top(&mut self, detail: Option<RowId>) -> Answer {
        if self.top.is_none() {
            self.top = match Collector::start_late(&self.host) {
                Ok(collector) => Some(Looking {
                    collector,
                    asked: Instant::now(),
                }),
                Err(error) => return Answer::Error(format!("{error:#}")),
            };
        }
        let worst = self.engine.worst(top::sample::MAX_INCIDENTS);
        let Some(top) = &mut self.top else {
            return Answer::Error("nothing is collected".to_owned());
        };
        top.asked = Instant::now();
        top.collector.want(detail);
        let mut sample = top.collector.sample();
        sample.incidents = top::incidents(worst);
        Answer::Top(Box::new(sample))
    }

    fn incidents(&self) -> Incidents {
        let firing: u64 = self.engine.firing().values().sum();
        let open = self.engine.worst(MAX_INCIDENTS);
        Incidents {
            more: firing.saturating_sub(open.len() as u64),
            pending: self.engine.pending(),
            incidents: open
                .into_iter()
                .map(|(record, silenced)| OpenIncident { silenced, record })
                .collect(),
        }
    }

    fn silences(&self) -> Vec<ListedSilence> {
        let now = jiff::Timestamp::now();
        let list = |silence: &Silence, configured| ListedSilence {
            silence: silence.clone(),
            configured,
            matches: self.engine.matched(&silence.matcher),
        };
        let given = self.engine.silences().iter();
        let configured = self.engine.rules().silences.iter();
        given
            .map(|silence| (silence, false))
            .chain(configured.map(|silence| (silence, true)))
            .filter(|(silence, _)| silence.until > now)
            .map(|(silence, configured)| list(silence, configured))
            .collect()
    }

    fn silence(&mut self, silence: Silence) -> Reply {
        if let Err(why) = check(&silence) {
            return Reply::now(Answer::Error(why));
        }
        let matches = self.engine.matched(&silence.matcher);
        if !self.engine.silence(silence.clone()) {
            let why = "there are too many silences: remove some".to_owned();
            return Reply::now(Answer::Error(why));
        }
        Reply {
            answer: Answer::Silenced(Silenced {
                silence,
                matches,
                kept: false,
            }),
            kept: Some(self.keeper.save_and_tell(self.engine.save())),
        }
    }

    fn unsilence(&mut self, id: String) -> Reply {
        if self.engine.unsilence(&id) {
            return Reply {
                answer: Answer::Unsilenced(Unsilenced { id, kept: false }),
                kept: Some(self.keeper.save_and_tell(self.engine.save())),
            };
        }
        let mut configured = self.engine.rules().silences.iter();
        let why = if configured.any(|silence| silence.id == id) {
            format!("{id} is in the configuration: take it out there, and send SIGHUP")
        } else {
            format!("there is no silence {id:?}: turnaway silence list shows all")
        };
        Reply::now(Answer::Error(why))
    }

    fn status(&self) -> Status {
        let Last {
            at,
            events,
            losses,
            output,
            lag,
            hooks,
            waiting,
        } = &self.last;
        let health = self
            .notifiers
            .as_ref()
            .map(|notifiers| notifiers.health())
            .unwrap_or_default();
        let written = self.keeper.written();
        let rules = self.engine.rules();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: self.host.clone(),
            started: self.started.wall,
            uptime_s: self.started.steady.elapsed().as_secs_f64(),
            events: *events,
            failures: self.engine.totals().sum(),
            ignored: self.engine.ignored(),
            lost: at.map(|_| LossFields {
                ring: losses.ring,
                map: losses.map,
                missed: losses.missed,
                output: *output,
            }),
            lag_s: at.map(|_| lag.as_secs_f64()),
            reading_age_s: at.map(|at| at.elapsed().as_secs_f64()),
            hooks: hooks.iter().map(hook).collect(),
            incidents: self
                .engine
                .worst(INCIDENTS)
                .into_iter()
                .map(|(record, silenced)| IncidentFields {
                    id: record.id,
                    severity: record.severity,
                    started: record.started,
                    statement: record.statement,
                    silenced,
                })
                .collect(),
            firing: self.engine.firing().values().sum(),
            pending: self.engine.pending(),
            silences: self.silences().len(),
            queued: health.iter().map(|one| one.queued).sum(),
            notifiers: health.into_iter().map(notifier).collect(),
            streams: self.streams.health(),
            state: StateFields {
                folder: written.folder,
                written: written.at,
                error: written.error,
            },
            recording: self.recorder.as_ref().map(|recorder| {
                let progress = recorder.progress();
                RecordingFields {
                    file: recorder.file.clone(),
                    written: progress.written,
                    lost: progress.lost,
                    error: progress.error,
                }
            }),
            rules: RuleFields {
                count: rules.rules.len(),
                file: self.options.config.clone(),
                read: self.read,
                reload: self
                    .refused
                    .clone()
                    .map(|(time, error)| ReloadFields { time, error }),
            },
            metrics: self
                .endpoint
                .as_ref()
                .map(|endpoint| endpoint.listen.to_string()),
            waiting: waiting.clone(),
        }
    }
}

/// Whether a silence is one; what comes from outside is bounded.
fn check(silence: &Silence) -> Result<(), String> {
    let matcher = &silence.matcher;
    let lists = [
        &matcher.reason,
        &matcher.comm,
        &matcher.unit,
        &matcher.container,
        &matcher.path,
    ];
    let texts = lists.iter().flat_map(|list| list.iter());
    let texts = texts.chain([&silence.id]).chain(&silence.comment);
    if silence.until <= jiff::Timestamp::now() {
        return Err(format!("{} is over already", silence.until));
    }
    if silence.id.is_empty() || silence.id.starts_with("config-") {
        return Err(format!("{:?} cannot be a silence's id", silence.id));
    }
    if lists.iter().any(|list| list.len() > MAX_TEXTS) || matcher.port.len() > MAX_TEXTS {
        return Err(format!("a silence has no more than {MAX_TEXTS} of a kind"));
    }
    if texts.into_iter().any(|text| text.len() > MAX_TEXT) {
        return Err(format!("a text is no longer than {MAX_TEXT} bytes"));
    }
    Ok(())
}

fn hook(status: &HookStatus) -> HookFields {
    let tier = status.attached.as_ref().map(|(tier, targets)| {
        if targets.contains(&Target::SockDiag) {
            Tier::Poll
        } else {
            *tier
        }
    });
    let refused: Vec<String> = status
        .refused
        .iter()
        .map(|(tier, why)| format!("{}: {why}", tier.name()))
        .collect();
    HookFields {
        name: status.hook.name().to_owned(),
        tier: tier.map(|tier| tier.name().to_owned()),
        detail: (!refused.is_empty()).then(|| refused.join("; ")),
    }
}

fn notifier(health: Health) -> NotifierFields {
    NotifierFields {
        name: health.name,
        kind: health.kind.to_owned(),
        target: health.target,
        delivered: health.delivered,
        failed_attempts: health.failed_attempts,
        queued: health.queued,
        dropped: health.dropped + health.refused,
        last_error: health.last_error,
        last_success: health.last_success,
        not_stored: health.not_stored,
    }
}
