//! Running turnaway.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::records::Records;
use crate::truth::stat_field;
use crate::{lines, sys, wait};

/// Until hooks are in place: loading takes long where processors are emulated.
const START: Duration = Duration::from_mins(2);
/// Until it has ended after being told to: four guests share two processors, and the kernel removes hooks one by one.
const STOP: Duration = Duration::from_mins(5);

/// The program to test: `TURNAWAY_BIN`, or the one that `cargo xtask build --release` made.
pub fn binary() -> Result<PathBuf> {
    program("TURNAWAY_BIN", "turnaway")
}

/// The program that runs scenarios: `TURNAWAY_SCENARIOS`, or the one that `cargo xtask test` made.
pub fn scenarios() -> Result<PathBuf> {
    program("TURNAWAY_SCENARIOS", "turnaway-scenarios")
}

fn program(variable: &str, name: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../target/release")
                .join(name)
        },
        PathBuf::from,
    );
    path.canonicalize().with_context(|| {
        format!(
            "no {}: run `cargo xtask test`, or set {variable}",
            path.display()
        )
    })
}

/// A running `turnaway trace`. It is killed when this is dropped.
pub struct Tracer {
    child: Child,
    output: Option<JoinHandle<std::io::Result<Vec<u8>>>>,
    stderr: Receiver<String>,
    said: String,
    /// From start to readiness.
    pub startup: Duration,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub output: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// From the signal to the end.
    pub shutdown: Duration,
}

impl Run {
    /// The records of a run that went well.
    pub fn records(&self) -> Result<Records> {
        ensure!(
            self.status.success(),
            "turnaway: {}\n{}",
            self.status,
            self.stderr
        );
        Records::parse(std::str::from_utf8(&self.output).context("the output is no text")?)
    }
}

impl Tracer {
    /// Starts `turnaway trace ARGUMENTS` and waits until its hooks are in place.
    pub fn start<S: AsRef<OsStr>>(binary: &Path, arguments: &[S]) -> Result<Self> {
        let mut command = Command::new(binary);
        command.arg("trace").args(arguments);
        Self::spawn(&mut command)
    }

    /// The same for a command that runs turnaway.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let mut stdout = child.stdout.take().context("no output")?;
        let output = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let stderr = lines::of(child.stderr.take().context("no standard error")?);
        let mut tracer = Self {
            child,
            output: Some(output),
            stderr,
            said: String::new(),
            startup: Duration::ZERO,
        };
        tracer.wait_until_ready(started + START)?;
        tracer.startup = started.elapsed();
        Ok(tracer)
    }

    fn wait_until_ready(&mut self, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stderr.recv_timeout(left) {
                Ok(line) => {
                    self.said.push_str(&line);
                    self.said.push('\n');
                    if line.starts_with("tracing ") {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    bail!(
                        "turnaway ended before it was ready: {status}\n{}",
                        self.said
                    );
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("turnaway was not ready within {START:?}\n{}", self.said)
                }
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has used so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let ticks = stat_field(&stat, 14)? + stat_field(&stat, 15)?;
        Ok(
            Duration::from_secs(1) * u32::try_from(ticks)?
                / u32::try_from(sys::ticks_per_second())?,
        )
    }

    /// Tells it to stop and waits for its end.
    pub fn stop(self) -> Result<Run> {
        self.signal(libc::SIGINT)
    }

    /// The same with any signal.
    pub fn signal(self, signal: i32) -> Result<Run> {
        sys::kill(self.pid(), signal)?;
        self.wait()
    }

    /// Waits for an end that it comes to by itself.
    pub fn wait(mut self) -> Result<Run> {
        let told = Instant::now();
        let status = wait_for(&mut self.child, STOP)
            .with_context(|| format!("turnaway did not stop\n{}", self.said))?;
        let shutdown = told.elapsed();
        let output = self
            .output
            .take()
            .context("already waited")?
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        while let Ok(line) = self.stderr.recv() {
            self.said.push_str(&line);
            self.said.push('\n');
        }
        Ok(Run {
            status,
            output,
            stderr: std::mem::take(&mut self.said),
            shutdown,
        })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a process, but not for ever.
pub fn wait_for(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    wait::within(patience, "the end of a process", || Ok(child.try_wait()?))
}
