//! Time as the engine takes it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The moment, as the caller's clocks have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall time: what is shown.
    pub wall: Timestamp,
    /// A clock that never goes back, such as `CLOCK_BOOTTIME`: what decides. Where it starts is of
    /// no matter.
    pub steady: Duration,
}

/// The engine's own time, which goes on across restarts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Clock {
    /// How long the engine has been running, over all restarts.
    pub(super) time: Duration,
    /// Wall time then.
    pub(super) wall: Option<Timestamp>,
    /// The caller's steady clock then; it starts anew with each restart.
    #[serde(skip)]
    steady: Option<Duration>,
}

impl Clock {
    pub(super) fn advance(&mut self, now: Now) {
        let passed = match (self.steady, self.wall) {
            (Some(before), _) => now.steady.saturating_sub(before),
            // After a restart only wall time knows how long it took; it may have been set back.
            (None, Some(before)) => {
                Duration::try_from(now.wall.duration_since(before)).unwrap_or_default()
            }
            (None, None) => Duration::ZERO,
        };
        self.time = self.time.saturating_add(passed);
        self.steady = Some(now.steady);
        self.wall = Some(now.wall);
    }
}
