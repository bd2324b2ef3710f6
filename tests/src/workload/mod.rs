//! Programs whose accepts fail, or do not, in a known way. Each runs in a process of its own:
//! `turnaway-scenarios workload NAME`.
//!
//! A workload prepares, says `ready PID`, waits for a line of input, acts, prints its tally as one
//! line of JSON and stays as it is until its input ends. So a tracer can be attached before
//! anything happens, and can look at the process afterwards.

pub mod connect;
pub mod conntrack;
pub mod denied;
pub mod descriptors;
pub mod driven;
pub mod emfile;
pub mod enfile;
pub mod families;
pub mod full;
pub mod handed;
pub mod hotplug;
pub mod identity;
pub mod listening;
pub mod misuse;
pub mod normal;
pub mod pressure;
pub mod processes;
pub mod queue;
pub mod rights;
pub mod shed;
pub mod table;
pub mod uring;
pub mod wants;

use std::io::{BufRead as _, Write as _};
use std::os::fd::RawFd;

use anyhow::{Context as _, Result, ensure};

use crate::sys::{self, Call, Errno};
use crate::truth::Tally;

/// The other side of a workload: who runs it.
#[derive(Debug, Default)]
pub struct Stage {
    alone: bool,
    ready: bool,
}

impl Stage {
    /// With somebody who gives the word, or alone.
    #[must_use]
    pub fn new(alone: bool) -> Self {
        Self {
            alone,
            ready: false,
        }
    }

    /// The word was given to what this process was before it called exec.
    pub fn was_ready(&mut self) {
        self.ready = true;
    }

    /// Says that all is prepared and waits for the word.
    pub fn ready(&mut self) -> Result<()> {
        self.ready = true;
        Self::say(&format!("ready {}", sys::own_pid()))?;
        self.wait("go")
    }

    /// Hands the tally in and waits for the end.
    pub fn report(&mut self, tally: &Tally) -> Result<()> {
        ensure!(self.ready, "the workload acted before it was told to");
        Self::say(&serde_json::to_string(tally)?)?;
        self.wait("")
    }

    fn say(line: &str) -> Result<()> {
        let mut output = std::io::stdout().lock();
        writeln!(output, "{line}")
            .and_then(|()| output.flush())
            .context("cannot write to standard output")
    }

    fn wait(&self, word: &str) -> Result<()> {
        if self.alone {
            return Ok(());
        }
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .context("cannot read from standard input")?;
        ensure!(line.trim_end() == word, "expected {word:?}, got {line:?}");
        Ok(())
    }
}

/// Accepts `count` times, each of which must fail with `errno`.
pub fn fail(call: Call, fd: RawFd, errno: i32, count: u64) -> Result<Errno> {
    fail_at(errno, count, || sys::accept_by(call, fd).map(drop))
}

/// Does something `count` times, each of which must fail with `errno`.
pub fn fail_at(
    errno: i32,
    count: u64,
    mut attempt: impl FnMut() -> Result<(), Errno>,
) -> Result<Errno> {
    let wanted = Errno(errno);
    for number in 0..count {
        let got = attempt();
        ensure!(
            got == Err(wanted),
            "attempt {number} of {count} returned {got:?} instead of {wanted:?}"
        );
    }
    Ok(wanted)
}
