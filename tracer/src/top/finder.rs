//! Whose listeners are, and how many descriptors those have: asked of /proc by a thread of its own,
//! which capture does not wait for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::sample::{Detail, Peer, ProcessSample, RowId};
use crate::{
    advice::System,
    attribute::{Attributor, Who, survey},
    event::{Key, Listener, Process, ProcessId},
    observation::Code,
    privileges::{self, Duty},
    sink::{
        self, name,
        text::{Look, Text},
    },
    sockets::Poller,
    text, trace,
};

/// Most time that one search through all descriptors takes.
const SEARCH: Duration = Duration::from_secs(1);
/// Between two searches at least …
const BETWEEN: Duration = Duration::from_secs(5);
/// … and so many times as long as one takes.
const SHARE: u32 = 50;
/// Most time that counting descriptors takes in a second; the rest are counted in the next ones.
const COUNTING: Duration = Duration::from_millis(20);
/// Most processes that are followed.
const PROCESSES: usize = 4096;
/// Most owners of a listener that are told.
const OWNERS: usize = 64;
/// Most time that looking at what holds the descriptors of one process takes.
const HOLDINGS: Duration = Duration::from_millis(100);
/// Most clients in a detail.
const PEERS: usize = 200;

/// What is wanted.
#[derive(Default)]
pub(super) struct Wanted {
    /// Socket inodes of all listeners.
    pub(super) sockets: BTreeSet<u64>,
    /// Processes that are known to accept.
    pub(super) acceptors: BTreeSet<u32>,
    /// More of one row.
    pub(super) detail: Option<About>,
}

/// What is known of the row that more is wanted of.
#[derive(Clone)]
pub(super) struct About {
    pub(super) row: RowId,
    /// The process whose descriptors are looked at.
    pub(super) pid: Option<u32>,
    /// Network namespace and port of a TCP listener.
    pub(super) tcp: Option<(u32, u16)>,
    /// The last failure of each reason.
    pub(super) failures: Vec<Last>,
}

/// The last failure of one key: what advice depends on.
#[derive(Clone)]
pub(super) struct Last {
    pub(super) key: Key,
    pub(super) listener: Listener,
    pub(super) process: Option<(ProcessId, Process)>,
}

/// What was found.
#[derive(Clone, Default)]
pub(super) struct Found {
    /// Process ids by socket inode.
    pub(super) owners: Arc<HashMap<u64, Vec<u32>>>,
    /// Every process was looked at.
    pub(super) complete: bool,
    /// Processes by id.
    pub(super) processes: Arc<BTreeMap<u32, ProcessSample>>,
    /// More of one row.
    pub(super) detail: Option<Detail>,
}

/// The thread. It ends when this is dropped.
pub(super) struct Finder {
    ask: mpsc::SyncSender<Wanted>,
    found: Arc<Mutex<Found>>,
}

impl Finder {
    pub(super) fn start() -> Result<Self> {
        // One that is busy is not asked again.
        let (ask, asked) = mpsc::sync_channel(1);
        let found = Arc::new(Mutex::new(Found::default()));
        let shared = Arc::clone(&found);
        thread::Builder::new()
            .name("turnaway-owners".to_owned())
            .spawn(move || {
                privileges::keep(Duty::Look);
                let mut search = Search::new();
                while let Ok(wanted) = asked.recv() {
                    let found = search.look(wanted);
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = found;
                }
            })
            .context("cannot start a thread to look for owners")?;
        Ok(Self { ask, found })
    }

    /// Has it look, if it is not busy.
    pub(super) fn ask(&self, wanted: Wanted) {
        let _ = self.ask.try_send(wanted);
    }

    /// What it has found last.
    pub(super) fn found(&self) -> Found {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

struct Search {
    attributor: Attributor,
    poller: Poller,
    system: System,
    /// Sockets that the last search was for.
    searched: BTreeSet<u64>,
    /// When the next may be.
    next: Option<Instant>,
    owners: Arc<HashMap<u64, Vec<u32>>>,
    complete: bool,
    processes: BTreeMap<u32, ProcessSample>,
    /// The process that was counted last.
    counted: u32,
}

impl Search {
    fn new() -> Self {
        let root = Path::new("/");
        Self {
            attributor: Attributor::new(root),
            poller: Poller::new(root),
            system: System::read(root),
            searched: BTreeSet::new(),
            next: None,
            owners: Arc::default(),
            complete: false,
            processes: BTreeMap::new(),
            counted: 0,
        }
    }

    fn look(&mut self, wanted: Wanted) -> Found {
        let due = self.next.is_none_or(|next| Instant::now() >= next);
        if due || self.searched.is_empty() {
            self.search(wanted.sockets);
        }
        for pid in wanted.acceptors {
            if !self.processes.contains_key(&pid) && self.processes.len() < PROCESSES {
                self.count(pid);
            }
        }
        self.count_some();
        Found {
            owners: Arc::clone(&self.owners),
            complete: self.complete,
            processes: Arc::new(self.processes.clone()),
            detail: wanted.detail.map(|about| self.detail(&about)),
        }
    }

    /// Who holds each socket.
    fn search(&mut self, sockets: BTreeSet<u64>) {
        let begun = Instant::now();
        let survey = survey::survey(Path::new("/"), &sockets, SEARCH);
        let mut owners: HashMap<u64, Vec<u32>> = HashMap::with_capacity(sockets.len());
        for process in &survey.processes {
            for inode in &process.holds {
                let pids = owners.entry(*inode).or_default();
                if pids.len() < OWNERS {
                    pids.push(process.pid);
                }
            }
        }
        if survey.is_of_all() {
            for inode in &sockets {
                owners.entry(*inode).or_default();
            }
        }
        let pids: BTreeSet<u32> = owners.values().flatten().copied().collect();
        self.processes.retain(|pid, _| pids.contains(pid));
        for pid in pids.into_iter().take(PROCESSES) {
            if !self.processes.contains_key(&pid) {
                self.count(pid);
            }
        }
        self.complete = survey.is_of_all();
        self.owners = Arc::new(owners);
        self.searched = sockets;
        let pause = BETWEEN.max(begun.elapsed() * SHARE);
        self.next = Some(Instant::now() + pause);
    }

    /// Counts the descriptors of the processes that were not counted for longest.
    fn count_some(&mut self) {
        let begun = Instant::now();
        let after = self.processes.range(self.counted.saturating_add(1)..);
        let before = self.processes.range(..=self.counted);
        let pids: Vec<u32> = after.chain(before).map(|(pid, _)| *pid).collect();
        for pid in pids {
            if begun.elapsed() > COUNTING {
                break;
            }
            self.count(pid);
            self.counted = pid;
        }
    }

    fn count(&mut self, pid: u32) {
        let Some(party) = self.attributor.party_of_pid(pid) else {
            self.processes.remove(&pid);
            return;
        };
        let known = self.processes.get(&pid);
        // Most names are the same as a second ago.
        let shared = |text: String, known: Option<&Arc<str>>| match known {
            Some(known) if **known == *text => Arc::clone(known),
            _ => text.into(),
        };
        let place = name::place(&party.identity).unwrap_or_default();
        let cgroup = party.identity.cgroup.as_deref().map(text::terminal);
        let process = ProcessSample {
            pid,
            comm: shared(text::terminal(&party.facts.comm), known.map(|it| &it.comm)),
            place: shared(place, known.map(|it| &it.place)),
            cgroup: shared(cgroup.unwrap_or_default(), known.map(|it| &it.cgroup)),
            used: self.attributor.open_descriptors(party.id),
            limit: party.facts.nofile.and_then(|limit| limit.soft),
        };
        self.processes.insert(pid, process);
    }

    fn detail(&mut self, about: &About) -> Detail {
        let text = Text::new(Look::default());
        let party = about.pid.and_then(|pid| self.attributor.party_of_pid(pid));
        let holdings = party
            .and_then(|party| self.attributor.holdings(party.id, HOLDINGS))
            .map(|held| sink::holdings::lines(&text, &held))
            .unwrap_or_default();
        let advice = about
            .failures
            .iter()
            .map(|last| {
                let who = match &last.process {
                    Some((id, facts)) => {
                        let identity = self.attributor.process(*id, facts);
                        Who::process(*id, facts.clone(), identity)
                    }
                    None => Who::default(),
                };
                let (key, listener) = (&last.key, &last.listener);
                let advice = trace::advise(&self.attributor, self.system, key, listener, &who);
                let lines = text.advice(&advice);
                let lines = lines.lines().map(|line| line.trim().to_owned());
                (Code::from(key.reason), lines.collect())
            })
            .collect();
        let peers = about.tcp.and_then(|(netns, port)| self.peers(netns, port));
        Detail {
            row: Some(about.row.clone()),
            advice,
            holdings,
            peers_complete: peers.as_ref().is_some_and(|peers| peers.len() < PEERS),
            peers: peers.unwrap_or_default(),
        }
    }

    /// Clients of a port, those that wait and have most first.
    fn peers(&mut self, netns: u32, port: u16) -> Option<Vec<Peer>> {
        let waiting = self.poller.waiting(netns, port)?;
        let open = self.poller.established(netns, port)?;
        let mut peers: HashMap<IpAddr, Peer> = HashMap::new();
        for one in waiting {
            let peer = peers.entry(one.peer.ip()).or_default();
            let waited = u64::try_from(one.waited.as_nanos()).unwrap_or(u64::MAX);
            peer.waiting += 1;
            peer.longest_ns = peer.longest_ns.max(waited);
        }
        for one in open {
            peers.entry(one.peer.ip()).or_default().open += 1;
        }
        let mut peers: Vec<Peer> = peers
            .into_iter()
            .map(|(address, peer)| Peer {
                address: address.to_string(),
                ..peer
            })
            .collect();
        peers.sort_by(|a, b| (b.waiting, b.open, &a.address).cmp(&(a.waiting, a.open, &b.address)));
        peers.truncate(PEERS);
        Some(peers)
    }
}
