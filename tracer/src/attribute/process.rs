//! Identities, read once and kept for a while.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    Container, Far, Holder, Holders, Identity, NofileLimits, Parent, Party, Pod, Who,
    cache::Cache,
    cgroup::{ContainerId, Place, telling_path},
    far::{Client, FarEnds},
    holdings::{self, Holdings},
    kernfs::Cgroup2,
    owners::{self, Owners, SocketOwners},
    task::{Stat, Task},
    timens,
};
use crate::event::{NofileLimit, Process, ProcessId, Target};

/// Most processes that are remembered.
const IDENTITIES: usize = 4096;
/// Most containers, cgroups and sockets that are remembered, each.
const OTHERS: usize = 1024;
/// How long what was read is believed: a process can execute another program, be moved to
/// another cgroup, or exit.
const BELIEVED: Duration = Duration::from_secs(10);
/// Most time that a search through the descriptors of every process takes.
const OWNER_SEARCH: Duration = Duration::from_millis(500);

/// Answers who a process is, from procfs, cgroupfs and runtimes' files.
#[derive(Debug)]
pub struct Attributor {
    root: PathBuf,
    ticks: Ticks,
    cgroup2: Option<Cgroup2>,
    believed: Duration,
    identities: Cache<ProcessId, Entry>,
    containers: Cache<ContainerId, Believed<Container>>,
    cgroups: Cache<u64, Option<Vec<u8>>>,
    owners: Cache<u64, Believed<Owners>>,
    searched: Option<Searched>,
    far: FarEnds,
    /// Who was found at a listener last.
    parties: Cache<u64, Party>,
}

/// A program found behind a kernel worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The program's process.
    pub id: ProcessId,
    /// What is known of it; thread, limit and user are those of the failure.
    pub facts: Process,
}

#[derive(Debug)]
struct Believed<T> {
    value: T,
    read: Instant,
}

impl<T> Believed<T> {
    fn now(value: T) -> Self {
        Self {
            value,
            read: Instant::now(),
        }
    }
}

/// The last search for the owners of several sockets.
#[derive(Debug)]
struct Searched {
    sockets: BTreeSet<u64>,
    found: Believed<SocketOwners>,
}

#[derive(Debug)]
struct Entry {
    identity: Rc<Identity>,
    read: Instant,
    /// What the kernel side said then: a change means that procfs has changed too.
    facts: Changing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Changing {
    comm: Vec<u8>,
    cgroup_id: Option<u64>,
    parent_pid: Option<u32>,
}

impl Changing {
    fn of(facts: &Process) -> Self {
        Self {
            comm: facts.comm.clone(),
            cgroup_id: facts.cgroup_id,
            parent_pid: facts.parent_pid,
        }
    }
}

/// How `/proc/PID/stat` counts the start of a process.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    /// Length of a tick, nanoseconds.
    length_ns: u64,
    /// How far the clock that procfs shows is ahead of the kernel side's.
    ahead_ns: i64,
}

impl Ticks {
    fn read(root: &Path) -> Self {
        Self {
            // USER_HZ, 100 on every architecture that matters.
            length_ns: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            ahead_ns: timens::Offsets::read(root).boottime_ns,
        }
    }

    /// The kernel rounds down (nsec_to_clock_t, kernel/time/time.c).
    fn of(self, boottime_ns: u64) -> u64 {
        boottime_ns.saturating_add_signed(self.ahead_ns) / self.length_ns
    }

    /// The earliest start that shows as `ticks`.
    fn earliest(self, ticks: u64) -> u64 {
        ticks
            .saturating_mul(self.length_ns)
            .saturating_add_signed(self.ahead_ns.saturating_neg())
    }
}

impl Attributor {
    /// An attributor for the host whose files are below `root`, normally `/`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            ticks: Ticks::read(root),
            cgroup2: Cgroup2::find(root),
            believed: BELIEVED,
            identities: Cache::new(IDENTITIES),
            containers: Cache::new(OTHERS),
            cgroups: Cache::new(OTHERS),
            owners: Cache::new(OTHERS),
            searched: None,
            far: FarEnds::new(root),
            parties: Cache::new(OTHERS),
        }
    }

    /// Who a process is.
    ///
    /// `facts` is what the kernel side said of it just now. A process that is gone keeps
    /// what was read while it lived, or has what the facts lead to; one that took over
    /// its pid is never described in its place.
    pub fn process(&mut self, id: ProcessId, facts: &Process) -> Rc<Identity> {
        let changing = Changing::of(facts);
        let mut before = None;
        // Without a start there is nothing to tell a reused pid by: nothing is kept.
        if id.start_boottime_ns != 0
            && let Some(entry) = self.identities.get(&id)
        {
            if entry.facts == changing && entry.read.elapsed() < self.believed {
                return Rc::clone(&entry.identity);
            }
            before = Some(Rc::clone(&entry.identity));
        }
        let identity = Rc::new(self.look(id, facts, before.as_deref()));
        if id.start_boottime_ns != 0 {
            let entry = Entry {
                identity: Rc::clone(&identity),
                read: Instant::now(),
                facts: changing,
            };
            self.identities.insert(id, entry);
        }
        identity
    }

    /// Open descriptors of a process: exact at the time of the call, `None` where it is
    /// gone, or they cannot be read or not counted within 50 ms.
    #[must_use]
    pub fn open_descriptors(&self, id: ProcessId) -> Option<u64> {
        let (task, _) = self.task(id)?;
        let count = task.open_descriptors();
        // One that began to exit meanwhile may have closed some already.
        task.stat().filter(|stat| !stat.dead).and(count)
    }

    /// What procfs says of a process that lives, its limit included.
    #[must_use]
    pub fn facts(&self, id: ProcessId) -> Option<Process> {
        let (task, stat) = self.task(id)?;
        let limits = task.nofile_limits();
        Some(Process {
            nofile: limits.map(|limits| NofileLimit {
                soft: limits.soft,
                copied: false,
            }),
            ..as_procfs_has_it(&task, &stat)?
        })
    }

    /// What holds the descriptors of a process now; see [`holdings::holdings`].
    #[must_use]
    pub fn holdings(&self, id: ProcessId, budget: Duration) -> Option<Holdings> {
        self.task(id)?;
        let found = holdings::holdings(&self.root, id.pid, budget);
        // One that began to exit meanwhile may have closed some already.
        self.task(id).and(found)
    }

    /// Limits of open files of a process now, which need not be those at its failure.
    #[must_use]
    pub fn nofile_limits(&self, id: ProcessId) -> Option<NofileLimits> {
        self.task(id)?.0.nofile_limits()
    }

    /// Name that an AF_UNIX listener is bound to, for records without one; a leading NUL
    /// marks an abstract name.
    #[must_use]
    pub fn unix_path(&self, id: ProcessId, inode: u64) -> Option<Vec<u8>> {
        self.task(id)?;
        owners::unix_path(&self.root, id.pid, inode)
    }

    /// Finds out who holds sockets that are asked for next: all in one search, where each would
    /// take one of its own.
    pub fn look_for(&mut self, sockets: impl IntoIterator<Item = u64>) {
        let sockets = sockets.into_iter();
        let sockets: BTreeSet<u64> = sockets
            .filter(|inode| self.known_owners(*inode).is_none())
            .collect();
        if sockets.len() < 2 {
            return;
        }
        let value = owners::owners_of_sockets(&self.root, &sockets, OWNER_SEARCH);
        self.searched = Some(Searched {
            sockets,
            found: Believed::now(value),
        });
    }

    /// Every process that holds a socket. Searching takes up to 500 ms, so answers are
    /// believed for a while.
    pub fn owners(&mut self, inode: u64) -> Owners {
        if let Some(owners) = self.known_owners(inode) {
            return owners;
        }
        let found =
            owners::owners_of_sockets(&self.root, &BTreeSet::from([inode]), OWNER_SEARCH).of(inode);
        self.owners.insert(inode, Believed::now(found.clone()));
        found
    }

    fn known_owners(&mut self, inode: u64) -> Option<Owners> {
        let believed = self.believed;
        let known = self.owners.get(&inode);
        if let Some(owners) = known.filter(|owners| owners.read.elapsed() < believed) {
            return Some(owners.value.clone());
        }
        let searched = self.searched.as_ref()?;
        let counts = searched.sockets.contains(&inode) && searched.found.read.elapsed() < believed;
        counts.then(|| searched.found.value.of(inode))
    }

    /// The program that a kernel worker failed for (io_uring before Linux 5.12): the one
    /// process that holds the listener.
    ///
    /// `facts` are the worker's. The worker stays visible as the failing thread. `None`
    /// where the task is no such worker, or where the program cannot be told because
    /// several processes hold the listener.
    pub fn adopt(&mut self, socket_inode: u64, facts: &Process) -> Option<Adopted> {
        if !facts.kernel_worker {
            return None;
        }
        let owners = self.owners(socket_inode);
        // While it works, a worker borrows the program's descriptor table.
        let mut pids = owners.pids.iter().filter(|pid| Some(**pid) != facts.tid);
        let (Some(&pid), None, true) = (pids.next(), pids.next(), owners.complete) else {
            return None;
        };
        let (task, stat) = self.living(pid)?;
        Some(Adopted {
            id: self.id_of(pid, &stat),
            facts: Process {
                comm: task.comm()?,
                parent_pid: Some(stat.parent).filter(|pid| *pid != 0),
                // The worker's own are not the program's.
                cgroup_id: None,
                ns_pid: None,
                kernel_worker: false,
                ..facts.clone()
            },
        })
    }

    /// Whose a failure of a listener is that was nobody's call: the process that is known
    /// to accept there, else the one that holds it, if there is only one. One that has handed
    /// the listener to others and closed it accepts there no more.
    pub fn of_listener(&mut self, socket_inode: u64, acceptor: Option<ProcessId>) -> Who {
        let owners = self.owners(socket_inode);
        let has_left = |pid| {
            let is_held = !owners.pids.is_empty() && !owners.pids.contains(&pid);
            // Owners are believed for a while: who is not among them may hold it by now.
            is_held && owners::is_holder(&self.root, pid, socket_inode, OWNER_SEARCH) == Some(false)
        };
        let accepts = acceptor.filter(|id| self.task(*id).is_some() && !has_left(id.pid));
        let only = match owners.pids[..] {
            // A process that may not be looked into (of another user namespace, or one that
            // is protected), or that there was no time for, may hold it too, and rarely does:
            // records say whether that is ruled out.
            [pid] => Some(pid),
            _ => None,
        };
        let found = match accepts {
            Some(id) => self.living(id.pid).map(|(task, stat)| (id, task, stat)),
            None => only.and_then(|pid| {
                let (task, stat) = self.living(pid)?;
                Some((self.id_of(pid, &stat), task, stat))
            }),
        };
        let party = found.and_then(|(id, task, stat)| party(id, &task, &stat));
        // One that is gone is still the one that it was.
        let party = match party {
            Some(party) => {
                self.parties.insert(socket_inode, party.clone());
                Some(party)
            }
            None if owners.pids.is_empty() => self.parties.get(&socket_inode).cloned(),
            None => None,
        };
        let party = party.map(|party| Party {
            identity: self.process(party.id, &party.facts),
            ..party
        });
        Who {
            party,
            far: None,
            holders: Some(Holders {
                processes: owners
                    .pids
                    .into_iter()
                    .map(|pid| self.holder(pid))
                    .collect(),
                complete: owners.complete,
            }),
        }
    }

    /// Who accepts somewhere, without a search for others who hold the listener; nobody where it
    /// is gone.
    pub fn acceptor(&mut self, id: ProcessId) -> Who {
        let party = self
            .task(id)
            .and_then(|(task, stat)| party(id, &task, &stat));
        let party = party.map(|party| Party {
            identity: self.process(party.id, &party.facts),
            ..party
        });
        Who {
            party,
            ..Who::default()
        }
    }

    /// Who a process is that has done nothing: `None` where it is gone.
    pub fn of_pid(&mut self, pid: u32) -> Option<Rc<Identity>> {
        let (task, stat) = self.living(pid)?;
        let party = party(self.id_of(pid, &stat), &task, &stat)?;
        Some(self.process(party.id, &party.facts))
    }

    /// The same with its name and its limit of descriptors.
    pub fn party_of_pid(&mut self, pid: u32) -> Option<Party> {
        let (task, stat) = self.living(pid)?;
        let mut party = party(self.id_of(pid, &stat), &task, &stat)?;
        party.facts.nofile = task.nofile_limits().map(|limits| NofileLimit {
            soft: limits.soft,
            copied: false,
        });
        party.identity = self.process(party.id, &party.facts);
        Some(party)
    }

    /// The other end of a connection that a process could not make at `at_ns`, as far as it is
    /// on this host. `path` is the name of an AF_UNIX target.
    pub fn far(
        &mut self,
        client: ProcessId,
        netns: Option<u32>,
        target: Target,
        path: Option<&[u8]>,
        at_ns: u64,
    ) -> Far {
        let listener = netns.and_then(|netns| {
            let client = Client {
                pid: client.pid,
                netns,
            };
            self.far.listener(client, target, path, at_ns)
        });
        let server = listener.as_ref().and_then(|listener| {
            let pid = *self.owners(listener.inode).pids.first()?;
            Some(self.holder(pid))
        });
        Far {
            path: path.map(<[u8]>::to_vec),
            listener,
            server,
        }
    }

    fn holder(&self, pid: u32) -> Holder {
        Holder {
            pid,
            comm: Task::open(&self.root, pid).and_then(|task| task.comm()),
        }
    }

    fn living(&self, pid: u32) -> Option<(Task, Stat)> {
        let task = Task::open(&self.root, pid)?;
        let stat = task.stat().filter(|stat| !stat.dead)?;
        Some((task, stat))
    }

    /// procfs tells the start to a tick; the process may be known more exactly.
    fn id_of(&self, pid: u32, stat: &Stat) -> ProcessId {
        let known = self
            .identities
            .keys()
            .find(|id| id.pid == pid && self.ticks.of(id.start_boottime_ns) == stat.start_ticks);
        known.copied().unwrap_or_else(|| ProcessId {
            pid,
            start_boottime_ns: self.ticks.earliest(stat.start_ticks),
        })
    }

    /// The process, if it still lives and is not another of the same pid.
    fn task(&self, id: ProcessId) -> Option<(Task, Stat)> {
        let task = Task::open(&self.root, id.pid)?;
        let stat = task.stat().filter(|stat| !stat.dead)?;
        let same =
            id.start_boottime_ns == 0 || self.ticks.of(id.start_boottime_ns) == stat.start_ticks;
        same.then_some((task, stat))
    }

    fn look(&mut self, id: ProcessId, facts: &Process, before: Option<&Identity>) -> Identity {
        let living = self.task(id).filter(|(task, _)| {
            // Without a start, the name is the only sign left of a reused pid.
            id.start_boottime_ns != 0 || task.comm().as_ref() == Some(&facts.comm)
        });
        if living.is_none()
            && let Some(before) = before
        {
            return Identity {
                exited: true,
                ..before.clone()
            };
        }
        let (task, stat) = living.unzip();
        let start_ticks = stat
            .map(|stat| stat.start_ticks)
            .or((id.start_boottime_ns != 0).then(|| self.ticks.of(id.start_boottime_ns)));
        let parent = match facts.parent_pid {
            Some(pid) => Some(pid),
            None => stat.map(|stat| stat.parent),
        };
        let cgroup = task
            .as_ref()
            .and_then(|task| {
                let path = telling_path(&task.read("cgroup")?);
                // One that began to exit meanwhile may have been in the root already.
                task.stat().filter(|stat| !stat.dead).and(path)
            })
            .or_else(|| self.cgroup_path(facts.cgroup_id?));
        let place = cgroup.as_deref().map(Place::of).unwrap_or_default();
        Identity {
            exe: task.as_ref().and_then(Task::exe),
            parent: parent
                .filter(|pid| *pid != 0)
                .map(|pid| self.parent(pid, start_ticks)),
            ns_pid: facts
                .ns_pid
                .filter(|pid| *pid != id.pid)
                .or_else(|| task.as_ref()?.ns_pid()),
            container: place
                .container
                .map(|container| self.container(container, place.pod_uid)),
            unit: place.unit,
            user_unit: place.user_unit,
            cgroup,
            exited: task.is_none(),
        }
    }

    /// A parent started before its child; a process with its pid that did not is another.
    fn parent(&self, pid: u32, child_start_ticks: Option<u64>) -> Parent {
        let comm = Task::open(&self.root, pid).and_then(|task| {
            let start = task.stat()?.start_ticks;
            task.comm().filter(|_| Some(start) <= child_start_ticks)
        });
        Parent { pid, comm }
    }

    fn cgroup_path(&mut self, id: u64) -> Option<Vec<u8>> {
        if let Some(path) = self.cgroups.get(&id) {
            return path.clone();
        }
        let path = self.cgroup2.as_ref()?.path_of(id);
        self.cgroups.insert(id, path.clone());
        path
    }

    fn container(&mut self, id: ContainerId, pod_uid: Option<String>) -> Container {
        let believed = self.believed;
        let kept = self.containers.get(&id).filter(|container| {
            // One without a name may be starting: its files may come.
            container.value.name.is_some() || container.read.elapsed() < believed
        });
        let mut container = if let Some(container) = kept {
            container.value.clone()
        } else {
            let value = Container::look_up(&self.root, id.clone());
            self.containers.insert(id, Believed::now(value.clone()));
            value
        };
        if let Some(uid) = pod_uid {
            container.pod.get_or_insert_with(Pod::default).uid = Some(uid);
        }
        container
    }
}

/// A process as procfs has it, not yet looked at any further.
fn party(id: ProcessId, task: &Task, stat: &Stat) -> Option<Party> {
    Some(Party {
        id,
        facts: as_procfs_has_it(task, stat)?,
        identity: Rc::default(),
    })
}

fn as_procfs_has_it(task: &Task, stat: &Stat) -> Option<Process> {
    Some(Process {
        comm: task.comm()?,
        thread_comm: Vec::new(),
        tid: None,
        uid: task.uid(),
        cgroup_id: None,
        nofile: None,
        ns_pid: None,
        parent_pid: Some(stat.parent).filter(|pid| *pid != 0),
        syscall: None,
        kernel_worker: false,
    })
}

#[cfg(test)]
mod tests;
