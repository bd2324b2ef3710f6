//! One incident: what it is of, what came of it, whether it is told.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{cause, keys::Key, window::Window};
use crate::{
    alert::Severity,
    observation::{Code, Fd, Kind, Listener, Observation, Process},
    record::Waits,
    rules::{Matcher, Rule, Rules, Subject},
};

/// Most listeners, processes and clients of one incident that are told apart.
const MAX_NAMED: usize = 64;
/// Most lines of a timeline; the last is kept for the end.
const MAX_TIMELINE: usize = 200;
/// Most keys that one incident is known by.
const MAX_KEYS: usize = 512;
/// Most reasons of one incident; there are fewer unless records are made up.
const MAX_REASONS: usize = 64;
/// How long a state is believed that is told again and again, or was when turnaway ended.
const BELIEVED: Duration = Duration::from_secs(30);
/// Starts of one process, told by two clocks that were read apart, differ by less.
const SAME_START: SignedDuration = SignedDuration::from_secs(2);
/// The most that a time to resolve is stretched to.
const MAX_RESOLVE: Duration = Duration::from_hours(1);

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Something is there, and not enough yet.
    Pending,
    /// It is told.
    Firing,
    /// It is over.
    Resolved,
}

/// Who turns connections away, or cannot connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// The process that was seen first, with the most that became known of it.
    pub process: Option<Process>,
    /// All of them: pid and start.
    pub processes: Vec<(u32, Option<Timestamp>)>,
    /// The network namespace, where it is about that as a whole.
    pub netns: Option<u32>,
    /// It is a client: what it cannot connect to.
    pub target: Option<String>,
    /// It is a client.
    pub is_client: bool,
}

/// A listener of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where, and its queue when it was fullest.
    pub listener: Listener,
}

/// What one reason came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonTotal {
    /// Failures by exact counters.
    pub count: u64,
    /// Failures that were seen one by one, which are or will be among those.
    pub exemplars: u64,
    /// First of them.
    pub first: Timestamp,
    /// Last of them.
    pub last: Timestamp,
    /// Only the sum over several listeners is exact.
    pub approximate: bool,
}

impl ReasonTotal {
    /// Failures, those included whose count has not come yet.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.count.max(self.exemplars)
    }
}

/// A client of this host that did not get through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sufferer {
    /// Who.
    pub process: Process,
    /// What came of it.
    pub total: ReasonTotal,
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When.
    pub time: Timestamp,
    /// Which reason it is of.
    pub reason: Option<Code>,
    /// What happened, in words.
    pub text: String,
}

/// A rule that is about it, and where that stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) rule: String,
    window: Window,
    seen: Duration,
    held_since: Option<Duration>,
    held: Option<Duration>,
    pub(super) firing: bool,
}

/// A state that lasts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Level {
    reason: Code,
    of: Key,
    since: Duration,
    seen: Duration,
    /// It is told again while it lasts, so that silence means its end.
    repeated: bool,
    /// It was there before a restart and has not been seen since.
    unconfirmed: bool,
    rules: Vec<String>,
}

/// An incident while it lasts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Identifies it.
    pub id: String,
    /// Its host.
    pub host: String,
    /// Where it stands.
    pub state: State,
    /// The worst of the rules that held.
    pub severity: Severity,
    /// Whose it is.
    pub victim: Victim,
    /// When it began.
    pub started: Timestamp,
    /// The last that was seen of it.
    pub last: Timestamp,
    /// When it was first told.
    pub fired: Option<Timestamp>,
    /// The incident of the same victim that ended shortly before.
    pub again_of: Option<String>,
    /// Its reasons.
    pub reasons: BTreeMap<Code, ReasonTotal>,
    /// Its listeners.
    pub places: Vec<Place>,
    /// Clients that did not get through.
    pub sufferers: Vec<Sufferer>,
    /// Failures of further clients.
    pub others_suffered: u64,
    /// What happened, in order.
    pub timeline: Vec<Told>,
    /// Lines that there was no room for.
    pub untold: u64,
    /// Descriptors of its process.
    pub fd: Fd,
    /// The longest that was waited, or that nobody accepted.
    pub waited: Option<Duration>,
    /// How long connections waited that were accepted meanwhile at its listeners.
    #[serde(default)]
    pub waits: Option<Waits>,
    pub(super) watches: Vec<Watch>,
    levels: Vec<Level>,
    pub(super) keys: Vec<Key>,
    pub(super) touched: Duration,
    /// How often it came back lately: each time it takes longer to be over.
    pub(super) flaps: u32,
    /// What was told of it.
    pub(super) notice: Notice,
}

/// What was told of an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Notice {
    /// Labels as they were told.
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) severity: Option<Severity>,
    pub(super) at: Duration,
    pub(super) times: u32,
    /// Reasons and sufferers then.
    pub(super) parts: usize,
    /// More was learned of it since.
    #[serde(default)]
    pub(super) learned: bool,
}

impl Episode {
    pub(super) fn new(id: String, seen: &Observation, as_client: bool, now: Duration) -> Self {
        let mut victim = Victim {
            netns: seen.netns,
            is_client: as_client,
            ..Victim::default()
        };
        if as_client {
            victim.target = seen.peer.as_ref().and_then(crate::observation::Peer::place);
        }
        Self {
            id,
            host: seen.host.clone(),
            state: State::Pending,
            severity: Severity::Info,
            victim,
            started: seen.first(),
            last: seen.last(),
            fired: None,
            again_of: None,
            reasons: BTreeMap::new(),
            places: Vec::new(),
            sufferers: Vec::new(),
            others_suffered: 0,
            timeline: Vec::new(),
            untold: 0,
            fd: Fd::default(),
            waited: None,
            waits: None,
            watches: Vec::new(),
            levels: Vec::new(),
            keys: Vec::new(),
            touched: now,
            flaps: 0,
            notice: Notice::default(),
        }
    }

    /// Whether a process can be one of it: a reused pid is another.
    pub(super) fn may_be(&self, process: &Process) -> bool {
        self.victim
            .processes
            .iter()
            .filter(|(pid, _)| *pid == process.pid)
            .all(|(_, start)| same_start(*start, process.start_time))
    }

    /// Adds what was seen; returns keys by which it is not known yet.
    pub(super) fn note(&mut self, seen: &Observation, keys: &[Key], rules: &Rules, now: Duration) {
        self.touched = now;
        self.started = self.started.min(seen.first());
        // That a state lasts is of account for as long as the state is.
        if seen.kind != Kind::Lasting {
            self.last = self.last.max(seen.last());
        }
        for key in keys {
            if self.keys.len() < MAX_KEYS && !self.keys.contains(key) {
                self.keys.push(key.clone());
            }
        }
        let suffers = seen.reason.is_of_client() && !self.victim.is_client;
        if suffers {
            self.suffer(seen);
        } else {
            self.identify(seen);
        }
        self.listen(seen);
        self.count(seen, suffers);
        self.last_or_end(seen, keys, rules, now);
        let rules = rules.about(seen);
        if seen.kind != Kind::Ended {
            for rule in rules {
                self.watch(rule, seen, now);
            }
        }
    }

    fn watch(&mut self, rule: &Rule, seen: &Observation, now: Duration) {
        let at = self
            .watches
            .iter()
            .position(|watch| watch.rule == rule.name);
        let at = at.unwrap_or_else(|| {
            self.watches.push(Watch {
                rule: rule.name.clone(),
                window: Window::new(rule.trigger.window),
                seen: now,
                held_since: None,
                held: None,
                firing: false,
            });
            self.watches.len() - 1
        });
        let watch = &mut self.watches[at];
        watch.seen = now;
        let exemplars = u64::from(matches!(seen.kind, Kind::Exemplar | Kind::Began));
        watch.window.add(now, seen.count(), exemplars);
    }

    fn identify(&mut self, seen: &Observation) {
        if let Some(process) = &seen.process {
            let known = &mut self.victim.processes;
            let has_room = known.len() < MAX_NAMED;
            match known.iter_mut().find(|(pid, _)| *pid == process.pid) {
                Some((_, start)) => *start = start.or(process.start_time),
                None if has_room => known.push((process.pid, process.start_time)),
                None => {}
            }
            match &mut self.victim.process {
                Some(own) if own.pid == process.pid => {
                    own.start_time = own.start_time.or(process.start_time);
                    for (own, new) in [
                        (&mut own.comm, &process.comm),
                        (&mut own.unit, &process.unit),
                        (&mut own.cgroup, &process.cgroup),
                    ] {
                        if own.is_none() {
                            own.clone_from(new);
                        }
                    }
                    if own.container.is_none() {
                        own.container.clone_from(&process.container);
                    }
                }
                // One that was only heard of makes way for one that was seen.
                own if own.as_ref().is_none_or(|own| own.start_time.is_none()) => {
                    *own = Some(process.clone());
                }
                _ => {}
            }
        } else if let Some(holder) = seen.holders.first().filter(|_| seen.holders.len() == 1) {
            self.heard_of(holder.pid, holder.comm.as_ref());
        }
        let is_fresh = seen.fd.used.is_some() || self.fd.used.is_none();
        if is_fresh {
            self.fd = Fd {
                used: seen.fd.used.or(self.fd.used),
                limit: seen.fd.limit.or(self.fd.limit),
            };
        }
    }

    fn heard_of(&mut self, pid: u32, comm: Option<&String>) {
        if self.victim.process.is_none() {
            self.victim.process = Some(Process {
                pid,
                comm: comm.cloned(),
                ..Process::default()
            });
            self.victim.processes.push((pid, None));
        }
    }

    fn suffer(&mut self, seen: &Observation) {
        if let Some(server) = &seen.server {
            self.heard_of(server.pid, server.comm.as_ref());
        }
        let count = seen.count();
        let Some(process) = &seen.process else {
            self.others_suffered = self.others_suffered.saturating_add(count);
            return;
        };
        let found = self.sufferers.iter_mut().find(|one| {
            one.process.pid == process.pid && same_start(one.process.start_time, process.start_time)
        });
        if let Some(sufferer) = found {
            sufferer.total.add(seen);
        } else if self.sufferers.len() < MAX_NAMED {
            let mut total = ReasonTotal::new(seen);
            total.add(seen);
            self.sufferers.push(Sufferer {
                process: process.clone(),
                total,
            });
            let text = format!("{} does not get through", super::words::process(process));
            self.tell(seen.first(), Some(&seen.reason), text);
        } else {
            self.others_suffered = self.others_suffered.saturating_add(count);
        }
    }

    fn listen(&mut self, seen: &Observation) {
        let Some(listener) = &seen.listener else {
            return;
        };
        let has_room = self.places.len() < MAX_NAMED;
        let found = self.places.iter_mut().find(|one| {
            one.listener.inode == listener.inode && one.listener.netns == listener.netns
        });
        match found {
            Some(place) => {
                let own = &mut place.listener;
                if own.place().is_none() {
                    let queue = (own.queue, own.backlog);
                    *own = listener.clone();
                    (own.queue, own.backlog) = queue;
                }
                if listener.queue > own.queue {
                    (own.queue, own.backlog) = (listener.queue, listener.backlog);
                }
            }
            None if has_room => self.places.push(Place {
                listener: listener.clone(),
            }),
            None => {}
        }
    }

    fn count(&mut self, seen: &Observation, suffers: bool) {
        self.waited = self.waited.max(seen.waited.filter(|_| !suffers));
        if let Some(total) = self.reasons.get_mut(&seen.reason) {
            total.add(seen);
            return;
        }
        if self.reasons.len() >= MAX_REASONS || seen.kind == Kind::Ended {
            return;
        }
        let mut total = ReasonTotal::new(seen);
        total.add(seen);
        self.reasons.insert(seen.reason.clone(), total);
        let text = super::words::began(self, seen);
        // What was polled came after the poll before: at the latest when it was seen, and in no case
        // before what that poll has seen.
        let time = if seen.reason.as_str() == "queue.overflow" {
            seen.last()
        } else {
            seen.first()
        };
        self.tell(time, Some(&seen.reason), text);
    }

    /// States begin, last and end.
    fn last_or_end(&mut self, seen: &Observation, keys: &[Key], rules: &Rules, now: Duration) {
        let socket = keys.iter().find(|key| matches!(key, Key::Socket { .. }));
        let process = || keys.iter().find(|key| matches!(key, Key::Pid(_)));
        let Some(of) = socket.or_else(process).or(keys.first()) else {
            return;
        };
        // Nothing waits any more at a listener that is gone.
        if matches!(seen.reason.as_str(), "listener.closed" | "queue.abandoned") {
            let before = self.levels.len();
            self.levels
                .retain(|level| !(level.reason.family() == "queue" && level.of == *of));
            if self.levels.len() < before {
                self.tell(
                    seen.time,
                    Some(&seen.reason),
                    "its listener is closed".to_owned(),
                );
            }
            return;
        }
        let at = self
            .levels
            .iter()
            .position(|level| level.reason == seen.reason && level.of == *of);
        match (seen.kind, at) {
            (Kind::Began | Kind::Lasting, Some(at)) => {
                let level = &mut self.levels[at];
                level.seen = now;
                level.unconfirmed = false;
                level.repeated |= seen.kind == Kind::Lasting;
            }
            (Kind::Began | Kind::Lasting, None) if self.levels.len() < MAX_NAMED => {
                self.levels.push(Level {
                    reason: seen.reason.clone(),
                    of: of.clone(),
                    since: now.saturating_sub(seen.waited.unwrap_or_default()),
                    seen: now,
                    repeated: seen.kind == Kind::Lasting,
                    unconfirmed: false,
                    rules: rules.about(seen).map(|rule| rule.name.clone()).collect(),
                });
            }
            (Kind::Ended, Some(at)) => {
                self.levels.remove(at);
                let text = super::words::ended(&seen.reason, seen.waited);
                self.tell(seen.time, Some(&seen.reason), text);
            }
            _ => {}
        }
    }

    /// Connections were accepted at one of its listeners, after they had waited.
    pub(super) fn waited(&mut self, waits: &Waits) {
        match &mut self.waits {
            Some(own) => own.add(waits),
            None => self.waits = Some(waits.clone()),
        }
    }

    /// What lasted may have ended unseen: it must be seen again to be believed.
    pub(super) fn doubt(&mut self, now: Duration) {
        for level in &mut self.levels {
            level.unconfirmed = true;
            level.seen = now;
        }
    }

    pub(super) fn tell(&mut self, time: Timestamp, reason: Option<&Code>, text: String) {
        let room = if reason.is_some() {
            MAX_TIMELINE - 5
        } else {
            MAX_TIMELINE
        };
        if self.timeline.len() >= room {
            self.untold += 1;
            return;
        }
        let at = self.timeline.partition_point(|told| told.time <= time);
        self.timeline.insert(
            at,
            Told {
                time,
                reason: reason.cloned(),
                text,
            },
        );
    }

    /// Whether it is to be told, and whether it is over.
    pub(super) fn evaluate(
        &mut self,
        rules: &Rules,
        accepted: impl Fn(&Self, Duration) -> Option<u64>,
        now: Duration,
        wall: Timestamp,
    ) -> Verdict {
        self.levels.retain(|level| {
            !((level.repeated || level.unconfirmed) && now.saturating_sub(level.seen) >= BELIEVED)
        });
        // A limit that is still near does not keep up an incident that it has led to.
        let is_main = |watch: &Watch| {
            watch.firing
                && rules
                    .named(&watch.rule)
                    .is_some_and(|rule| !rule.is_of_pressure())
        };
        let has_main = self.watches.iter().any(is_main);
        let (mut firing, mut over, mut waits) = (None, true, !self.levels.is_empty());
        let mut watches = std::mem::take(&mut self.watches);
        watches.retain_mut(|watch| {
            let Some(rule) = rules.named(&watch.rule) else {
                return false;
            };
            let levels = || {
                self.levels
                    .iter()
                    .filter(|level| level.rules.contains(&rule.name))
            };
            let is_on = levels().next().is_some();
            let trigger = rule.trigger;
            let sum = watch.window.sum(now);
            let holds = match trigger.duration {
                Some(duration) => levels().any(|level| now.saturating_sub(level.since) >= duration),
                None => {
                    sum.max(levels().count() as u64) >= trigger.count
                        && trigger.ratio.is_none_or(|least| {
                            // Of what was counted: what was seen one by one comes before its
                            // count, and before what was accepted meanwhile.
                            let failed = watch.window.within(now, trigger.window);
                            accepted(self, trigger.window).is_some_and(|accepted| {
                                failed > 0 && ratio(failed, accepted) >= least
                            })
                        })
                }
            };
            // One failure is enough to hold, so that its last tells exactly since when not.
            let by_last = trigger.count == 1
                && trigger.duration.is_none()
                && trigger.ratio.is_none()
                && !is_on;
            if holds {
                watch.held = Some(if by_last { watch.seen } else { now });
                let since = *watch.held_since.get_or_insert(now);
                if now.saturating_sub(since) >= rule.hold {
                    watch.firing = true;
                }
            } else {
                watch.held_since = None;
            }
            if watch.firing {
                firing = firing.max(Some(rule.severity));
                let quiet = now.saturating_sub(watch.held.unwrap_or(watch.seen));
                let wanted = rule
                    .resolve_after
                    .saturating_mul(1 << self.flaps.min(10))
                    .min(MAX_RESOLVE.max(rule.resolve_after));
                over &=
                    (has_main && rule.is_of_pressure()) || (by_last || !holds) && quiet >= wanted;
            } else {
                waits |= holds || sum > 0 || now.saturating_sub(watch.seen) < trigger.window;
            }
            true
        });
        self.watches = watches;
        let has_main = self.watches.iter().any(is_main);
        for level in &self.levels {
            if level.reason.as_str() == "queue.stalled" {
                self.waited = self.waited.max(Some(now.saturating_sub(level.since)));
            }
            if !level.unconfirmed
                && self.state == State::Firing
                && !(has_main && level.reason.is_pressure())
            {
                self.last = self.last.max(wall);
            }
        }
        match firing {
            Some(severity) => {
                self.severity = self.severity.max(severity);
                if over { Verdict::Over } else { Verdict::Fires }
            }
            None if self.state == State::Firing => Verdict::Over,
            None if waits => Verdict::Waits,
            None => Verdict::Nothing,
        }
    }

    /// Takes up one that turns out to be of the same victim, and was not told yet.
    pub(super) fn absorb(&mut self, other: Self, now: Duration) {
        self.started = self.started.min(other.started);
        self.last = self.last.max(other.last);
        self.touched = now;
        for (code, total) in &other.reasons {
            match self.reasons.get_mut(code) {
                Some(own) => own.merge(total),
                None => {
                    self.reasons.insert(code.clone(), total.clone());
                }
            }
        }
        if other.victim.is_client
            && !self.victim.is_client
            && let Some(process) = &other.victim.process
            && let Some(first) = other.reasons.values().next()
            && self.sufferers.len() < MAX_NAMED
        {
            let mut total = first.clone();
            for more in other.reasons.values().skip(1) {
                total.merge(more);
            }
            self.sufferers.push(Sufferer {
                process: process.clone(),
                total,
            });
        }
        for sufferer in other.sufferers {
            if self.sufferers.len() < MAX_NAMED {
                self.sufferers.push(sufferer);
            } else {
                let failures = sufferer.total.count;
                self.others_suffered = self.others_suffered.saturating_add(failures);
            }
        }
        self.others_suffered = self.others_suffered.saturating_add(other.others_suffered);
        if let Some(waits) = &other.waits {
            self.waited(waits);
        }
        for told in other.timeline {
            self.tell(told.time, told.reason.as_ref(), told.text);
        }
        self.untold += other.untold;
        for place in other.places {
            if self.places.len() < MAX_NAMED && !self.places.contains(&place) {
                self.places.push(place);
            }
        }
        self.levels.extend(other.levels);
        self.levels.truncate(MAX_NAMED);
        for watch in other.watches {
            match self.watches.iter_mut().find(|own| own.rule == watch.rule) {
                Some(own) => own.window.merge(&watch.window, now),
                None => self.watches.push(watch),
            }
        }
        for key in other.keys {
            if self.keys.len() < MAX_KEYS && !self.keys.contains(&key) {
                self.keys.push(key);
            }
        }
    }

    /// The reason that explains the others.
    #[must_use]
    pub fn root(&self) -> Option<&Code> {
        cause::root(self.reasons.keys())
    }

    /// The rule that is named: the worst that holds, and of several the first that did.
    pub(super) fn rule<'a>(&self, rules: &'a Rules) -> Option<&'a Rule> {
        let firing = self.watches.iter().filter(|watch| watch.firing);
        let mut worst: Option<&Rule> = None;
        for rule in firing.filter_map(|watch| rules.named(&watch.rule)) {
            if worst.is_none_or(|worst| rule.severity > worst.severity) {
                worst = Some(rule);
            }
        }
        worst
    }

    /// What it is to silences.
    pub(super) fn is_matched_by(&self, matcher: &Matcher) -> bool {
        let process = self.victim.process.as_ref();
        let ports = self.places.iter().filter_map(|one| one.listener.port);
        let paths = self
            .places
            .iter()
            .filter_map(|one| one.listener.path.as_deref());
        let target = self.victim.target.as_deref();
        let target_port = target.and_then(|target| target.rsplit(':').next()?.parse().ok());
        matcher.matches(&Subject {
            reason: self.root().map_or("", Code::as_str),
            comm: process
                .and_then(|process| process.comm.as_deref())
                .into_iter()
                .collect(),
            unit: process.and_then(|process| process.unit.as_deref()),
            container: process.and_then(|process| process.container.as_ref()),
            port: ports.chain(target_port).collect(),
            path: paths.chain(target).collect(),
        })
    }
}

/// What an evaluation comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is to be told, or goes on.
    Fires,
    /// It was told, and is over.
    Over,
    /// It may still be to be told.
    Waits,
    /// It came to nothing.
    Nothing,
}

impl ReasonTotal {
    fn new(seen: &Observation) -> Self {
        Self {
            count: 0,
            exemplars: 0,
            first: seen.first(),
            last: seen.last(),
            approximate: false,
        }
    }

    fn add(&mut self, seen: &Observation) {
        self.count = self.count.saturating_add(seen.count());
        let exemplars = u64::from(matches!(seen.kind, Kind::Exemplar | Kind::Began));
        self.exemplars = self.exemplars.saturating_add(exemplars);
        self.first = self.first.min(seen.first());
        self.last = self.last.max(seen.last());
        self.approximate |= seen.approximate;
    }

    fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.exemplars = self.exemplars.saturating_add(other.exemplars);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.approximate |= other.approximate;
    }
}

fn same_start(one: Option<Timestamp>, other: Option<Timestamp>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.duration_since(other).abs() < SAME_START,
        _ => true,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is no exact count")]
fn ratio(failures: u64, accepted: u64) -> f64 {
    let all = failures as f64 + accepted as f64;
    if all == 0.0 {
        0.0
    } else {
        failures as f64 / all
    }
}
