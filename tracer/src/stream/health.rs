//! How sinks are doing, for metrics and for people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How one sink is doing. Counts are of records since the start, and exact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Its name.
    pub name: String,
    /// Its type, as in the configuration.
    pub kind: String,
    /// Where it delivers to, without secrets.
    pub target: String,
    /// Arrived, as far as that can be known of this type.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Wait now, in memory and on disk.
    pub waiting: u64,
    /// Of those, so many are in memory only: those that just came, or all where there is no disk.
    pub in_memory: u64,
    /// Bytes that wait on disk.
    pub spooled_bytes: u64,
    /// Exemplars above the rate.
    pub withheld: u64,
    /// Lost since too many waited in memory.
    pub overflowed: u64,
    /// Lost since the spool was full.
    pub dropped: u64,
    /// The receiver will never take them, by its own word.
    pub refused: u64,
    /// Found to be damaged on disk.
    pub damaged: u64,
    /// Whether the last attempt succeeded; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// Why the last attempt that failed did, while none has succeeded since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When the receiver last took anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// Why what waits is in memory only, and would be lost if turnaway were killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
}

impl Health {
    /// Records that will not arrive, whatever became of them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.overflowed + self.dropped + self.refused + self.damaged
    }
}
