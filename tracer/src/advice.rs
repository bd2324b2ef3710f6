//! What to type: for each kind of failure what helps now, what helps for good, and what
//! to know before believing either. Pure, but for [`System::read`].

mod connect;
mod descriptors;
mod network;
mod queue;

pub use connect::{AboutConnect, advise_connect};
pub use descriptors::{advise_descriptors, advise_table};
pub use network::{Network, abort_on_overflow, backlog_cut, conntrack, held_by_nobody};
pub use queue::{AboutListener, advise_listener};

use std::{fs, path::Path};

use turnaway_common::{Reason, reason::errno as number};

use crate::{
    attribute::{Identity, NofileLimits, Runtime},
    errno,
    event::{NofileLimit, Op},
    text,
};

/// A limit of descriptors that suits a busy server and is below every default of
/// `fs.nr_open`.
const ROOMY: u64 = 65_535;
/// Files that fit in no host's memory (a `struct file` takes about 200 bytes): a
/// `fs.file-max` from here on was not what ran out. systemd sets it to 2^63 - 1.
const NEVER_REACHED: u64 = 1 << 40;

/// System-wide limits on files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// `fs.file-max`: files that may be open on the host.
    pub file_max: Option<u64>,
    /// `fs.nr_open`: the most that a limit of descriptors may be.
    pub nr_open: Option<u64>,
}

impl System {
    /// Reads them from `/proc/sys/fs` under `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let number = |name| {
            let path = root.join("proc/sys/fs").join(name);
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        Self {
            file_max: number("file-max"),
            nr_open: number("nr_open"),
        }
    }
}

/// What advice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Advised<'a> {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Who the process is.
    pub identity: &'a Identity,
    /// The errno, positive.
    pub errno: u16,
    /// How accept was called.
    pub op: Op,
    /// The limit that decided.
    pub nofile: Option<NofileLimit>,
    /// The process's limits now.
    pub limits: Option<NofileLimits>,
    /// The host's limits.
    pub system: System,
}

/// What to do about a failure. Every string is one line and safe to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// A command that helps, or shows the cause, now.
    pub now: Option<String>,
    /// What keeps it from coming back.
    pub lasting: Option<String>,
    /// What to know.
    pub note: Option<String>,
}

/// Advice on failed accepts of one reason; nothing for other reasons.
#[must_use]
pub fn advise(reason: Reason, about: &Advised<'_>) -> Advice {
    match reason {
        Reason::AcceptEmfile => emfile(about),
        Reason::AcceptEnfile => enfile(about),
        Reason::AcceptNomem => nomem(about),
        Reason::AcceptAborted => Advice {
            note: Some(
                "the client left before it was accepted: compare its timeout with how long \
                 connections wait in the queue"
                    .to_owned(),
            ),
            ..Advice::default()
        },
        Reason::AcceptDenied => Advice {
            now: Some("journalctl -k --since -10min | grep -iE 'denied|avc|apparmor'".to_owned()),
            lasting: None,
            note: Some(
                "a security module refused: SELinux, AppArmor (see also the audit log), or a \
                 BPF program (bpftool prog list | grep lsm)"
                    .to_owned(),
            ),
        },
        Reason::AcceptMisuse => Advice {
            note: Some(misuse(about.errno)),
            ..Advice::default()
        },
        Reason::AcceptOther => Advice {
            note: Some(format!(
                "{}: accept also passes on network errors that were pending on the new \
                 connection; a program should try again (man 2 accept)",
                errno::name(about.errno)
            )),
            ..Advice::default()
        },
        _ => Advice::default(),
    }
}

fn emfile(about: &Advised<'_>) -> Advice {
    let pid = about.pid;
    let limit = about.nofile.and_then(|limit| limit.soft);
    // fs.nr_open caps the limit, and is what is left where there is none.
    let capped = about.nofile.is_some()
        && about
            .system
            .nr_open
            .is_some_and(|nr_open| limit.is_none_or(|limit| limit >= nr_open));
    let wanted = limit.map_or(ROOMY, |limit| limit.saturating_mul(4).max(ROOMY));
    let wanted = match about.system.nr_open {
        Some(nr_open) if capped => nr_open.saturating_mul(2),
        Some(nr_open) => wanted.min(nr_open),
        None => wanted,
    };
    // Setting both would lower a hard limit that is higher.
    let hard_suffices = about
        .limits
        .is_some_and(|limits| limits.hard.is_none_or(|hard| hard >= wanted));
    let hard = if hard_suffices {
        String::new()
    } else {
        wanted.to_string()
    };
    let raise = format!("prlimit --pid {pid} --nofile={wanted}:{hard}");
    let now = match (capped, limit) {
        (false, _) => raise,
        (true, Some(_)) => format!("sysctl -w fs.nr_open={wanted} && {raise}"),
        (true, None) => format!("sysctl -w fs.nr_open={wanted}"),
    };
    let mut notes = Vec::new();
    if about.nofile.is_some_and(|limit| limit.copied) {
        notes.push(
            "io_uring copied the limit when this accept was armed and keeps it: raising the \
             limit helps once the program arms the accept again or is restarted"
                .to_owned(),
        );
    }
    if capped {
        notes.push("the limit is at fs.nr_open, the most there can be: look for a leak".to_owned());
    }
    notes.push(format!(
        "each process has a limit of its own, and one that a program sets for itself (such as \
         nginx's worker_rlimit_nofile) wins; what holds the descriptors: ls -l /proc/{pid}/fd"
    ));
    Advice {
        now: Some(now).filter(|_| !about.identity.exited),
        lasting: Some(lasting_nofile(about.identity, wanted)),
        note: Some(notes.join("; ")),
    }
}

/// Where the limit of a process comes from when it is started.
fn lasting_nofile(identity: &Identity, wanted: u64) -> String {
    // A unit inside a container is one of the systemd in there.
    let unit = identity
        .unit
        .as_deref()
        // A scope only holds processes that something else started.
        .filter(|unit| unit.rsplit('.').next() != Some("scope"));
    if let Some(unit) = unit {
        let user = if identity.user_unit { " --user" } else { "" };
        let inside = match &identity.container {
            Some(container) if container.runtime != Some(Runtime::Podman) => {
                format!(
                    ", inside container {}",
                    text::terminal(container.id.as_bytes())
                )
            }
            _ => String::new(),
        };
        let word = shell_word(unit);
        return format!(
            "LimitNOFILE={wanted} in {unit} (systemctl{user} edit {word} && \
             systemctl{user} restart {word}{inside})"
        );
    }
    let Some(container) = &identity.container else {
        return format!(
            "ulimit -n {wanted} where it is started, or nofile in /etc/security/limits.conf"
        );
    };
    match container.runtime {
        Some(Runtime::Docker) => {
            format!("docker run --ulimit nofile={wanted}:{wanted}, or ulimits: in the compose file")
        }
        Some(Runtime::Podman) => format!("podman run --ulimit nofile={wanted}:{wanted}"),
        Some(Runtime::Containerd) => format!(
            "LimitNOFILE={wanted} in containerd.service, from which containers inherit, then \
             start the container again (Kubernetes has no setting for it)"
        ),
        Some(Runtime::Crio) => format!(
            "default_ulimits = [\"nofile={wanted}:{wanted}\"] in /etc/crio/crio.conf, then \
             start the container again (Kubernetes has no setting for it)"
        ),
        Some(Runtime::Lxc) => format!("lxc.prlimit.nofile = {wanted} in the container's config"),
        None => format!("nofile={wanted}:{wanted} among the ulimits of the container's runtime"),
    }
}

fn enfile(about: &Advised<'_>) -> Advice {
    let (now, lasting, note) = table(about.system);
    let mut notes = Vec::new();
    if about.op == Op::IoUring {
        notes.push(
            "a full table of fixed files is ENFILE too, and loses the connection: register a \
             larger one",
        );
    }
    notes.extend(note);
    Advice {
        now: Some(now),
        lasting,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

/// What to do about a full table of files: now, for good, and what to know.
fn table(system: System) -> (String, Option<String>, Option<&'static str>) {
    match system.file_max {
        Some(file_max) if file_max < NEVER_REACHED => {
            let wanted = file_max.saturating_mul(2);
            (
                format!("sysctl -w fs.file-max={wanted}"),
                Some(format!(
                    "fs.file-max = {wanted} in /etc/sysctl.d/90-file-max.conf"
                )),
                Some(
                    "the table is shared by all processes, and privileged ones are exempt; who \
                     holds most: for p in /proc/[0-9]*; do echo \"$(ls $p/fd | wc -l) $p\"; done | \
                     sort -n | tail",
                ),
            )
        }
        Some(_) => (
            out_of_memory(),
            None,
            Some("fs.file-max is too high to have been reached: memory for the socket ran out"),
        ),
        None => ("sysctl fs.file-nr fs.file-max".to_owned(), None, None),
    }
}

fn out_of_memory() -> String {
    "dmesg | grep -iE 'out of memory|oom|allocation failure'".to_owned()
}

fn nomem(about: &Advised<'_>) -> Advice {
    let identity = about.identity;
    let lasting = match (&identity.unit, &identity.container) {
        (_, Some(_)) => "more memory for the container, or for the host".to_owned(),
        (Some(unit), None) => format!("a higher MemoryMax= in {unit}, or more memory for the host"),
        (None, None) => "a higher memory.max of its cgroup, or more memory for the host".to_owned(),
    };
    let cgroup = identity.cgroup.as_deref().map_or_else(
        || "its cgroup".to_owned(),
        |path| format!("cgroup {}", text::terminal(path)),
    );
    Advice {
        now: Some(out_of_memory()),
        lasting: Some(lasting),
        note: Some(format!(
            "the kernel had no memory for the connection: compare memory.current with memory.max \
             of {cgroup}, and net.ipv4.tcp_mem with /proc/net/sockstat"
        )),
    }
}

fn misuse(errno: u16) -> String {
    let what = match errno {
        number::EBADF => {
            "the descriptor is not open: it was closed under its acceptor, often in a shutdown \
             or a reload"
        }
        number::EINVAL => {
            "the socket does not listen, usually because it was shut down for a graceful stop; \
             or the flags are wrong"
        }
        number::ENOTSOCK => {
            "the descriptor is no socket: its number was used again after the listener was closed"
        }
        number::EOPNOTSUPP => "the socket is of a type that has no accept",
        number::EFAULT => "the program passed a bad pointer: a bug in it",
        _ => "accept was called on what is no listener",
    };
    format!("{}: {what}", errno::name(errno))
}

/// A word as a shell must be given it.
fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:@/".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
