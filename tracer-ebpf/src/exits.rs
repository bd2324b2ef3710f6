//! The exits of all system calls, in one program: the way of the tracepoint tier to see whatever wants a
//! descriptor.
//!
//! Every call of the host comes through here. A program at each call that matters would spare the others,
//! but not the kernel's slow way out of a call, which costs them more; and the kernel takes tens of
//! milliseconds to remove each. Accept and connect have such programs all the same: kernels that preempt
//! this one leave runs of it out.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use turnaway_common::{
    layout::{ABSENT, SyscallLayout},
    reason::errno,
};

use crate::{descriptors, emit::errno_of, facts, globals::global, kread::UserAddr};

/// `sys_exit(struct pt_regs *, long ret)`: 5.10 to 7.2. What nearly all calls are told apart by comes
/// first.
#[btf_tracepoint(function = "sys_exit")]
fn syscall_exit(ctx: BtfTracePointContext) -> i32 {
    let ret: i64 = ctx.arg(1);
    if ret < 0 {
        if let Some(errno @ (errno::EMFILE | errno::ENFILE)) = errno_of(ret) {
            descriptors::call_refused(&ctx, errno);
        }
        return 0;
    }
    let call = Call(ctx.arg(0));
    if is_watched(call.number()) && !call.is_compat() {
        succeeded(&ctx, call, ret as u64);
    }
    0
}

/// Where a call's registers are saved. The verifier knows what it points to.
#[derive(Clone, Copy)]
struct Call(u64);

impl Call {
    #[inline(always)]
    fn number(self) -> u32 {
        self.register(global!(SYSCALL_LAYOUT.number)) as u32
    }

    #[inline(always)]
    fn register(self, at: u32) -> u64 {
        // SAFETY: the verifier checks that there is such a register.
        unsafe { *((self.0 + u64::from(at)) as *const u64) }
    }

    /// Whether a 32-bit program calls, whose calls have numbers of their own.
    #[inline(always)]
    fn is_compat(self) -> bool {
        let at = global!(SYSCALL_LAYOUT.code_segment);
        at != ABSENT && self.register(at) as u16 != facts::USER_CS
    }
}

#[inline(always)]
fn is_watched(number: u32) -> bool {
    const BITS: u32 = u64::BITS;
    let word = (number / BITS) as usize;
    word < SyscallLayout::WORDS
        && global!(SYSCALL_LAYOUT.watched[word & (SyscallLayout::WORDS - 1)]) >> (number % BITS) & 1
            != 0
}

#[inline(always)]
fn succeeded(ctx: &BtfTracePointContext, call: Call, ret: u64) -> Option<()> {
    if call.number() != global!(SYSCALL_LAYOUT.recvmsg) {
        return descriptors::number_given(ret);
    }
    let message = call.register(global!(SYSCALL_LAYOUT.second_argument));
    descriptors::received(ctx, UserAddr::new(message)?)
}
