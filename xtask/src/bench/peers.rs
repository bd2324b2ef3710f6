//! Other tools at the nearest job: naming failed accepts. The load succeeds all the while.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::find_program;

/// The same tracepoints as turnaway's, with `--reason accept`.
const SCRIPT: &str = "BEGIN { printf(\"ready\\n\") } \
    tracepoint:syscalls:sys_exit_accept4, tracepoint:syscalls:sys_exit_accept \
    /args->ret < 0/ { @[pid, comm, args->ret] = count(); }";

/// Where bpftrace looks for tracepoints; in a mount namespace of its own, so that nothing of the host's changes.
const WITH_DEBUGFS: &str =
    "mount --make-rprivate / && mount -t debugfs none /sys/kernel/debug && exec \"$@\"";

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Bpftrace,
    Strace,
}

impl Peer {
    pub(super) const ALL: [Self; 2] = [Self::Bpftrace, Self::Strace];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
            Self::Strace => "strace",
        }
    }

    pub(super) fn is_there(self) -> bool {
        find_program(self.name()).is_some()
    }

    /// The load under this tool, if the tool runs it.
    pub(super) fn load(self, load: &Path) -> Option<Command> {
        (self == Self::Strace).then(|| {
            let mut command = Command::new("strace");
            command.args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "trace=accept,accept4",
                "-e",
                "status=failed",
            ]);
            command.arg(load);
            command
        })
    }

    /// The tool beside the load, at work, if it runs there.
    pub(super) fn beside(self) -> Result<Option<Beside>> {
        if self != Self::Bpftrace {
            return Ok(None);
        }
        let mut child = Command::new("unshare")
            .args([
                "-m",
                "sh",
                "-c",
                WITH_DEBUGFS,
                "sh",
                "bpftrace",
                "-e",
                SCRIPT,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run bpftrace")?;
        let stdout = child.stdout.take().context("no output")?;
        let beside = Beside(child);
        for line in BufReader::new(stdout).lines() {
            if line?.starts_with("ready") {
                return Ok(Some(beside));
            }
        }
        bail!("bpftrace ended before it traced");
    }
}

/// It is ended when this is dropped.
pub(super) struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
