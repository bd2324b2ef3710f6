//! What happened: the kernel side's records, decoded into owned values.
//!
//! Decoding never fails on content: a number nobody knows is kept as a number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::syscall;
use turnaway_common::{
    Exemplar, FailureCount, FailureKey, ListenerFacts, ProcessFacts, Reason,
    failure::{known, op, tier},
};

/// A process for as long as it lives: a reused pid has another start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start, nanoseconds of `CLOCK_BOOTTIME`; 0 where the kernel's BTF did not tell.
    pub start_boottime_ns: u64,
}

/// What kind of hook saw it; poll: none, the kernel was asked.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "tier")]
pub enum Tier {
    /// fentry/fexit: costs the hooked function only.
    Trampoline,
    /// kprobe/kretprobe: costs the hooked function only, and more than a trampoline.
    Kprobe,
    /// Syscall tracepoints: cost every syscall of every process a few nanoseconds.
    Tracepoint,
    /// No hook: the kernel is asked once a second.
    #[value(skip)]
    Poll,
}

impl Tier {
    /// Its name in text, JSON and `--tier`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trampoline => "trampoline",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::Poll => "poll",
        }
    }
}

/// What was going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// A system call of the process.
    Syscall,
    /// A request that the process gave to io_uring.
    IoUring,
    /// The kernel at work for nobody: a packet came.
    Network,
}

/// Identifies one exact counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The process whose call failed; `None` where nobody's did.
    pub process: Option<ProcessId>,
    /// Socket inode of the listener; `None` where the descriptor was no open socket, or where
    /// it is not about a listener.
    pub socket_inode: Option<u64>,
    /// What was to be connected to, where that failed and is known; or the network namespace
    /// that it is about, where it is about nothing in it.
    pub target: Option<Target>,
    /// Why.
    pub reason: Reason,
    /// The errno, positive, where there is one.
    pub errno: Option<u16>,
    /// What was going on.
    pub op: Op,
    /// What saw it.
    pub tier: Tier,
    /// What asked for the descriptor that could not be had, where that is known.
    pub call: Option<&'static str>,
    /// How full a table is that fills up: the level that was crossed, percent.
    pub level: Option<u8>,
}

/// How full a table of descriptors or files was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Those that were open.
    pub used: u64,
    /// The most that may be; `None` is unlimited.
    pub limit: Option<u64>,
}

/// What a program wanted to connect to, or whose network it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// AF_VSOCK.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// AF_UNIX: a hash of the name, which exemplars bring.
    Unix([u8; 16]),
    /// Nothing was, by a process of its own: it is about a network namespace as a whole, which
    /// has this inode number.
    Netns(u32),
}

impl Target {
    /// Its port, in families that have them.
    #[must_use]
    pub const fn port(&self) -> Option<u32> {
        match self {
            Self::Inet(address) => Some(address.port() as u32),
            Self::Vsock { port, .. } => Some(*port),
            Self::Unix(_) | Self::Netns(_) => None,
        }
    }

    /// As an address; `path` is the name of an AF_UNIX one.
    #[must_use]
    pub fn address(&self, path: Option<&[u8]>) -> Option<Address> {
        Some(match self {
            Self::Inet(address) => Address::Inet(*address),
            Self::Vsock { cid, port } => Address::Vsock {
                cid: *cid,
                port: *port,
            },
            Self::Unix(_) => Address::Unix(path?.to_vec()),
            Self::Netns(_) => return None,
        })
    }

    /// `AF_*`.
    #[must_use]
    pub const fn family(&self) -> u16 {
        match self {
            Self::Inet(SocketAddr::V4(_)) => AF_INET,
            Self::Inet(SocketAddr::V6(_)) => AF_INET6,
            Self::Vsock { .. } => AF_VSOCK,
            Self::Unix(_) => AF_UNIX,
            Self::Netns(_) => 0,
        }
    }

    fn decode(raw: &FailureKey) -> Option<Self> {
        let [a, b, c, d, ..] = raw.target_addr;
        match raw.target_family {
            AF_UNIX => Some(Self::Unix(raw.target_addr)),
            AF_VSOCK => Some(Self::Vsock {
                cid: u32::from_ne_bytes([a, b, c, d]),
                port: raw.target_port,
            }),
            family => {
                let address = inet(family, raw.target_addr, raw.target_port)?;
                // IPv4 through an IPv6 socket.
                Some(Self::Inet(SocketAddr::new(
                    address.ip().to_canonical(),
                    address.port(),
                )))
            }
        }
    }
}

/// A soft `RLIMIT_NOFILE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NofileLimit {
    /// Descriptors; `None` is unlimited.
    pub soft: Option<u64>,
    /// The limit that io_uring copied when the accept was prepared: raising the
    /// process's limit does not mend a request that is already armed.
    pub copied: bool,
}

impl From<Descriptors> for NofileLimit {
    fn from(table: Descriptors) -> Self {
        Self {
            soft: table.limit,
            copied: false,
        }
    }
}

/// What the kernel side knew of the failing process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Failing thread.
    pub tid: Option<u32>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Name of the process, any bytes.
    pub comm: Vec<u8>,
    /// Name of the failing thread, any bytes.
    pub thread_comm: Vec<u8>,
    /// Id of its cgroup in the v2 hierarchy.
    pub cgroup_id: Option<u64>,
    /// The limit that decided.
    pub nofile: Option<NofileLimit>,
    /// Process id in its own pid namespace.
    pub ns_pid: Option<u32>,
    /// Parent process.
    pub parent_pid: Option<u32>,
    /// Name of the syscall.
    pub syscall: Option<&'static str>,
    /// The failing task is a kernel worker that acts for a program (io_uring before
    /// Linux 5.12): pid and names are the worker's.
    pub kernel_worker: bool,
}

/// A bound address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// AF_VSOCK.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// AF_UNIX: any bytes; a leading NUL marks an abstract name, empty is unnamed.
    Unix(Vec<u8>),
}

/// Accept queue of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Connections waiting to be accepted.
    pub depth: u32,
    /// The most that may wait (effective backlog).
    pub backlog: u32,
}

/// What the kernel side knew of the listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// Descriptor that accept was called on.
    pub fd: Option<i32>,
    /// `AF_*`.
    pub family: Option<u16>,
    /// `SOCK_*`.
    pub socket_type: Option<u16>,
    /// `IPPROTO_*`.
    pub protocol: Option<u16>,
    /// Where it is bound.
    pub address: Option<Address>,
    /// Inode number of its network namespace.
    pub netns: Option<u32>,
    /// Its accept queue at the failure.
    pub queue: Option<Queue>,
}

/// One failure in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its counter.
    pub key: Key,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// Who, where the key has a process.
    pub process: Option<Process>,
    /// On what; where it is about a target, the client's own socket.
    pub listener: Listener,
    /// The client.
    pub peer: Option<SocketAddr>,
    /// Name of an AF_UNIX socket that was to be connected to, as in [`Address::Unix`].
    pub target_path: Option<Vec<u8>>,
    /// How long the connection waited, nanoseconds, where that is what it is about.
    pub waited_ns: Option<u64>,
    /// How full the table was, where that is what it is about.
    pub descriptors: Option<Descriptors>,
    /// It is not one more failure, but the end of one that lasted.
    pub ended: bool,
}

/// Exact growth of one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The counter.
    pub key: Key,
    /// Failures since it was last read.
    pub count: u64,
    /// First of them, nanoseconds of `CLOCK_MONOTONIC`.
    pub first_ns: u64,
    /// Last of them, nanoseconds of `CLOCK_MONOTONIC`.
    pub last_ns: u64,
    /// The process at the first of them, where the key has one.
    pub process: Option<Process>,
    /// The listener at the first of them; an AF_UNIX path is not in it.
    pub listener: Listener,
    /// The longest that one of them waited, nanoseconds, where that is what it is about.
    pub waited_max_ns: Option<u64>,
    /// Only the sum over several listeners is exact, not this part of it.
    pub approximate: bool,
}

/// A listener that was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Its socket inode.
    pub inode: u64,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// Packets that were dropped for it since it existed, modulo 2^32.
    pub drops: u64,
    /// The rest.
    pub listener: Listener,
}

/// Address family of listeners that have a path.
pub const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_VSOCK: u16 = 40;

impl Failure {
    /// Decodes a record of the ring buffer.
    ///
    /// Source: [`turnaway_common::Exemplar`]. Returns `None` where the bytes are too
    /// short or name a reason, op or tier that this version does not know.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Exemplar>() {
            return None;
        }
        // SAFETY: long enough, read unaligned, and any bytes are a value of it.
        let record = unsafe { bytes.as_ptr().cast::<Exemplar>().read_unaligned() };
        let mut listener = Listener::decode(&record.listener);
        let has = |bit| record.listener.known & bit != 0;
        let len = (record.path_len as usize).min(record.path.len());
        let path = unix_name(&record.path[..len]);
        if has(known::PATH) {
            listener.address = Some(Address::Unix(path.to_vec()));
        }
        let key = Key::decode(&record.key)?;
        Some(Self {
            key,
            monotonic_ns: record.monotonic_ns,
            process: key.process.map(|_| process(&record.process)),
            listener,
            peer: has(known::PEER)
                .then(|| inet(record.peer_family, record.peer_addr, record.peer_port))
                .flatten(),
            target_path: has(known::TARGET_PATH).then(|| path.to_vec()),
            waited_ns: key.is_about_waiting().then_some(record.amount),
            descriptors: None,
            ended: false,
        })
    }
}

impl Count {
    /// Decodes a counter. Returns `None` for a key that this version does not know.
    #[must_use]
    pub fn decode(key: &FailureKey, value: &FailureCount) -> Option<Self> {
        let key = Key::decode(key)?;
        Some(Self {
            key,
            count: value.count,
            // Of two processors that failed at once, the one that read its clock later may write first.
            first_ns: value.first_ns.min(value.last_ns),
            last_ns: value.last_ns.max(value.first_ns),
            process: key.process.map(|_| process(&value.process)),
            listener: Listener::decode(&value.listener),
            waited_max_ns: key.is_about_waiting().then_some(value.amount_max),
            approximate: false,
        })
    }
}

impl Key {
    /// Whether it is about how long connections wait.
    fn is_about_waiting(&self) -> bool {
        match self.reason {
            Reason::QueueSlow => true,
            // One that fails does so at once, or says when it gives up.
            Reason::QueueUnixFull => self.errno.is_none(),
            _ => false,
        }
    }

    fn decode(raw: &FailureKey) -> Option<Self> {
        let call = raw.call.checked_sub(1);
        Some(Self {
            call: call.and_then(|number| match raw.op {
                op::IO_URING => syscall::io_uring_operation(number),
                _ => syscall::name(number),
            }),
            level: None,
            process: (raw.op != op::NETWORK).then_some(ProcessId {
                pid: raw.tgid,
                start_boottime_ns: raw.start_boottime_ns,
            }),
            socket_inode: (raw.socket_inode != 0).then_some(raw.socket_inode),
            target: Target::decode(raw),
            reason: Reason::from_raw(raw.reason)?,
            errno: (raw.errno != 0).then_some(raw.errno),
            op: match raw.op {
                op::SYSCALL => Op::Syscall,
                op::IO_URING => Op::IoUring,
                op::NETWORK => Op::Network,
                _ => return None,
            },
            tier: match raw.tier {
                tier::TRAMPOLINE => Tier::Trampoline,
                tier::KPROBE => Tier::Kprobe,
                tier::TRACEPOINT => Tier::Tracepoint,
                _ => return None,
            },
        })
    }
}

fn process(raw: &ProcessFacts) -> Process {
    let has = |bit| raw.known & bit != 0;
    Process {
        tid: Some(raw.tid),
        uid: Some(raw.uid),
        comm: until_nul(&raw.comm).to_vec(),
        thread_comm: until_nul(&raw.thread_comm).to_vec(),
        cgroup_id: has(known::CGROUP_ID).then_some(raw.cgroup_id),
        nofile: has(known::NOFILE).then(|| NofileLimit {
            soft: (raw.nofile_soft != u64::MAX).then_some(raw.nofile_soft),
            copied: has(known::NOFILE_COPIED),
        }),
        ns_pid: has(known::NS_TGID).then_some(raw.ns_tgid),
        parent_pid: has(known::PARENT).then_some(raw.parent_tgid),
        syscall: has(known::SYSCALL)
            .then(|| syscall::name(raw.syscall_nr))
            .flatten(),
        kernel_worker: has(known::KERNEL_WORKER),
    }
}

impl Listener {
    /// Decodes what the kernel side knew of a listener.
    #[must_use]
    pub fn decode(raw: &ListenerFacts) -> Self {
        let has = |bit| raw.known & bit != 0;
        let is_socket = has(known::SOCKET);
        Self {
            fd: has(known::FD).then_some(raw.fd),
            family: is_socket.then_some(raw.family),
            socket_type: is_socket.then_some(raw.socket_type),
            protocol: is_socket.then_some(raw.protocol),
            address: has(known::ADDRESS).then(|| address(raw)).flatten(),
            netns: has(known::NETNS).then_some(raw.netns),
            queue: has(known::QUEUE).then_some(Queue {
                depth: raw.queue,
                backlog: raw.backlog,
            }),
        }
    }
}

fn address(raw: &ListenerFacts) -> Option<Address> {
    let [a, b, c, d, ..] = raw.addr;
    if raw.family == AF_VSOCK {
        return Some(Address::Vsock {
            cid: u32::from_ne_bytes([a, b, c, d]),
            port: raw.port,
        });
    }
    inet(raw.family, raw.addr, raw.port).map(Address::Inet)
}

fn inet(family: u16, addr: [u8; 16], port: u32) -> Option<SocketAddr> {
    let [a, b, c, d, ..] = addr;
    let ip = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(addr)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

/// A pathname ends at its first NUL; an abstract name may hold any byte.
fn unix_name(name: &[u8]) -> &[u8] {
    match name.first() {
        Some(0) | None => name,
        Some(_) => until_nul(name),
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_before_the_last_whoever_wrote_it_last() {
        // SAFETY: both are integers and arrays of them, for which zeros are values.
        let (mut key, mut value): (FailureKey, FailureCount) = unsafe { std::mem::zeroed() };
        key.reason = Reason::QueueSynOverflow as u16;
        (key.op, key.tier) = (op::NETWORK, tier::TRAMPOLINE);
        (value.first_ns, value.last_ns) = (12, 11);
        let count = Count::decode(&key, &value).unwrap();
        assert_eq!((count.first_ns, count.last_ns), (11, 12));
    }
}
