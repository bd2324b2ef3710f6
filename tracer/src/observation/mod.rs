//! What was seen: one record, or the same from the live pipeline, as everything that aggregates
//! and decides takes it.

mod code;
mod line;
mod live;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::record::Waits;
pub use code::Code;
pub use line::{Line, Run, parse};

/// Most bytes of a name or a path: what comes from outside is bounded.
const MAX_TEXT: usize = 1024;
/// Most processes that are noted as holders of one listener.
const MAX_HOLDERS: usize = 16;

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// When it was seen, by the wall clock of its host.
    pub time: Timestamp,
    /// Its host.
    pub host: String,
    /// Why.
    pub reason: Code,
    /// What it says of that.
    pub kind: Kind,
    /// Whose call failed, or who accepts on the listener. For a connect, the client.
    pub process: Option<Process>,
    /// Where nobody's call failed: who holds the listener, as far as is known.
    pub holders: Vec<Server>,
    /// On what; for a connect, what listens at the other end, if that is on this host.
    pub listener: Option<Listener>,
    /// The other end: the client, or what was to be connected to.
    pub peer: Option<Peer>,
    /// For a connect: who holds the listener at the other end.
    pub server: Option<Server>,
    /// The network namespace that it is about, where it is about nothing in it.
    pub netns: Option<u32>,
    /// Descriptors.
    pub fd: Fd,
    /// How long a connection waited, or nobody has accepted.
    pub waited: Option<Duration>,
    /// Only the sum over several listeners is exact.
    pub approximate: bool,
    /// Of those that were accepted: how long they waited.
    pub waits: Option<Waits>,
}

/// What an observation says of its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// So many failures, each counted once in all observations of this kind.
    Count {
        /// Failures.
        count: u64,
        /// First of them.
        first: Timestamp,
        /// Last of them.
        last: Timestamp,
    },
    /// One failure in full, which a count has or will have: it adds nothing.
    Exemplar,
    /// A state began, such as a stall: an exemplar, too.
    Began,
    /// A state lasts.
    Lasting,
    /// A state has ended.
    Ended,
    /// No failure: so many connections were accepted at the listener.
    Accepted {
        /// Connections.
        count: u64,
    },
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// When it started: with the pid it says which it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Path of its cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Container {
    /// Id.
    pub id: String,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of its Kubernetes pod, with its namespace before a slash where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// A listening socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "incident_listener")]
pub struct Listener {
    /// Inode number of the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// `inet`, `inet6`, `unix`, `vsock`, or the number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// IP address, or the context id of a vsock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Path, or `@name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Inode number of the network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// Connections waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// The most that may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u32>,
}

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// IP address, or the context id of a vsock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Path, or `@name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A process of which little is known: it holds a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
}

/// Descriptors of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "incident_fd", extend("minProperties" = 1))]
pub struct Fd {
    /// Open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// The soft limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl Observation {
    /// Failures that it adds to the totals.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self.kind {
            Kind::Count { count, .. } => count,
            _ => 0,
        }
    }

    /// When the first of what it tells happened.
    #[must_use]
    pub fn first(&self) -> Timestamp {
        match self.kind {
            Kind::Count { first, .. } => first,
            _ => self.time,
        }
    }

    /// When the last of it did.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        match self.kind {
            Kind::Count { last, .. } => last,
            _ => self.time,
        }
    }
}

impl Listener {
    /// Where it is, as people write it; `None` where that is not known.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        place(self.address.as_deref(), self.port, self.path.as_deref())
    }
}

impl Peer {
    /// Where it is, as people write it; `None` where that is not known.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        place(self.address.as_deref(), self.port, self.path.as_deref())
    }
}

fn place(address: Option<&str>, port: Option<u32>, path: Option<&str>) -> Option<String> {
    if let Some(path) = path {
        return Some(path.to_owned());
    }
    match (address, port) {
        (Some(address), Some(port)) if address.contains(':') => Some(format!("[{address}]:{port}")),
        (Some(address), Some(port)) => Some(format!("{address}:{port}")),
        (Some(address), None) => Some(address.to_owned()),
        (None, Some(port)) => Some(format!("port {port}")),
        (None, None) => None,
    }
}

/// Text of at most [`MAX_TEXT`] bytes.
fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

#[cfg(test)]
mod tests;
