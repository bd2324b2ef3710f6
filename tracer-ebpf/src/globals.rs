//! Read-only globals, set by user space before the programs are loaded. The verifier
//! knows their values, so what they switch off costs nothing.

use turnaway_common::layout::{Counters, KernelFilter, Offsets, Settings, SyscallLayout};

/// Where this kernel keeps the fields the programs read.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::NONE;

/// Where the arguments of the syscall in progress are.
#[unsafe(no_mangle)]
pub(crate) static SYSCALL_LAYOUT: SyscallLayout = SyscallLayout::NONE;

/// Which failures are wanted.
#[unsafe(no_mangle)]
pub(crate) static FILTER: KernelFilter = KernelFilter::EVERYTHING;

/// Where the kernel counts dropped connections.
#[unsafe(no_mangle)]
pub(crate) static COUNTERS: Counters = Counters::NONE;

/// The rest.
#[unsafe(no_mangle)]
pub(crate) static SETTINGS: Settings = Settings::NONE;

/// Reads one field of a global. The read is volatile: the compiler sees only the
/// initial value, the loader writes another one.
macro_rules! global {
    ($global:ident . $($field:tt)+) => {
        // SAFETY: a static is valid, aligned and never written while a program runs.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::$global.$($field)+) }
    };
}
pub(crate) use global;

/// The offset of a kernel field, if this kernel has it.
macro_rules! offset {
    ($field:ident) => {
        match $crate::globals::global!(OFFSETS.$field) {
            turnaway_common::layout::ABSENT => None,
            offset => Some(offset as usize),
        }
    };
}
pub(crate) use offset;
