//! turnaway beside a load.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// One that runs. It is stopped when this is dropped.
pub(super) struct Tracer(Child);

impl Tracer {
    pub(super) fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run turnaway")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let tracer = Self(child);
        for line in BufReader::new(stderr).lines() {
            if line?.starts_with("tracing with") {
                return Ok(tracer);
            }
        }
        bail!("turnaway ended before it traced");
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Both fail only if it has ended. What it had to say is of no matter here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
