//! Programs that wait in connect because the queue of an AF_UNIX listener is full. The kernel
//! comes through here in no other case, so that a connect that need not wait costs nothing.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_ktime_get_ns,
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use turnaway_common::{Reason, failure::tier};

use crate::{
    emit::{self, Connect, UNKNOWN},
    facts,
    globals::{global, offset},
    kread::Addr,
    maps::{UNIX_WAITS, UnixWait},
    target::Target,
};

const TCP_LISTEN: u8 = 10;

/// `long unix_wait_for_peer(struct sock *other, long timeo)`: 5.10 to 7.2.
#[fentry(function = "unix_wait_for_peer")]
fn unix_wait_fentry(ctx: FEntryContext) -> i32 {
    began(ctx.arg(0));
    0
}

/// The same: returns what is left of the time that the program wants to wait.
#[fexit(function = "unix_wait_for_peer")]
fn unix_wait_fexit(ctx: FExitContext) -> i32 {
    ended(&ctx, ctx.arg(2), tier::TRAMPOLINE);
    0
}

/// The same.
#[kprobe]
fn unix_wait_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(other) = ctx.arg(0) {
        began(other);
    }
    0
}

/// The same.
#[kretprobe]
fn unix_wait_kretprobe(ctx: RetProbeContext) -> u32 {
    ended(&ctx, ctx.ret(), tier::KPROBE);
    0
}

#[inline(always)]
fn began(other: u64) -> Option<()> {
    // Datagrams wait here, too.
    let state: u8 = Addr::new(other)?.field(offset!(sock_state))?;
    if state != TCP_LISTEN {
        return None;
    }
    let wait = UnixWait {
        // SAFETY: the helper takes nothing.
        since_ns: unsafe { bpf_ktime_get_ns() },
    };
    // The map evicts what is oldest: an insert does not fail for want of room.
    let _ = UNIX_WAITS.insert(facts::this_thread(), wait, 0);
    Some(())
}

#[inline(always)]
fn ended<C: EbpfContext>(ctx: &C, left: i64, tier: u8) -> Option<()> {
    let thread = facts::this_thread();
    // SAFETY: only this thread writes this key.
    let since_ns = unsafe { UNIX_WAITS.get(thread) }?.since_ns;
    let _ = UNIX_WAITS.remove(thread);
    // SAFETY: the helper takes nothing.
    let waited_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(since_ns);
    // Where no time is left, connect fails, and is counted for that.
    if left == 0 || waited_ns < global!(SETTINGS.slow_ns) {
        return None;
    }
    let call = facts::connect_call(facts::current_task()?);
    if call.number != u64::from(global!(SYSCALL_LAYOUT.connect)) || call.fd == UNKNOWN {
        return None;
    }
    let file = facts::file_of(facts::current_task()?, call.fd);
    emit::connect(
        ctx,
        Reason::QueueUnixFull,
        &Connect {
            errno: 0,
            tier,
            sk: facts::sk_of(file),
            target: Target {
                address: call.second(),
                length: call.third() as u32,
            },
            waited_ns,
        },
    )
}
