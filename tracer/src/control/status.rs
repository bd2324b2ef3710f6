//! How a daemon is.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{alert::Severity, record::Percentiles, stream};

/// Everything that `turnaway status` shows. What is not known is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of turnaway.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Name of the host.
    pub host: String,
    /// Since when.
    pub started: Timestamp,
    /// For how long, seconds.
    pub uptime_s: f64,
    /// Exemplars that were taken from the kernel.
    pub events: u64,
    /// Failures by exact counters.
    pub failures: u64,
    /// Those of them that the configuration says to ignore.
    pub ignored: u64,
    /// What was not seen or not kept; absent before the first reading of the counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<LossFields>,
    /// How late the last reading was, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_s: Option<f64>,
    /// How long ago it was, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reading_age_s: Option<f64>,
    /// Hooks.
    pub hooks: Vec<HookFields>,
    /// Incidents that fire, the worst first, at most 20.
    pub incidents: Vec<IncidentFields>,
    /// How many fire.
    pub firing: u64,
    /// How many may yet.
    pub pending: u64,
    /// Silences, those of the configuration included.
    pub silences: usize,
    /// Who is told.
    pub notifiers: Vec<NotifierFields>,
    /// Where records go.
    #[serde(default)]
    pub streams: Vec<stream::Health>,
    /// Alerts that wait to be delivered.
    pub queued: usize,
    /// Where it keeps what outlives it.
    pub state: StateFields,
    /// What is recorded, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingFields>,
    /// Rules.
    pub rules: RuleFields,
    /// Where metrics are served, if anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Listeners whose connections waited longest, at most 10.
    pub waiting: Vec<WaitingFields>,
}

/// What was not seen or not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossFields {
    /// Exemplars that found the ring full; their failures are counted.
    pub ring: u64,
    /// Failures that found the counter map full.
    pub map: u64,
    /// Runs of hooks that the kernel left out; null where it does not say.
    pub missed: Option<u64>,
    /// Lines that the reader of stdout was too slow for.
    pub output: u64,
}

/// A hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookFields {
    /// What it watches.
    pub name: String,
    /// Its tier; absent where it is not in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Why it is in no better tier, or in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// An incident that fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentFields {
    /// Identifies it.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// When it began.
    pub started: Timestamp,
    /// What it is.
    pub statement: String,
    /// Nobody is told of it now.
    pub silenced: bool,
}

/// Who is told, and how that goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotifierFields {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// To where, without secrets.
    pub target: String,
    /// Alerts that arrived.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Alerts that wait.
    pub queued: usize,
    /// Alerts that were given up, or never taken.
    pub dropped: u64,
    /// Why the last attempt failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When something last arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// Why what waits is in memory only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
}

/// Where the daemon keeps what outlives it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateFields {
    /// The folder; absent where it keeps nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// When it was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<Timestamp>,
    /// Why incidents are in memory only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingFields {
    /// The file.
    pub file: PathBuf,
    /// Records that were written.
    pub written: u64,
    /// Records that were not: the disk was too slow or full.
    pub lost: u64,
    /// Why nothing can be written now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Rules, and where they are from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleFields {
    /// How many.
    pub count: usize,
    /// The file; absent where there is none and the default rules hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// When it was read.
    pub read: Timestamp,
    /// A later attempt to read it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload: Option<ReloadFields>,
}

/// An attempt to read the configuration again that was refused, as a whole or in part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadFields {
    /// When.
    pub time: Timestamp,
    /// Why.
    pub error: String,
}

/// How long connections waited at a listener since hooks are in place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingFields {
    /// Where it listens.
    pub listener: String,
    /// Who accepts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Bounds.
    pub waits: Percentiles,
}
