//! Finds out what this kernel offers.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
};

use turnaway_common::layout::Counters;

use super::{
    btf::Btf,
    plan::{FUNCTIONS, Features, SYSCALL_EXITS, TRACEPOINTS},
    tracefs,
};

/// Asks BTF, sysfs and tracefs. Mounts tracefs privately where it is not mounted, so it
/// belongs before the process's second thread.
#[must_use]
pub fn detect(btf: &Btf) -> Features {
    let tracefs = tracefs::find_or_mount();
    let syscall_exits = tracefs.as_ref().map_or_else(
        |_| Vec::new(),
        |tracefs| tracefs::events(tracefs, "syscalls", SYSCALL_EXITS),
    );
    let kprobes = has_kprobes(tracefs.as_deref().ok());
    Features {
        functions: FUNCTIONS
            .iter()
            .filter_map(|name| Some((*name, btf.function(name)?)))
            .collect(),
        tracepoints: TRACEPOINTS
            .iter()
            .filter_map(|name| Some((*name, btf.tracepoint(name)?)))
            .collect(),
        io_accept_has_slots: btf.offset_of("io_accept.file_slot").is_some(),
        // What a locked-down kernel lets nobody read is not worth looking for.
        counters: kprobes.then(|| counters(btf)),
        kprobes,
        tracefs: Some(tracefs),
        syscall_exits,
    }
}

/// Where each processor counts what listeners drop (`net->mib.net_statistics`).
fn counters(btf: &Btf) -> Result<Counters, String> {
    let array = btf
        .offset_of("linux_mib.mibs")
        .ok_or("the kernel's BTF has no struct linux_mib")?;
    let counter = |name: &str| {
        let index = btf
            .enum_value(name)
            .ok_or_else(|| format!("the kernel's BTF has no {name}"))?;
        // An array of unsigned long.
        Ok::<_, String>(array + index * 8)
    };
    Ok(Counters {
        per_cpu_offset: symbol("__per_cpu_offset")?,
        overflows: counter("LINUX_MIB_LISTENOVERFLOWS")?,
        drops: counter("LINUX_MIB_LISTENDROPS")?,
        cookies: counter("LINUX_MIB_TCPREQQFULLDOCOOKIES")?,
        request_drops: counter("LINUX_MIB_TCPREQQFULLDROP")?,
    })
}

/// Address of a variable of the kernel, from `/proc/kallsyms`.
fn symbol(name: &str) -> Result<u64, String> {
    let path = "/proc/kallsyms";
    let file = fs::File::open(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    // "ffffffff81000000 D name"
    let wanted = format!(" {name}");
    let line = BufReader::with_capacity(1 << 16, file)
        .lines()
        .map_while(Result::ok)
        .find(|line| line.ends_with(&wanted))
        .ok_or_else(|| format!("{path} has no {name} (CONFIG_KALLSYMS_ALL)"))?;
    match line
        .split(' ')
        .next()
        .map(|address| u64::from_str_radix(address, 16))
    {
        Some(Ok(address)) if address != 0 => Ok(address),
        _ => Err(format!(
            "{path} hides addresses: set kernel.kptr_restrict to 1 or 0"
        )),
    }
}

fn has_kprobes(tracefs: Option<&Path>) -> bool {
    fs::metadata("/sys/bus/event_source/devices/kprobe/type").is_ok()
        || tracefs.is_some_and(|tracefs| tracefs.join("kprobe_events").exists())
}
