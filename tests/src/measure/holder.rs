//! A process that does a part of what is measured. It says `ready`, waits for a line, does its part, says its tally and
//! stays until its input ends.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;

use crate::tracer::wait_for;

/// How long it may take to tidy up.
const PATIENCE: Duration = Duration::from_mins(2);

/// The process. Its input ends when this is dropped; then it does.
pub(super) struct Holder {
    child: Child,
    input: Option<ChildStdin>,
}

impl Holder {
    /// Starts it and waits until it is ready.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What a terminal's ^C ends is who measures: this one has things to remove first.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let input = child.stdin.take();
        let mut holder = Self { child, input };
        let line = holder.line()?;
        ensure!(line == "ready\n", "{command:?} said {line:?}");
        Ok(holder)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do its part.
    pub(super) fn go(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("no input")?;
        input.write_all(b"go\n").context("it does not listen")
    }

    /// Ends its input.
    pub(super) fn end(&mut self) {
        drop(self.input.take());
    }

    /// What it counted.
    pub(super) fn tally<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("no tally: {line:?}"))
    }

    /// The next line; it says no more before it is told something.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().context("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
        if wait_for(&mut self.child, PATIENCE).is_err() {
            // Both fail only if it has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Says that all is there, and waits for a line: false if none will come.
pub(super) fn told_to_go() -> Result<bool> {
    println!("ready");
    wait_for_line()
}

/// Waits for a line: false if none will come.
pub(super) fn wait_for_line() -> Result<bool> {
    let read = io::stdin().read_line(&mut String::new());
    Ok(read.context("cannot read from standard input")? > 0)
}
