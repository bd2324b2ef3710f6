//! What `top` is shown once a second: sums since counting began, so that one that is missed costs
//! nothing but detail. The same live and over the daemon's control socket.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::observation::Code;

/// The state of the host's listeners.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When, nanoseconds of the host's `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// When, wall time.
    pub time: Timestamp,
    /// Name of the host.
    pub host: String,
    /// When counting began, nanoseconds as in `at_ns`.
    pub since_ns: u64,
    /// Listeners, at most [`MAX_LISTENERS`].
    pub listeners: Vec<ListenerSample>,
    /// Listeners that there was no room for.
    pub more: u64,
    /// Why some listeners may be missing, in words.
    pub problems: Vec<String>,
    /// Failures by who and where, at most [`MAX_FAILURES`]: those seen last.
    pub failures: Vec<FailureSample>,
    /// All failures by reason, those without room in `failures` too.
    pub reasons: Vec<ReasonSample>,
    /// Processes that hold listeners or accept there, by process id.
    pub processes: Vec<ProcessSample>,
    /// Every process was looked at: a listener without an owner has none.
    pub owners_complete: bool,
    /// What could not be kept.
    pub lost: LostSample,
    /// What is not seen on this host, in words.
    pub unseen: Vec<String>,
    /// Incidents that fire, the worst first.
    pub incidents: Vec<IncidentSample>,
    /// More of one row, where that was asked for.
    pub detail: Option<Detail>,
}

/// Most listeners in a sample.
pub const MAX_LISTENERS: usize = 20_000;
/// Most failures in a sample.
pub const MAX_FAILURES: usize = 4096;
/// Most incidents in a sample.
pub const MAX_INCIDENTS: usize = 100;

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerSample {
    /// Socket inode.
    pub inode: u64,
    /// Socket cookie, which unlike the inode is never used again.
    pub cookie: u64,
    /// Short name, safe to show.
    pub name: Arc<str>,
    /// Port, in families that have them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u32>,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Connections that wait.
    pub depth: u32,
    /// The most that may.
    pub limit: u32,
    /// Process ids of who holds it; empty where that is not known, or nobody does.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub owners: Vec<u32>,
    /// All processes were looked at, and none holds it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub orphan: bool,
    /// Who accepted there last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acceptor: Option<u32>,
    /// Connections accepted since counting began; `None` where no hook sees them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub accepted: Option<u64>,
    /// When the last was, as `at_ns`; `None` where none was, or no hook sees it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_accept_ns: Option<u64>,
    /// How long accepted connections waited: upper bounds, nanoseconds, and how many.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub waits: Vec<(u64, u64)>,
    /// Nobody has accepted for so long, nanoseconds, while connections wait.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stalled_ns: Option<u64>,
}

/// Failures of one reason, by who and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureSample {
    /// Socket inode of the listener, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inode: Option<u64>,
    /// What it is about, safe to show.
    pub about: Arc<str>,
    /// Port of the listener or the target.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u32>,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Name of that process, safe to show; empty where it is not known.
    pub comm: Arc<str>,
    /// Where it runs, safe to show; empty where that is not known.
    pub place: Arc<str>,
    /// Its cgroup, safe to show; empty where that is not known.
    pub cgroup: Arc<str>,
    /// Why.
    pub reason: Code,
    /// Name of the errno.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno: Option<Arc<str>>,
    /// How many since counting began.
    pub count: u64,
    /// When the last was, as `at_ns`.
    pub last_ns: u64,
    /// Only the sum over several listeners is exact.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub approximate: bool,
}

/// All failures of one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonSample {
    /// Which.
    pub reason: Code,
    /// How many since counting began.
    pub count: u64,
    /// When the last was, as `at_ns`.
    pub last_ns: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// Its id.
    pub pid: u32,
    /// Name, safe to show; empty where it is not known.
    pub comm: Arc<str>,
    /// Where it runs, safe to show: container, unit or cgroup; empty where that is not known.
    pub place: Arc<str>,
    /// Its cgroup, safe to show; empty where that is not known.
    pub cgroup: Arc<str>,
    /// Open descriptors.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used: Option<u64>,
    /// The soft limit; `None` where it is unlimited or not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u64>,
}

/// What could not be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostSample {
    /// Exemplars; their failures are counted.
    pub ring: u64,
    /// Failures that are counted nowhere.
    pub map: u64,
    /// Runs of hooks that the kernel left out; `None` where it does not say.
    pub missed: Option<u64>,
    /// Samples that a slow screen did not take.
    pub samples: u64,
}

/// An incident that fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentSample {
    /// Which.
    pub id: String,
    /// `critical`, `warning` or `info`.
    pub severity: String,
    /// Since when.
    pub started: Timestamp,
    /// What it is, in one sentence, safe to show.
    pub statement: String,
    /// Nobody is told of it.
    pub silenced: bool,
    /// Its reasons, with their counts.
    pub reasons: Vec<(Code, u64)>,
    /// What happened, in order: when, and what, safe to show.
    pub timeline: Vec<(Timestamp, String)>,
}

/// Which row more is wanted of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowId {
    /// A listener, by socket inode.
    Listener(u64),
    /// What no listener of this host is known for: what it is about, and whose it is.
    Other {
        /// What it is about.
        about: Arc<str>,
        /// Whose it is.
        pid: Option<u32>,
    },
}

/// More of one row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// Of which.
    pub row: Option<RowId>,
    /// Advice by reason: the reason, and lines.
    pub advice: Vec<(Code, Vec<String>)>,
    /// What holds the descriptors of its process: lines.
    pub holdings: Vec<String>,
    /// Clients by address.
    pub peers: Vec<Peer>,
    /// There are no others, and they were looked at.
    pub peers_complete: bool,
}

/// A client of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its address.
    pub address: String,
    /// Connections that the program has.
    pub open: u64,
    /// Connections that wait to be accepted.
    pub waiting: u64,
    /// The longest that one of them has waited, nanoseconds.
    pub longest_ns: u64,
}
