//! The fields that every record of a failure has.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Serialize;
use turnaway_common::Reason;

use super::{
    Clock,
    clock::rfc3339,
    names::{Errno, Operation, ReasonCode, RuntimeName, Syscall, Time},
};
use crate::{
    attribute::{Container, Holder, Party, Runtime, Who},
    errno,
    event::{Address, Descriptors, Key, Listener, Op, Process, Target, Tier},
    text,
};

/// Why, how, who and on what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeyFields {
    /// Why, as a stable code.
    #[schemars(with = "ReasonCode")]
    pub reason: &'static str,
    /// No call failed: what happened says so.
    #[schemars(extend("const" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inferred: Option<bool>,
    /// Name of the errno, where there is one.
    #[schemars(with = "Option<Errno>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// The syscall, where there is one and its name is known. At most one of syscall and op is there.
    #[schemars(with = "Option<Syscall>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall: Option<&'static str>,
    /// What was going on, where no syscall says.
    #[schemars(with = "Option<Operation>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<&'static str>,
    /// Whose call failed, or who accepts on the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessFields>,
    /// Where nobody's call failed: the processes that hold the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holders: Option<Vec<HolderFields>>,
    /// Whether every process could be looked at: if not, others may hold it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holders_complete: Option<bool>,
    /// On what; where a connect failed, what listens at the other end, if that is on this
    /// host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerFields>,
    /// Where a connect failed: the process that holds the listener at the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<HolderFields>,
    /// The other end: the client, or what was to be connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerFields>,
    /// The table of tracked connections, where it is about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<ConntrackFields>,
    /// Descriptors and their limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<FdFields>,
    /// Of fd.pressure and fd.table_pressure: the level that was crossed, percent of the limit.
    #[schemars(extend("enum" = [80, 90, 95]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    /// What kind of hook saw it.
    pub tier: Tier,
}

/// The table of tracked connections of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "conntrack")]
pub struct ConntrackFields {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Connections in the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u32>,
    /// The most there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A process that holds a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "holder")]
pub struct HolderFields {
    /// Process id as the host sees it.
    pub pid: u32,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
}

/// The other end of the connection: the client, or where a connect failed, what was to be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "peer", extend("minProperties" = 1))]
pub struct PeerFields {
    /// IP address; of a vsock, the context id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// AF_UNIX: path, or @name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "process")]
pub struct ProcessFields {
    /// Process id as the host sees it.
    pub pid: u32,
    /// Process id as its own pid namespace sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// Start of the process.
    #[schemars(with = "Option<Time>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Failing thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// Name of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Name of the failing thread, where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// The process is a kernel worker; its program could not be found.
    #[schemars(extend("const" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_worker: Option<bool>,
    /// Path of the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Effective user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentFields>,
    /// Path of the cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Id of the cgroup in the v2 hierarchy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerFields>,
}

/// A parent process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "parent")]
pub struct ParentFields {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "container")]
pub struct ContainerFields {
    /// Id.
    pub id: String,
    /// Runtime.
    #[schemars(with = "Option<RuntimeName>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<&'static str>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodFields>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "pod", extend("minProperties" = 1))]
pub struct PodFields {
    /// Kubernetes' uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "listener")]
pub struct ListenerFields {
    /// Inode number of the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// Descriptor that accept was called on, any number a program may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<i32>,
    /// `inet`, `inet6`, `unix`, `vsock`, or the number.
    #[schemars(extend("pattern" = r"^(inet|inet6|unix|vsock|\d+)$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// `stream`, `seqpacket`, …, or the number.
    #[schemars(extend("pattern" = r"^(stream|dgram|raw|rdm|seqpacket|dccp|\d+)$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// `tcp`, `mptcp`, …, or the number; absent for families without protocols.
    #[schemars(extend("pattern" = r"^(tcp|udp|dccp|sctp|smc|mptcp|\d+)$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// IP address; context id of a vsock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Path of an AF_UNIX listener; an abstract name as @name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Inode number of the network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// Connections waiting to be accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// The most that may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u32>,
}

/// Descriptors of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "fd", extend("minProperties" = 1))]
pub struct FdFields {
    /// Open descriptors of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Soft RLIMIT_NOFILE that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The limit is unlimited and has no number.
    #[schemars(extend("const" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlimited: Option<bool>,
    /// io_uring: the limit is a copy from when the accept was armed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_copied: Option<bool>,
}

impl KeyFields {
    /// The fields of failures of one key. `fd_used` is the number of open descriptors.
    #[must_use]
    pub fn new(
        key: &Key,
        listener: &Listener,
        who: &Who,
        fd_used: Option<u64>,
        clock: &Clock,
    ) -> Self {
        let party = who.party.as_ref();
        let (syscall, op) = match (key.op, party.and_then(|party| party.facts.syscall)) {
            (Op::Syscall, Some(name)) => (Some(name), None),
            _ => (None, operation(key)),
        };
        let holders = who.holders.as_ref();
        Self {
            reason: key.reason.code(),
            inferred: (key.reason == Reason::AcceptShed).then_some(true),
            errno: key.errno.map(|errno| errno::name(errno).into_owned()),
            syscall,
            op,
            process: party.map(|party| ProcessFields::new(party, clock)),
            holders: holders
                .map(|holders| holders.processes.iter().map(HolderFields::new).collect()),
            holders_complete: holders.map(|holders| holders.complete),
            listener: match key.target {
                _ if key.reason.is_of_connect() => {
                    let far = who.far.as_ref().and_then(|far| far.listener.as_ref());
                    far.map(|far| ListenerFields::new(Some(far.inode), &far.listener))
                }
                _ if key.reason.is_of_descriptors() => None,
                Some(Target::Netns(_)) => None,
                _ => Some(ListenerFields::new(key.socket_inode, listener)),
            },
            server: who
                .far
                .as_ref()
                .and_then(|far| far.server.as_ref())
                .map(HolderFields::new),
            peer: key
                .target
                .filter(|_| key.reason.is_of_connect())
                .and_then(|target| {
                    let path = who.far.as_ref().and_then(|far| far.path.as_deref());
                    target.address(path)
                })
                .and_then(|address| PeerFields::of(&address)),
            conntrack: match key.target {
                Some(Target::Netns(netns)) => Some(ConntrackFields {
                    netns,
                    used: listener.queue.map(|queue| queue.depth),
                    limit: listener.queue.map(|queue| queue.backlog),
                }),
                _ => None,
            },
            fd: party.and_then(|party| FdFields::new(key, &party.facts, fd_used)),
            level: key.level,
            tier: key.tier,
        }
    }
}

/// What was going on, where no system call says.
fn operation(key: &Key) -> Option<&'static str> {
    match (key.reason, key.op) {
        (Reason::FdExhausted, Op::IoUring) => Some(key.call.unwrap_or("io_uring")),
        (reason, _) if reason.is_of_descriptors() => None,
        (reason, Op::IoUring) if reason.is_of_connect() => Some("io_uring_connect"),
        (reason, _) if reason.is_of_connect() => Some("connect"),
        (Reason::QueueSynOverflow | Reason::QueueSynFlood, _) => Some("syn"),
        (Reason::QueueAckOverflow | Reason::QueueRstOverflow, _) => Some("ack"),
        (Reason::QueueAbandoned | Reason::ListenerClosed | Reason::AcceptShed, _) => Some("close"),
        (_, Op::IoUring) => Some("io_uring_accept"),
        (_, Op::Syscall) => Some("accept"),
        (_, Op::Network) => None,
    }
}

impl HolderFields {
    fn new(holder: &Holder) -> Self {
        Self {
            pid: holder.pid,
            comm: holder.comm.as_deref().and_then(some_text),
        }
    }
}

impl PeerFields {
    /// The fields of an IP address.
    #[must_use]
    pub fn new(peer: SocketAddr) -> Self {
        Self {
            address: Some(peer.ip().to_string()),
            port: Some(u32::from(peer.port())),
            path: None,
        }
    }

    /// The fields of any address, unless it has no name.
    fn of(address: &Address) -> Option<Self> {
        match address {
            Address::Inet(address) => Some(Self::new(*address)),
            Address::Vsock { cid, port } => Some(Self {
                address: Some(cid.to_string()),
                port: Some(*port),
                path: None,
            }),
            Address::Unix(name) => Some(Self {
                address: None,
                port: None,
                path: Some(some_text(&unix_name(name))?),
            }),
        }
    }
}

impl ProcessFields {
    fn new(party: &Party, clock: &Clock) -> Self {
        let Party {
            id,
            facts: process,
            identity,
        } = party;
        Self {
            pid: id.pid,
            ns_pid: identity.ns_pid,
            start_time: (id.start_boottime_ns != 0)
                .then(|| rfc3339(clock.wall_of_boottime(id.start_boottime_ns))),
            tid: process.tid,
            comm: some_text(&process.comm),
            thread: some_text(&process.thread_comm).filter(|_| process.thread_comm != process.comm),
            kernel_worker: process.kernel_worker.then_some(true),
            exe: identity.exe.as_deref().and_then(some_text),
            uid: process.uid,
            parent: identity.parent.as_ref().map(|parent| ParentFields {
                pid: parent.pid,
                comm: parent.comm.as_deref().and_then(some_text),
            }),
            cgroup: identity.cgroup.as_deref().and_then(some_text),
            cgroup_id: process.cgroup_id,
            unit: identity.unit.clone(),
            container: identity.container.as_ref().map(ContainerFields::new),
        }
    }
}

impl ContainerFields {
    fn new(container: &Container) -> Self {
        Self {
            id: container.id.clone(),
            runtime: container.runtime.map(Runtime::name),
            name: container.name.clone(),
            image: container.image.clone(),
            pod: container.pod.as_ref().map(|pod| PodFields {
                uid: pod.uid.clone(),
                name: pod.name.clone(),
                namespace: pod.namespace.clone(),
            }),
        }
    }
}

impl ListenerFields {
    /// The fields of a listener; `inode` is its socket's.
    #[must_use]
    pub fn new(inode: Option<u64>, listener: &Listener) -> Self {
        let (address, port, path) = match &listener.address {
            None => (None, None, None),
            Some(Address::Inet(address)) => (
                Some(address.ip().to_string()),
                Some(u32::from(address.port())),
                None,
            ),
            Some(Address::Vsock { cid, port }) => (Some(cid.to_string()), Some(*port), None),
            Some(Address::Unix(name)) => (None, None, some_text(&unix_name(name))),
        };
        Self {
            inode,
            fd: listener.fd,
            family: listener.family.map(family_name),
            r#type: listener.socket_type.map(type_name),
            protocol: listener
                .protocol
                // 0 is no protocol: AF_UNIX and AF_VSOCK have none.
                .filter(|protocol| *protocol != 0)
                .map(protocol_name),
            address,
            port,
            path,
            netns: listener.netns,
            queue: listener.queue.map(|queue| queue.depth),
            backlog: listener.queue.map(|queue| queue.backlog),
        }
    }
}

impl FdFields {
    /// The fields of the host's table of files.
    #[must_use]
    pub fn of_table(table: Descriptors) -> Self {
        Self {
            used: Some(table.used),
            limit: table.limit,
            ..Self::default()
        }
    }

    fn new(key: &Key, process: &Process, used: Option<u64>) -> Option<Self> {
        let limit = process.nofile;
        let fields = Self {
            used,
            limit: limit.and_then(|limit| limit.soft),
            unlimited: limit.and_then(|limit| limit.soft.is_none().then_some(true)),
            limit_copied: limit
                // Which limit an operation of another kind copied is not known.
                .filter(|_| key.op == Op::IoUring && !key.reason.is_of_descriptors())
                .map(|limit| limit.copied),
        };
        (fields != Self::default()).then_some(fields)
    }
}

fn some_text(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| text::json(bytes))
}

/// How the name of an AF_UNIX socket is written: an abstract one as `@name`, and a path
/// that begins with `@` as `./@…`, which is the same path.
#[must_use]
pub fn unix_name(name: &[u8]) -> Vec<u8> {
    match name.split_first() {
        Some((0, name)) => [b"@", name].concat(),
        Some((b'@', _)) => [b"./", name].concat(),
        _ => name.to_vec(),
    }
}

/// `AF_*` (include/linux/socket.h): those whose sockets can listen.
#[must_use]
pub fn family_name(family: u16) -> String {
    match i32::from(family) {
        libc::AF_INET => "inet".to_owned(),
        libc::AF_INET6 => "inet6".to_owned(),
        libc::AF_UNIX => "unix".to_owned(),
        libc::AF_VSOCK => "vsock".to_owned(),
        other => other.to_string(),
    }
}

/// `SOCK_*` (include/linux/net.h).
fn type_name(kind: u16) -> String {
    match i32::from(kind) {
        libc::SOCK_STREAM => "stream".to_owned(),
        libc::SOCK_DGRAM => "dgram".to_owned(),
        libc::SOCK_RAW => "raw".to_owned(),
        libc::SOCK_RDM => "rdm".to_owned(),
        libc::SOCK_SEQPACKET => "seqpacket".to_owned(),
        libc::SOCK_DCCP => "dccp".to_owned(),
        other => other.to_string(),
    }
}

/// `IPPROTO_*` (include/uapi/linux/in.h).
#[must_use]
pub fn protocol_name(protocol: u16) -> String {
    match i32::from(protocol) {
        libc::IPPROTO_TCP => "tcp".to_owned(),
        libc::IPPROTO_UDP => "udp".to_owned(),
        libc::IPPROTO_DCCP => "dccp".to_owned(),
        libc::IPPROTO_SCTP => "sctp".to_owned(),
        // SMC takes TCP's place (IPPROTO_SMC, Linux 6.11).
        256 => "smc".to_owned(),
        libc::IPPROTO_MPTCP => "mptcp".to_owned(),
        other => other.to_string(),
    }
}
