//! Watches what goes on, from a thread of its own.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};

use super::{
    Explanation, Healthy, Held, Pressures, Started, VictimState, Waiting, cause,
    conceal::conceal,
    host::{self, Looked},
    table::Table,
    usage::Usage,
    waiting,
};
use crate::{
    attribute::holdings::{Holdings, Kind, holdings},
    event::Address,
    history::{History, Incident, Pressure, Run, Sample},
    kernel::programs::{Program, Programs},
    memory,
    record::{Clock, unix_name},
    sockets::{Listener, Poller},
    text,
};

/// How often programs are read.
const SECOND: Duration = Duration::from_secs(1);
/// How often it is noted what all processes have used.
const NOTED: Duration = Duration::from_mins(1);
/// How often programs that have come to run long go into the history.
const LONG: Duration = Duration::from_secs(5);
/// Most processes that are looked at.
const PROCESSES: usize = 10_000;
/// Most time that looking at the victim's descriptors takes.
const HOLDINGS: Duration = Duration::from_millis(200);

/// What is asked of the thread.
pub(super) enum Ask {
    /// Read these programs from now on.
    Programs(Box<Programs>),
    /// Explain this incident.
    Explain(Box<Incident>, SyncSender<Explanation>),
    /// Note how these incidents stand.
    Sample(Vec<Standing>),
}

/// Who waited when most did, by incident: written by the thread, read by the one who asks.
pub(super) type Queued = Arc<Mutex<HashMap<String, Waiting>>>;

/// How an incident stands, as far as the one who asks knows.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) id: String,
    pub(super) failures: u64,
    pub(super) pid: Option<u32>,
    /// Network namespace and inode of a listener.
    pub(super) listeners: Vec<u64>,
}

/// The thread's state.
pub(super) struct Watch {
    root: PathBuf,
    asked: Receiver<Ask>,
    history: Option<Arc<History>>,
    /// Where runs of programs are told, besides the history.
    runs: Sender<Run>,
    programs: Option<Box<Programs>>,
    table: Table,
    usage: Usage,
    poller: Poller,
    queued: Queued,
    /// Length of a tick of the processors' clock.
    tick: Duration,
    noted: Option<Instant>,
    long: Instant,
    minute: i64,
}

impl Watch {
    pub(super) fn new(
        root: &Path,
        asked: Receiver<Ask>,
        history: Option<Arc<History>>,
        runs: Sender<Run>,
        queued: Queued,
    ) -> Self {
        let ticks = u32::try_from(clock_ticks_per_second())
            .unwrap_or(100)
            .max(1);
        Self {
            root: root.to_owned(),
            asked,
            history,
            runs,
            programs: None,
            table: Table::default(),
            usage: Usage::default(),
            poller: Poller::new(root),
            queued,
            tick: SECOND / ticks,
            noted: None,
            long: Instant::now(),
            minute: Timestamp::now().as_second().div_euclid(60),
        }
    }

    /// Until nobody can ask any more.
    pub(super) fn run(mut self) {
        let mut due = Instant::now();
        loop {
            if Instant::now() >= due {
                self.second();
                due = Instant::now() + SECOND;
            }
            match self
                .asked
                .recv_timeout(due.saturating_duration_since(Instant::now()))
            {
                Ok(Ask::Programs(programs)) => self.begin(programs),
                Ok(Ask::Explain(incident, reply)) => {
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(self.explain(&incident));
                }
                Ok(Ask::Sample(standing)) => self.sample(&standing),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Programs are seen from now on. Those that run already began before.
    fn begin(&mut self, programs: Box<Programs>) {
        self.programs = Some(programs);
        let clock = Clock::now();
        let looked = host::processes(&self.root, PROCESSES);
        let names: HashMap<u32, String> = looked
            .iter()
            .map(|one| (one.pid, one.comm.clone()))
            .collect();
        let stacks: HashMap<u32, u64> = looked
            .iter()
            .filter_map(|one| Some((one.pid, one.stack?)))
            .collect();
        for one in looked {
            // What a server forks, such as the workers of a database, is that server still: no program began.
            if one.stack.is_some() && stacks.get(&one.parent).copied() == one.stack {
                continue;
            }
            let Some(started) = self.started(&one, &clock) else {
                continue;
            };
            let mut program = Started {
                pid: one.pid,
                comm: one.comm,
                started,
                ended: None,
                exe: None,
                argv: None,
                unit: None,
                parent: names.get(&one.parent).cloned(),
                clock: None,
            };
            complete(&self.root, &mut program);
            // A kernel thread is no program.
            if program.exe.is_some() {
                self.table.began(program, false);
            }
        }
        self.drain();
    }

    fn started(&self, one: &Looked, clock: &Clock) -> Option<Timestamp> {
        let nanoseconds = u128::from(one.start_ticks) * self.tick.as_nanos();
        Some(clock.wall_of_boottime(u64::try_from(nanoseconds).ok()?))
    }

    fn second(&mut self) {
        self.drain();
        let now = Timestamp::now();
        if self.long.elapsed() >= LONG {
            self.long = Instant::now();
            let root = &self.root;
            let runs = self.table.long(now, |program| complete(root, program));
            for run in runs {
                tell(self.history.as_deref(), &self.runs, run);
            }
        }
        if self.noted.is_none_or(|noted| noted.elapsed() >= NOTED) {
            self.noted = Some(Instant::now());
            let looked = host::processes(&self.root, PROCESSES);
            self.usage.note(&looked, now, steady());
            // This thread holds up nobody who captures, and has just used most of what it ever does.
            memory::give_back();
        }
        let minute = now.as_second().div_euclid(60);
        if minute != self.minute {
            self.pressure_of_minute();
            self.minute = minute;
        }
    }

    fn pressure_of_minute(&self) {
        let levels = host::pressure(&self.root.join("proc/pressure"), "");
        let (Some(history), Ok(levels)) = (&self.history, levels) else {
            return;
        };
        if let Ok(time) = Timestamp::from_second(self.minute * 60) {
            history.pressure(Pressure {
                time,
                cpu: levels.cpu.map(|level| level.avg60),
                io: levels.io.map(|level| level.avg60),
                memory: levels.memory.map(|level| level.avg60),
            });
        }
    }

    fn drain(&mut self) {
        let Some(programs) = &mut self.programs else {
            return;
        };
        let clock = Clock::now();
        let table = &mut self.table;
        let (history, runs) = (self.history.as_deref(), &self.runs);
        programs.drain(
            |Program {
                 id,
                 boottime_ns,
                 began,
             }| {
                let at = clock.wall_of_boottime(boottime_ns);
                match began {
                    Some(began) => table.began(
                        Started {
                            pid: id.pid,
                            comm: text::json(&began.comm),
                            started: at,
                            ended: None,
                            exe: None,
                            argv: began
                                .arguments
                                .as_deref()
                                .map(|all| conceal(&text::json(all))),
                            unit: None,
                            parent: began.parent.as_deref().map(text::json),
                            clock: None,
                        },
                        true,
                    ),
                    None => {
                        if let Some(run) = table.ended(id.pid, at) {
                            tell(history, runs, run);
                        }
                    }
                }
            },
        );
    }

    fn explain(&mut self, incident: &Incident) -> Explanation {
        self.drain();
        let now = Timestamp::now();
        let (mut started, started_more) = self.table.before(incident.started);
        for program in &mut started {
            complete(&self.root, program);
        }
        let looked = host::processes(&self.root, PROCESSES);
        let lost = self.programs.as_ref().and_then(|programs| programs.lost());
        let mut explanation = Explanation {
            taken: now,
            started,
            started_more,
            started_lost: lost.map(|lost| lost + self.table.lost()),
            pressure: Some(self.pressure(incident, now)),
            busy: self.usage.busiest(&looked, now, steady(), self.tick),
            victim: self.victim(incident, &looked),
            memory: host::memory(&self.root, now),
            files: host::files(&self.root, now),
            healthy: self.healthy(incident),
            waiting: self.waiting(incident),
            ..Explanation::default()
        };
        explanation.mechanism = cause::mechanism(incident, &explanation);
        explanation.trigger = cause::trigger(incident, &explanation);
        explanation
    }

    fn pressure(&self, incident: &Incident, read: Timestamp) -> Pressures {
        let mut unavailable = Vec::new();
        let mut take = |levels: Result<_, String>| levels.map_err(|why| unavailable.push(why)).ok();
        let host = take(host::pressure(&self.root.join("proc/pressure"), ""));
        let pid = incident.victim.process.as_ref().map(|process| process.pid);
        let cgroup = pid
            .and_then(|pid| host::unit(&self.root, pid))
            .and_then(|(_, path)| {
                let path = text::json(&path);
                let folder = self
                    .root
                    .join("sys/fs/cgroup")
                    .join(path.trim_start_matches('/'));
                take(host::pressure(&folder, ".pressure"))
            });
        Pressures {
            read,
            host,
            cgroup,
            unavailable,
        }
    }

    fn victim(&self, incident: &Incident, looked: &[Looked]) -> Option<VictimState> {
        if incident.is_of_client() {
            return None;
        }
        let pid = incident.victim.process.as_ref()?.pid;
        let one = looked.iter().find(|one| one.pid == pid)?;
        let limits = host::limits(&self.root, pid);
        let held = holdings(&self.root, pid, HOLDINGS);
        Some(VictimState {
            read: Timestamp::now(),
            pid,
            fd: one.used.fds.or_else(|| Some(held.as_ref()?.total)),
            soft: limits.and_then(|(soft, _)| soft),
            hard: limits.and_then(|(_, hard)| hard),
            complete: held.as_ref().is_some_and(|held| held.complete),
            held: held.map_or_else(Vec::new, |held| groups(&held)),
            fd_before: self.usage.fds(pid, one.start_ticks),
        })
    }

    fn healthy(&mut self, incident: &Incident) -> Option<Healthy> {
        if incident.is_of_client() {
            return None;
        }
        let listener = incident.listeners.iter().find(|one| one.port.is_some())?;
        let port = u16::try_from(listener.port?).ok()?;
        let open = self.poller.established(listener.netns?, port)?;
        let read = Timestamp::now();
        let since = Duration::try_from(read.duration_since(incident.started)).unwrap_or_default();
        let carried = open
            .iter()
            .filter(|one| one.quiet.is_some_and(|quiet| quiet <= since));
        let carried = carried.count() as u64;
        let mut peers: HashMap<IpAddr, u64> = HashMap::new();
        for one in &open {
            *peers.entry(one.peer.ip()).or_default() += 1;
        }
        Some(Healthy {
            read,
            listener: listener.place()?,
            open: open.len() as u64,
            carried,
            peers: waiting::most(peers),
        })
    }

    fn waiting(&mut self, incident: &Incident) -> Option<Waiting> {
        if incident.is_of_client() {
            return None;
        }
        let listener = incident.listeners.iter().find(|one| one.port.is_some())?;
        let port = u16::try_from(listener.port?).ok()?;
        let place = listener.place()?;
        waiting::look(
            &mut self.poller,
            &self.root,
            listener.netns?,
            port,
            place,
            waiting::BUDGET,
        )
    }

    fn sample(&mut self, standing: &[Standing]) {
        let Some(history) = self.history.clone() else {
            return;
        };
        self.forget(standing);
        let levels = host::pressure(&self.root.join("proc/pressure"), "").unwrap_or_default();
        let poll = self.poller.poll();
        let listeners = || {
            poll.namespaces.iter().flat_map(|namespace| {
                let listeners = namespace.listeners.iter();
                listeners.map(|listener| (namespace.inode, listener))
            })
        };
        for one in standing {
            let own = listeners().filter(|(_, listener)| one.listeners.contains(&listener.inode));
            // Of several, the fullest tells.
            let fullest = own.max_by_key(|(_, listener)| listener.depth);
            let limits = one.pid.and_then(|pid| host::limits(&self.root, pid));
            let folder = one
                .pid
                .map(|pid| self.root.join("proc").join(pid.to_string()));
            let level = |level: Option<super::Level>| level.map(|level| level.avg10);
            let sample = Sample {
                time: Timestamp::now(),
                failures: one.failures,
                queue: fullest.map(|(_, listener)| u64::from(listener.depth)),
                backlog: fullest.map(|(_, listener)| u64::from(listener.limit)),
                fd_used: folder.and_then(|folder| host::fds(&folder)),
                fd_limit: limits.and_then(|(soft, _)| soft),
                cpu: level(levels.cpu),
                io: level(levels.io),
                memory: level(levels.memory),
            };
            history.sample(&one.id, sample);
            if let Some((netns, fullest)) = fullest {
                self.longer(&one.id, netns, fullest);
            }
        }
    }

    /// What is over needs no more.
    fn forget(&self, standing: &[Standing]) {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.retain(|id, _| standing.iter().any(|one| one.id == *id));
    }

    /// Who waits is looked at anew when clearly more wait than ever before.
    fn longer(&mut self, id: &str, netns: u32, listener: &Listener) {
        let Some(Address::Inet(address)) = &listener.address else {
            return;
        };
        let before = {
            let queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
            queued.get(id).map_or(0, |waiting| waiting.count)
        };
        let now = u64::from(listener.depth);
        if now == 0 || now < before + before / 4 + 1 {
            return;
        }
        let place = address.to_string();
        let found = waiting::look(
            &mut self.poller,
            &self.root,
            netns,
            address.port(),
            place,
            waiting::BUDGET,
        );
        if let Some(found) = found.filter(|found| found.count > before) {
            let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
            queued.insert(id.to_owned(), found);
        }
    }
}

/// A program has come to run for long, or has done so and ended.
fn tell(history: Option<&History>, runs: &Sender<Run>, run: Run) {
    // Nobody may want to know.
    let _ = runs.send(run.clone());
    if let Some(history) = history {
        history.run(run);
    }
}

/// What is read only of programs that are to be told: many live for less than it takes.
fn complete(root: &Path, program: &mut Started) {
    if program.unit.is_none() {
        program.unit = host::unit(root, program.pid).and_then(|(unit, _)| unit);
    }
    if program.exe.is_none() {
        program.exe = host::exe(root, program.pid);
    }
    if program.clock.is_none() {
        program.clock = host::clock(root, program.unit.as_deref(), program.parent.as_deref());
    }
}

/// Descriptors by what they are: sockets in their groups, the rest by kind.
fn groups(held: &Holdings) -> Vec<Held> {
    let sockets = held.groups.iter().map(|group| Held {
        kind: Kind::Socket.name().to_owned(),
        state: group.state.map(str::to_owned),
        remote: group.remote.map(|remote| remote.to_string()),
        accepted_at: match (group.state, group.local_port, &group.path) {
            (Some("LISTEN"), ..) => None,
            (_, Some(port), _) => Some(port.to_string()),
            (_, None, Some(path)) => Some(text::json(&unix_name(path))),
            _ => None,
        },
        peers: (group.peers > 0).then_some(group.peers),
        count: group.count,
    });
    let others = held.kinds.iter().filter(|(kind, _)| *kind != Kind::Socket);
    let others = others.map(|(kind, count)| Held {
        kind: kind.name().to_owned(),
        count: *count,
        ..Held::default()
    });
    let mut groups: Vec<Held> = sockets.chain(others).collect();
    groups.sort_by_key(|held| std::cmp::Reverse(held.count));
    groups.truncate(20);
    groups
}

/// A clock that never goes back.
fn steady() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
