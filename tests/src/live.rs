//! Running turnaway and reading what it says while it runs.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::records::Records;
use crate::sys;
use crate::tracer::wait_for;

/// How long a record may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running `turnaway trace --json`, line by line. It is killed when this is dropped.
pub struct Live {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    errors: Option<JoinHandle<String>>,
}

impl Live {
    /// Starts it and waits until its hooks are in place.
    pub fn start(binary: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(binary)
            .args(["trace", "--json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run turnaway")?;
        let stdout = BufReader::new(child.stdout.take().context("no output")?);
        let mut stderr = BufReader::new(child.stderr.take().context("no standard error")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut live = Self {
            child,
            lines,
            said: Vec::new(),
            errors: None,
        };
        let mut line = String::new();
        while !line.starts_with("tracing ") {
            line.clear();
            ensure!(stderr.read_line(&mut line)? > 0, "turnaway ended");
        }
        // Whatever else it says there must not fill the pipe.
        live.errors = Some(std::thread::spawn(move || {
            let mut text = Vec::new();
            // It is told if it matters.
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        }));
        Ok(live)
    }

    /// The next record that is wanted, those before it left out.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                bail!(
                    "gave up waiting for {what}; it said:\n{}",
                    self.said.join("\n")
                );
            };
            let record: Value = serde_json::from_str(&line)?;
            self.said.push(line);
            if wanted(&record) {
                return Ok(record);
            }
        }
    }

    /// Stops it and returns all that it said.
    pub fn stop(mut self) -> Result<Records> {
        sys::kill(self.child.id(), libc::SIGINT)?;
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.said.push(line);
        }
        let status = wait_for(&mut self.child, PATIENCE)?;
        let errors = self.errors.take().and_then(|errors| errors.join().ok());
        ensure!(
            status.success(),
            "turnaway: {status}: {}",
            errors.unwrap_or_default()
        );
        Records::parse(&self.said.join("\n"))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
