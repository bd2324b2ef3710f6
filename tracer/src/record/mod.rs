//! The public records: what `--output json` writes, one object a line.
//!
//! `docs/records.md` documents every field and `docs/schema/turnaway-1.json` is their
//! JSON Schema, which [`schema`] makes of their types. What is unknown is left out, never zero or "".

mod clock;
mod failures;
mod fields;
mod holdings;
mod key;
mod lines;
mod listening;
pub(crate) mod names;
pub mod schema;

pub use clock::Clock;
pub use failures::{Failures, Hook, HookState, Lost, Run};
pub use fields::only;
pub use holdings::{FileFields, HoldingsFields, KindFields, SocketFields};
pub use key::{
    ConntrackFields, ContainerFields, FdFields, HolderFields, KeyFields, ListenerFields,
    ParentFields, PeerFields, PodFields, ProcessFields, family_name, protocol_name, unix_name,
};
pub use lines::{
    AcceptedRecord, Beat, Blind, CountRecord, Event, HeartbeatRecord, ProgramRecord, RunRecord,
    Summary, SummaryTotal,
};
pub use listening::{Listening, ListeningFields, Percentiles, Seen, SlotFields, WaitFields, Waits};

/// Name and version of the records' schema.
pub const SCHEMA: &str = "turnaway/1";

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
pub(crate) mod tests;
