//! Asks the host.

use std::{fs, path::Path};

use rustix::thread::CapabilitySet;

use super::{Capability, Check, Hook, Kernel, Refusal, Report, facts};
use crate::{
    event::Tier,
    kernel::{
        self,
        attach::HookStatus,
        btf::Btf,
        offsets,
        session::{Options, Session},
        tracefs, words,
    },
    sockets::Conntrack,
    text,
};

/// The capabilities that matter, and what each is for.
const CAPABILITIES: &[(CapabilitySet, &str, &str)] = &[
    (CapabilitySet::BPF, "CAP_BPF", "loading programs and maps"),
    (
        CapabilitySet::PERFMON,
        "CAP_PERFMON",
        "attaching them and reading kernel memory",
    ),
    (
        CapabilitySet::SYS_PTRACE,
        "CAP_SYS_PTRACE",
        "reading other users' /proc/PID/exe, fd and ns",
    ),
    (
        CapabilitySet::DAC_READ_SEARCH,
        "CAP_DAC_READ_SEARCH",
        "reading tracefs and other users' /proc/PID/fd; finding the cgroup of a process that has exited",
    ),
    (
        CapabilitySet::SYS_ADMIN,
        "CAP_SYS_ADMIN",
        "looking into other network namespaces, and at processes while the table of files is full; mounting tracefs",
    ),
];

impl Report {
    /// Asks the host. Attaches every hook for a moment; `tier` keeps those of one tier.
    #[must_use]
    pub fn gather(tier: Option<Tier>) -> Self {
        let options = Options {
            tier,
            ..Options::default()
        };
        let was_mounted = tracefs::find();
        let (btf, absent_fields) = btf();
        let (hooks, error): (Vec<Hook>, _) = match Session::start(&options) {
            Ok(session) => (session.hooks().iter().map(hook).collect(), None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        let (found, conntrack) = facts::find(Path::new("/"));
        Self {
            schema: "turnaway/1",
            kind: "doctor",
            healthy: error.is_none() && hooks.iter().all(|hook| hook.status == "attached"),
            error,
            version: env!("CARGO_PKG_VERSION"),
            kernel: running_kernel(),
            btf,
            tracefs: tracefs_check(was_mounted.as_deref()),
            cgroup: cgroup_check(),
            capabilities: capabilities(),
            hooks,
            absent_fields,
            conntrack: conntrack_check(conntrack.as_ref()),
            risks: found.risks,
            risks_unknown: found.unknown,
        }
    }
}

/// Whether `net.conntrack_full` can happen, and be seen.
fn conntrack_check(conntrack: Option<&Conntrack>) -> Check {
    let Some(table) = conntrack else {
        return Check {
            ok: true,
            detail: "not in use: nf_conntrack is not loaded".to_owned(),
        };
    };
    let of = table.max.map_or_else(
        || ", without a limit".to_owned(),
        |max| format!(" of {max}"),
    );
    let ok = table.processors.is_some();
    let silent = if ok {
        ""
    } else {
        "; what is dropped is not told (CONFIG_NF_CONNTRACK_PROCFS)"
    };
    Check {
        ok,
        detail: format!("{}{of} connections are tracked here{silent}", table.count),
    }
}

fn running_kernel() -> Kernel {
    let uname = rustix::system::uname();
    Kernel {
        release: text::terminal(uname.release().to_bytes()),
        machine: text::terminal(uname.machine().to_bytes()),
        lockdown: fs::read_to_string("/sys/kernel/security/lockdown")
            .ok()
            .and_then(|modes| bracketed(&modes)),
    }
}

/// The chosen word in a list such as `none [integrity] confidentiality`.
fn bracketed(list: &str) -> Option<String> {
    let (_, rest) = list.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn btf() -> (Check, Vec<&'static str>) {
    match Btf::open(kernel::BTF_DIR.as_ref(), offsets::MODULES) {
        Ok(btf) => {
            let (_, absent) = offsets::offsets(&btf);
            let detail = format!("{}/vmlinux", kernel::BTF_DIR);
            (Check { ok: true, detail }, absent)
        }
        Err(error) => {
            let detail = format!("{error:#}; a kernel with CONFIG_DEBUG_INFO_BTF=y is needed");
            (Check { ok: false, detail }, Vec::new())
        }
    }
}

fn tracefs_check(was_mounted: Option<&Path>) -> Check {
    match (was_mounted, tracefs::find()) {
        (Some(place), _) => Check {
            ok: true,
            detail: place.display().to_string(),
        },
        (None, Some(place)) => Check {
            ok: true,
            detail: format!("{}, mounted for turnaway alone", place.display()),
        },
        (None, None) => Check {
            ok: false,
            detail: tracefs::unreadable().unwrap_or_else(|| {
                "not mounted; run: mount -t tracefs tracefs /sys/kernel/tracing".to_owned()
            }),
        },
    }
}

fn cgroup_check() -> Check {
    let hierarchies = |kind: &str| {
        fs::read_to_string("/proc/self/mounts")
            .unwrap_or_default()
            .lines()
            .filter(|line| line.split(' ').nth(2) == Some(kind))
            .count()
    };
    let (ok, detail) = match (hierarchies("cgroup2"), hierarchies("cgroup")) {
        (0, 0) => (
            false,
            "none mounted: cgroup, unit and container stay unknown",
        ),
        (_, 0) => (true, "v2"),
        (0, _) => (true, "v1: those of processes that have exited stay unknown"),
        (_, _) => (
            true,
            "hybrid (v1 and v2): those of processes that have exited may stay unknown",
        ),
    };
    Check {
        ok,
        detail: detail.to_owned(),
    }
}

fn capabilities() -> Vec<Capability> {
    let effective =
        rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    CAPABILITIES
        .iter()
        .map(|(set, name, purpose)| Capability {
            name,
            effective: effective.contains(*set),
            purpose,
        })
        .collect()
}

fn hook(status: &HookStatus) -> Hook {
    Hook {
        name: status.hook.name(),
        status: words::status(status),
        tier: status.attached.as_ref().map(|(tier, _)| *tier),
        target: status.attached.is_some().then(|| words::targets(status)),
        unseen: status.attached.is_none().then(|| status.hook.unseen()),
        refused: status
            .refused
            .iter()
            .map(|(tier, why)| Refusal {
                tier: *tier,
                why: why.clone(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Conntrack, bracketed, conntrack_check};

    #[test]
    fn connections_that_are_not_tracked_are_no_fault() {
        let none = conntrack_check(None);
        assert!(none.ok && none.detail.starts_with("not in use"));
        let mut table = Conntrack {
            count: 3,
            max: Some(8),
            processors: Some(Vec::new()),
        };
        let told = conntrack_check(Some(&table));
        assert!(told.ok && told.detail.starts_with("3 of 8 "), "{told:?}");
        table.processors = None;
        assert!(!conntrack_check(Some(&table)).ok, "drops are not told");
    }

    #[test]
    fn the_chosen_mode_is_the_bracketed_one() {
        assert_eq!(
            bracketed("none [integrity] confidentiality\n").unwrap(),
            "integrity"
        );
        assert_eq!(bracketed("none integrity"), None);
    }
}
