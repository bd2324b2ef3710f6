//! Descriptors and files that cannot be had, by whatever call: what accept cannot have is
//! [`crate::accept`]'s. And processes that come close to their limit.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    macros::{btf_tracepoint, fexit, kprobe, kretprobe},
    programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext},
};
use turnaway_common::{
    Reason,
    failure::{op, tier},
    reason::errno,
};

use crate::{
    accept,
    emit::{self, Exhausted, UNKNOWN, errno_of},
    facts,
    globals::{global, offset},
    kread::{Addr, UserAddr},
    maps::PRESSED,
};

/// From so many percent of its limit on, a process is looked at.
const PRESSURE_PERCENT: u64 = 80;
/// Lower numbers are none of a process that is near a limit: its limit need not be read.
const LOW: u64 = 16;

/// accept4(2) and socketcall(2) of 32-bit programs on x86_64 (arch/x86/entry/syscalls/syscall_32.tbl),
/// and the subcalls of the latter that accept (include/uapi/linux/net.h).
const COMPAT_ACCEPT4: u64 = 364;
const COMPAT_SOCKETCALL: u64 = 102;
const SOCKETCALL_ACCEPT: u64 = 5;
const SOCKETCALL_ACCEPT4: u64 = 18;

/// What takes the place of a call's number when a signal's handler has returned: the result is that of
/// whatever call the signal had interrupted.
const NO_CALL: u64 = 0xffff_ffff;

/// `struct user_msghdr` of include/linux/socket.h, on machines of 64 bits.
const MSG_FLAGS: usize = 48;
const MSG_CTRUNC: u32 = 8;

/// `IORING_OP_OPENAT` and `IORING_OP_OPENAT2` of include/uapi/linux/io_uring.h.
const IORING_OP_OPENAT: u8 = 18;
const IORING_OP_OPENAT2: u8 = 28;

// ---- whatever asks for a number

/// `int alloc_fd(unsigned int start, unsigned int end, unsigned int flags)`: 5.10 to 7.2. Every new
/// number comes from here but those of dup2 and dup3, which never give EMFILE; `end` is the limit.
#[fexit(function = "alloc_fd")]
fn descriptors_fexit(ctx: FExitContext) -> i32 {
    // The return value follows the arguments.
    let ret: i32 = ctx.arg(3);
    let end: u32 = ctx.arg(1);
    if ret < 0 {
        number_refused(&ctx, ret, tier::TRAMPOLINE);
    } else if is_near(ret as u64, u64::from(end)) {
        note_pressure();
    }
    0
}

/// The same function's return.
#[kretprobe]
fn descriptors_kretprobe(ctx: RetProbeContext) -> u32 {
    let ret: i32 = ctx.ret();
    if ret < 0 {
        number_refused(&ctx, ret, tier::KPROBE);
    } else {
        number_given(ret as u64);
    }
    0
}

/// `struct file *alloc_empty_file(int flags, const struct cred *)`: 5.10 to 7.2. Every open file comes
/// from here; ENFILE is decided here.
#[fexit(function = "alloc_empty_file")]
fn files_fexit(ctx: FExitContext) -> i32 {
    const RETURN_VALUE: usize = 2 * size_of::<u64>();
    // Read as memory: the verifier knows it to be a pointer and allows little with it.
    if let Some(ctx_at) = Addr::new(ctx.as_ptr() as u64)
        && let Some(ret) = ctx_at.at(RETURN_VALUE).read::<i64>()
    {
        file_refused(&ctx, ret, tier::TRAMPOLINE);
    }
    0
}

/// The same function's return.
#[kretprobe]
fn files_kretprobe(ctx: RetProbeContext) -> u32 {
    file_refused(&ctx, ctx.ret(), tier::KPROBE);
    0
}

/// `int do_inotify_init(int flags)`: EMFILE also says that the user has as many as
/// `fs.inotify.max_user_instances`.
#[fexit(function = "do_inotify_init")]
fn inotify_fexit(ctx: FExitContext) -> i32 {
    inotify_returned(&ctx, ctx.arg(1), tier::TRAMPOLINE);
    0
}

/// The same function's return.
#[kretprobe]
fn inotify_kretprobe(ctx: RetProbeContext) -> u32 {
    inotify_returned(&ctx, ctx.ret(), tier::KPROBE);
    0
}

#[inline(always)]
fn number_refused<C: EbpfContext>(ctx: &C, ret: i32, tier: u8) -> Option<()> {
    // What else there is (ENOMEM) says nothing of limits.
    if errno_of(i64::from(ret))? != errno::EMFILE {
        return None;
    }
    note_pressure();
    let call = other_call()?;
    let is_inotify = call == u64::from(global!(SYSCALL_LAYOUT.inotify_init)) + 1
        || call == u64::from(global!(SYSCALL_LAYOUT.inotify_init1)) + 1;
    if is_inotify && global!(SETTINGS.inotify) != 0 {
        return None;
    }
    refused(ctx, errno::EMFILE, call, tier)
}

#[inline(always)]
fn file_refused<C: EbpfContext>(ctx: &C, ret: i64, tier: u8) -> Option<()> {
    if errno_of(ret)? != errno::ENFILE {
        return None;
    }
    refused(ctx, errno::ENFILE, other_call()?, tier)
}

#[inline(always)]
fn inotify_returned<C: EbpfContext>(ctx: &C, ret: i32, tier: u8) -> Option<()> {
    if errno_of(i64::from(ret))? != errno::EMFILE {
        return None;
    }
    refused(ctx, errno::EMFILE, other_call()?, tier)
}

/// The number of the call plus one, 0 for one of a 32-bit program; nothing for accept, for io_uring
/// and for the kernel's own threads, which have hooks of their own or none.
#[inline(always)]
fn other_call() -> Option<u64> {
    let task = facts::current_task()?;
    if facts::is_kernel_thread(task) || facts::is_uring_worker(task) {
        return None;
    }
    let call = facts::any_call(task);
    if call.number == UNKNOWN || call.number == NO_CALL {
        return None;
    }
    if call.is_compat {
        let accepts = call.number == COMPAT_ACCEPT4
            || call.number == COMPAT_SOCKETCALL
                && (call.first == SOCKETCALL_ACCEPT || call.first == SOCKETCALL_ACCEPT4);
        return if accepts { None } else { Some(0) };
    }
    let is = |number: u32| call.number == u64::from(number);
    if is(global!(SYSCALL_LAYOUT.accept))
        || is(global!(SYSCALL_LAYOUT.accept4))
        || is(global!(SYSCALL_LAYOUT.io_uring_enter))
    {
        return None;
    }
    Some(call.number + 1)
}

#[inline(always)]
fn refused<C: EbpfContext>(ctx: &C, errno: u16, call: u64, tier: u8) -> Option<()> {
    emit::exhausted(
        ctx,
        &Exhausted {
            errno,
            op: op::SYSCALL,
            tier,
            call: call as u32,
        },
    )
}

// ---- the same, by the exits of system calls

/// A call was refused one, by its result.
#[inline(always)]
pub(crate) fn call_refused<C: EbpfContext>(ctx: &C, errno: u16) -> Option<()> {
    if errno == errno::EMFILE {
        note_pressure();
    }
    refused(ctx, errno, other_call()?, tier::TRACEPOINT)
}

/// recvmsg returned. A descriptor that was sent and could not be had is lost, and the call succeeds.
#[inline(always)]
pub(crate) fn received<C: EbpfContext>(ctx: &C, message: UserAddr) -> Option<()> {
    if message.at(MSG_FLAGS).read::<u32>()? & MSG_CTRUNC == 0 {
        return None;
    }
    // Too little room for them, which the caller had said and the kernel has overwritten, or no number
    // for one more: then the highest is in use.
    let task = facts::current_task()?;
    let mut limit = 0_u64;
    if !facts::read_nofile(task, &mut limit) || facts::file_of(task, limit.checked_sub(1)?) == 0 {
        return None;
    }
    note_pressure();
    // What else the descriptor could have been lost by (a security module) is not known.
    refused(
        ctx,
        0,
        u64::from(global!(SYSCALL_LAYOUT.recvmsg)) + 1,
        tier::TRACEPOINT,
    )
}

// ---- io_uring

macro_rules! uring_fexit {
    ($($(#[$doc:meta])* $name:ident = $function:literal, $only:expr;)+) => {
        $(
            $(#[$doc])*
            #[fexit(function = $function)]
            fn $name(ctx: FExitContext) -> i32 {
                uring_returned(&ctx, ctx.arg(0), ctx.arg(2), $only, tier::TRAMPOLINE);
                0
            }
        )+
    };
}

uring_fexit! {
    /// `int io_openat(struct io_kiocb *req, unsigned int issue_flags)`, which calls the next one.
    uring_openat_fexit = "io_openat", IORING_OP_OPENAT;
    /// `int io_openat2(struct io_kiocb *req, unsigned int issue_flags)`.
    uring_openat2_fexit = "io_openat2", IORING_OP_OPENAT2;
    /// `int io_socket(struct io_kiocb *req, unsigned int issue_flags)`.
    uring_socket_fexit = "io_socket", 0;
    /// `int io_pipe(struct io_kiocb *req, unsigned int issue_flags)`.
    uring_pipe_fexit = "io_pipe", 0;
}

/// The entry of any of these.
#[kprobe]
fn uring_descriptors_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(request) = ctx.arg::<u64>(0) {
        accept::remember_request(request);
    }
    0
}

/// The return of any of these: of two that call each other, the inner one's.
#[kretprobe]
fn uring_descriptors_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(call) = accept::recall() {
        uring_returned(&ctx, call.request, ctx.ret(), 0, tier::KPROBE);
    }
    0
}

/// `only` is the operation that it is about, or 0.
#[inline(always)]
fn uring_returned<C: EbpfContext>(
    ctx: &C,
    request: u64,
    ret: i32,
    only: u8,
    tier: u8,
) -> Option<()> {
    let request = Addr::new(request)?;
    // Most set a result and return 0; some return an errno before they have one.
    let mut res = ret;
    if ret == 0 && !request.copy_field(offset!(kiocb_res), &mut res) {
        return None;
    }
    uring_result(ctx, request, res, only, tier)
}

#[inline(always)]
fn uring_result<C: EbpfContext>(
    ctx: &C,
    request: Addr,
    res: i32,
    only: u8,
    tier: u8,
) -> Option<()> {
    let errno = errno_of(i64::from(res))?;
    if errno != errno::EMFILE && errno != errno::ENFILE {
        return None;
    }
    let mut opcode = 0_u8;
    if !request.copy_field(offset!(kiocb_opcode), &mut opcode)
        || opcode == accept::IORING_OP_ACCEPT
        || only != 0 && opcode != only
    {
        return None;
    }
    if errno == errno::EMFILE {
        note_pressure();
    }
    emit::exhausted(
        ctx,
        &Exhausted {
            errno,
            op: op::IO_URING,
            tier,
            call: u32::from(opcode) + 1,
        },
    )
}

/// As [`accept::uring_complete_cqe`].
#[btf_tracepoint(function = "io_uring_complete")]
fn uring_descriptors_cqe(ctx: BtfTracePointContext) -> i32 {
    /// Offset of `res` in a `struct io_uring_cqe`.
    const CQE_RES: usize = 8;
    let request: u64 = ctx.arg(1);
    let cqe: u64 = ctx.arg(2);
    if let Some(cqe) = Addr::new(cqe)
        && let Some(res) = cqe.at(CQE_RES).read::<i32>()
        && res < 0
        && let Some(request) = Addr::new(request)
    {
        uring_result(&ctx, request, res, 0, tier::TRACEPOINT);
    }
    0
}

/// As [`accept::uring_complete_res`].
#[btf_tracepoint(function = "io_uring_complete")]
fn uring_descriptors_res(ctx: BtfTracePointContext) -> i32 {
    let res: i32 = ctx.arg(3);
    if res < 0
        && let Some(request) = Addr::new(ctx.arg(1))
    {
        uring_result(&ctx, request, res, 0, tier::TRACEPOINT);
    }
    0
}

// ---- processes that come close to their limit

/// Whether a descriptor's number is near a limit. It says nothing yet of how many there are.
#[inline(always)]
fn is_near(number: u64, limit: u64) -> bool {
    /// No table is ever as large as this; a limit that is, is none.
    const NEVER_REACHED: u64 = 1 << 32;
    // Numbers begin with 0.
    limit < NEVER_REACHED && (number + 1) * 100 >= limit * PRESSURE_PERCENT
}

/// A descriptor of this number was given, under a limit that has to be looked up.
#[inline(always)]
pub(crate) fn number_given(number: u64) -> Option<()> {
    if number < LOW || global!(SETTINGS.pressure) == 0 {
        return None;
    }
    let mut limit = 0_u64;
    if facts::read_nofile(facts::current_task()?, &mut limit) && is_near(number, limit) {
        note_pressure();
    }
    Some(())
}

/// User space is to look at the process that runs now.
#[inline(always)]
fn note_pressure() -> Option<()> {
    if global!(SETTINGS.pressure) == 0 {
        return None;
    }
    let (tgid, _) = facts::current_ids();
    // SAFETY: read at once, and no pointer into the map is kept.
    if unsafe { PRESSED.get(tgid) }.is_some() {
        return None;
    }
    let task = facts::current_task()?;
    if facts::is_kernel_thread(task)
        || !emit::is_wanted(Reason::FdPressure)
        || !emit::wanted_process(task, tgid)
    {
        return None;
    }
    let _ = PRESSED.insert(tgid, facts::process_start(task), u64::from(BPF_NOEXIST));
    Some(())
}
