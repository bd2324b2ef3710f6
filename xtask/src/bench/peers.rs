//! Other tools at the nearest job: naming failed accepts. The load succeeds all the while.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::find_program;

/// The same tracepoints as turnaway's for failed calls.
const SCRIPT: &str = "BEGIN { printf(\"ready\\n\") } \
    tracepoint:syscalls:sys_exit_accept4, tracepoint:syscalls:sys_exit_accept \
    /args->ret < 0/ { @[pid, comm, args->ret] = count(); }";

/// Where the others look for tracepoints; in a mount namespace of its own, so that nothing of the host's changes.
const WITH_TRACEFS: &str = "mount --make-rprivate / && mount -t debugfs none /sys/kernel/debug && \
    mount -t tracefs none /sys/kernel/tracing && exec \"$@\"";

/// How long one may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Bpftrace,
    Perf,
    Strace,
}

impl Peer {
    pub(super) const ALL: [Self; 3] = [Self::Bpftrace, Self::Perf, Self::Strace];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
            Self::Perf => "perf trace",
            Self::Strace => "strace",
        }
    }

    /// The Debian package that it is in.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
            Self::Perf => "linux-perf",
            Self::Strace => "strace",
        }
    }

    pub(super) fn is_there(self) -> bool {
        let program = self.name().split(' ').next();
        program.and_then(find_program).is_some()
    }

    /// The load under this tool, if the tool runs it.
    pub(super) fn load(self, load: &Path) -> Option<Command> {
        (self == Self::Strace).then(|| {
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null"]);
            command.args(["-e", "trace=accept,accept4", "-e", "status=failed"]);
            command.arg(load);
            command
        })
    }

    /// The tool beside the load, at work, if it runs there.
    pub(super) fn beside(self) -> Result<Option<Beside>> {
        let arguments: &[&str] = match self {
            Self::Bpftrace => &["bpftrace", "-e", SCRIPT],
            // The whole system, as the others; standard error would be its output.
            Self::Perf => &[
                "perf",
                "trace",
                "--all-cpus",
                "--event",
                "accept,accept4",
                "--failure",
                "--output",
                "/dev/null",
            ],
            Self::Strace => return Ok(None),
        };
        let child = Command::new("unshare")
            .args(["-m", "sh", "-c", WITH_TRACEFS, "sh"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", self.name()))?;
        let mut beside = Beside(child);
        match self {
            Self::Perf => beside.until_it_waits()?,
            _ => beside.until_it_says("ready")?,
        }
        Ok(Some(beside))
    }
}

/// It is ended when this is dropped.
pub(super) struct Beside(Child);

impl Beside {
    fn until_it_says(&mut self, word: &str) -> Result<()> {
        let stdout = self.0.stdout.take().context("no output")?;
        for line in BufReader::new(stdout).lines() {
            if line?.starts_with(word) {
                return Ok(());
            }
        }
        bail!("it ended before it traced");
    }

    /// perf says nothing; it polls its buffers once all is in place.
    fn until_it_waits(&mut self) -> Result<()> {
        let place = format!("/proc/{}/wchan", self.0.id());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if fs::read_to_string(&place)?.contains("poll") {
                return Ok(());
            }
            ensure!(self.0.try_wait()?.is_none(), "it ended before it traced");
            thread::sleep(Duration::from_millis(10));
        }
        bail!("it did not trace within {PATIENCE:?}")
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
