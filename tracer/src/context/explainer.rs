//! What the daemon has of the history and of what went on around incidents.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hashlink::LinkedHashMap;
use jiff::{Timestamp, tz::TimeZone};

use super::{
    Explanation, Waiting,
    watch::{Ask, Queued, Standing, Watch},
};
use crate::{
    history::{self, Caps, Context, History, Incident, Minute, Process, Reader, Run, Wanted},
    incident::{Change, IncidentRecord, What},
    kernel::programs::Programs,
    observation::Observation,
    privileges::{self, Duty},
    recurrence::{Span, recurrence},
};

/// How long all changes of one moment together wait to be explained: then they are told without, and
/// once more when their explanation comes. A host in trouble is a slow one.
const PATIENCE: Duration = Duration::from_millis(500);
/// Most incidents whose explanations are at hand.
const KNOWN: usize = 1000;
/// Most victims and reasons that are told apart in a minute.
const MINUTES: usize = 1000;
/// An incident is noted each second for so long, and then each tenth.
const CLOSE: u64 = 600;
/// How long the history may take at the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Most incidents of one victim and reason that are remembered.
const ONSETS: usize = 500;
/// Most victims and reasons whose incidents are, those that had one last: names of containers are ever new. The rest
/// is in the history.
const VICTIMS: usize = 1000;

/// Explains incidents and keeps their history.
#[derive(Debug)]
pub struct Explainer {
    history: Option<Arc<History>>,
    asks: Sender<Ask>,
    queued: Queued,
    runs: Receiver<Run>,
    known: LinkedHashMap<String, Option<Explanation>>,
    /// Explanations that are still to come.
    late: HashMap<String, Late>,
    standing: HashMap<String, Noted>,
    minute: i64,
    minutes: BTreeMap<(String, String), u64>,
    begun: Timestamp,
    past: Arc<Mutex<Past>>,
}

/// What was asked for, and where the answer comes.
#[derive(Debug)]
struct Late {
    incident: Incident,
    answer: Receiver<Explanation>,
}

/// How often an incident was noted, and its failures until then.
#[derive(Debug, Default)]
struct Noted {
    ticks: u64,
    failures: u64,
}

/// When incidents of each victim and reason began, and when somebody watched.
#[derive(Debug, Default)]
struct Past {
    onsets: Onsets,
    watched: Vec<Span>,
    /// What was known of those that had not ended.
    contexts: HashMap<String, Explanation>,
}

/// When incidents of victims and reasons began, oldest first; those that had one last are the last.
#[derive(Debug, Default)]
struct Onsets(LinkedHashMap<(String, String), Vec<Timestamp>>);

impl Onsets {
    /// All that are known of one, now that these are too.
    fn add(&mut self, key: (String, String), more: &[Timestamp]) -> &[Timestamp] {
        if self.0.len() >= VICTIMS && !self.0.contains_key(&key) {
            self.0.pop_front();
        }
        self.0.to_back(&key);
        let onsets = self.0.entry(key).or_insert_with(Vec::new);
        onsets.extend_from_slice(more);
        onsets.sort_unstable();
        onsets.dedup();
        let excess = onsets.len().saturating_sub(ONSETS);
        onsets.drain(..excess);
        onsets
    }
}

impl Explainer {
    /// So many incidents are looked at each second: more are more than anybody reads, and capture waits.
    pub const STANDING: usize = 100;

    /// Starts the threads. Without a folder for the state, nothing is kept.
    pub fn start(state: Option<&Path>) -> Result<Self> {
        let history = match state {
            Some(folder) => {
                let file = folder.join(history::FILE);
                Some(Arc::new(History::start(&file, Caps::default())?))
            }
            None => None,
        };
        let past = Arc::new(Mutex::new(Past::default()));
        if let Some(folder) = state {
            remember(
                &folder.join(history::FILE),
                history.clone(),
                Arc::clone(&past),
            )?;
        }
        let (asks, asked) = mpsc::channel();
        let queued = Queued::default();
        let (tell, runs) = mpsc::channel();
        let watch = Watch::new(
            Path::new("/"),
            asked,
            history.clone(),
            tell,
            Arc::clone(&queued),
        );
        thread::Builder::new()
            .name("turnaway-context".to_owned())
            .spawn(move || {
                // It looks into files of processes, and into network namespaces.
                privileges::keep(Duty::Look);
                watch.run();
            })
            .context("cannot start a thread to watch what goes on")?;
        let begun = Timestamp::now();
        Ok(Self {
            history,
            asks,
            queued,
            runs,
            known: LinkedHashMap::new(),
            late: HashMap::new(),
            standing: HashMap::new(),
            minute: begun.as_second().div_euclid(60),
            minutes: BTreeMap::new(),
            begun,
            past,
        })
    }

    /// Programs that begin and end are read from now on.
    pub fn programs(&self, programs: Programs) {
        // It fails only if the thread has ended.
        let _ = self.asks.send(Ask::Programs(Box::new(programs)));
    }

    /// Programs that have come to run for long, or have ended since, as far as they were not told yet.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        self.runs.try_iter()
    }

    /// Explains incidents that begin, says what is known of the others, and has all of it kept.
    pub fn explain(&mut self, changes: &mut [Change]) {
        let deadline = Instant::now() + PATIENCE;
        for change in changes {
            let Some(incident) = Incident::of(&change.record) else {
                continue;
            };
            if change.what == What::Fired && !self.known.contains_key(&incident.id) {
                let explanation = match self.ask(&incident, deadline) {
                    Ok(explanation) => Some(explanation),
                    Err(late) => {
                        self.wait_for(&incident, late);
                        None
                    }
                };
                self.keep(&incident, explanation);
            } else if change.what == What::Resolved {
                // What kept working is known best at the end.
                let now = self.ask(&incident, deadline).ok();
                self.look_back(&incident.id, now);
                self.standing.remove(&incident.id);
                self.late.remove(&incident.id);
            } else if self.lacks_healthy(&incident) {
                let now = self.ask(&incident, deadline).ok();
                self.look_back(&incident.id, now);
            }
            self.queued(&incident.id);
            if let Some(explanation) = self.known.get(&incident.id).cloned().flatten() {
                tell(change, explanation);
            }
            if change.what == What::Resolved {
                // It is told no more; the history has it.
                self.known.remove(&incident.id);
            }
            if let Some(history) = &self.history {
                history.incident(incident);
            }
        }
    }

    /// Asks what went on around an incident; where that takes longer, the answer comes there.
    fn ask(
        &self,
        incident: &Incident,
        deadline: Instant,
    ) -> Result<Explanation, Receiver<Explanation>> {
        let (reply, answer) = mpsc::sync_channel(1);
        // It fails only if the thread has ended; no answer comes then.
        let _ = self
            .asks
            .send(Ask::Explain(Box::new(incident.clone()), reply));
        let left = deadline.saturating_duration_since(Instant::now());
        answer.recv_timeout(left).map_err(|_| answer)
    }

    fn wait_for(&mut self, incident: &Incident, answer: Receiver<Explanation>) {
        if self.late.len() < KNOWN {
            let incident = incident.clone();
            self.late
                .insert(incident.id.clone(), Late { incident, answer });
        }
    }

    /// Takes what has come since: the ids of those incidents, which are to be told once more. What was known
    /// before a restart is taken, too, and has been told.
    pub fn late(&mut self) -> Vec<String> {
        let before = {
            let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut past.contexts)
        };
        for (id, explanation) in before {
            self.known.entry(id).or_insert(Some(explanation));
        }
        let mut came = Vec::new();
        let mut waits = HashMap::new();
        for (id, late) in std::mem::take(&mut self.late) {
            match late.answer.try_recv() {
                Ok(explanation) => {
                    self.keep(&late.incident, Some(explanation));
                    came.push(id);
                }
                Err(TryRecvError::Empty) => {
                    waits.insert(id, late);
                }
                Err(TryRecvError::Disconnected) => {}
            }
        }
        self.late = waits;
        came
    }

    fn keep(&mut self, incident: &Incident, explanation: Option<Explanation>) {
        let mut explanation = explanation;
        if let Some(explanation) = &mut explanation {
            explanation.again = self.again(incident);
            self.write(&incident.id, explanation);
        }
        if self.known.len() >= KNOWN {
            self.known.pop_front();
        }
        self.known.insert(incident.id.clone(), explanation);
    }

    /// Descriptors run short before any listener fails: what keeps working there is known from then on.
    fn lacks_healthy(&self, incident: &Incident) -> bool {
        let known = self.known.get(&incident.id).and_then(Option::as_ref);
        let has_listener = incident.listeners.iter().any(|one| one.port.is_some());
        has_listener && known.is_some_and(|known| known.healthy.is_none())
    }

    fn look_back(&mut self, id: &str, now: Option<Explanation>) {
        let known = self.known.get_mut(id).and_then(Option::as_mut);
        if let (Some(known), Some(now)) = (known, now)
            && now.healthy.is_some()
        {
            known.healthy = now.healthy;
            let known = known.clone();
            self.write(id, &known);
        }
    }

    /// Who waited when most did is a part of it.
    fn queued(&mut self, id: &str) {
        let waiting = {
            let queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
            queued.get(id).cloned()
        };
        let Some(Some(known)) = self.known.get_mut(id) else {
            return;
        };
        let count = |waiting: &Option<Waiting>| waiting.as_ref().map_or(0, |one| one.count);
        if count(&waiting) > count(&known.waiting) {
            known.waiting = waiting;
            let known = known.clone();
            self.write(id, &known);
        }
    }

    fn write(&self, id: &str, explanation: &Explanation) {
        let Some(history) = &self.history else { return };
        if let Ok(context) = serde_json::to_value(explanation) {
            history.context(Context {
                incident: id.to_owned(),
                taken: explanation.taken,
                context,
            });
        }
    }

    /// Whether the like happened before, in words.
    fn again(&self, incident: &Incident) -> Option<String> {
        let reason = incident.reason().map_or("", |code| code.as_str());
        let key = (incident.subject(), reason.to_owned());
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watched = past.watched.clone();
        watched.push(Span {
            from: self.begun,
            until: Timestamp::now(),
        });
        let onsets = past.onsets.add(key, &[incident.started]);
        if onsets.len() < 2 {
            return None;
        }
        let known = recurrence(onsets, &watched, Timestamp::now(), &TimeZone::system())?;
        Some(known.words)
    }

    /// Failures were counted.
    pub fn counted(&mut self, seen: &Observation) {
        let count = seen.count();
        if count == 0 || self.history.is_none() {
            return;
        }
        let subject = seen.process.as_ref().map_or_else(
            || {
                seen.listener
                    .as_ref()
                    .and_then(crate::observation::Listener::place)
            },
            |process| Some(Process::from(process).subject()),
        );
        let mut key = (subject.unwrap_or_default(), seen.reason.as_str().to_owned());
        if self.minutes.len() >= MINUTES && !self.minutes.contains_key(&key) {
            key = ("other".to_owned(), key.1);
        }
        *self.minutes.entry(key).or_default() += count;
    }

    /// A second has passed, in which these incidents fire: the worst [`Self::STANDING`] of them.
    pub fn tick(&mut self, firing: &[IncidentRecord]) {
        let Some(history) = self.history.clone() else {
            return;
        };
        let _ = history.health();
        let now = Timestamp::now();
        let minute = now.as_second().div_euclid(60);
        if minute != self.minute {
            let time = Timestamp::from_second(self.minute * 60).unwrap_or(now);
            for ((subject, reason), count) in std::mem::take(&mut self.minutes) {
                history.minute(Minute {
                    time,
                    subject,
                    reason,
                    count,
                });
            }
            self.minute = minute;
            history.watch(history::Watch {
                from: self.begun,
                until: now,
            });
        }
        let ids: HashSet<&str> = firing.iter().map(|one| one.id.as_str()).collect();
        self.standing.retain(|id, _| ids.contains(id.as_str()));
        let mut standing = Vec::new();
        for record in firing {
            self.queued(&record.id);
            let failures = record.reasons.iter().map(|reason| reason.count).sum();
            let is_new = !self.standing.contains_key(&record.id);
            let noted = self.standing.entry(record.id.clone()).or_default();
            noted.ticks += 1;
            if noted.ticks > CLOSE && !noted.ticks.is_multiple_of(10) {
                continue;
            }
            let before = std::mem::replace(&mut noted.failures, failures);
            standing.push(Standing {
                id: record.id.clone(),
                // After a restart it is not known how many came since when.
                failures: if is_new && !self.known.contains_key(&record.id) {
                    0
                } else {
                    failures.saturating_sub(before)
                },
                pid: record.victim.process.as_ref().map(|process| process.pid),
                listeners: record
                    .listeners
                    .iter()
                    .filter_map(|one| one.inode)
                    .collect(),
            });
        }
        if !standing.is_empty() {
            let _ = self.asks.send(Ask::Sample(standing));
        }
    }

    /// Has what is left written.
    pub fn stop(&mut self) {
        if let Some(history) = &self.history {
            history.watch(history::Watch {
                from: self.begun,
                until: Timestamp::now(),
            });
            if !history.settle(FAREWELL) {
                log::warn!("the end of the history is not on disk yet");
            }
        }
    }
}

/// Adds an explanation to what is told.
fn tell(change: &mut Change, explanation: Explanation) {
    if let Some(alert) = &mut change.alert {
        let mut note = |name: &str, text: Option<String>| {
            if let Some(text) = text {
                alert.annotations.insert(name.to_owned(), text);
            }
        };
        let first = |causes: &[super::Cause]| {
            causes.first().map(|cause| {
                format!(
                    "{} ({}): {}",
                    crate::incident::plain(&cause.what),
                    cause.strength.name(),
                    crate::incident::plain(&cause.evidence.join("; "))
                )
            })
        };
        note("cause", first(&explanation.mechanism));
        note("trigger", first(&explanation.trigger));
        note("again", explanation.again.clone());
        let healthy = explanation.healthy.as_ref().map(|healthy| {
            format!(
                "{} open connections of {} stayed, {} of which carried data meanwhile: a health check over one \
                 of them sees nothing",
                healthy.open, healthy.listener, healthy.carried
            )
        });
        note("healthy", healthy);
        let waiting = explanation.waiting.as_ref();
        note("waiting", waiting.and_then(Waiting::words));
    }
    change.record.explanation = Some(Box::new(explanation));
}

/// Reads what was before, from a thread of its own: the disk may hang.
fn remember(file: &Path, history: Option<Arc<History>>, past: Arc<Mutex<Past>>) -> Result<()> {
    let file = file.to_owned();
    thread::Builder::new()
        .name("turnaway-past".to_owned())
        .spawn(move || {
            privileges::keep(Duty::Serve);
            // Once the writer has opened it, and found it sound.
            if history.is_some_and(|history| !history.settle(Duration::from_mins(10))) {
                return;
            }
            match read(&file) {
                Ok(read) => {
                    let mut past = past.lock().unwrap_or_else(PoisonError::into_inner);
                    past.watched = read.watched;
                    past.contexts = read.contexts;
                    // What came meanwhile is newer.
                    let since = std::mem::replace(&mut past.onsets, read.onsets);
                    for (key, onsets) in since.0 {
                        past.onsets.add(key, &onsets);
                    }
                }
                Err(error) => log::warn!("what happened before is not known: {error:#}"),
            }
        })
        .context("cannot start a thread to read the history")?;
    Ok(())
}

fn read(file: &Path) -> Result<Past> {
    let reader = Reader::open(file)?;
    let mut past = Past::default();
    // They are read newest first; those that had one last are to be the last.
    for incident in reader.incidents(&Wanted::default())?.into_iter().rev() {
        let reason = incident
            .reason()
            .map_or("", |code| code.as_str())
            .to_owned();
        let key = (incident.subject(), reason);
        past.onsets.add(key, &[incident.started]);
        if incident.ended.is_none()
            && let Ok(Some(context)) = reader.context(&incident.id)
            && let Ok(explanation) = serde_json::from_value(context.context)
        {
            past.contexts.insert(incident.id, explanation);
        }
    }
    past.watched = reader
        .watches()?
        .into_iter()
        .map(|watch| Span {
            from: watch.from,
            until: watch.until,
        })
        .collect();
    Ok(past)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{replay::Replay, rules::Rules};

    /// An explainer whose questions come here.
    fn explainer() -> (Explainer, Receiver<Ask>) {
        let (asks, asked) = mpsc::channel();
        let explainer = Explainer {
            history: None,
            asks,
            queued: Queued::default(),
            runs: mpsc::channel().1,
            known: LinkedHashMap::new(),
            late: HashMap::new(),
            standing: HashMap::new(),
            minute: 0,
            minutes: BTreeMap::new(),
            begun: Timestamp::UNIX_EPOCH,
            past: Arc::default(),
        };
        (explainer, asked)
    }

    fn explanation(taken: Timestamp) -> Explanation {
        Explanation {
            taken,
            ..Explanation::default()
        }
    }

    /// An incident that fires.
    fn fired() -> Change {
        let lines = include_str!("../../../tests/tests/replay/pooler.ndjson");
        let mut replay = Replay::new(Rules::default());
        let mut changes = lines.lines().flat_map(|line| replay.line(Ok(line)).1);
        let mut fired = changes.find(|change| change.what == What::Fired).unwrap();
        fired.record.explanation = None;
        fired
    }

    #[test]
    fn of_ever_new_victims_those_that_had_an_incident_last_are_remembered() {
        let mut onsets = Onsets::default();
        let key = |name: &str| (name.to_owned(), "accept.emfile".to_owned());
        let second = |second| Timestamp::from_second(second).unwrap();
        for number in 0..5_000 {
            onsets.add(key("pooler"), &[second(number)]);
            onsets.add(key(&format!("job in {number}")), &[second(number)]);
        }
        assert_eq!(onsets.0.len(), VICTIMS);
        let known = onsets.add(key("pooler"), &[second(4_999)]);
        assert_eq!(known.len(), ONSETS);
        assert_eq!(known.last(), Some(&second(4_999)));
        assert_eq!(onsets.add(key("job in 4999"), &[second(6_000)]).len(), 2);
        assert_eq!(onsets.add(key("job in 0"), &[second(6_000)]).len(), 1);
        // What is read from the history comes when newer ones are known.
        assert_eq!(
            onsets.add(key("job in 4999"), &[second(1)]),
            [second(1), second(4_999), second(6_000)]
        );
    }

    #[test]
    fn an_explanation_that_comes_late_is_told_all_the_same() {
        let (mut explainer, asked) = explainer();
        let mut changes = [fired()];
        let id = changes[0].record.id.clone();
        explainer.explain(&mut changes);
        assert_eq!(changes[0].record.explanation, None, "nobody has answered");
        assert!(explainer.late().is_empty());

        let Ok(Ask::Explain(incident, reply)) = asked.recv() else {
            panic!("it was not asked for");
        };
        assert_eq!(incident.id, id);
        reply.send(explanation(incident.started)).unwrap();
        assert_eq!(explainer.late(), [id]);
        assert!(explainer.late().is_empty(), "once");
        changes[0].what = What::Updated;
        explainer.explain(&mut changes);
        assert!(changes[0].record.explanation.is_some());
    }

    #[test]
    fn what_is_over_is_told_and_not_kept() {
        let (mut explainer, _asked) = explainer();
        let mut changes = [fired()];
        let record = &changes[0].record;
        let known = explanation(record.started);
        explainer
            .known
            .insert(record.id.clone(), Some(known.clone()));
        changes[0].what = What::Resolved;
        explainer.explain(&mut changes);
        assert_eq!(changes[0].record.explanation.as_deref(), Some(&known));
        assert!(explainer.known.is_empty());
    }

    #[test]
    fn what_was_known_before_a_restart_is_part_of_what_is_told() {
        let (mut explainer, _asked) = explainer();
        let mut changes = [fired()];
        changes[0].what = What::Updated;
        let record = &changes[0].record;
        let known = explanation(record.started);
        let past = || explainer.past.lock().unwrap();
        past().contexts.insert(record.id.clone(), known.clone());
        assert!(explainer.late().is_empty(), "it has been told");
        explainer.explain(&mut changes);
        assert_eq!(changes[0].record.explanation.as_deref(), Some(&known));
    }
}
