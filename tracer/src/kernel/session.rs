//! A running capture: programs in place, counters to read, exemplars to drain.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
};
use rustix::{
    process::{Resource, getrlimit},
    thread::CapabilitySet,
};
use turnaway_common::{
    ClosedListener, FailureCount, FailureKey, ListenerStats, Reason,
    layout::{Counters, KernelFilter, Settings, lost},
};

use super::{
    attach::{Attached, Attacher, HookStatus, Missed},
    batch::Whole,
    btf::Btf,
    features, jiffies, offsets,
    plan::{self, HookName, HookPlan, Target},
    programs::{self, Programs},
};
use crate::{
    event::{Closed, Count, Failure, Listener, ProcessId, Tier},
    memory, privileges,
};

/// The kernel side, built by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TURNAWAY_BPF_OBJECT"));

/// What to capture and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Use hooks of this tier only.
    pub tier: Option<Tier>,
    /// What the kernel side keeps.
    pub filter: KernelFilter,
    /// Size of the exemplar ring, bytes; rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// Most distinct keys that can fail between two readings of the counters.
    pub counter_keys: u32,
    /// From this long in the queue an accepted connection is slow.
    pub slow: Duration,
    /// Watch programs that begin and end, too.
    pub programs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tier: None,
            filter: KernelFilter::EVERYTHING,
            ring_bytes: 1 << 20,
            counter_keys: 16_384,
            slow: Duration::from_millis(500),
            programs: false,
        }
    }
}

/// What was not seen or not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Exemplars that found the ring full; their failures are counted all the same.
    pub ring: u64,
    /// Failures that found the counter map full, connections being made that found theirs
    /// full and may have failed later, and records this version cannot read: counted in no key.
    pub map: u64,
    /// Runs of a program that the kernel had to leave out, of hooks that see nothing but what was
    /// asked of them; `None` where it does not say.
    pub missed: Missed,
}

/// A capture in progress. Dropping it removes every hook.
pub struct Session {
    // Dropped first, so that nothing runs while maps go away.
    attached: Option<Attached>,
    hooks: Vec<HookStatus>,
    counters: [HashMap<MapData, FailureKey, FailureCount>; 2],
    generation: Array<MapData, u32>,
    current: u32,
    lost: PerCpuArray<MapData, u64>,
    listeners: HashMap<MapData, u64, ListenerStats>,
    /// The same to be read as a whole.
    all_listeners: Option<Whole>,
    closed: HashMap<MapData, u64, ClosedListener>,
    pressed: HashMap<MapData, u32, u64>,
    programs: Option<Programs>,
    ring: Ring,
    unreadable: u64,
    /// By hook, once they are gone.
    missed: Vec<(HookName, Missed)>,
    /// Owns the programs.
    ebpf: Option<Ebpf>,
}

/// The exemplar ring; pollable.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    /// Hands over every exemplar that is there; returns how many could not be read.
    pub fn drain(&mut self, mut take: impl FnMut(Failure)) -> u64 {
        let mut unreadable = 0;
        while let Some(item) = self.0.next() {
            match Failure::decode(&item) {
                Some(failure) => take(failure),
                None => unreadable += 1,
            }
        }
        unreadable
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Session {
    /// Loads and attaches. A hook that could not be put in place is no error: see
    /// [`Self::hooks`].
    ///
    /// May mount tracefs privately: call it before the process has a second thread.
    pub fn start(options: &Options) -> Result<Self> {
        let btf = Btf::open(super::BTF_DIR.as_ref(), offsets::MODULES)
            .context("turnaway needs the kernel's type information (CONFIG_DEBUG_INFO_BTF=y)")?;
        let features = features::detect(&btf);
        let tracefs = features.tracefs.clone().and_then(Result::ok);
        let wanted = options.filter.reasons;
        let mut plans = plan::plan(&features, options.tier, |reason| {
            wanted & (1 << reason as u16) != 0
        });
        if options.programs {
            plans.push(plan::programs(&features));
        }
        let counters = match &features.counters {
            Some(Ok(counters)) => *counters,
            _ => Counters::NONE,
        };
        let jiffy = jiffies::length();
        let settings = Settings {
            inotify: u32::from(plan::sees_inotify(&features)),
            ..settings(options, &plans, jiffy)
        };
        let (offsets, absent) = offsets::offsets(&btf);
        log::debug!("not in this kernel's BTF: {absent:?}");
        let syscall_layout = offsets::syscall_layout(&btf);
        drop(btf);

        let btf = aya::Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
        let log_level = super::diagnostics::level();
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("OFFSETS", &offsets, true)
            .override_global("SYSCALL_LAYOUT", &syscall_layout, true)
            .override_global("FILTER", &options.filter, true)
            .override_global("COUNTERS", &counters, true)
            .override_global("SETTINGS", &settings, true)
            .override_global(aya_log::LEVEL, &log_level, true)
            .map_max_entries("EXEMPLARS", options.ring_bytes)
            .map_max_entries("PROGRAMS", programs::ring_bytes(options.programs))
            .map_max_entries("FAILURES_0", options.counter_keys)
            .map_max_entries("FAILURES_1", options.counter_keys)
            .load(OBJECT)
            .map_err(anyhow::Error::new)
            .map_err(explain_load)?;
        super::diagnostics::start(&mut ebpf, log_level);
        let (attached, hooks) = Attacher::new(&mut ebpf, &btf, tracefs).attach(plans);
        drop(btf);
        // Most of all the memory that a capture ever needs, and needed for a moment only.
        memory::give_back();
        let is_there = |hook: &HookStatus| hook.attached.is_some();
        let watches_programs = hooks
            .iter()
            .any(|hook| hook.hook == HookName::Programs && is_there(hook));
        let mut map = |name: &'static str| {
            ebpf.take_map(name)
                .with_context(|| format!("the eBPF object has no map {name}"))
        };
        let listeners = map("LISTENERS")?;
        let all_listeners = Whole::of(&listeners).context("cannot use a map twice")?;
        Ok(Self {
            attached: Some(attached),
            hooks,
            counters: [
                map("FAILURES_0")?.try_into()?,
                map("FAILURES_1")?.try_into()?,
            ],
            generation: map("GENERATION")?.try_into()?,
            current: 0,
            lost: map("LOST")?.try_into()?,
            listeners: listeners.try_into()?,
            all_listeners,
            closed: map("CLOSED")?.try_into()?,
            pressed: map("PRESSED")?.try_into()?,
            programs: if watches_programs {
                Some(Programs::new(
                    map("PROGRAMS")?.try_into()?,
                    map("PROGRAMS_LOST")?.try_into()?,
                ))
            } else {
                None
            },
            ring: Ring(map("EXEMPLARS")?.try_into()?),
            unreadable: 0,
            missed: Vec::new(),
            ebpf: Some(ebpf),
        })
    }

    /// What became of each hook.
    #[must_use]
    pub fn hooks(&self) -> &[HookStatus] {
        &self.hooks
    }

    /// The exemplar ring, to wait on.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Hands over every exemplar that is there.
    pub fn drain(&mut self, take: impl FnMut(Failure)) {
        self.unreadable += self.ring.drain(take);
    }

    /// Reads how much every counter grew since the last call: exact, and empty if
    /// nothing failed.
    ///
    /// Counting goes on in the other generation meanwhile. One that is switched off is
    /// read only when no program can still be writing to it.
    pub fn take_counts(&mut self) -> Result<Vec<Count>> {
        if self.attached.is_none() {
            // Nothing counts any more: whichever map holds something holds its last.
            let mut counts = self.empty(0)?;
            counts.extend(self.empty(1)?);
            return Ok(counts);
        }
        let current = self.current;
        if self.counters[current as usize].keys().next().is_none() {
            return Ok(Vec::new());
        }
        self.current = 1 - current;
        self.generation
            .set(0, self.current, 0)
            .context("cannot switch the counters' generation")?;
        wait_for_programs().context("cannot wait for the programs to leave a counter map")?;
        self.empty(current)
    }

    fn empty(&mut self, generation: u32) -> Result<Vec<Count>> {
        let map = &mut self.counters[generation as usize];
        let mut entries = Vec::new();
        for entry in map.iter() {
            entries.push(entry.context("cannot read a counter")?);
        }
        let mut counts = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            map.remove(&key).context("cannot take a counter out")?;
            match Count::decode(&key, &value) {
                Some(count) => counts.push(count),
                None => self.unreadable += value.count,
            }
        }
        Ok(counts)
    }

    /// What went well at a listener, by its socket inode; `None` where nothing did.
    #[must_use]
    pub fn listener(&self, socket_inode: u64) -> Option<ListenerStats> {
        self.listeners.get(&socket_inode, 0).ok()
    }

    /// What went well at every listener that is open, by socket inode.
    #[must_use]
    pub fn listeners(&self) -> Vec<(u64, ListenerStats)> {
        // Before Linux 5.6 they are asked for one by one.
        self.all_listeners
            .as_ref()
            .and_then(|all| all.read().ok())
            .unwrap_or_else(|| self.listeners.iter().filter_map(Result::ok).collect())
    }

    /// Listeners with drops that were closed since the last call, by socket inode.
    pub fn take_closed(&mut self) -> Vec<Closed> {
        let entries: Vec<(u64, ClosedListener)> =
            self.closed.iter().filter_map(Result::ok).collect();
        for (inode, _) in &entries {
            // It is gone only if another took it out, and nobody else does.
            let _ = self.closed.remove(inode);
        }
        entries
            .into_iter()
            .map(|(inode, closed)| Closed {
                inode,
                monotonic_ns: closed.monotonic_ns,
                drops: closed.drops,
                listener: Listener::decode(&closed.listener),
            })
            .collect()
    }

    /// Processes that were given a descriptor near their limit since the last call, or were
    /// refused one.
    pub fn take_pressed(&mut self) -> Vec<ProcessId> {
        let entries: Vec<(u32, u64)> = self.pressed.iter().filter_map(Result::ok).collect();
        for (pid, _) in &entries {
            // Another entry may have taken its room.
            let _ = self.pressed.remove(pid);
        }
        entries
            .into_iter()
            .map(|(pid, start_boottime_ns)| ProcessId {
                pid,
                start_boottime_ns,
            })
            .collect()
    }

    /// Programs that begin and end, for somebody who reads them elsewhere; once, and only where they
    /// are watched.
    pub fn take_programs(&mut self) -> Option<Programs> {
        self.programs.take()
    }

    /// Whether a hook is in place.
    #[must_use]
    pub fn is_hooked(&self, name: HookName) -> bool {
        self.hooks
            .iter()
            .any(|hook| hook.hook == name && hook.attached.is_some())
    }

    /// Whether queues are seen by asking for them, not by hooks.
    #[must_use]
    pub fn polls_queues(&self) -> bool {
        self.hooks.iter().any(|hook| {
            hook.attached
                .as_ref()
                .is_some_and(|(_, targets)| targets.contains(&Target::SockDiag))
        })
    }

    /// Removes every hook. What was captured until now can still be read.
    pub fn detach(&mut self) -> Result<()> {
        if let Some(attached) = self.attached.take() {
            self.missed = misses(&attached);
            drop(attached);
            self.ebpf = None;
            wait_for_programs().context("cannot wait for the programs to end")?;
        }
        Ok(())
    }

    /// Runs of each hook's programs that the kernel left out, since the start.
    #[must_use]
    pub fn missed(&self) -> Vec<(HookName, Missed)> {
        self.attached
            .as_ref()
            .map_or_else(|| self.missed.clone(), misses)
    }

    /// What was not seen or not kept, since the start.
    pub fn losses(&self) -> Result<Losses> {
        let slot = |slot| -> Result<u64> {
            let values = self
                .lost
                .get(&slot, 0)
                .context("cannot read what was lost")?;
            Ok(values.iter().sum())
        };
        Ok(Losses {
            ring: slot(lost::RING)?,
            map: slot(lost::MAP)? + slot(lost::CONNECTING)? + self.unreadable,
            missed: self
                .missed()
                .iter()
                .filter(|(hook, _)| !hook.is_mostly_of_others())
                .map(|(_, missed)| *missed)
                .sum(),
        })
    }
}

fn misses(attached: &Attached) -> Vec<(HookName, Missed)> {
    HookName::ALL
        .iter()
        .map(|hook| (*hook, attached.missed(*hook)))
        .collect()
}

/// What the programs are told of the plan.
fn settings(options: &Options, plans: &[HookPlan], jiffy: Option<Duration>) -> Settings {
    let jiffy_ns = jiffy.map_or(0, |jiffy| jiffy.subsec_nanos());
    let polled = plans.iter().any(|plan| {
        plan.hook == HookName::ListenQueue
            && plan.ways.iter().any(|way| {
                way.attachments
                    .iter()
                    .any(|attachment| attachment.target == Target::SockDiag)
            })
    });
    let traced = plans.iter().any(|plan| {
        plan.hook == HookName::Accepted
            && plan
                .ways
                .first()
                .is_some_and(|way| way.tier == Tier::Tracepoint)
    });
    Settings {
        jiffy_ns,
        slow_jiffies: match jiffy_ns {
            0 => u32::MAX,
            length => {
                let jiffies = options.slow.as_nanos().div_ceil(u128::from(length));
                u32::try_from(jiffies).unwrap_or(u32::MAX)
            }
        },
        uring_accepted: u32::from(traced),
        final_drops: u32::from(polled),
        slow_ns: u64::try_from(options.slow.as_nanos()).unwrap_or(u64::MAX),
        pressure: u32::from(options.filter.reasons & (1 << Reason::FdPressure as u16) != 0),
        inotify: 0,
    }
}

/// Returns once every program that was running at the call has ended.
///
/// Programs of these types run within an RCU read-side section, and this membarrier(2)
/// command waits for a grace period.
fn wait_for_programs() -> io::Result<()> {
    // SAFETY: a plain syscall without pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Kernels booted with nohz_full refuse it, some are built without: there a pause far
    // longer than any program runs has to do.
    if matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EPERM)
    ) {
        thread::sleep(Duration::from_millis(50));
        return Ok(());
    }
    Err(error)
}

/// Whether it is the limit of locked memory that is too low, which BPF maps count as before Linux 5.11.
fn locked_memory() -> Option<String> {
    let limit = getrlimit(Resource::Memlock).current?;
    let may = privileges::has(CapabilitySet::SYS_RESOURCE);
    (!may).then(|| {
        format!(
            "before Linux 5.11 it counts as locked memory, of which {limit} bytes are allowed (RLIMIT_MEMLOCK): \
             raise that (ulimit -l unlimited, LimitMEMLOCK=infinity), or give CAP_SYS_RESOURCE"
        )
    })
}

fn explain_load(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    if text.contains("Operation not permitted") || text.contains("Permission denied") {
        let takes = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
        let lacking = privileges::lacking(takes).map_or_else(
            || {
                locked_memory().unwrap_or_else(|| {
                    "not for want of a capability: something else forbids it, such as seccomp"
                        .to_owned()
                })
            },
            |lacking| format!("{lacking}; run turnaway as root, or with what docs/daemon.md says"),
        );
        error.context(format!("the kernel refused to make a BPF map: {lacking}"))
    } else if text.contains("Cannot allocate memory") {
        error.context(
            "no memory for turnaway's kernel side, whose maps count towards the limit of its cgroup: raise that \
             (MemoryMax, memory.max)",
        )
    } else {
        error.context("cannot load turnaway's kernel side")
    }
}
