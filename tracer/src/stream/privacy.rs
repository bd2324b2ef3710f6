//! What is not passed on.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What becomes of a kind of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// They stay.
    #[default]
    Keep,
    /// They go. It cannot be asked for yet.
    #[serde(skip)]
    Drop,
    /// They become hashes. It cannot be asked for yet.
    #[serde(skip)]
    Hash,
}

/// What becomes of fields, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Addresses and ports of peers.
    #[serde(default)]
    pub peers: Choice,
    /// Command lines.
    #[serde(default)]
    pub command_lines: Choice,
    /// User names and numbers.
    #[serde(default)]
    pub users: Choice,
}

/// Takes out what is not passed on.
#[derive(Debug)]
pub struct Privacy(Config);

impl Privacy {
    /// Makes it ready.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(Self(config.clone()))
    }

    /// Whether it changes anything.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.0 != Config::default()
    }

    /// Takes it out of a native record: nothing, as long as nothing else can be asked for.
    pub fn apply(&self, _record: &mut Map<String, Value>) {}
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn what_would_not_be_done_is_refused() {
        let read = |text: &str| serde_json::from_str::<Config>(text);
        assert!(read("{\"peers\":\"keep\"}").is_ok());
        for field in ["peers", "command_lines", "users"] {
            for choice in ["drop", "hash"] {
                let text = format!("{{\"{field}\":\"{choice}\"}}");
                assert!(read(&text).is_err(), "{text}");
            }
        }
    }
}
