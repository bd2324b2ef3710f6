//! Finds out what this kernel offers.

use std::{fs, path::Path};

use super::{btf::Btf, plan::Features, tracefs};

/// Asks BTF, sysfs and tracefs. Mounts tracefs privately where it is not mounted, so it
/// belongs before the process's second thread.
#[must_use]
pub fn detect(btf: &Btf) -> Features {
    let tracefs = tracefs::find_or_mount();
    let syscall_exits = tracefs.as_ref().map_or_else(
        |_| Vec::new(),
        |tracefs| {
            tracefs::events(
                tracefs,
                "syscalls",
                &["sys_exit_accept", "sys_exit_accept4"],
            )
        },
    );
    Features {
        sys_accept4: btf.function("__sys_accept4"),
        io_accept: btf.function("io_accept"),
        sys_accept4_file: btf.function("__sys_accept4_file"),
        io_accept_has_slots: btf.offset_of("io_accept.file_slot").is_some(),
        io_issue_sqe: btf.function("io_issue_sqe"),
        do_accept: btf.function("do_accept"),
        io_uring_complete: btf.tracepoint("io_uring_complete"),
        kprobes: has_kprobes(tracefs.as_deref().ok()),
        tracefs,
        syscall_exits,
    }
}

fn has_kprobes(tracefs: Option<&Path>) -> bool {
    fs::metadata("/sys/bus/event_source/devices/kprobe/type").is_ok()
        || tracefs.is_some_and(|tracefs| tracefs.join("kprobe_events").exists())
}
