//! turnaway's kernel side: eBPF programs that see connections being turned away.
//!
//! One file a hook family, each a thin wrapper around a body that can fail; what they
//! share is in [`maps`], [`globals`], [`kread`], [`facts`] and [`emit`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::inline_always,
    reason = "the verifier follows every call; what is small must not become one"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the signatures of programs are the macros'"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "registers are 64 bits wide; what is kept of them is what the kernel keeps"
)]

mod accept;
mod connect;
mod descriptors;
mod emit;
mod exits;
mod facts;
mod globals;
mod kread;
mod listeners;
mod maps;
mod programs;
mod queue;
mod shed;
mod states;
mod target;
mod unix_wait;

/// The programs call helpers that the kernel keeps for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A panic that can be reached is an endless loop, which the verifier refuses: so none is.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
