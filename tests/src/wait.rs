//! Waiting for what has no event to wait for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);
/// Emulated processors are slow: this is long enough for them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until `there` has something, or gives up and says what was waited for.
pub fn until<T>(what: &str, there: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, there)
}

/// The same for as long as is said.
pub fn within<T>(
    patience: Duration,
    what: &str,
    mut there: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = there()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("gave up after {} s: {what}", patience.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

/// The same for a condition.
pub fn until_true(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, || Ok(holds()?.then_some(())))
}
