//! Connections that programs of this host want to make and that fail: in the connect call, or
//! after it has returned.
//!
//! A TCP connection that was begun (a SYN was to be sent) is counted by its change of state,
//! once, whoever is told of it and how: connect that waits, a second connect, `SO_ERROR`.
//! Whatever else fails is counted by the call.

use aya_ebpf::{
    EbpfContext,
    macros::{fexit, kretprobe, tracepoint},
    programs::{FExitContext, RetProbeContext, TracePointContext},
};
use turnaway_common::{
    Reason,
    failure::{known, op, tier},
    layout::lost,
    reason::errno,
};

use crate::{
    emit::{self, Connect, UNKNOWN, errno_of},
    facts,
    globals::{global, offset},
    kread::Addr,
    maps::{BLANK_CONNECTING, CONNECTING, Connecting, FAILED},
    target::{AF_UNIX, Target},
};

const IPPROTO_TCP: u16 = 6;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_DGRAM: u16 = 2;

// ---- connect(2)

/// `int __sys_connect(int fd, struct sockaddr *, int addrlen)`: 5.10 to 7.2.
#[fexit(function = "__sys_connect")]
fn connect_fexit(ctx: FExitContext) -> i32 {
    // The return value follows the arguments.
    let ret: i32 = ctx.arg(3);
    if ret < 0 {
        let fd: u32 = ctx.arg(0);
        // Read as memory: the verifier knows it to be a pointer and allows little with it.
        let address = Addr::new(ctx.as_ptr() as u64)
            .and_then(|arguments| arguments.at(size_of::<u64>()).read())
            .unwrap_or(0);
        let target = Target {
            address,
            length: ctx.arg(2),
        };
        call_failed(
            &ctx,
            i64::from(ret),
            u64::from(fd),
            target,
            tier::TRAMPOLINE,
        );
    }
    0
}

/// The same function's return; its arguments are those of the system call.
#[kretprobe]
fn connect_kretprobe(ctx: RetProbeContext) -> u32 {
    let ret: i32 = ctx.ret();
    if ret < 0 {
        saved_call_failed(&ctx, i64::from(ret), tier::KPROBE);
    }
    0
}

/// `syscalls/sys_exit_connect`: `long ret` at byte 16.
#[tracepoint]
fn connect_tracepoint(ctx: TracePointContext) -> u32 {
    // SAFETY: within the tracepoint's record, which the verifier checks.
    let ret = unsafe { *ctx.as_ptr().cast::<i64>().add(2) };
    if ret < 0 {
        saved_call_failed(&ctx, ret, tier::TRACEPOINT);
    }
    0
}

/// Takes the arguments from the saved registers.
#[inline(always)]
fn saved_call_failed<C: EbpfContext>(ctx: &C, ret: i64, tier: u8) -> Option<()> {
    // Most of what is negative says that the connection is being made: nothing is read then.
    if Reason::is_life_of_connect(errno_of(ret)?) {
        return None;
    }
    let call = facts::connect_call(facts::current_task()?);
    let target = Target {
        address: call.second(),
        length: call.third() as u32,
    };
    call_failed(ctx, ret, call.fd, target, tier)
}

#[inline(always)]
fn call_failed<C: EbpfContext>(ctx: &C, ret: i64, fd: u64, target: Target, tier: u8) -> Option<()> {
    let errno = errno_of(ret)?;
    if Reason::is_life_of_connect(errno) {
        return None;
    }
    let file = if fd == UNKNOWN {
        0
    } else {
        facts::file_of(facts::current_task()?, fd)
    };
    let inode = facts::socket_inode(file);
    if inode != 0 && was_counted(inode, errno) {
        return None;
    }
    let sk = if inode == 0 { None } else { facts::sk_of(file) };
    let (family, is_datagram) = kind_of(sk, target);
    let reason = Reason::of_connect(errno, family, is_datagram)?;
    emit::connect(
        ctx,
        reason,
        &Connect {
            errno,
            tier,
            sk,
            target,
            waited_ns: 0,
        },
    )
}

/// The family that says what an errno means, and whether it is an Internet datagram socket.
#[inline(always)]
fn kind_of(sk: Option<Addr>, target: Target) -> (u16, bool) {
    let (mut family, mut kind) = (0_u16, 0_u16);
    if let Some(sk) = sk
        && sk.copy_field(offset!(sock_family), &mut family)
        && sk.copy_field(offset!(sock_type), &mut kind)
    {
        return (family, family != AF_UNIX && kind == SOCK_DGRAM);
    }
    (target.family(), false)
}

/// Whether this call hands out a failure that its change of state was counted by. Where
/// `SO_ERROR` was read before, the errno is ECONNABORTED instead.
#[inline(always)]
fn was_counted(inode: u64, errno: u16) -> bool {
    // SAFETY: read at once, and no pointer into the map is kept.
    let Some(counted) = (unsafe { FAILED.get(inode) }).copied() else {
        return false;
    };
    if counted != u32::from(errno) && errno != errno::ECONNABORTED {
        return false;
    }
    let _ = FAILED.remove(inode);
    true
}

// ---- TCP connections

// By the socket's changes of state: see [`crate::states`].

/// The caller of connect runs: notes whose the connection is.
#[inline(always)]
pub(crate) fn asked_for(sk: u64) -> Option<()> {
    let key = sk;
    let sk = Addr::new(sk)?;
    // MPTCP and SCTP come here too; MPTCP's connections are TCP's as well.
    let mut protocol = 0_u16;
    if !sk.copy_field(offset!(sock_protocol), &mut protocol) || protocol != IPPROTO_TCP {
        return None;
    }
    let inode = facts::inode_of(sk);
    // To look is cheaper than to remove what is not there.
    // SAFETY: read at once, and no pointer into the map is kept.
    if unsafe { FAILED.get(inode) }.is_some() {
        let _ = FAILED.remove(inode);
    }
    let task = facts::current_task()?;
    let (tgid, _) = facts::current_ids();
    if !emit::wanted_process(task, tgid) {
        return None;
    }
    if CONNECTING.insert(key, BLANK_CONNECTING.get(0)?, 0).is_err() {
        emit::lose(lost::CONNECTING, 1);
        return None;
    }
    let asked = CONNECTING.get_ptr_mut(key)?;
    // SAFETY: the map's element stays valid for as long as this program runs; the socket is
    // locked by the caller, so that nobody else writes to its entry.
    let asked = unsafe { &mut *asked };
    asked.inode = inode;
    asked.tgid = tgid;
    asked.start_boottime_ns = facts::process_start(task);
    let call = facts::connect_call(task);
    asked.op = op::SYSCALL;
    if facts::is_uring_worker(task)
        || call.number == u64::from(global!(SYSCALL_LAYOUT.io_uring_enter))
    {
        asked.op = op::IO_URING;
    } else if call.number != UNKNOWN {
        asked.process.syscall_nr = call.number as u32;
        asked.process.known |= known::SYSCALL;
    }
    facts::read_process(task, &mut asked.process);
    facts::read_socket(sk, &mut asked.socket);
    read_target(sk, asked)
}

/// The target of a socket that is being connected.
#[inline(always)]
fn read_target(sk: Addr, asked: &mut Connecting) -> Option<()> {
    let (mut family, mut port) = (0_u16, 0_u16);
    if !sk.copy_field(offset!(sock_family), &mut family)
        || !sk.copy_field(offset!(sock_dport), &mut port)
    {
        return None;
    }
    let (at, len) = match family {
        AF_INET => (offset!(sock_daddr)?, 4),
        AF_INET6 => (offset!(sock_v6_daddr)?, 16),
        _ => return None,
    };
    if sk.at(at).copy_to(asked.target_addr.as_mut_ptr(), len) {
        asked.target_family = family;
        asked.target_port = u32::from(u16::from_be(port));
    }
    Some(())
}

/// Anybody may run: the connection was made, or failed, or its caller gave it up.
#[inline(always)]
pub(crate) fn ended<C: EbpfContext>(ctx: &C, sk: u64, failed: bool, by_task: bool) -> Option<()> {
    let asked = CONNECTING.get_ptr_mut(sk)?;
    if failed {
        // SAFETY: as in `asked_for`.
        count(ctx, Addr::new(sk)?, unsafe { &*asked }, by_task);
    }
    let _ = CONNECTING.remove(sk);
    Some(())
}

/// A connection that a task ends without an error was closed by its caller, or could not be
/// begun, which the call says.
#[inline(always)]
fn count<C: EbpfContext>(ctx: &C, sk: Addr, asked: &Connecting, by_task: bool) -> Option<()> {
    let mut errno = 0_u32;
    if !sk.copy_field(offset!(sock_err), &mut errno) {
        return None;
    }
    if errno == 0 {
        if by_task {
            return None;
        }
        // Its program was quick to ask for the error, which takes it away.
        errno = u32::from(if has_waited(sk) {
            errno::ETIMEDOUT
        } else {
            errno::ECONNREFUSED
        });
    }
    let errno = errno_of(-i64::from(errno))?;
    let _ = FAILED.insert(asked.inode, u32::from(errno), 0);
    let reason = Reason::of_connect(errno, asked.target_family, false)?;
    emit::connecting(ctx, reason, errno, asked)
}

/// Whether a SYN was sent as often as may be: otherwise, something answered.
#[inline(always)]
fn has_waited(sk: Addr) -> bool {
    let (mut sent_again, mut own_limit, mut limit) = (0_u8, 0_u8, 0_u8);
    if !sk.copy_field(offset!(icsk_retransmits), &mut sent_again)
        || !sk.copy_field(offset!(icsk_syn_retries), &mut own_limit)
    {
        return false;
    }
    if own_limit != 0 {
        return sent_again >= own_limit;
    }
    let Some(net) = sk.follow(offset!(sock_net)) else {
        return false;
    };
    // An int before 5.15, a byte since; at most 127 (MAX_TCP_SYNCNT) either way.
    net.copy_field(offset!(net_syn_retries), &mut limit) && sent_again >= limit
}
