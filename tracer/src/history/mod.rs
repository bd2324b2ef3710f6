//! What was: incidents and what went on around them, in one file that outlives the daemon (SQLite).
//!
//! [`History`] takes what is to be kept and returns at once; a thread of its own writes. A disk that
//! hangs or is full costs memory, up to a bound, and what was left out beyond that is counted and
//! said. [`Reader`] reads the file, also while the daemon writes it, and needs no root.

mod incident;
mod item;
mod pending;
mod prune;
mod reader;
mod schema;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub use incident::{Incident, Line, Process, ReasonTotal, Sufferer, Victim};
pub use item::{Context, Minute, Pressure, Run, Sample, Watch};
pub use prune::Caps;
pub use reader::{Reader, Wanted};
pub use writer::{Health, History};

/// Name of the file in the state's folder.
pub const FILE: &str = "history.db";
