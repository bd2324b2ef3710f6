//! Everything together: what is seen goes in, what is to be told comes out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use hashlink::LinkedHashMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    clock::{Clock, Now},
    episode::{Episode, Notice, State, Verdict},
    keys::{Key, Keys, keys},
    record::{self, IncidentRecord},
    totals::Totals,
    window::Window,
};
use crate::{
    alert::{Alert, Severity},
    observation::{Kind, Observation},
    rules::{Matcher, Rules, Silence},
};

/// Most incidents at once; beyond it, those that are not told and were not seen for longest go.
const MAX_EPISODES: usize = 10_000;
/// Most victims of ended incidents that are remembered.
const MAX_PAST: usize = 10_000;
/// How long an ended incident is remembered: one that comes back within it takes longer to be over.
const PAST: Duration = Duration::from_hours(1);
/// Most listeners whose accepted connections are kept for ratios.
const MAX_ACCEPTED: usize = 10_000;
/// Most listeners that are read with each tick.
const MAX_SOCKETS: usize = 1024;
/// Shortest time between two notifications that say more of the same incident; it doubles.
const UPDATE: Duration = Duration::from_secs(30);
/// An incident that lasts is told again after this; it doubles.
const REMIND: Duration = Duration::from_hours(4);
/// Most silences.
const MAX_SILENCES: usize = 1000;
/// Between two ticks there is less, unless all stood still.
const LATE: Duration = Duration::from_millis(1_500);
/// Layout of [`Saved`].
const VERSION: u32 = 1;

/// What became of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It fires.
    Fired,
    /// It got worse, more is known of it, or it has lasted for long.
    Updated,
    /// It is over.
    Resolved,
}

/// A change of an incident.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What changed.
    pub what: What,
    /// The notification; `None` while the incident is silenced.
    pub alert: Option<Alert>,
    /// The record to write.
    pub record: IncidentRecord,
}

/// Aggregates and decides. All memory is bounded.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    clock: Clock,
    totals: Totals,
    ignored: u64,
    episodes: BTreeMap<u64, Episode>,
    next: u64,
    index: HashMap<Key, u64>,
    past: LinkedHashMap<Key, Past>,
    accepted: LinkedHashMap<Key, Window>,
    /// Whether all accepted connections are told: a listener that is not told of accepted none.
    sees_accepted: bool,
    silences: Vec<Silence>,
    /// What changed before the next tick.
    late: Vec<Change>,
}

/// A victim whose incident has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Past {
    id: String,
    ended: Duration,
    flaps: u32,
}

/// An engine's state, to go on with after a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    clock: Clock,
    #[serde(alias = "rows")]
    totals: Totals,
    ignored: u64,
    episodes: Vec<Episode>,
    past: Vec<(Key, Past)>,
    silences: Vec<Silence>,
}

impl Engine {
    /// An engine that has seen nothing.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            clock: Clock::default(),
            totals: Totals::default(),
            ignored: 0,
            episodes: BTreeMap::new(),
            next: 0,
            index: HashMap::new(),
            past: LinkedHashMap::new(),
            accepted: LinkedHashMap::new(),
            sees_accepted: false,
            silences: Vec::new(),
            late: Vec::new(),
        }
    }

    /// Goes on with other rules. Incidents stay; those that no rule is about any more end.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Time goes on. A machine that was paused, or a processor that was busy, sees what comes then before
    /// it sees how late it is: what was seen before is judged before it is too old to be of account.
    pub fn pass(&mut self, now: Now) {
        let before = self.clock.time;
        self.clock.advance(now);
        if self.clock.time.saturating_sub(before) >= LATE {
            let changes = self.judge(before, now);
            self.late.extend(changes);
        }
    }

    /// Takes what was seen. When, is the last [`Engine::pass`] or [`Engine::tick`]: wall times are
    /// only shown.
    pub fn observe(&mut self, seen: &Observation) {
        let now = self.clock.time;
        if let Kind::Accepted { count } = seen.kind {
            self.accept(seen, count, now);
            return;
        }
        self.totals.add(seen);
        if self.rules.ignores(seen) {
            self.ignored = self.ignored.saturating_add(seen.count());
            return;
        }
        let keys = keys(seen);
        let Some(id) = self.find(seen, &keys).or_else(|| self.open(seen, &keys)) else {
            return;
        };
        let Some(episode) = self.episodes.get_mut(&id) else {
            return;
        };
        let known = names(episode, keys, seen);
        episode.note(seen, &known, &self.rules, now);
        for key in known {
            if self.index.get(&key) != Some(&id) && episode.keys.contains(&key) {
                self.index.insert(key, id);
            }
        }
    }

    /// Says what changed by `now`. To be called about once a second.
    pub fn tick(&mut self, now: Now) -> Vec<Change> {
        self.silences.retain(|silence| silence.until > now.wall);
        self.pass(now);
        let mut changes = std::mem::take(&mut self.late);
        changes.extend(self.judge(self.clock.time, now));
        changes
    }

    /// Says what changed, by what is of account at `at` of the engine's time.
    fn judge(&mut self, at: Duration, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut over = Vec::new();
        let none = self.sees_accepted.then_some(0);
        for (id, episode) in &mut self.episodes {
            let accepted = |episode: &Episode, span: Duration| {
                let windows = episode.keys.iter().filter_map(|key| self.accepted.get(key));
                windows
                    .map(|window| window.within(at, span))
                    .reduce(u64::saturating_add)
                    .or(none)
            };
            let verdict = episode.evaluate(&self.rules, accepted, at, now.wall);
            let silences = self.silences.iter().chain(&self.rules.silences);
            let mut silences = silences.filter(|silence| silence.until > now.wall);
            let silenced = silences.any(|silence| episode.is_matched_by(&silence.matcher));
            match verdict {
                Verdict::Waits => {}
                Verdict::Nothing => over.push(*id),
                Verdict::Fires => {
                    if episode.state == State::Pending {
                        episode.state = State::Firing;
                        episode.fired = Some(now.wall);
                    }
                    changes.extend(told(episode, &self.rules, silenced, at, now.wall));
                }
                Verdict::Over => {
                    over.push(*id);
                    episode.state = State::Resolved;
                    episode.last = episode.last.max(episode.started);
                    episode.tell(now.wall, None, "it is over".to_owned());
                    let labels = episode.notice.labels.clone();
                    changes.push(Change {
                        what: What::Resolved,
                        // One that was never told need not be taken back.
                        alert: labels.map(|labels| record::alert(episode, labels, now.wall)),
                        record: IncidentRecord::new(episode, now.wall),
                    });
                }
            }
        }
        for id in over {
            self.close(id);
        }
        changes
    }

    /// More is known of an incident than what was observed: it is told once more.
    pub fn learned(&mut self, incident: &str) {
        let known = self.episodes.values_mut().find(|one| one.id == incident);
        if let Some(episode) = known {
            episode.notice.learned = episode.notice.severity.is_some();
        }
    }

    /// The source of what is seen began anew: what lasted may have ended unseen, and must be seen
    /// again within half a minute to be believed.
    pub fn interrupted(&mut self) {
        let now = self.clock.time;
        for episode in self.episodes.values_mut() {
            episode.doubt(now);
        }
    }

    /// The state, to be restored after a restart.
    #[must_use]
    pub fn save(&self) -> Saved {
        Saved {
            version: VERSION,
            clock: self.clock.clone(),
            totals: self.totals.clone(),
            ignored: self.ignored,
            episodes: self.episodes.values().cloned().collect(),
            past: self
                .past
                .iter()
                .map(|(key, past)| (key.clone(), past.clone()))
                .collect(),
            silences: self.silences.clone(),
        }
    }

    /// Goes on where the saved one was. `None` where another version saved it otherwise.
    #[must_use]
    pub fn restore(rules: Rules, saved: Saved) -> Option<Self> {
        if saved.version != VERSION {
            return None;
        }
        let mut engine = Self::new(rules);
        engine.clock = saved.clock;
        engine.totals = saved.totals;
        engine.ignored = saved.ignored;
        engine.past = saved.past.into_iter().collect();
        engine.silences = saved.silences;
        for episode in saved.episodes {
            let id = engine.next;
            engine.next += 1;
            for key in &episode.keys {
                engine.index.insert(key.clone(), id);
            }
            engine.episodes.insert(id, episode);
        }
        engine.interrupted();
        Some(engine)
    }

    /// Incidents that fire, oldest first.
    #[must_use]
    pub fn incidents(&self) -> Vec<IncidentRecord> {
        let wall = self.clock.wall.unwrap_or(Timestamp::UNIX_EPOCH);
        self.episodes
            .values()
            .filter(|episode| episode.state == State::Firing)
            .map(|episode| IncidentRecord::new(episode, wall))
            .collect()
    }

    /// Alerts of the incidents that were told and fire, as they stand: for receivers that want to
    /// hear of what lasts.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        let wall = self.clock.wall.unwrap_or(Timestamp::UNIX_EPOCH);
        let firing = |episode: &&Episode| episode.state == State::Firing;
        self.episodes
            .values()
            .filter(firing)
            .filter_map(|episode| {
                let labels = episode.notice.labels.clone()?;
                Some(record::alert(episode, labels, wall))
            })
            .collect()
    }

    /// Incidents that fire, the worst and of these the oldest first, no more than so many; and
    /// whether each is silenced.
    #[must_use]
    pub fn worst(&self, most: usize) -> Vec<(IncidentRecord, bool)> {
        let wall = self.clock.wall.unwrap_or(Timestamp::UNIX_EPOCH);
        let mut firing: Vec<&Episode> = self
            .episodes
            .values()
            .filter(|episode| episode.state == State::Firing)
            .collect();
        firing.sort_by_key(|episode| (Reverse(episode.severity), episode.started));
        firing.truncate(most);
        firing
            .into_iter()
            .map(|episode| {
                let record = IncidentRecord::new(episode, wall);
                (record, self.is_silenced(episode, wall))
            })
            .collect()
    }

    /// How many incidents fire, by severity.
    #[must_use]
    pub fn firing(&self) -> BTreeMap<Severity, u64> {
        let mut firing = BTreeMap::new();
        for episode in self.episodes.values() {
            if episode.state == State::Firing {
                *firing.entry(episode.severity).or_default() += 1;
            }
        }
        firing
    }

    /// How many incidents that fire a silence would be about.
    #[must_use]
    pub fn matched(&self, matcher: &Matcher) -> usize {
        let firing = |episode: &&Episode| episode.state == State::Firing;
        let firing = self.episodes.values().filter(firing);
        firing
            .filter(|episode| episode.is_matched_by(matcher))
            .count()
    }

    fn is_silenced(&self, episode: &Episode, wall: Timestamp) -> bool {
        self.silences
            .iter()
            .chain(&self.rules.silences)
            .filter(|silence| silence.until > wall)
            .any(|silence| episode.is_matched_by(&silence.matcher))
    }

    /// How many incidents may yet be told.
    #[must_use]
    pub fn pending(&self) -> u64 {
        let pending = |episode: &&Episode| episode.state == State::Pending;
        self.episodes.values().filter(pending).count() as u64
    }

    /// Whether any incident is open, told or not.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.episodes.is_empty()
    }

    /// What was counted.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Failures that rules say to ignore; they are in the totals all the same.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// The engine's own time, by which a row tells its rate.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.clock.time
    }

    /// Silences those that it matches until then; one of the same id is replaced. `false` where
    /// there are too many.
    pub fn silence(&mut self, silence: Silence) -> bool {
        self.silences.retain(|other| other.id != silence.id);
        if self.silences.len() >= MAX_SILENCES {
            return false;
        }
        self.silences.push(silence);
        true
    }

    /// Ends a silence; `false` where there is none of this id.
    pub fn unsilence(&mut self, id: &str) -> bool {
        let before = self.silences.len();
        self.silences.retain(|silence| silence.id != id);
        self.silences.len() < before
    }

    /// The silences that were added, without those of the rules.
    #[must_use]
    pub fn silences(&self) -> &[Silence] {
        &self.silences
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Says whether all accepted connections are told from now on. Where they are, nothing told
    /// is none accepted; where they are not, it is nothing known.
    pub fn sees_accepted(&mut self, sees: bool) {
        self.sees_accepted = sees;
    }

    /// Whether it matters how many connections were accepted at a listener.
    #[must_use]
    pub fn wants_accepted(&self, netns: Option<u32>, inode: u64) -> bool {
        self.ratio_span().is_some() || self.index.contains_key(&Key::Socket { netns, inode })
    }

    /// Listeners whose accepted connections must be known at each tick: those of open incidents,
    /// where a rule is about a share of attempts.
    #[must_use]
    pub fn sockets(&self) -> Vec<u64> {
        if self.ratio_span().is_none() {
            return Vec::new();
        }
        let sockets = self.index.keys().filter_map(|key| match key {
            Key::Socket { inode, .. } => Some(*inode),
            _ => None,
        });
        sockets.take(MAX_SOCKETS).collect()
    }

    /// The longest window of rules that are about a share of attempts.
    fn ratio_span(&self) -> Option<Duration> {
        let ratios = self.rules.rules.iter();
        let ratios = ratios.filter(|rule| rule.trigger.ratio.is_some());
        ratios.map(|rule| rule.trigger.window).max()
    }

    fn accept(&mut self, seen: &Observation, count: u64, now: Duration) {
        let Some(key) = keys(seen)
            .victim
            .into_iter()
            .find(|key| matches!(key, Key::Socket { .. }))
        else {
            return;
        };
        if let Some(waits) = &seen.waits
            && let Some(id) = self.index.get(&key)
            && let Some(episode) = self.episodes.get_mut(id)
        {
            episode.waited(waits);
        }
        let Some(span) = self.ratio_span() else {
            return;
        };
        if let Some(window) = self.accepted.to_back(&key) {
            window.add(now, count, 0);
            return;
        }
        if self.accepted.len() >= MAX_ACCEPTED {
            self.accepted.pop_front();
        }
        let mut window = Window::new(span);
        window.add(now, count, 0);
        self.accepted.insert(key, window);
    }

    /// The incident that it is of, if there is one. Another that turns out to be of the same victim
    /// is taken up, unless it was told.
    fn find(&mut self, seen: &Observation, keys: &Keys) -> Option<u64> {
        let of_client = keys.client.is_some();
        let mut hits: Vec<u64> = Vec::new();
        for key in &keys.victim {
            let Some(id) = self.index.get(key) else {
                continue;
            };
            let Some(episode) = self.episodes.get(id) else {
                continue;
            };
            let fits = match (key, &seen.process) {
                // Where a client was refused says nothing of a server but that it is meant.
                (Key::Place { .. }, _) => of_client != episode.victim.is_client,
                (Key::Pid(_), Some(process)) if !of_client => episode.may_be(process),
                _ => true,
            };
            let fits = fits && !(of_client && episode.victim.is_client);
            if fits && !hits.contains(id) {
                hits.push(*id);
            }
        }
        if let Some(client) = &keys.client
            && let Some(id) = self.index.get(client)
            && !hits.contains(id)
            && self.episodes.get(id).is_some_and(|episode| {
                seen.process
                    .as_ref()
                    .is_none_or(|process| episode.may_be(process))
            })
        {
            hits.push(*id);
        }
        let is_server = |id: &&u64| {
            self.episodes
                .get(*id)
                .is_some_and(|episode| !episode.victim.is_client)
        };
        let best = if of_client {
            *hits.first()?
        } else {
            *hits.iter().find(is_server)?
        };
        self.join(best, &hits);
        Some(best)
    }

    fn join(&mut self, best: u64, hits: &[u64]) {
        let now = self.clock.time;
        for id in hits.iter().filter(|id| **id != best) {
            let is_pending = |episode: &Episode| episode.state == State::Pending;
            if !self.episodes.get(id).is_some_and(is_pending) {
                continue;
            }
            let Some(other) = self.episodes.remove(id) else {
                continue;
            };
            if let Some(episode) = self.episodes.get_mut(&best) {
                episode.absorb(other, now);
                for key in &episode.keys {
                    self.index.insert(key.clone(), best);
                }
            }
            self.index.retain(|_, known| known != id);
        }
    }

    /// Begins an incident, if a rule is about it.
    fn open(&mut self, seen: &Observation, keys: &Keys) -> Option<u64> {
        // What lasts began some time: had it been worth an incident, it would be one.
        if matches!(seen.kind, Kind::Ended | Kind::Lasting)
            || self.rules.about(seen).next().is_none()
        {
            return None;
        }
        if self.episodes.len() >= MAX_EPISODES {
            let pending = self.episodes.iter();
            let pending = pending.filter(|(_, episode)| episode.state == State::Pending);
            let oldest = pending.min_by_key(|(_, episode)| episode.touched)?;
            let oldest = *oldest.0;
            self.close(oldest);
        }
        // Where the server is known, it is the one that turns away.
        let as_client = keys.client.is_some() && seen.server.is_none() && seen.listener.is_none();
        let now = self.clock.time;
        let primary = primary(keys, as_client);
        let mut episode = Episode::new(self.name(seen, primary), seen, as_client, now);
        if let Some(past) = primary.and_then(|key| self.past.get(key))
            && now.saturating_sub(past.ended) < PAST
        {
            episode.flaps = past.flaps + 1;
            episode.again_of = Some(past.id.clone());
        }
        let id = self.next;
        self.next += 1;
        self.episodes.insert(id, episode);
        // Clients that found nobody there before its first failure are part of it.
        let earlier: Vec<u64> = keys
            .victim
            .iter()
            .filter(|_| !as_client)
            .filter_map(|key| self.index.get(key).copied())
            .filter(|other| {
                self.episodes
                    .get(other)
                    .is_some_and(|episode| episode.victim.is_client)
            })
            .collect();
        self.join(id, &earlier);
        Some(id)
    }

    /// A name that no other incident has: when it began, and a hash of whose it is.
    fn name(&self, seen: &Observation, primary: Option<&Key>) -> String {
        let mut hasher = DefaultHasher::new();
        (&seen.host, primary, self.next, seen.first().as_nanosecond()).hash(&mut hasher);
        let started = seen.first().strftime("%Y%m%dT%H%M%SZ").to_string();
        format!("{started}-{:08x}", hasher.finish() & 0xffff_ffff)
    }

    fn close(&mut self, id: u64) {
        let Some(episode) = self.episodes.remove(&id) else {
            return;
        };
        for key in &episode.keys {
            if self.index.get(key) == Some(&id) {
                self.index.remove(key);
            }
        }
        if episode.state == State::Resolved
            && let Some(key) = episode.keys.first()
        {
            if self.past.len() >= MAX_PAST {
                self.past.pop_front();
            }
            self.past.insert(
                key.clone(),
                Past {
                    id: episode.id,
                    ended: self.clock.time,
                    flaps: episode.flaps,
                },
            );
        }
    }
}

/// The key that an incident is remembered by.
fn primary(keys: &Keys, as_client: bool) -> Option<&Key> {
    if as_client {
        keys.client.as_ref()
    } else {
        keys.victim.first()
    }
}

/// By what an incident is known after this.
fn names(episode: &Episode, keys: Keys, seen: &Observation) -> Vec<Key> {
    if !episode.victim.is_client {
        // A place is not one process's alone: what a client wanted to reach proves nothing.
        let sure = |key: &Key| keys.client.is_none() || !matches!(key, Key::Place { .. });
        return keys
            .victim
            .iter()
            .filter(|key| sure(key))
            .cloned()
            .collect();
    }
    let is_place = |key: &Key| matches!(key, Key::Place { .. });
    let is_local = seen.server.is_none();
    let places = keys
        .victim
        .into_iter()
        .filter(|key| is_local && is_place(key));
    keys.client.into_iter().chain(places).collect()
}

/// What is to be told of one that fires.
fn told(
    episode: &mut Episode,
    rules: &Rules,
    silenced: bool,
    at: Duration,
    wall: Timestamp,
) -> Option<Change> {
    let parts = episode.reasons.len() + episode.sufferers.len();
    let notice = &episode.notice;
    let is_first = notice.severity.is_none();
    // A silence that has ended, too: it was written, and not told.
    let is_news = notice.labels.is_none() && !silenced;
    let is_worse = notice.severity.is_some_and(|told| told < episode.severity);
    let since = at.saturating_sub(notice.at);
    let doubled = |first: Duration| first.saturating_mul(1 << notice.times.min(16));
    let has_more = notice.learned || parts > notice.parts && since >= doubled(UPDATE);
    let lasts = since
        >= REMIND
            .max(doubled(UPDATE))
            .saturating_mul(1 << notice.times.min(3));
    if !(is_first || is_news || is_worse || has_more || lasts) {
        return None;
    }
    let what = if is_first || is_news {
        What::Fired
    } else {
        What::Updated
    };
    if is_first || is_worse {
        let text = format!("it is told: {}", episode.severity.name());
        episode.tell(wall, None, text);
    }
    // What identifies it to others stays, unless it got worse: then it must be told anew.
    let labels = match &episode.notice.labels {
        Some(labels) if !is_worse => labels.clone(),
        _ => record::labels(episode, episode.rule(rules)),
    };
    let was_told = episode.notice.labels.is_some();
    let tell = !silenced;
    let times = if is_first || is_news {
        0
    } else {
        episode.notice.times + 1
    };
    episode.notice = Notice {
        labels: (tell || was_told).then(|| labels.clone()),
        severity: Some(episode.severity),
        at,
        times,
        parts,
        learned: false,
    };
    Some(Change {
        what,
        alert: tell.then(|| record::alert(episode, labels, wall)),
        record: IncidentRecord::new(episode, wall),
    })
}
