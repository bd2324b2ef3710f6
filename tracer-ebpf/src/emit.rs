//! Counts a failure exactly and, within the key's budget, writes an exemplar. The only
//! writes to the counters and to the ring buffer.

use core::arch::asm;

use aya_ebpf::{EbpfContext, bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};
use aya_log_ebpf::debug;
use turnaway_common::{
    Exemplar, FailureKey, ListenerFacts, ProcessFacts, Reason,
    failure::{known, op, tier},
    layout::{MAX_PIDS, MAX_PORTS, lost},
};

use crate::{
    facts,
    globals::global,
    kread::Addr,
    maps::{BLANK, Connecting, EXEMPLARS, FAILURES_0, FAILURES_1, GENERATION, LOST},
    target::Target,
};

/// What [`Failure`] holds for a number that is not known. No `Option`: the compiler would
/// carry its unused half around, and the verifier refuses to read what was never written.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// A failed accept, as its hook sees it.
pub(crate) struct Failure {
    /// The errno, positive.
    pub(crate) errno: u16,
    /// How it was asked for, [`turnaway_common::failure::op`].
    pub(crate) op: u8,
    /// What kind of hook saw it, [`turnaway_common::failure::tier`].
    pub(crate) tier: u8,
    /// Address of the listener's file, or 0.
    pub(crate) file: u64,
    /// The listener's descriptor, or [`UNKNOWN`].
    pub(crate) fd: u64,
    /// The limit, where it is another than the one the task has now, or [`UNKNOWN`].
    pub(crate) nofile: u64,
}

/// What befell a listener, as its hook sees it.
pub(crate) struct Event {
    /// Why, a [`Reason`].
    pub(crate) reason: Reason,
    /// What kind of hook saw it.
    pub(crate) tier: u8,
    /// The task whose doing it was; `None` where the kernel was at work for nobody.
    pub(crate) task: Option<Addr>,
    /// The listener.
    pub(crate) sk: Addr,
    /// The packet, or 0.
    pub(crate) skb: u64,
    /// How many connections it was.
    pub(crate) count: u64,
    /// [`Exemplar::amount`].
    pub(crate) amount: u64,
}

/// The positive errno in a return value, if it is one (`MAX_ERRNO` is 4095).
#[inline(always)]
pub(crate) fn errno_of(ret: i64) -> Option<u16> {
    if (-4095..0).contains(&ret) {
        Some(-ret as u16)
    } else {
        None
    }
}

/// A failure that passed the filters which need nothing but the task and the errno: what is
/// left out is left out before anything else is read.
#[derive(Clone, Copy)]
pub(crate) struct Admitted {
    /// The task that failed.
    pub(crate) task: Addr,
    tgid: u32,
    reason: u16,
}

/// Lets a failure of the current task pass if it is one and is wanted.
#[inline(always)]
pub(crate) fn admit(errno: u16) -> Option<Admitted> {
    admit_as(Reason::of_accept(errno)?, errno)
}

/// Lets a failure of the current task pass if it is wanted.
#[inline(always)]
pub(crate) fn admit_as(reason: Reason, errno: u16) -> Option<Admitted> {
    let reason = reason as u16;
    let task = facts::current_task()?;
    let (tgid, _) = facts::current_ids();
    if !wanted(reason, errno) || !wanted_process(task, tgid) {
        return None;
    }
    Some(Admitted { task, tgid, reason })
}

/// Counts the failure and may write an exemplar of it.
#[inline(always)]
pub(crate) fn failure<C: EbpfContext>(
    ctx: &C,
    admitted: Admitted,
    failure: &Failure,
) -> Option<()> {
    let Admitted { task, tgid, reason } = admitted;
    let socket_inode = facts::socket_inode(failure.file);
    // Of what is no socket, nothing more is read.
    let sk = if socket_inode == 0 {
        None
    } else {
        facts::sk_of(failure.file)
    };
    if !wanted_port(sk) {
        return None;
    }
    let key = FailureKey {
        start_boottime_ns: facts::process_start(task),
        socket_inode,
        tgid,
        reason,
        errno: failure.errno,
        op: failure.op,
        tier: failure.tier,
        ..NO_KEY
    };
    record(
        ctx,
        &key,
        1,
        0,
        |process, listener| read_facts(task, sk, failure, process, listener),
        |exemplar| {
            if let Some(sk) = sk {
                facts::read_path(sk, exemplar);
            }
        },
    )
}

/// Counts what befell a listener and may write an exemplar of it.
#[inline(always)]
pub(crate) fn of_listener<C: EbpfContext>(ctx: &C, event: &Event) -> Option<()> {
    let reason = event.reason as u16;
    if !wanted(reason, 0) || !wanted_port(Some(event.sk)) {
        return None;
    }
    let mut key = FailureKey {
        socket_inode: facts::inode_of(event.sk),
        reason,
        op: op::NETWORK,
        tier: event.tier,
        ..NO_KEY
    };
    if let Some(task) = event.task {
        let (tgid, _) = facts::current_ids();
        if !wanted_process(task, tgid) {
            return None;
        }
        key.op = op::SYSCALL;
        key.tgid = tgid;
        key.start_boottime_ns = facts::process_start(task);
    }
    record(
        ctx,
        &key,
        event.count,
        event.amount,
        |process, listener| {
            if let Some(task) = event.task {
                facts::read_process(task, process);
            }
            facts::read_listener(event.sk, listener);
        },
        |exemplar| {
            if let Some(skb) = Addr::new(event.skb) {
                facts::read_sender(skb, exemplar);
            }
            facts::read_path(event.sk, exemplar);
        },
    )
}

/// A connect call that failed, as its hook sees it.
pub(crate) struct Connect {
    /// The errno, positive.
    pub(crate) errno: u16,
    /// What kind of hook saw it, [`turnaway_common::failure::tier`].
    pub(crate) tier: u8,
    /// The client's socket.
    pub(crate) sk: Option<Addr>,
    /// Where to.
    pub(crate) target: Target,
    /// How long it waited, nanoseconds, where it did not fail.
    pub(crate) waited_ns: u64,
}

/// Counts a connect call of the current task that failed, and may write an exemplar of it.
#[inline(always)]
pub(crate) fn connect<C: EbpfContext>(ctx: &C, reason: Reason, failure: &Connect) -> Option<()> {
    let Admitted { task, tgid, reason } = admit_as(reason, failure.errno)?;
    let mut key = FailureKey {
        start_boottime_ns: facts::process_start(task),
        tgid,
        reason,
        errno: failure.errno,
        op: op::SYSCALL,
        tier: failure.tier,
        ..NO_KEY
    };
    failure.target.read_into(&mut key);
    if !wanted_port_number(key.target_port) {
        return None;
    }
    record(
        ctx,
        &key,
        1,
        failure.waited_ns,
        |process, listener| {
            let call = facts::connect_call(task);
            if call.number == u64::from(global!(SYSCALL_LAYOUT.connect)) {
                process.syscall_nr = call.number as u32;
                process.known |= known::SYSCALL;
            }
            facts::read_process(task, process);
            if let Some(sk) = failure.sk {
                facts::read_socket(sk, listener);
            }
        },
        |exemplar| failure.target.read_path(exemplar),
    )
}

/// A descriptor or a file that could not be had, as its hook sees it.
pub(crate) struct Exhausted {
    /// The errno, positive; 0 where it is not known.
    pub(crate) errno: u16,
    /// How it was asked for, [`turnaway_common::failure::op`].
    pub(crate) op: u8,
    /// What kind of hook saw it, [`turnaway_common::failure::tier`].
    pub(crate) tier: u8,
    /// [`FailureKey::call`].
    pub(crate) call: u32,
}

/// Counts a descriptor that the current task could not have, and may write an exemplar of it.
#[inline(always)]
pub(crate) fn exhausted<C: EbpfContext>(ctx: &C, failure: &Exhausted) -> Option<()> {
    let Admitted { task, tgid, reason } = admit_as(Reason::FdExhausted, failure.errno)?;
    // No listener is there that could have a port.
    if global!(FILTER.port_count) != 0 {
        return None;
    }
    let key = FailureKey {
        start_boottime_ns: facts::process_start(task),
        tgid,
        reason,
        call: failure.call,
        errno: failure.errno,
        op: failure.op,
        tier: failure.tier,
        ..NO_KEY
    };
    record(
        ctx,
        &key,
        1,
        0,
        |process, _| {
            if failure.call != 0 && failure.op == op::SYSCALL {
                process.syscall_nr = failure.call - 1;
                process.known |= known::SYSCALL;
            }
            facts::read_process(task, process);
        },
        |_| {},
    )
}

/// Counts a TCP connection that failed, for the process that had asked for it, and may write
/// an exemplar of it.
#[inline(always)]
pub(crate) fn connecting<C: EbpfContext>(
    ctx: &C,
    reason: Reason,
    errno: u16,
    asked: &Connecting,
) -> Option<()> {
    let reason = reason as u16;
    if !wanted(reason, errno) || !wanted_port_number(asked.target_port) {
        return None;
    }
    let key = FailureKey {
        start_boottime_ns: asked.start_boottime_ns,
        target_addr: asked.target_addr,
        tgid: asked.tgid,
        target_port: asked.target_port,
        target_family: asked.target_family,
        reason,
        errno,
        op: asked.op,
        tier: tier::TRACEPOINT,
        ..NO_KEY
    };
    record(
        ctx,
        &key,
        1,
        0,
        |process, listener| {
            *process = asked.process;
            *listener = asked.socket;
        },
        |_| {},
    )
}

/// Counts an accepted connection that the current task throws away, and may write an exemplar
/// of it.
#[inline(always)]
pub(crate) fn shed<C: EbpfContext>(
    ctx: &C,
    socket_inode: u64,
    listener: &ListenerFacts,
    child: Addr,
) -> Option<()> {
    let Admitted { task, tgid, reason } = admit_as(Reason::AcceptShed, 0)?;
    if !wanted_port_number(listener.port) {
        return None;
    }
    let key = FailureKey {
        start_boottime_ns: facts::process_start(task),
        socket_inode,
        tgid,
        reason,
        op: op::SYSCALL,
        tier: tier::TRACEPOINT,
        ..NO_KEY
    };
    record(
        ctx,
        &key,
        1,
        0,
        |process, out| {
            facts::read_process(task, process);
            *out = *listener;
            // As it was when the listener was first seen.
            out.known &= !known::QUEUE;
        },
        |exemplar| facts::read_peer(child, exemplar),
    )
}

const NO_KEY: FailureKey = FailureKey {
    start_boottime_ns: 0,
    socket_inode: 0,
    target_addr: [0; 16],
    tgid: 0,
    target_port: 0,
    call: 0,
    target_family: 0,
    reason: 0,
    errno: 0,
    op: 0,
    tier: 0,
    pad: [0; 4],
};

/// Adds to a counter and may write an exemplar. `facts` fills in what is known of the process
/// and the socket, `more` what only an exemplar has room for.
#[inline(always)]
fn record<C: EbpfContext>(
    ctx: &C,
    key: &FailureKey,
    add: u64,
    amount: u64,
    facts: impl Fn(&mut ProcessFacts, &mut ListenerFacts),
    more: impl Fn(&mut Exemplar),
) -> Option<()> {
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(exemplar) = count(key, now, add, amount, &facts) else {
        lose(lost::MAP, add);
        debug!(
            ctx,
            "the counter map is full: a failure of {} is lost", key.tgid
        );
        return None;
    };
    if exemplar {
        write_exemplar(key, now, amount, &facts, &more);
    }
    Some(())
}

/// Whether the filters let a reason pass at all.
#[inline(always)]
pub(crate) fn is_wanted(reason: Reason) -> bool {
    global!(FILTER.reasons) & (1u64 << (reason as u16 & 63)) != 0
}

/// Whether the filters let a reason and an errno pass; where there is no errno, a filter for
/// one lets nothing pass.
#[inline(always)]
fn wanted(reason: u16, errno: u16) -> bool {
    if global!(FILTER.reasons) & (1u64 << (reason & 63)) == 0 {
        return false;
    }
    match errno {
        0..=63 => global!(FILTER.errnos[0]) & (1u64 << (errno & 63)) != 0,
        64..=127 => global!(FILTER.errnos[1]) & (1u64 << (errno & 63)) != 0,
        128..=191 => global!(FILTER.errnos[2]) & (1u64 << (errno & 63)) != 0,
        _ => global!(FILTER.high_errnos) != 0,
    }
}

#[inline(always)]
pub(crate) fn wanted_process(task: Addr, tgid: u32) -> bool {
    let pids = global!(FILTER.pid_count) as usize;
    if pids == 0 {
        return true;
    }
    let mut index = 0;
    while index < MAX_PIDS && index < pids {
        if global!(FILTER.pids[index]) == tgid {
            return true;
        }
        index += 1;
    }
    // A kernel worker acts for somebody: user space finds out for whom.
    facts::is_kernel_thread(task)
}

#[inline(always)]
fn wanted_port(sk: Option<Addr>) -> bool {
    if global!(FILTER.port_count) == 0 {
        return true;
    }
    match sk.and_then(facts::port_of) {
        Some(port) => wanted_port_number(port),
        None => false,
    }
}

/// Whether a port is wanted; that of a family that has none is 0.
#[inline(always)]
fn wanted_port_number(port: u32) -> bool {
    let ports = global!(FILTER.port_count) as usize;
    if ports == 0 {
        return true;
    }
    let mut index = 0;
    while index < MAX_PORTS && index < ports {
        if global!(FILTER.ports[index]) == port {
            return true;
        }
        index += 1;
    }
    false
}

/// Adds to a counter; says whether there may be an exemplar. `None`: there is no room.
#[inline(always)]
fn count(
    key: &FailureKey,
    now: u64,
    add: u64,
    amount: u64,
    facts: &impl Fn(&mut ProcessFacts, &mut ListenerFacts),
) -> Option<bool> {
    let map = match GENERATION.get(0) {
        Some(0) | None => &FAILURES_0,
        Some(_) => &FAILURES_1,
    };
    let most = u64::from(global!(FILTER.exemplars_per_key));
    let (value, is_new) = if let Some(value) = map.get_ptr_mut(key) {
        (value, false)
    } else {
        let is_new = map
            .insert(key, BLANK.get(0)?, u64::from(BPF_NOEXIST))
            .is_ok();
        // If it is not new, another CPU was first, or there is no room.
        (map.get_ptr_mut(key)?, is_new)
    };
    // SAFETY: the map's element stays valid for as long as this program runs. Other CPUs
    // add to `count` atomically too; only the one that made the key writes the facts, and
    // user space reads them when no program is left that could. The rest are stores of
    // one word, where the last one wins.
    unsafe {
        self::add(&raw mut (*value).count, add);
        (*value).last_ns = now;
        if amount > (*value).amount_max {
            (*value).amount_max = amount;
        }
        if is_new {
            (*value).first_ns = now;
            facts(&mut (*value).process, &mut (*value).listener);
        }
        if (*value).exemplars >= most {
            return Some(false);
        }
        (*value).exemplars += 1;
    }
    Some(true)
}

/// Fills in everything that is known beside the key. The facts must be zero before.
#[inline(always)]
fn read_facts(
    task: Addr,
    sk: Option<Addr>,
    failure: &Failure,
    process: &mut ProcessFacts,
    listener: &mut ListenerFacts,
) {
    if failure.op == op::SYSCALL {
        let call = facts::accept_call(task);
        if call.number != UNKNOWN {
            process.syscall_nr = call.number as u32;
            process.known |= known::SYSCALL;
        }
    }
    if failure.nofile != UNKNOWN {
        process.nofile_soft = failure.nofile;
        process.known |= known::NOFILE | known::NOFILE_COPIED;
    }
    facts::read_process(task, process);
    if failure.fd != UNKNOWN {
        listener.fd = failure.fd as i32;
        listener.known |= known::FD;
    }
    if let Some(sk) = sk {
        facts::read_listener(sk, listener);
    }
}

#[inline(always)]
fn write_exemplar(
    key: &FailureKey,
    now: u64,
    amount: u64,
    facts: &impl Fn(&mut ProcessFacts, &mut ListenerFacts),
    more: &impl Fn(&mut Exemplar),
) {
    let Some(mut entry) = EXEMPLARS.reserve::<Exemplar>(0) else {
        lose(lost::RING, 1);
        return;
    };
    let out = entry.as_mut_ptr();
    // SAFETY: the reservation is as large and as aligned as an exemplar, and every byte
    // of it is written before it is used as one.
    let out = unsafe {
        zero(out);
        &mut *out
    };
    out.key = *key;
    out.monotonic_ns = now;
    out.amount = amount;
    facts(&mut out.process, &mut out.listener);
    more(out);
    entry.submit(0);
}

/// Zeroes a record, word by word: the library's memset goes byte by byte, and the
/// verifier with it.
#[inline(always)]
unsafe fn zero(record: *mut Exemplar) {
    const WORDS: usize = size_of::<Exemplar>() / size_of::<u64>();
    const _: () = assert!(WORDS * size_of::<u64>() == size_of::<Exemplar>());
    let words = record.cast::<u64>();
    let mut index = 0;
    while index < WORDS {
        // SAFETY: within the record, which is aligned for its own words.
        unsafe { words.add(index).write_volatile(0) };
        index += 1;
    }
}

/// Counts what could not be kept.
#[inline(always)]
pub(crate) fn lose(slot: u32, count: u64) {
    if let Some(lost) = LOST.get_ptr_mut(slot) {
        // SAFETY: a per-CPU slot, valid for as long as this program runs.
        unsafe { add(lost, count) };
    }
}

/// Adds, in one instruction that no other CPU and no interrupt can split. `core` has no
/// read-modify-write atomics for a target that cannot compare-and-swap.
///
/// # Safety
/// The pointer must be one that the verifier knows to be valid.
#[inline(always)]
pub(crate) unsafe fn add(value: *mut u64, count: u64) {
    // SAFETY: the caller's pointer is valid; the verifier checks it.
    unsafe {
        asm!(
            "lock *(u64 *)({at} + 0) += {count}",
            at = in(reg) value,
            count = in(reg) count,
            options(nostack),
        );
    }
}
