//! Failed accepts: accept(2), accept4(2) and io_uring's accept, one program for each
//! place that user space may choose to attach to.

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext,
        TracePointContext,
    },
};
use turnaway_common::{
    failure::{op, tier},
    reason::errno,
};

use crate::{
    emit::{self, Failure, UNKNOWN, errno_of},
    facts,
    globals::{global, offset},
    kread::Addr,
    listeners,
    maps::{URING_CALLS, UringCall},
};

/// `IORING_OP_ACCEPT` of include/uapi/linux/io_uring.h.
pub(crate) const IORING_OP_ACCEPT: u8 = 13;
/// `O_NONBLOCK`.
const O_NONBLOCK: u32 = 0o4000;
/// Results of `io_accept` that ask for something else than an errno: they lie outside
/// the errnos a program can see (`IOU_ISSUE_SKIP_COMPLETE` is -EIOCBQUEUED, -529;
/// `IOU_REQUEUE` is -3072).
const FIRST_INTERNAL: u16 = 512;

// ---- accept(2) and accept4(2)

/// `int __sys_accept4(int fd, struct sockaddr *, int *, int flags)`: 5.10 to 7.2.
#[fexit(function = "__sys_accept4")]
fn accept_fexit(ctx: FExitContext) -> i32 {
    // The return value follows the arguments; `bpf_get_func_ret` would need 5.17.
    let ret: i32 = ctx.arg(4);
    if ret < 0 {
        let fd: u32 = ctx.arg(0);
        syscall_failed(&ctx, i64::from(ret), u64::from(fd), tier::TRAMPOLINE);
    }
    0
}

/// The same function's return. The descriptor is read from the saved registers of the
/// syscall, so that success costs no map and an accept that was entered before the
/// probe was attached is seen too.
#[kretprobe]
fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    let ret: i32 = ctx.ret();
    if ret < 0 {
        syscall_failed(&ctx, i64::from(ret), UNKNOWN, tier::KPROBE);
    }
    0
}

/// `syscalls/sys_exit_accept` and `sys_exit_accept4`: `long ret` at byte 16.
#[tracepoint]
fn accept_tracepoint(ctx: TracePointContext) -> u32 {
    // SAFETY: within the tracepoint's record, which the verifier checks.
    let ret = unsafe { *ctx.as_ptr().cast::<i64>().add(2) };
    if ret < 0 {
        syscall_failed(&ctx, ret, UNKNOWN, tier::TRACEPOINT);
    }
    0
}

/// `fd` is [`UNKNOWN`] where the hook is not handed it.
#[inline(always)]
fn syscall_failed<C: EbpfContext>(ctx: &C, ret: i64, fd: u64, tier: u8) -> Option<()> {
    let errno = errno_of(ret)?;
    let admitted = emit::admit(errno)?;
    let fd = if fd == UNKNOWN {
        facts::accept_call(admitted.task).fd
    } else {
        fd
    };
    emit::failure(
        ctx,
        admitted,
        &Failure {
            errno,
            op: op::SYSCALL,
            tier,
            file: facts::file_of(admitted.task, fd),
            fd,
            nofile: UNKNOWN,
        },
    )
}

// ---- io_uring, where the request is at hand: 6.1 to 7.2

/// `int io_accept(struct io_kiocb *req, unsigned int issue_flags)`.
#[fexit(function = "io_accept")]
fn uring_fexit(ctx: FExitContext) -> i32 {
    let request: u64 = ctx.arg(0);
    let ret: i32 = ctx.arg(2);
    uring_returned(&ctx, request, ret, tier::TRAMPOLINE);
    0
}

/// The same function's entry.
#[kprobe]
fn uring_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(request) = ctx.arg::<u64>(0) {
        remember_request(request);
    }
    0
}

/// The same function's return.
#[kretprobe]
fn uring_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(call) = recall() {
        uring_returned(&ctx, call.request, ctx.ret(), tier::KPROBE);
    }
    0
}

#[inline(always)]
fn uring_returned<C: EbpfContext>(ctx: &C, request: u64, ret: i32, tier: u8) -> Option<()> {
    let request = Addr::new(request)?;
    let errno = match errno_of(i64::from(ret)) {
        // An errno of its own: the request never got as far as a result.
        Some(errno) if errno < FIRST_INTERNAL && errno != errno::ECANCELED => errno,
        // Will be tried again later, or says nothing of the accept.
        Some(errno) if errno != errno::ECANCELED => return None,
        // 0 (complete) and -ECANCELED (a multishot that ends): the result says.
        _ => errno_of(i64::from(request.field::<i32>(offset!(kiocb_res))?))?,
    };
    uring_failed(ctx, request, errno, tier)
}

#[inline(always)]
fn uring_failed<C: EbpfContext>(ctx: &C, request: Addr, errno: u16, tier: u8) -> Option<()> {
    let admitted = emit::admit(errno)?;
    let cmd = offset!(kiocb_cmd).or(offset!(kiocb_accept));
    let nofile = match (cmd, offset!(io_accept_nofile)) {
        (Some(cmd), Some(nofile)) => request.at(cmd + nofile).read().unwrap_or(UNKNOWN),
        _ => UNKNOWN,
    };
    emit::failure(
        ctx,
        admitted,
        &Failure {
            errno,
            op: op::IO_URING,
            tier,
            file: request.field(offset!(kiocb_file)).unwrap_or(0),
            fd: UNKNOWN,
            nofile,
        },
    )
}

// ---- io_uring of 5.15, which 5.10 kernels carry too: `io_accept` is inlined in
// `io_issue_sqe`. A descriptor that cannot be had is what that returns; the other errnos
// are what `do_accept` returns meanwhile.

/// `int io_issue_sqe(struct io_kiocb *req, unsigned int issue_flags)`, its entry.
#[fentry(function = "io_issue_sqe")]
fn uring_issue_fentry(ctx: FEntryContext) -> i32 {
    issue_entered(ctx.arg(0));
    0
}

/// The same function's exit.
#[fexit(function = "io_issue_sqe")]
fn uring_issue_fexit(ctx: FExitContext) -> i32 {
    issue_left(&ctx, ctx.arg(2), tier::TRAMPOLINE);
    0
}

/// `struct file *do_accept(struct file *, unsigned file_flags, struct sockaddr *, int *,
/// int flags)`. accept(2) comes through here too, and is left to its own hook.
#[fexit(function = "do_accept")]
fn uring_do_accept_fexit(ctx: FExitContext) -> i32 {
    // Read as memory: the verifier allows no arithmetic on what it knows to be a pointer,
    // not even to see that it is none.
    const RETURN_VALUE: usize = 5 * size_of::<u64>();
    if let Some(ctx_at) = Addr::new(ctx.as_ptr() as u64)
        && let Some(ret) = ctx_at.at(RETURN_VALUE).read::<i64>()
    {
        do_accept_left(&ctx, ret, tier::TRAMPOLINE);
    }
    0
}

/// `io_issue_sqe`'s entry.
#[kprobe]
fn uring_issue_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(request) = ctx.arg::<u64>(0) {
        issue_entered(request);
    }
    0
}

/// `io_issue_sqe`'s return.
#[kretprobe]
fn uring_issue_kretprobe(ctx: RetProbeContext) -> u32 {
    issue_left(&ctx, ctx.ret(), tier::KPROBE);
    0
}

/// `do_accept`'s return.
#[kretprobe]
fn uring_do_accept_kretprobe(ctx: RetProbeContext) -> u32 {
    do_accept_left(&ctx, ctx.ret(), tier::KPROBE);
    0
}

#[inline(always)]
fn issue_entered(request: u64) -> Option<()> {
    let opcode: u8 = Addr::new(request)?.field(offset!(kiocb_opcode))?;
    if opcode == IORING_OP_ACCEPT {
        remember_request(request);
    }
    Some(())
}

#[inline(always)]
fn issue_left<C: EbpfContext>(ctx: &C, ret: i32, tier: u8) -> Option<()> {
    let call = recall()?;
    uring_failed(
        ctx,
        Addr::new(call.request)?,
        errno_of(i64::from(ret))?,
        tier,
    )
}

#[inline(always)]
fn do_accept_left<C: EbpfContext>(ctx: &C, ret: i64, tier: u8) -> Option<()> {
    let errno = errno_of(ret)?;
    // SAFETY: as in `recall`.
    let call = unsafe { URING_CALLS.get(facts::this_thread()) }?;
    uring_failed(ctx, Addr::new(call.request)?, errno, tier)
}

// ---- io_uring before that: 5.10 as it was first released

/// `int __sys_accept4_file(struct file *, unsigned file_flags, struct sockaddr *, int *,
/// int flags, unsigned long nofile)`. accept(2) comes through here too, and is left to
/// the hook above.
#[fexit(function = "__sys_accept4_file")]
fn uring_file_fexit(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(6);
    if ret < 0 && from_io_uring(ctx.arg(1)) {
        let call = UringCall {
            request: 0,
            file: ctx.arg(0),
            nofile: ctx.arg(5),
        };
        uring_file_failed(&ctx, &call, ret, tier::TRAMPOLINE);
    }
    0
}

/// The same function's entry.
#[kprobe]
fn uring_file_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(file), Some(file_flags), Some(nofile)) =
        (ctx.arg::<u64>(0), ctx.arg::<u32>(1), ctx.arg::<u64>(5))
        && from_io_uring(file_flags)
    {
        remember(&UringCall {
            request: 0,
            file,
            nofile,
        });
    }
    0
}

/// The same function's return.
#[kretprobe]
fn uring_file_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(call) = recall() {
        uring_file_failed(&ctx, &call, ctx.ret(), tier::KPROBE);
    }
    0
}

/// Tells io_uring's calls of `__sys_accept4_file` from the syscall's: the syscall always
/// passes 0 for `file_flags`; io_uring passes `O_NONBLOCK` but from its kernel workers.
#[inline(always)]
fn from_io_uring(file_flags: u32) -> bool {
    file_flags & O_NONBLOCK != 0 || facts::current_task().is_some_and(facts::is_kernel_thread)
}

#[inline(always)]
fn uring_file_failed<C: EbpfContext>(ctx: &C, call: &UringCall, ret: i32, tier: u8) -> Option<()> {
    let errno = errno_of(i64::from(ret))?;
    let admitted = emit::admit(errno)?;
    emit::failure(
        ctx,
        admitted,
        &Failure {
            errno,
            op: op::IO_URING,
            tier,
            file: call.file,
            fd: UNKNOWN,
            nofile: call.nofile,
        },
    )
}

// ---- io_uring without trampolines and kprobes

/// `io_uring_complete(struct io_ring_ctx *, void *req, struct io_uring_cqe *)`: 6.18, 7.2.
#[btf_tracepoint(function = "io_uring_complete")]
fn uring_complete_cqe(ctx: BtfTracePointContext) -> i32 {
    /// Offset of `res` in a `struct io_uring_cqe`.
    const CQE_RES: usize = 8;
    let request: u64 = ctx.arg(1);
    let cqe: u64 = ctx.arg(2);
    if let Some(cqe) = Addr::new(cqe)
        && let Some(res) = cqe.at(CQE_RES).read::<i32>()
    {
        uring_completed(&ctx, request, res);
    }
    0
}

/// `io_uring_complete(void *ctx, void *req, u64 user_data, int res, unsigned cflags,
/// u64 extra1, u64 extra2)`: 6.1, 6.12.
#[btf_tracepoint(function = "io_uring_complete")]
fn uring_complete_res(ctx: BtfTracePointContext) -> i32 {
    uring_completed(&ctx, ctx.arg(1), ctx.arg(3));
    0
}

#[inline(always)]
fn uring_completed<C: EbpfContext>(ctx: &C, request: u64, res: i32) -> Option<()> {
    if res >= 0 && global!(SETTINGS.uring_accepted) == 0 {
        return None;
    }
    let request = Addr::new(request)?;
    if request.field::<u8>(offset!(kiocb_opcode))? != IORING_OP_ACCEPT {
        return None;
    }
    if res >= 0 {
        let file = request.field(offset!(kiocb_file))?;
        return listeners::accepted_by_uring(ctx, file, res as u64);
    }
    uring_failed(ctx, request, errno_of(i64::from(res))?, tier::TRACEPOINT)
}

// ---- between a function's entry and its exit

#[inline(always)]
fn remember(call: &UringCall) {
    // The map evicts what is oldest: an insert does not fail for want of room.
    let _ = URING_CALLS.insert(facts::this_thread(), call, 0);
}

/// Notes that this thread works on a request.
#[inline(always)]
pub(crate) fn remember_request(request: u64) {
    remember(&UringCall {
        request,
        file: 0,
        nofile: 0,
    });
}

/// What this thread works on, which it does no more.
#[inline(always)]
pub(crate) fn recall() -> Option<UringCall> {
    let thread = facts::this_thread();
    // SAFETY: only this thread writes this key.
    let call = unsafe { URING_CALLS.get(thread) }.copied();
    if call.is_some() {
        let _ = URING_CALLS.remove(thread);
    }
    call
}
