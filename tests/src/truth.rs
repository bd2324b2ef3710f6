//! What really happened, as the one who made it happen knows it.

use std::fmt::Write as _;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::sys::{Call, Errno};

/// What a workload did. `None` in any field below means: not to be compared.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Every process that called accept, failing or not.
    pub pids: Vec<u32>,
    /// The failures, one entry for each process, listener, errno and way of calling.
    pub failures: Vec<Failures>,
    /// Accepts that succeeded.
    pub accepted: u64,
    /// What went well at listeners that are to be looked at.
    #[serde(default)]
    pub listening: Vec<Listening>,
}

/// What went well at a listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Listening {
    /// Inode number of its socket.
    pub inode: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// How many of those waited at least this long, nanoseconds, and how many did not.
    pub waited: Option<(u64, u64, u64)>,
    /// Connections that the program threw away.
    #[serde(default)]
    pub shed: Option<u64>,
    /// SYN cookies that were sent.
    pub cookies: u64,
}

/// Failures that are counted together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Failures {
    /// Whose.
    pub process: Process,
    /// On what.
    pub listener: Listener,
    /// Name of the errno; empty where there is none.
    pub errno: String,
    /// The reason, where the errno does not tell it.
    pub reason: Option<String>,
    /// The system call or operation.
    pub call: String,
    /// How many.
    pub count: u64,
    /// How many of them are shown one by one, where that is not as many as may be.
    pub shown: Option<u64>,
    /// Addresses and ports of the clients; empty is not to be compared.
    pub peers: Vec<String>,
    /// Bounds of the time waited, nanoseconds.
    pub waited: Option<(u64, u64)>,
    /// The reason where queues are polled, if that is another.
    pub polled: Option<String>,
    /// Everybody who holds the listener, where it was nobody's call that failed.
    pub holders: Option<Vec<u32>>,
    /// What was to be connected to: `ADDRESS PORT`, or a path.
    pub target: Option<String>,
    /// The process that holds the listener at the other end.
    pub server: Option<u32>,
    /// Which level of a limit was crossed, percent.
    pub level: Option<u8>,
    /// Tracepoints see what came of it, not which errno did it.
    pub inferred: bool,
    /// Only the tracepoint tier tells it, which cannot know that it was none.
    pub guessed: bool,
    /// The kind of hook that sees it, whatever was asked for.
    pub tier: Option<String>,
    /// The table of tracked connections that was full.
    pub conntrack: Option<Conntrack>,
    /// The soft limit that decided.
    pub limit: Option<u64>,
    /// Whether that is io_uring's copy.
    pub limit_copied: Option<bool>,
    /// Open descriptors at the failure and until the workload ends.
    pub used: Option<u64>,
    /// Whether each failure takes a connection out of the queue, whose depth is that after the
    /// first one.
    pub takes: bool,
}

/// A table of tracked connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conntrack {
    /// Inode number of its network namespace.
    pub netns: u64,
    /// Connections in it.
    pub used: u32,
    /// The most there may be.
    pub limit: u32,
}

impl Failures {
    /// The same failure, `count` times.
    #[must_use]
    pub fn new(process: Process, listener: Listener, call: Call, errno: Errno, count: u64) -> Self {
        Self {
            process,
            listener,
            errno: errno.name().to_owned(),
            call: call.name().to_owned(),
            count,
            ..Self::default()
        }
    }

    /// What befell a listener, `count` times.
    #[must_use]
    pub fn of_listener(reason: &str, process: Process, listener: Listener, count: u64) -> Self {
        let call = match reason {
            "queue.syn_overflow" | "queue.syn_flood" => "syn",
            "queue.ack_overflow" | "queue.rst_overflow" => "ack",
            "queue.abandoned" | "listener.closed" | "accept.shed" => "close",
            "queue.slow" => "accept",
            _ => "",
        };
        Self {
            process,
            // It is not reached through a descriptor.
            listener: Listener {
                fd: None,
                ..listener
            },
            reason: Some(reason.to_owned()),
            call: call.to_owned(),
            count,
            ..Self::default()
        }
    }

    /// Nobody's call failed; these processes hold the listener.
    #[must_use]
    pub fn held_by(mut self, holders: &[u32]) -> Self {
        self.process = self.process.as_holder();
        self.holders = Some(holders.to_vec());
        self
    }

    /// The same where queues are polled: what was dropped is told apart less, and not shown one
    /// by one.
    #[must_use]
    pub fn as_polled(mut self) -> Self {
        if self.inferred {
            self.errno.clear();
        }
        if self.holders.is_none() || self.shown.is_some() {
            return self;
        }
        self.shown = Some(0);
        self.peers.clear();
        let reason = self.polled.clone().unwrap_or_else(|| {
            if self.reason().ends_with("_overflow") {
                "queue.overflow".to_owned()
            } else {
                self.reason().to_owned()
            }
        });
        if !reason.ends_with(".syn_flood") {
            self.call.clear();
        }
        self.reason = Some(reason);
        self
    }

    /// A connection that could not be made, `count` times, by connect(2).
    #[must_use]
    pub fn connect(process: Process, target: &str, errno: Errno, count: u64) -> Self {
        let is_path = target.starts_with(['/', '@']);
        let reason = match errno.name() {
            "EAGAIN" => "queue.unix_full",
            "ENOENT" if is_path => "connect.refused",
            "ECONNREFUSED" => "connect.refused",
            "ETIMEDOUT" => "connect.timeout",
            "ENETUNREACH" | "EHOSTUNREACH" => "connect.unreachable",
            "ECONNRESET" | "ECONNABORTED" => "connect.reset",
            "EPERM" | "EACCES" => "connect.denied",
            "EADDRNOTAVAIL" => "connect.no_port",
            _ => "connect.other",
        };
        Self {
            target: Some(target.to_owned()),
            reason: Some(reason.to_owned()),
            ..Self::new(process, Listener::default(), Call::Connect, errno, count)
        }
    }

    /// A TCP connection that was begun: its failure is seen by its change of state.
    #[must_use]
    pub fn begun(mut self) -> Self {
        self.tier = Some("tracepoint".to_owned());
        self
    }

    /// A listener of this host is there.
    #[must_use]
    pub fn at(mut self, listener: Listener, server: u32) -> Self {
        self.listener = listener;
        self.server = Some(server);
        self
    }

    /// Each failure loses a connection.
    #[must_use]
    pub fn taking(mut self) -> Self {
        self.takes = true;
        self
    }

    /// With the limit that decided.
    #[must_use]
    pub fn at_limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The reason code, as the vocabulary of the design has it.
    #[must_use]
    pub fn reason(&self) -> &str {
        if let Some(reason) = &self.reason {
            return reason;
        }
        match self.errno.as_str() {
            "EMFILE" => "accept.emfile",
            "ENFILE" => "accept.enfile",
            "ENOMEM" | "ENOBUFS" => "accept.nomem",
            "ECONNABORTED" | "EPROTO" => "accept.aborted",
            "EPERM" | "EACCES" => "accept.denied",
            "EBADF" | "EINVAL" | "ENOTSOCK" | "EOPNOTSUPP" | "EFAULT" => "accept.misuse",
            _ => "accept.other",
        }
    }
}

/// A process, and the thread of it that failed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Its id on the host.
    pub pid: u32,
    /// Its id in its own pid namespace, where that is another.
    pub ns_pid: Option<u32>,
    /// The thread.
    pub tid: Option<u32>,
    /// Name of the process, as JSON shows it.
    pub comm: String,
    /// Name of the thread.
    pub thread: Option<String>,
    /// Start, in clock ticks since boot.
    pub start_ticks: u64,
    /// Effective user.
    pub uid: u32,
    /// Parent's id on the host.
    pub parent: Option<u32>,
    /// The executable, of a process that stays until the end of the scenario.
    pub exe: Option<String>,
    /// Path of the cgroup.
    pub cgroup: Option<String>,
    /// Id of the cgroup in the unified hierarchy.
    pub cgroup_id: Option<u64>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Container's id.
    pub container: Option<String>,
}

impl Process {
    /// The calling process and thread.
    pub fn current() -> Result<Self> {
        // In a pid namespace, /proc is still the host's, and so are its links.
        let own = number(&fs::read_link("/proc/self")?)?;
        let tid = number(&fs::read_link("/proc/thread-self")?)?;
        // The name in it may be no text.
        let stat = String::from_utf8_lossy(&fs::read("/proc/self/stat")?).into_owned();
        let comm = comm("/proc/self/comm")?;
        let thread = comm_of_thread()?;
        let in_namespace = crate::sys::own_pid();
        Ok(Self {
            pid: own,
            ns_pid: (in_namespace != own).then_some(in_namespace),
            tid: Some(tid),
            thread: Some(thread),
            comm,
            start_ticks: stat_field(&stat, 22)?,
            uid: crate::sys::effective_uid(),
            parent: Some(u32::try_from(stat_field(&stat, 4)?)?),
            exe: Some(json_text(
                fs::read_link("/proc/self/exe")?.as_os_str().as_bytes(),
            )),
            cgroup_id: own_cgroup_id(),
            ..Self::default()
        })
    }

    /// The same as somebody who is found through a socket: nothing is known of a thread.
    #[must_use]
    pub fn as_holder(mut self) -> Self {
        self.tid = None;
        self.thread = None;
        self.cgroup_id = None;
        self
    }

    /// The same, of which nothing that only /proc tells is known: it will be gone.
    #[must_use]
    pub fn short_lived(mut self) -> Self {
        self.exe = None;
        self
    }
}

/// The inode number of the cgroup's folder in the unified hierarchy, if that is mounted.
fn own_cgroup_id() -> Option<u64> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then_some(path)
    })?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(fs::metadata(format!("{mount}{path}")).ok()?.ino())
}

fn comm_of_thread() -> Result<String> {
    comm("/proc/thread-self/comm")
}

fn comm(path: &str) -> Result<String> {
    let mut bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    // The kernel adds one newline, which is not part of the name.
    bytes.pop();
    Ok(json_text(&bytes))
}

/// The number at the end of a path.
fn number(path: &Path) -> Result<u32> {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.parse().ok())
        .with_context(|| format!("no number at the end of {}", path.display()))
}

/// A field of /proc/PID/stat, numbered as in proc(5). The name in it may hold anything.
pub fn stat_field(stat: &str, number: usize) -> Result<u64> {
    // Two fields come before the last parenthesis.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(number - 3))
        .and_then(|field| field.parse().ok())
        .with_context(|| format!("no field {number} in {stat:?}"))
}

/// Bytes as records show them: valid UTF-8 as it is, other bytes as `\xNN`.
#[must_use]
pub fn json_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A socket that accept was called on, or a descriptor that is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Inode number of the socket; `None` where the descriptor is no socket.
    pub inode: Option<u64>,
    /// The descriptor, as the failing call was given it.
    pub fd: Option<i32>,
    /// `inet`, `inet6`, `unix` or `vsock`.
    pub family: Option<String>,
    /// `stream`, `seqpacket` or `dgram`.
    pub kind: Option<String>,
    /// `tcp`, `mptcp` or `udp`.
    pub protocol: Option<String>,
    /// Address.
    pub address: Option<String>,
    /// Port.
    pub port: Option<u32>,
    /// Path, or `@name`.
    pub path: Option<String>,
    /// Inode number of the network namespace.
    pub netns: Option<u64>,
    /// Connections waiting.
    pub queue: Option<u32>,
    /// The most that may wait.
    pub backlog: Option<u32>,
}

impl Listener {
    /// What is true of it, whoever may wait and however many may.
    #[must_use]
    pub fn of_any_queue(mut self) -> Self {
        self.queue = None;
        self
    }

    /// What can be known of it at the other end, where it was not accepted on.
    #[must_use]
    pub fn from_afar(mut self) -> Self {
        self.fd = None;
        self.backlog = None;
        if self.path.is_some() {
            self.kind = None;
        }
        self.of_any_queue()
    }

    /// A descriptor that is no socket, or not even open.
    #[must_use]
    pub fn no_socket(fd: RawFd) -> Self {
        Self {
            fd: Some(fd),
            ..Self::default()
        }
    }
}

/// Inode number of the network namespace that the calling thread is in.
pub fn own_netns() -> Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0";
        assert_eq!(stat_field(stat, 4).unwrap(), 1);
        assert_eq!(stat_field(stat, 22).unwrap(), 4711);
        assert!(stat_field("7 (a", 4).is_err());
    }

    #[test]
    fn this_process_is_described_as_proc_has_it() {
        let process = Process::current().unwrap();
        assert_eq!(process.pid, std::process::id());
        assert_eq!(process.ns_pid, None);
        assert!(process.start_ticks > 0);
    }

    #[test]
    fn bytes_that_are_no_text_are_spelled_out() {
        assert_eq!(json_text(b"a\xff\x1b\xc3\xa4"), "a\\xff\x1b\u{e4}");
    }
}
