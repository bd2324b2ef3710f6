//! Long steps with a line each: `[2/5] installing rustc-web … 16 s`.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// One thing to do.
pub(crate) struct Step {
    what: String,
    action: Box<dyn FnOnce() -> Result<()>>,
}

impl Step {
    /// `what` completes the sentence "cannot finish …".
    pub(crate) fn new(
        what: impl Into<String>,
        action: impl FnOnce() -> Result<()> + 'static,
    ) -> Self {
        Self {
            what: what.into(),
            action: Box::new(action),
        }
    }
}

/// Does them in order and stops at the first that fails.
pub(crate) fn run(steps: Vec<Step>) -> Result<()> {
    let total = steps.len();
    for (step, number) in steps.into_iter().zip(1..) {
        eprint!("[{number}/{total}] {} … ", step.what);
        // The line has to be seen before the wait, and a closed stderr is no reason to stop.
        let _ = std::io::stderr().flush();
        let start = Instant::now();
        let done = (step.action)();
        let verdict = if done.is_ok() { "" } else { "failed after " };
        eprintln!("{verdict}{} s", start.elapsed().as_secs_f64().ceil());
        done.with_context(|| format!("cannot finish {}", step.what))?;
    }
    Ok(())
}
