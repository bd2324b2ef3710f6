//! What every kind of receiver can do.

use std::time::{Duration, Instant};

use crate::alert::Alert;

/// Why an attempt failed. The text is safe to show: no secrets, no control characters.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may succeed later.
    Later {
        /// Why it did not.
        why: String,
        /// When the receiver wants to be asked again, if it said so.
        after: Option<Duration>,
    },
    /// It never will: the receiver says that the alert itself is wrong.
    Never(String),
}

impl Failure {
    pub(crate) fn later(why: impl Into<String>) -> Self {
        Self::Later {
            why: why.into(),
            after: None,
        }
    }
}

/// Somebody who is told. Each has a thread of its own and may take the time that is configured.
pub(super) trait Receiver: Send {
    /// Reads from disk what will be needed, before there is anything to deliver.
    fn prepare(&mut self) {}

    /// Delivers one alert; success means that the receiver has it.
    fn deliver(&mut self, alert: &Alert) -> Result<(), Failure>;

    /// When to [`refresh`](Self::refresh), if ever.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Says again what the receiver would otherwise forget.
    fn refresh(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}
