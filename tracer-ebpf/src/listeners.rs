//! What went well at each listener: who accepts, when last, and how long connections waited.
//! That is what tells a queue that is short of time from one that nobody serves.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{bpf_ktime_get_ns, generated::bpf_jiffies64},
    macros::{fentry, fexit, kprobe, kretprobe, tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};
use turnaway_common::{
    ListenerStats, Reason,
    failure::{WAIT_SLOTS, tier},
    layout::lost,
};

use crate::{
    emit::{self, Event, UNKNOWN},
    facts,
    globals::{global, offset},
    kread::Addr,
    maps::{ACCEPT_CALLS, BLANK_CLOSED, BLANK_LISTENER, CLOSED, LISTENERS},
    shed,
};

const AF_UNIX: u16 = 1;
const AF_VSOCK: u16 = 40;
const IPPROTO_MPTCP: u16 = 262;

// ---- accepted connections

/// `struct sock *inet_csk_accept(struct sock *, int flags, int *err, bool kern)`, and since
/// 6.10 `(struct sock *, struct proto_accept_arg *)`: where the return value is depends on it.
#[fexit(function = "inet_csk_accept")]
fn accepted_fexit_4(ctx: FExitContext) -> i32 {
    tcp_accepted(&ctx, ctx.arg(0), 4);
    0
}

/// The same with two arguments.
#[fexit(function = "inet_csk_accept")]
fn accepted_fexit_2(ctx: FExitContext) -> i32 {
    tcp_accepted(&ctx, ctx.arg(0), 2);
    0
}

#[inline(always)]
fn tcp_accepted(ctx: &FExitContext, sk: u64, arguments: usize) -> Option<()> {
    // Read as memory: the verifier knows it to be a pointer and allows little with it.
    let returned = Addr::new(ctx.as_ptr() as u64)?
        .at(arguments * size_of::<u64>())
        .read()?;
    accepted(
        ctx,
        Addr::new(sk)?,
        Some(Addr::new(returned)?),
        tier::TRAMPOLINE,
    )
}

/// `int unix_accept(struct socket *, struct socket *, int flags, bool kern)`, and since 6.10
/// `(struct socket *, struct socket *, struct proto_accept_arg *)`.
#[fexit(function = "unix_accept")]
fn unix_accepted_fexit_4(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(4) == 0 {
        unix_accepted(&ctx, ctx.arg(0));
    }
    0
}

/// The same with three arguments.
#[fexit(function = "unix_accept")]
fn unix_accepted_fexit_3(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(3) == 0 {
        unix_accepted(&ctx, ctx.arg(0));
    }
    0
}

#[inline(always)]
fn unix_accepted(ctx: &FExitContext, socket: u64) -> Option<()> {
    let sk = Addr::new(socket)?.follow(offset!(socket_sk))?;
    accepted(ctx, sk, None, tier::TRAMPOLINE)
}

/// `inet_csk_accept`, its entry: the listener is what its return does not tell.
#[kprobe]
fn accepted_kprobe(ctx: ProbeContext) -> u32 {
    accept_entered(ctx.arg(0));
    0
}

/// The same function's return.
#[kretprobe]
fn accepted_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(sk) = accept_left()
        && let Some(child) = Addr::new(ctx.ret())
    {
        accepted(&ctx, sk, Some(child), tier::KPROBE);
    }
    0
}

/// `unix_accept`, its entry.
#[kprobe]
fn unix_accepted_kprobe(ctx: ProbeContext) -> u32 {
    accept_entered(
        ctx.arg(0)
            .and_then(Addr::new)
            .and_then(|socket| socket.field(offset!(socket_sk))),
    );
    0
}

/// The same function's return.
#[kretprobe]
fn unix_accepted_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(sk) = accept_left()
        && ctx.ret::<i32>() == 0
    {
        accepted(&ctx, sk, None, tier::KPROBE);
    }
    0
}

#[inline(always)]
fn accept_entered(sk: Option<u64>) {
    if let Some(sk) = sk {
        // The map evicts what is oldest: an insert does not fail for want of room.
        let _ = ACCEPT_CALLS.insert(facts::this_thread(), sk, 0);
    }
}

#[inline(always)]
fn accept_left() -> Option<Addr> {
    let thread = facts::this_thread();
    // SAFETY: only this thread writes this key.
    let sk = unsafe { ACCEPT_CALLS.get(thread) }.copied()?;
    let _ = ACCEPT_CALLS.remove(thread);
    Addr::new(sk)
}

/// `syscalls/sys_exit_accept` and `sys_exit_accept4`: `long ret` at byte 16.
#[tracepoint]
fn accepted_tracepoint(ctx: TracePointContext) -> u32 {
    // SAFETY: within the tracepoint's record, which the verifier checks.
    let ret = unsafe { *ctx.as_ptr().cast::<i64>().add(2) };
    if ret >= 0 {
        accepted_as(&ctx, ret as u64);
    }
    0
}

/// A system call returned the descriptor of a new connection.
#[inline(always)]
fn accepted_as<C: EbpfContext>(ctx: &C, fd: u64) -> Option<()> {
    let task = facts::current_task()?;
    let call = facts::accept_call(task);
    if call.fd == UNKNOWN {
        return None;
    }
    let descriptors = facts::Descriptors::of(task)?;
    let sk = facts::sk_of(descriptors.file(call.fd))?;
    let child = facts::sk_of(descriptors.file(fd));
    accepted(ctx, sk, child, tier::TRACEPOINT)
}

/// io_uring completed a single accept of a listener's file.
#[inline(always)]
pub(crate) fn accepted_by_uring<C: EbpfContext>(ctx: &C, file: u64, fd: u64) -> Option<()> {
    let sk = facts::sk_of(file)?;
    let accepted_as = facts::file_of(facts::current_task()?, fd);
    // One that went into the ring's own table has no descriptor: another file may.
    let child = if facts::socket_inode(accepted_as) == 0 {
        None
    } else {
        facts::sk_of(accepted_as)
    };
    accepted(ctx, sk, child, tier::TRACEPOINT)
}

#[inline(always)]
fn accepted<C: EbpfContext>(ctx: &C, sk: Addr, child: Option<Addr>, tier: u8) -> Option<()> {
    let stats = stats(sk)?;
    let task = facts::current_task()?;
    let (tgid, _) = facts::current_ids();
    // SAFETY: the map's element stays valid for as long as this program runs; words that
    // other processors write too are added to atomically, or the last one wins.
    unsafe {
        emit::add(&raw mut (*stats).accepted, 1);
        (*stats).last_accept_ns = bpf_ktime_get_ns();
        if (*stats).acceptor_tgid != tgid {
            (*stats).acceptor_start_ns = facts::process_start(task);
            (*stats).acceptor_tgid = tgid;
            shed::accepts(sk, tgid, &(*stats).listener);
        }
    }
    let waited = waited(sk, child?)?;
    // Kept opaque, so that the value that is compared is the one that is used.
    let slot = core::hint::black_box((32 - waited.leading_zeros()) as usize);
    if slot >= WAIT_SLOTS {
        return None;
    }
    // SAFETY: as above; the slot is within the array.
    unsafe {
        emit::add((&raw mut (*stats).waited).cast::<u64>().add(slot), 1);
        if waited > (*stats).waited_max {
            (*stats).waited_max = waited;
        }
    }
    if waited >= global!(SETTINGS.slow_jiffies) {
        emit::of_listener(
            ctx,
            &Event {
                reason: Reason::QueueSlow,
                tier,
                task: Some(task),
                sk,
                skb: 0,
                count: 1,
                amount: u64::from(waited) * u64::from(global!(SETTINGS.jiffy_ns)),
            },
        );
    }
    Some(())
}

/// How long a connection waited before it was accepted, jiffies. Its `lsndtime` is set when
/// the handshake ends and not touched before it is accepted.
#[inline(always)]
fn waited(listener: Addr, child: Addr) -> Option<u32> {
    let family: u16 = listener.field(offset!(sock_family))?;
    if family == AF_UNIX || family == AF_VSOCK {
        return None;
    }
    let mut tcp = child;
    if child.field::<u16>(offset!(sock_protocol))? == IPPROTO_MPTCP {
        tcp = child.follow(offset!(mptcp_first))?;
    }
    let since: u32 = tcp.field(offset!(tcp_lsndtime))?;
    // SAFETY: the helper takes nothing; it is there since Linux 5.5.
    let now = unsafe { bpf_jiffies64() } as u32;
    let waited = now.wrapping_sub(since);
    // Data that was sent on it since, or another clock: no wait at all.
    (waited < 1 << 30).then_some(waited)
}

/// Counts SYN cookies of a listener.
#[inline(always)]
pub(crate) fn cookies(sk: Addr, sent: u64) {
    if let Some(stats) = stats(sk) {
        // SAFETY: as in `accepted`.
        unsafe { emit::add(&raw mut (*stats).cookies, sent) };
    }
}

#[inline(always)]
fn stats(sk: Addr) -> Option<*mut ListenerStats> {
    let inode = facts::inode_of(sk);
    if inode == 0 {
        return None;
    }
    if let Some(stats) = LISTENERS.get_ptr_mut(inode) {
        return Some(stats);
    }
    let is_new = LISTENERS
        .insert(inode, BLANK_LISTENER.get(0)?, u64::from(BPF_NOEXIST))
        .is_ok();
    let Some(stats) = LISTENERS.get_ptr_mut(inode) else {
        emit::lose(lost::LISTENERS, 1);
        return None;
    };
    if is_new {
        // SAFETY: as in `accepted`; only the one that made the entry writes the facts.
        unsafe { facts::read_listener(sk, &mut (*stats).listener) };
    }
    Some(stats)
}

// ---- listeners that are closed

/// `void inet_csk_listen_stop(struct sock *)`: 5.10 to 7.2. What still waits is reset in it.
#[fentry(function = "inet_csk_listen_stop")]
fn closed_fentry(ctx: FEntryContext) -> i32 {
    closed(&ctx, ctx.arg(0), tier::TRAMPOLINE);
    0
}

/// The same.
#[kprobe]
fn closed_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        closed(&ctx, sk, tier::KPROBE);
    }
    0
}

#[inline(always)]
pub(crate) fn closed<C: EbpfContext>(ctx: &C, sk: u64, tier: u8) -> Option<()> {
    let sk = Addr::new(sk)?;
    let inode = facts::inode_of(sk);
    let _ = LISTENERS.remove(inode);
    if global!(SETTINGS.final_drops) != 0 {
        keep_drops(sk, inode);
    }
    let task = facts::current_task();
    let waiting: u32 = sk.field(offset!(sock_ack_backlog)).unwrap_or(0);
    if waiting > 0 {
        emit::of_listener(
            ctx,
            &Event {
                reason: Reason::QueueAbandoned,
                tier,
                task,
                sk,
                skb: 0,
                count: u64::from(waiting),
                amount: u64::from(waiting),
            },
        );
    }
    emit::of_listener(
        ctx,
        &Event {
            reason: Reason::ListenerClosed,
            tier,
            task,
            sk,
            skb: 0,
            count: 1,
            amount: 0,
        },
    )
}

/// Keeps what a listener had dropped, for user space to compare with what it saw last.
#[inline(always)]
fn keep_drops(sk: Addr, inode: u64) -> Option<()> {
    let mut drops = 0_u32;
    if !sk.copy_field(offset!(sock_drops), &mut drops) || drops == 0 {
        return None;
    }
    if CLOSED.insert(inode, BLANK_CLOSED.get(0)?, 0).is_err() {
        emit::lose(lost::MAP, 1);
        return None;
    }
    let closed = CLOSED.get_ptr_mut(inode)?;
    // SAFETY: the map's element stays valid for as long as this program runs, and a socket is
    // closed once.
    unsafe {
        (*closed).monotonic_ns = bpf_ktime_get_ns();
        facts::read_listener(sk, &mut (*closed).listener);
        (*closed).drops = u64::from(drops);
    }
    Some(())
}
