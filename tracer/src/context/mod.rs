//! What went on around an incident, and what that says of its cause.
//!
//! A thread of its own watches: which programs begin and end, pressure, who uses disks and processors. When
//! an incident begins it is asked, and what it found becomes a part of the incident ([`Explanation`]). It
//! reads procfs, cgroupfs and sockets, starts no program, and touches no file that could be on a disk that
//! hangs. [`Explainer`] is what the daemon has of all that, the history included.

mod cause;
mod conceal;
mod explainer;
mod host;
mod table;
pub(crate) mod types;
mod usage;
mod waiting;
mod watch;

pub use explainer::Explainer;
pub use types::{
    Busy, Cause, Client, Explanation, Files, Healthy, Held, Level, Levels, Memory, Peer, Pressures,
    Reading, Started, Strength, User, VictimState, Waiting,
};
