//! Resolves what the kernel programs need to know of this kernel's layout.

use turnaway_common::layout::{ABSENT, Offsets, SyscallLayout};

use super::btf::Btf;

/// Modules whose types are wanted too where they are loaded: AF_VSOCK is one on most
/// distributions.
pub const MODULES: &[&str] = &["vsock"];

/// The offsets this kernel has, and the paths of those it has not.
#[must_use]
pub fn offsets(btf: &Btf) -> (Offsets, Vec<&'static str>) {
    let mut offsets = Offsets::NONE;
    let mut absent = Vec::new();
    for (path, slot) in offsets.slots() {
        match btf.offset_of(path) {
            Some(offset) => *slot = offset,
            None => absent.push(path),
        }
    }
    (offsets, absent)
}

/// Where the saved registers of a syscall are, on the architectures known here.
#[must_use]
pub fn syscall_layout(btf: &Btf) -> SyscallLayout {
    /// `THREAD_SIZE` without KASAN, on x86_64 and on arm64 with pages of 4 or 16 KiB.
    const THREAD_SIZE: u32 = 16 * 1024;
    /// What x86_64 keeps above the registers with CONFIG_X86_FRED
    /// (`TOP_OF_KERNEL_STACK_PADDING`).
    const FRED_PADDING: u32 = 16;
    /// On arm64, arguments are numbered registers of 8 bytes.
    const REGISTER: u32 = 8;
    let (arguments, number) = if cfg!(target_arch = "x86_64") {
        (
            [
                btf.offset_of("pt_regs.di"),
                btf.offset_of("pt_regs.si"),
                btf.offset_of("pt_regs.dx"),
            ],
            "pt_regs.orig_ax",
        )
    } else if cfg!(target_arch = "aarch64") {
        let registers = btf.offset_of("pt_regs.regs");
        (
            [
                // The first one's register holds the result in the end.
                btf.offset_of("pt_regs.orig_x0"),
                registers.map(|at| at + REGISTER),
                registers.map(|at| at + 2 * REGISTER),
            ],
            "pt_regs.syscallno",
        )
    } else {
        return SyscallLayout::NONE;
    };
    let (
        Some(size),
        [
            Some(first_argument),
            Some(second_argument),
            Some(third_argument),
        ],
        Some(number),
    ) = (btf.size_of("pt_regs"), arguments, btf.offset_of(number))
    else {
        return SyscallLayout::NONE;
    };
    if size + FRED_PADDING > THREAD_SIZE {
        return SyscallLayout::NONE;
    }
    SyscallLayout {
        regs_at: [
            THREAD_SIZE - size,
            if cfg!(target_arch = "x86_64") {
                THREAD_SIZE - size - FRED_PADDING
            } else {
                ABSENT
            },
        ],
        first_argument,
        second_argument,
        third_argument,
        number,
        code_segment: btf.offset_of("pt_regs.cs").unwrap_or(ABSENT),
        accept: syscall_number(libc::SYS_accept),
        accept4: syscall_number(libc::SYS_accept4),
        connect: syscall_number(libc::SYS_connect),
        io_uring_enter: syscall_number(libc::SYS_io_uring_enter),
        recvmsg: syscall_number(libc::SYS_recvmsg),
        #[cfg(target_arch = "x86_64")]
        inotify_init: syscall_number(libc::SYS_inotify_init),
        #[cfg(not(target_arch = "x86_64"))]
        inotify_init: ABSENT,
        inotify_init1: syscall_number(libc::SYS_inotify_init1),
        padding: 0,
        watched: set(WATCHED),
    }
}

/// [`SyscallLayout::watched`].
const WATCHED: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_create,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_eventfd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_signalfd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_fanotify_init,
    libc::SYS_inotify_init1,
    libc::SYS_io_uring_setup,
    libc::SYS_memfd_create,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_recvmsg,
    libc::SYS_signalfd4,
    libc::SYS_socket,
    libc::SYS_timerfd_create,
    libc::SYS_userfaultfd,
];

/// A bit for each number.
fn set(numbers: &[libc::c_long]) -> [u64; SyscallLayout::WORDS] {
    let mut words = [0; SyscallLayout::WORDS];
    for number in numbers
        .iter()
        .filter_map(|number| usize::try_from(*number).ok())
    {
        if let Some(word) = words.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }
    words
}

fn syscall_number(number: libc::c_long) -> u32 {
    u32::try_from(number).unwrap_or(ABSENT)
}
