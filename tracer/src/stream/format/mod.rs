//! Native records in the words of others: the Elastic Common Schema and the Open Cybersecurity Schema
//! Framework (docs/formats.md). Pure.
//!
//! Fields are moved from the native record into those of the format. What is not moved is kept under a
//! name of our own (`turnaway` in ECS, `unmapped` in OCSF), so nothing that a record says gets lost, and
//! neither does what a later version adds.

mod ecs;
mod json;
mod meaning;
mod object;
mod ocsf;
mod record;

#[cfg(test)]
pub(crate) mod tests;

use serde::Deserialize;

pub use json::{Object, Value};

/// In whose words records are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Our own (docs/records.md).
    #[default]
    Native,
    /// The Elastic Common Schema.
    Ecs,
    /// The Open Cybersecurity Schema Framework.
    Ocsf,
}

impl Format {
    /// All.
    pub const ALL: [Self; 3] = [Self::Native, Self::Ecs, Self::Ocsf];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Ecs => "ecs",
            Self::Ocsf => "ocsf",
        }
    }
}

/// A native record (docs/records.md) in a format. It does not fail: what is not as it should be stays
/// where all is that has no field in the format.
#[must_use]
pub fn convert(format: Format, record: Object) -> Object {
    match format {
        Format::Native => record,
        Format::Ecs => ecs::convert(record),
        Format::Ocsf => ocsf::convert(record),
    }
}
