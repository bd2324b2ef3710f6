//! What this machine can do, asked of the machine itself.

use std::fs;
use std::path::Path;

use crate::sys::{self, SockAddr};
use crate::workload::hotplug;

/// Whether this is a guest of the test matrix, whose settings may be changed at will.
#[must_use]
pub fn is_guest() -> bool {
    Path::new("/turnaway/command").exists()
}

/// Why a scenario cannot run here, or nothing.
pub type Need = fn() -> Option<String>;

/// Needs nothing.
#[must_use]
pub fn nothing() -> Option<String> {
    None
}

/// Needs a machine whose settings may be changed.
#[must_use]
pub fn guest() -> Option<String> {
    (!is_guest()).then(|| "it changes settings of the whole machine: guests only".to_owned())
}

/// Needs a machine with a processor that may be taken away.
#[must_use]
pub fn hotplug() -> Option<String> {
    guest().or_else(|| {
        (!Path::new(hotplug::ONLINE).exists())
            .then(|| "no processor of this machine can be taken away".to_owned())
    })
}

/// Needs a kernel that tracks connections, and a machine whose limit of them may be changed.
#[must_use]
pub fn conntrack() -> Option<String> {
    guest().or_else(|| {
        (!Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists())
            .then(|| "no nf_conntrack in this kernel".to_owned())
    })
}

/// Needs the unified cgroup hierarchy alone.
#[must_use]
pub fn unified() -> Option<String> {
    (!unified_cgroups()).then(|| {
        "the cgroup of a process that is gone is known on pure v2 hosts only \
         (docs/limitations.md)"
            .to_owned()
    })
}

/// Whether there is no other cgroup hierarchy than the unified one.
#[must_use]
pub fn unified_cgroups() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Needs IPv6.
#[must_use]
pub fn ipv6() -> Option<String> {
    let address = SockAddr::inet((std::net::Ipv6Addr::LOCALHOST, 0).into());
    sys::socket(libc::AF_INET6, libc::SOCK_STREAM, 0)
        .and_then(|fd| sys::bind(&fd, &address))
        .err()
        .map(|errno| format!("no IPv6 here: {errno:?}"))
}

/// Needs MPTCP.
#[must_use]
pub fn mptcp() -> Option<String> {
    sys::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
        .err()
        .map(|errno| format!("no MPTCP in this kernel: {errno:?}"))
}

/// Needs AF_VSOCK within one machine.
#[must_use]
pub fn vsock() -> Option<String> {
    crate::workload::listening::Listening::vsock(1)
        .and_then(|listening| listening.queue_up(1).map(drop))
        .err()
        .map(|error| format!("no vsock loopback in this kernel: {error:#}"))
}

/// Needs io_uring.
#[must_use]
pub fn uring() -> Option<String> {
    io_uring::IoUring::new(2)
        .err()
        .map(|error| format!("no io_uring here: {error}"))
}

/// Needs io_uring's multishot accept and accept into its own table.
#[must_use]
pub fn uring_5_19() -> Option<String> {
    uring().or_else(|| {
        (kernel_version() < (5, 19)).then(|| "io_uring has this since Linux 5.19".to_owned())
    })
}

/// Needs a kernel that asks BPF security modules.
#[must_use]
pub fn bpf_lsm() -> Option<String> {
    guest().or_else(|| {
        let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        (!modules.split(',').any(|module| module.trim() == "bpf"))
            .then(|| format!("no BPF security modules here, only {modules:?}"))
    })
}

/// Whether io_uring's threads belong to the program they work for.
#[must_use]
pub fn uring_workers_are_threads() -> bool {
    kernel_version() >= (5, 12)
}

/// What the kernel calls itself. Only for what cannot be asked for in another way.
fn kernel_version() -> (u32, u32) {
    let release = sys::kernel_release();
    let mut numbers = release
        .split(|char: char| !char.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Why a tier may be missing on this machine, according to the machine; nothing if it should be
/// there.
#[must_use]
pub fn why_no_tier(tier: &str, hook: &str) -> Option<String> {
    match (tier, hook) {
        ("trampoline" | "kprobe", "io_uring_descriptors") => {
            let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
            (!symbols.is_empty() && !symbols.contains(" io_openat\n"))
                .then(|| "io_openat is inlined (/proc/kallsyms)".to_owned())
                .or_else(|| why_no_tier(tier, ""))
        }
        ("kprobe", _) => (!Path::new("/sys/bus/event_source/devices/kprobe").exists())
            .then(|| "the kernel has no kprobes (/sys/bus/event_source/devices)".to_owned()),
        // A locked-down kernel lets no program read its memory from a trampoline, and has no
        // kprobes either.
        ("trampoline", _) => why_no_tier("kprobe", hook)
            .filter(|_| !is_guest())
            .map(|why| format!("{why}, so it is locked down as a whole")),
        ("tracepoint", "io_uring_accept" | "io_uring_descriptors") => {
            let format = "/sys/kernel/tracing/events/io_uring/io_uring_complete/format";
            let format = fs::read_to_string(format).unwrap_or_default();
            (!format.is_empty() && !format.contains(" req;"))
                .then(|| "io_uring_complete does not carry the request".to_owned())
        }
        ("tracepoint", "unix_wait") => Some("no tracepoint says that a connect waits".to_owned()),
        _ => None,
    }
}
