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
    /// Elastic Common Schema. It cannot be asked for yet.
    #[serde(skip)]
    Ecs,
    /// Open Cybersecurity Schema Framework. It cannot be asked for yet.
    #[serde(skip)]
    Ocsf,
}

/// A native record in a format.
#[must_use]
pub fn convert(_format: Format, record: &Map<String, Value>) -> Map<String, Value> {
    record.clone()
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn a_format_that_nothing_makes_is_refused() {
        let read = serde_json::from_str::<Format>;
        assert_eq!(read("\"native\"").unwrap(), Format::Native);
        assert!(read("\"ecs\"").is_err() && read("\"ocsf\"").is_err());
    }
}
