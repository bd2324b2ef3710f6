//! What a process's descriptors are, as a part of records.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    names::{FamilyName, KindName},
    unix_name,
};
use crate::{
    attribute::holdings::{Holdings, Kind, SocketGroup},
    text,
};

/// Most groups of sockets that are told apart.
const MAX_GROUPS: usize = 20;

/// Descriptors of a process: what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "holdings")]
pub struct HoldingsFields {
    /// Open descriptors of the process.
    pub total: u64,
    /// All of them were looked at; if not, the other counts are of those that were.
    pub complete: bool,
    /// What they are, most first.
    pub kinds: Vec<KindFields>,
    /// The sockets among them, in groups that are alike, most first.
    #[schemars(length(min = 1, max = 20))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<SocketFields>,
    /// Sockets of all groups after the twentieth.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<u64>,
    /// Paths that several descriptors have, and deleted ones, most first.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileFields>,
}

/// Descriptors of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "held_kind")]
pub struct KindFields {
    /// `socket`, `file`, ….
    #[schemars(with = "KindName")]
    pub kind: &'static str,
    /// Descriptors.
    #[schemars(range(min = 1))]
    pub count: u64,
}

/// Sockets that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "held_sockets")]
pub struct SocketFields {
    /// `inet`, `inet6`, `unix`, …, or `other`.
    #[schemars(with = "FamilyName")]
    pub family: &'static str,
    /// tcp, udp, ...; absent for families without protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// ESTABLISHED, CLOSE_WAIT, LISTEN, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Address and port that connections lead to which were not accepted.
    #[schemars(with = "Option<String>", extend("pattern" = r"^(\d+\.\d+\.\d+\.\d+|\[[^\]]+\]):\d+$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// Port that they listen on, or on which they were accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    /// Path of an AF_UNIX socket, or of the one that accepted it; an abstract name as @name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Different addresses that accepted connections come from.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<u64>,
    /// Descriptors.
    #[schemars(range(min = 1))]
    pub count: u64,
}

/// Descriptors of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "held_file")]
pub struct FileFields {
    /// Ends in ' (deleted)' where the file was.
    pub path: String,
    /// Descriptors.
    #[schemars(range(min = 1))]
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
