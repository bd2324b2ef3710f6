//! What a process's descriptors are, as a part of records.

use std::net::SocketAddr;

use serde::Serialize;

use super::unix_name;
use crate::{
    attribute::holdings::{Holdings, Kind, SocketGroup},
    text,
};

/// Most groups of sockets that are told apart.
const MAX_GROUPS: usize = 20;

/// Descriptors of a process: what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HoldingsFields {
    /// Open descriptors.
    pub total: u64,
    /// Whether all of them were looked at.
    pub complete: bool,
    /// By kind, most first.
    pub kinds: Vec<KindFields>,
    /// The sockets among them, most first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<SocketFields>,
    /// Sockets of all further groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<u64>,
    /// Paths with several descriptors or deleted ones, most first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileFields>,
}

/// Descriptors of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KindFields {
    /// `socket`, `file`, ….
    pub kind: &'static str,
    /// Descriptors.
    pub count: u64,
}

/// Sockets that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SocketFields {
    /// `inet`, `inet6`, `unix`, …, or `other`.
    pub family: &'static str,
    /// `tcp`, `udp`, …; absent for families without protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// `ESTABLISHED`, `CLOSE_WAIT`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Where they lead: address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// Where they listen, or were accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    /// Path, or `@name`, of a UNIX socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Different addresses that they were accepted from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<u64>,
    /// Descriptors.
    pub count: u64,
}

/// Descriptors of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileFields {
    /// The path.
    pub path: String,
    /// Descriptors.
    pub count: u64,
}

impl HoldingsFields {
    /// The fields of what was found.
    #[must_use]
    pub fn new(holdings: &Holdings) -> Self {
        let (told, rest) = holdings
            .groups
            .split_at(holdings.groups.len().min(MAX_GROUPS));
        let other: u64 = rest.iter().map(|group| group.count).sum();
        Self {
            total: holdings.total,
            complete: holdings.complete,
            kinds: holdings.kinds.iter().copied().map(kind).collect(),
            sockets: told.iter().map(socket).collect(),
            other: (other > 0).then_some(other),
            files: holdings
                .files
                .iter()
                .map(|(path, count)| FileFields {
                    path: text::json(path),
                    count: *count,
                })
                .collect(),
        }
    }
}

fn kind((kind, count): (Kind, u64)) -> KindFields {
    KindFields {
        kind: kind.name(),
        count,
    }
}

fn socket(group: &SocketGroup) -> SocketFields {
    SocketFields {
        family: group.family.name(),
        protocol: group.protocol,
        state: group.state,
        remote: group.remote,
        local_port: group.local_port,
        path: group
            .path
            .as_deref()
            .map(|path| text::json(&unix_name(path))),
        peers: (group.peers > 0).then_some(group.peers),
        count: group.count,
    }
}

#[cfg(test)]
pub(super) mod tests;
