//! turnaway shows which process on a Linux host turns connections away, on which
//! listener, why and how often, and what to type to stop it.
//!
//! A failure travels down this list once: [`kernel`] (hooks, counters, ring buffer) →
//! [`event`] (decoded) → [`attribute`] (process, cgroup, container) → [`aggregate`]
//! (exact totals) → [`record`] (the public schema) → [`sink`] (where it goes), [`metrics`].

pub mod advice;
pub mod aggregate;
pub mod alert;
pub mod attribute;
pub mod cli;
pub mod clients;
pub mod context;
pub mod control;
pub mod daemon;
pub mod descriptors;
pub mod doctor;
pub mod errno;
pub mod event;
pub mod filter;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod history;
pub mod incident;
pub mod kernel;
mod memory;
pub mod metrics;
pub mod notify;
pub mod observation;
pub mod privileges;
pub mod queues;
pub mod record;
pub mod recurrence;
pub mod replay;
pub mod report;
mod rotating;
pub mod rules;
pub mod sink;
pub mod socket;
pub mod sockets;
pub mod stream;
pub mod syscall;
pub mod text;
pub mod top;
pub mod trace;
