//! From observations to incidents: exact totals, what belongs together, when it is told (pure; the
//! clock is the caller's).
//!
//! [`Engine::observe`] takes what was seen; [`Engine::tick`] says what became of it. Failures are
//! counted per reason in [`Totals`]. Those that a rule is about form
//! incidents: all reasons of one victim are one incident, and clients of this host that failed to
//! reach it are linked to it as those who suffered.

mod cause;
mod clock;
mod engine;
mod episode;
mod keys;
mod record;
mod totals;
mod window;
mod words;

pub use cause::{order, root};
pub use clock::Now;
pub use engine::{Change, Engine, Saved, What};
pub use episode::{Episode, Place, ReasonTotal, State, Sufferer, Told, Victim};
pub use record::IncidentRecord;
pub use totals::Totals;
pub(crate) use words::plain;
pub use words::waits;

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod tests;
