//! Keeps what a run shows, for samples. Bounded: a host with more listeners, or more that fails, has the
//! rest counted together.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use hashlink::LinkedHashMap;
use jiff::Timestamp;
use turnaway_common::{ListenerStats, Reason};

use super::{
    finder::{About, Finder, Found, Last, Wanted},
    sample::{
        Detail, FailureSample, ListenerSample, LostSample, MAX_FAILURES, MAX_LISTENERS,
        ReasonSample, RowId, Sample,
    },
};
use crate::{
    attribute::{Who, timens::monotonic_ns},
    errno,
    event::{Address, Count, Failure, Key, Listener, ProcessId},
    kernel::jiffies,
    observation::Code,
    record::{Listening, Seen},
    sink::name,
    sockets::{self, Poll},
    text,
    trace::Reading,
};

/// `IPPROTO_TCP`, as [`sockets::Listener`] has them.
const TCP: u16 = 6;
/// Problems of a look that are told at most.
const PROBLEMS: usize = 5;

/// A stall that lasts is told every second; one that was not told for so long is over.
const STALLED_NS: u64 = 5_000_000_000;

/// One failing thing: whose call, where, why.
type Id = (
    Option<ProcessId>,
    Option<u64>,
    Option<crate::event::Target>,
    Reason,
    Option<u16>,
);

fn id(key: &Key) -> Id {
    (
        key.process,
        key.socket_inode,
        key.target,
        key.reason,
        key.errno,
    )
}

struct Failing {
    sample: FailureSample,
    last: Last,
}

/// What is kept.
pub(crate) struct Collector {
    host: String,
    since_ns: u64,
    jiffy: Option<Duration>,
    finder: Finder,
    /// Listeners as they were looked at last.
    listeners: Vec<Looked>,
    more: u64,
    problems: Vec<String>,
    /// Those seen last at the end.
    failures: LinkedHashMap<Id, Failing>,
    reasons: BTreeMap<Reason, (u64, u64)>,
    /// How long nobody has accepted, by socket inode, and when that was told.
    stalled: HashMap<u64, (u64, u64)>,
    counted: HashMap<u64, Counted>,
    /// What was counted before this began; `None` until that is known.
    base: Option<HashMap<u64, Counted>>,
    see: Option<Seen>,
    lost: LostSample,
    unseen: Vec<String>,
    /// More is wanted of this row.
    wanted: Option<RowId>,
}

/// A listener that was looked at.
struct Looked {
    inode: u64,
    cookie: u64,
    name: Arc<str>,
    port: Option<u32>,
    is_tcp: bool,
    netns: u32,
    depth: u32,
    limit: u32,
}

/// What hooks counted for a listener.
#[derive(Clone)]
struct Counted {
    accepted: Option<u64>,
    last_accept_ns: u64,
    acceptor: Option<u32>,
    waits: Vec<(u64, u64)>,
}

impl Collector {
    /// One that begins with the hooks.
    pub(crate) fn start(host: &str) -> Result<Self> {
        Ok(Self {
            base: Some(HashMap::new()),
            host: host.to_owned(),
            since_ns: monotonic_ns(),
            jiffy: jiffies::length(),
            finder: Finder::start()?,
            listeners: Vec::new(),
            more: 0,
            problems: Vec::new(),
            failures: LinkedHashMap::new(),
            reasons: BTreeMap::new(),
            stalled: HashMap::new(),
            counted: HashMap::new(),
            see: None,
            lost: LostSample::default(),
            unseen: Vec::new(),
            wanted: None,
        })
    }

    /// One that begins later: what there was before is not counted.
    pub(crate) fn start_late(host: &str) -> Result<Self> {
        Ok(Self {
            base: None,
            ..Self::start(host)?
        })
    }

    /// Hooks are in place: counting begins.
    pub(crate) fn begin(&mut self) {
        self.since_ns = monotonic_ns();
    }

    /// A sample could not be shown.
    pub(crate) fn skipped(&mut self) {
        self.lost.samples += 1;
    }

    /// More is wanted of this row from now on, or of none.
    pub(crate) fn want(&mut self, row: Option<RowId>) {
        self.wanted = row;
    }

    /// Takes in what queues look like.
    pub(crate) fn looked(&mut self, poll: &Poll) {
        let is_first = self.listeners.is_empty();
        let names: HashMap<(u64, u64), Arc<str>> = self
            .listeners
            .drain(..)
            .map(|one| ((one.inode, one.cookie), one.name))
            .collect();
        let mut more = 0;
        for namespace in &poll.namespaces {
            for one in &namespace.listeners {
                if self.listeners.len() >= MAX_LISTENERS {
                    more += 1;
                    continue;
                }
                let name = names.get(&(one.inode, one.cookie));
                self.listeners.push(Looked {
                    inode: one.inode,
                    cookie: one.cookie,
                    name: name.map_or_else(|| name_of(one), Arc::clone),
                    port: one.address.as_ref().and_then(port),
                    is_tcp: one.protocol == TCP,
                    netns: namespace.inode,
                    depth: one.depth,
                    limit: one.limit,
                });
            }
        }
        self.more = more;
        let inside = poll.namespaces.iter().filter_map(|namespace| {
            let problem = namespace.problem.as_ref()?;
            Some(format!("net:[{}]: {problem}", namespace.inode))
        });
        let problems = poll.unreachable.iter().cloned().chain(inside);
        self.problems = problems
            .take(PROBLEMS)
            .map(|problem| text::terminal(problem.as_bytes()))
            .collect();
        if is_first {
            // So that owners are there with the first sample.
            self.ask();
        }
    }

    /// Takes in a counter's growth.
    pub(crate) fn count(&mut self, count: &Count, who: &Who) {
        let key = &count.key;
        let (sum, last_ns) = self.reasons.entry(key.reason).or_default();
        *sum = sum.saturating_add(count.count);
        *last_ns = (*last_ns).max(count.last_ns);
        let failing = self.failing(key, &count.listener, count.process.as_ref(), who);
        let sample = &mut failing.sample;
        sample.count = sample.count.saturating_add(count.count);
        sample.last_ns = sample.last_ns.max(count.last_ns);
        sample.approximate |= count.approximate;
    }

    /// Takes in an exemplar, which says more of its kind; the count comes apart.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        if failure.key.reason == Reason::QueueStalled
            && let Some(inode) = failure.key.socket_inode
        {
            if failure.ended {
                self.stalled.remove(&inode);
            } else {
                self.lasting(failure);
            }
        }
    }

    /// Takes in a state that lasts.
    pub(crate) fn lasting(&mut self, failure: &Failure) {
        if failure.key.reason == Reason::QueueStalled
            && let (Some(inode), Some(waited)) = (failure.key.socket_inode, failure.waited_ns)
            && (self.stalled.len() < MAX_LISTENERS || self.stalled.contains_key(&inode))
        {
            self.stalled.insert(inode, (waited, monotonic_ns()));
        }
    }

    fn failing(
        &mut self,
        key: &Key,
        listener: &Listener,
        process: Option<&crate::event::Process>,
        who: &Who,
    ) -> &mut Failing {
        let id = id(key);
        let known = self.failures.to_back(&id).is_some();
        if !known && self.failures.len() >= MAX_FAILURES {
            // It stays in the sum of its reason.
            self.failures.pop_front();
        }
        self.failures.entry(id).or_insert_with(|| {
            let party = who.party.as_ref();
            let identity = party.map(|party| &party.identity);
            let shown = |text: Option<String>| Arc::<str>::from(text.unwrap_or_default());
            let cgroup = identity.and_then(|identity| identity.cgroup.as_deref());
            Failing {
                sample: FailureSample {
                    inode: key.socket_inode.filter(|_| !key.reason.is_of_connect()),
                    about: shown(about(key, listener, who)),
                    port: match key.target {
                        Some(target) => target.port(),
                        None => listener.address.as_ref().and_then(port),
                    },
                    pid: party.map(|party| party.id.pid),
                    comm: shown(party.map(|party| text::terminal(&party.facts.comm))),
                    place: shown(identity.and_then(|identity| name::place(identity))),
                    cgroup: shown(cgroup.map(text::terminal)),
                    reason: Code::from(key.reason),
                    errno: key.errno.map(|number| errno::name(number).into()),
                    count: 0,
                    last_ns: 0,
                    approximate: false,
                },
                last: Last {
                    key: *key,
                    listener: listener.clone(),
                    process: match (process, party) {
                        (Some(facts), _) => key.process.map(|id| (id, facts.clone())),
                        (None, Some(party)) => Some((party.id, party.facts.clone())),
                        (None, None) => None,
                    },
                },
            }
        })
    }

    /// Takes in how the run goes.
    pub(crate) fn reading(&mut self, reading: &Reading<'_>) {
        self.see = Some(reading.see);
        self.lost.ring = reading.losses.ring;
        self.lost.map = reading.losses.map;
        self.lost.missed = reading.losses.missed;
        self.unseen = reading
            .hooks
            .iter()
            .filter(|hook| hook.attached.is_none())
            .map(|hook| hook.hook.unseen().to_owned())
            .collect();
        if reading.all {
            let (see, jiffy) = (reading.see, self.jiffy);
            for (inode, stats) in reading.stats {
                take(&mut self.counted, *inode, stats, see, jiffy);
            }
            if self.base.is_none() {
                self.base = Some(self.counted.clone());
            }
            // Where more is kept than there is, some of it is of listeners that are gone.
            if self.counted.len() > reading.stats.len() {
                let there: HashSet<u64> = reading.stats.iter().map(|(inode, _)| *inode).collect();
                self.counted.retain(|inode, _| there.contains(inode));
            }
        }
    }

    /// What all comes to now.
    pub(crate) fn sample(&mut self) -> Sample {
        let at_ns = monotonic_ns();
        self.stalled
            .retain(|_, (_, told_ns)| at_ns.saturating_sub(*told_ns) < STALLED_NS);
        self.ask();
        let found = self.finder.found();
        Sample {
            at_ns,
            time: Timestamp::now(),
            host: self.host.clone(),
            since_ns: self.since_ns,
            listeners: self.listener_samples(&found),
            more: self.more,
            problems: self.problems.clone(),
            failures: self
                .failures
                .values()
                .map(|one| one.sample.clone())
                .collect(),
            reasons: self
                .reasons
                .iter()
                .map(|(reason, (count, last_ns))| ReasonSample {
                    reason: Code::from(*reason),
                    count: *count,
                    last_ns: *last_ns,
                })
                .collect(),
            processes: found.processes.values().cloned().collect(),
            owners_complete: found.complete,
            lost: self.lost,
            unseen: self.unseen.clone(),
            incidents: Vec::new(),
            detail: self.detail(found.detail),
        }
    }

    /// Has owners looked for, and what more is wanted.
    pub(crate) fn ask(&self) {
        self.finder.ask(Wanted {
            sockets: self.listeners.iter().map(|one| one.inode).collect(),
            acceptors: self
                .counted
                .values()
                .filter_map(|one| one.acceptor)
                .collect(),
            detail: self.about(),
        });
    }

    fn detail(&self, found: Option<Detail>) -> Option<Detail> {
        found.filter(|detail| detail.row == self.wanted)
    }

    fn listener_samples(&self, found: &Found) -> Vec<ListenerSample> {
        let sees = self.see.is_some_and(|see| see.accepts);
        self.listeners
            .iter()
            .map(|one| {
                let counted = self.counted.get(&one.inode);
                let base = self.base.as_ref().and_then(|base| base.get(&one.inode));
                let owners = found.owners.get(&one.inode);
                ListenerSample {
                    inode: one.inode,
                    cookie: one.cookie,
                    name: Arc::clone(&one.name),
                    port: one.port,
                    netns: one.netns,
                    depth: one.depth,
                    limit: one.limit,
                    owners: owners.cloned().unwrap_or_default(),
                    orphan: owners.is_some_and(Vec::is_empty),
                    acceptor: counted.and_then(|it| it.acceptor),
                    // Nothing was counted where nothing was accepted.
                    accepted: sees.then(|| counted.map_or(0, |it| it.accepted_since(base))),
                    last_accept_ns: counted.map(|it| it.last_accept_ns).filter(|ns| *ns > 0),
                    waits: counted.map(|it| it.waits_since(base)).unwrap_or_default(),
                    stalled_ns: self.stalled.get(&one.inode).map(|(waited, _)| *waited),
                }
            })
            .collect()
    }

    /// What is known of the row that more is wanted of.
    fn about(&self) -> Option<About> {
        let row = self.wanted.clone()?;
        let of = |sample: &FailureSample| match &row {
            RowId::Listener(inode) => sample.inode == Some(*inode),
            RowId::Other { about, pid } => sample.about == *about && sample.pid == *pid,
        };
        let mut last: BTreeMap<Reason, Last> = BTreeMap::new();
        for failing in self.failures.values().filter(|one| of(&one.sample)) {
            last.insert(failing.last.key.reason, failing.last.clone());
        }
        let (pid, tcp) = match &row {
            RowId::Other { pid, .. } => (*pid, None),
            RowId::Listener(inode) => {
                let listener = self.listeners.iter().find(|one| one.inode == *inode);
                let acceptor = self.counted.get(inode).and_then(|it| it.acceptor);
                let failed = last.values().find_map(|it| it.process.as_ref());
                let found = self.finder.found();
                let owner = found
                    .owners
                    .get(inode)
                    .and_then(|pids| pids.first().copied());
                let port = listener
                    .filter(|one| one.is_tcp)
                    .and_then(|one| Some((one.netns, u16::try_from(one.port?).ok()?)));
                (failed.map(|(id, _)| id.pid).or(acceptor).or(owner), port)
            }
        };
        Some(About {
            row,
            pid,
            tcp,
            failures: last.into_values().collect(),
        })
    }
}

impl Counted {
    /// What was accepted more than before; another socket of the same inode begins anew.
    fn accepted_since(&self, base: Option<&Self>) -> u64 {
        let now = self.accepted.unwrap_or(0);
        let before = base.and_then(|base| base.accepted).unwrap_or(0);
        now.checked_sub(before).unwrap_or(now)
    }

    fn waits_since(&self, base: Option<&Self>) -> Vec<(u64, u64)> {
        let Some(base) = base else {
            return self.waits.clone();
        };
        let had = |below: u64| {
            let known = base.waits.iter().find(|(other, _)| *other == below);
            known.map_or(0, |(_, count)| *count)
        };
        self.waits
            .iter()
            .map(|(below, count)| (*below, count.checked_sub(had(*below)).unwrap_or(*count)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

fn take(
    counted: &mut HashMap<u64, Counted>,
    inode: u64,
    stats: &ListenerStats,
    see: Seen,
    jiffy: Option<Duration>,
) {
    if let Some(known) = counted.get(&inode)
        && known.accepted == Some(stats.accepted)
        && known.last_accept_ns == stats.last_accept_ns
    {
        return;
    }
    let listening = Listening::new(inode, stats, see, jiffy);
    let waits = listening.waited.iter().flat_map(|waits| &waits.slots);
    counted.insert(
        inode,
        Counted {
            accepted: listening.accepted,
            last_accept_ns: stats.last_accept_ns,
            acceptor: listening.acceptor.map(|id| id.pid),
            waits: waits
                .map(|(below, count)| {
                    let below = u64::try_from(below.as_nanos()).unwrap_or(u64::MAX);
                    (below, *count)
                })
                .collect(),
        },
    );
}

/// What it is about; of a process's descriptors, all together.
fn about(key: &Key, listener: &Listener, who: &Who) -> Option<String> {
    if !key.reason.is_of_descriptors() {
        return name::about(key, listener, who);
    }
    let whose = match key.process {
        Some(_) => "(its fds)",
        None => "(the host's files)",
    };
    Some(whose.to_owned())
}

fn port(address: &Address) -> Option<u32> {
    match address {
        Address::Inet(address) => Some(u32::from(address.port())),
        Address::Vsock { port, .. } => Some(*port),
        Address::Unix(_) => None,
    }
}

fn name_of(one: &sockets::Listener) -> Arc<str> {
    name::listener(&Listener {
        family: Some(one.family),
        socket_type: Some(one.socket_type),
        protocol: Some(one.protocol),
        address: one.address.clone(),
        ..Listener::default()
    })
    .unwrap_or_default()
    .into()
}
