//! What is told to people and to other programs when an incident begins, goes on and ends: the one
//! type between what decides and what delivers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An incident as it is told: once when it fires, again while it lasts, once when it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Identifies the incident, the same from its first notification to its last and across
    /// restarts of turnaway.
    pub id: String,
    /// Whether it lasts.
    pub status: Status,
    /// How bad it is.
    pub severity: Severity,
    /// When it began, by the clock of the host it is on.
    pub starts_at: Timestamp,
    /// When it ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// When this was last true.
    pub updated_at: Timestamp,
    /// What identifies it to others, and groups and routes it: `alertname`, `severity`, `host`,
    /// `reason`, `comm`, `unit`, `listener` and so on. Values are text without control characters.
    pub labels: BTreeMap<String, String>,
    /// What is to be read: `summary`, `description`, `now`, `lasting` and so on.
    pub annotations: BTreeMap<String, String>,
}

/// Whether an incident lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Status {
    /// It does.
    Firing,
    /// It has ended.
    Resolved,
}

/// How bad an incident is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look at it today.
    Warning,
    /// Clients are turned away now.
    Critical,
}

impl Severity {
    /// Its name, as in labels and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}
