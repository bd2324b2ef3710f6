//! What is kept beside incidents.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What was found when an incident began, and what was concluded from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// Of which incident.
    pub incident: String,
    /// When it was taken.
    pub taken: Timestamp,
    /// Itself.
    pub context: serde_json::Value,
}

/// A program that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// When it began to run this program.
    pub started: Timestamp,
    /// When it ended; `None` while it runs, or if that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Its name.
    pub program: String,
    /// systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Path of the executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Its arguments, as far as they were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<String>,
    /// Name of its parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// Failures of one minute, of one victim and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minute {
    /// When the minute began.
    pub time: Timestamp,
    /// Whose.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// Failures.
    pub count: u64,
}

/// How long tasks had to wait for the host's resources in one minute: percent of the time, the mean
/// of what the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// When the minute began.
    pub time: Timestamp,
    /// Some task waited for a processor.
    pub cpu: Option<f64>,
    /// Some task waited for a disk.
    pub io: Option<f64>,
    /// Some task waited for memory.
    pub memory: Option<f64>,
}

/// How an incident stood in one second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub time: Timestamp,
    /// Failures since the sample before.
    pub failures: u64,
    /// Connections waiting, and the most that may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u64>,
    /// The most that may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u64>,
    /// Open descriptors of the victim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd_used: Option<u64>,
    /// Its soft limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd_limit: Option<u64>,
    /// As in [`Pressure`], over the last ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// As in [`Pressure`], over the last ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<f64>,
    /// As in [`Pressure`], over the last ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
}

/// A time in which the daemon watched. What it did not watch, nobody can say anything of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// When it began.
    pub from: Timestamp,
    /// Until when it is known to have gone on.
    pub until: Timestamp,
}
