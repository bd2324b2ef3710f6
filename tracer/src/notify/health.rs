//! How notifiers are doing, for metrics and for people.

use jiff::Timestamp;
use serde::Serialize;

/// How one receiver is doing. Counts are since the start, and exact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The notifier's name.
    pub name: String,
    /// Its type, as in the configuration.
    pub kind: &'static str,
    /// Where it delivers to, without secrets.
    pub target: String,
    /// Alerts that the receiver has taken.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Alerts that wait now.
    pub queued: usize,
    /// Alerts that were lost because too many waited.
    pub dropped: u64,
    /// Alerts that the receiver will never take, by its own word.
    pub refused: u64,
    /// Alerts that a newer one of the same incident replaced while they waited.
    pub superseded: u64,
    /// Files of the queue that could not be understood when it was read.
    pub damaged: u64,
    /// Why the last attempt that failed did, while none has succeeded since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When the receiver last took anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// Why what waits is in memory only, and would be lost if turnaway were killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
}

impl Health {
    pub(super) fn new(name: String, kind: &'static str, target: String) -> Self {
        Self {
            name,
            kind,
            target,
            delivered: 0,
            failed_attempts: 0,
            queued: 0,
            dropped: 0,
            refused: 0,
            superseded: 0,
            damaged: 0,
            last_error: None,
            last_success: None,
            not_stored: None,
        }
    }
}
