//! The formats that records are sent in.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A format of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// turnaway's own.
    #[default]
    Native,
    /// Elastic Common Schema.
    Ecs,
    /// Open Cybersecurity Schema Framework.
    Ocsf,
}

/// A native record in a format.
#[must_use]
pub fn convert(_format: Format, record: &Map<String, Value>) -> Map<String, Value> {
    record.clone()
}
