//! A server that does as it is told, a line at a time, and says what came of it: the tests that
//! look at time drive it at the pace they want.
//!
//! | told | it | answers |
//! |---|---|---|
//! | `fail N` | fails so many accepts for want of a descriptor | all its failures so far |
//! | `spin MS` | does so as fast as it can, for so many milliseconds | the same |
//! | `recover` | has descriptors again, and accepts all who wait | how many those were |

use std::io::{BufRead as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::fail;
use super::listening::Listening;
use crate::sys::{self, Call, Errno};

/// Clients that may wait, less one.
pub const BACKLOG: u32 = 16;
/// Failures between two looks at the clock, which cost more than they do.
const BATCH: u64 = 64;

struct Server {
    listening: Listening,
    accepted: Vec<OwnedFd>,
    failures: u64,
    /// The limits that it was started with.
    limits: (u64, u64),
}

/// Says `ready PID PORT`, and does as it is told until its input ends.
pub fn run() -> Result<()> {
    let listening = Listening::tcp4(BACKLOG)?;
    sys::set_nonblocking(listening.socket())?;
    let port = listening.port()?;
    let mut server = Server {
        listening,
        accepted: Vec::new(),
        failures: 0,
        limits: sys::nofile()?,
    };
    say(&format!("ready {} {port}", sys::own_pid()))?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read from standard input")?;
        let answer = match line.split_once(' ') {
            Some(("fail", count)) => server.fail(count.parse()?)?,
            Some(("spin", ms)) => server.spin(Duration::from_millis(ms.parse()?))?,
            None if line == "recover" => server.recover()?,
            _ => bail!("told to {line:?}"),
        };
        say(&answer.to_string())?;
    }
    Ok(())
}

/// The same in a new process of this id. This one waits for its end.
pub fn run_as(pid: u32) -> Result<()> {
    sys::fork_as(pid, || {
        // A new program knows nothing of what a library may have kept of its parent's id.
        Err(Command::new("/proc/self/exe").arg("driven").exec().into())
    })
    .with_context(|| format!("cannot make process {pid}"))?
    .wait()
}

/// Lowers the limit to the lowest number that is free: no descriptor can be had, and nothing but accept is ever refused one.
pub fn out_of_descriptors() -> Result<()> {
    let free = sys::dup(0)?.as_raw_fd();
    let (_, hard) = sys::nofile()?;
    sys::set_nofile(u64::try_from(free)?, hard)?;
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")
        .and_then(|()| output.flush())
        .context("cannot write to standard output")
}

impl Server {
    fn fail(&mut self, count: u64) -> Result<u64> {
        self.exhaust()?;
        fail(Call::Accept4, self.listening.fd(), libc::EMFILE, count)?;
        self.failures += count;
        Ok(self.failures)
    }

    fn spin(&mut self, duration: Duration) -> Result<u64> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.fail(BATCH)?;
        }
        Ok(self.failures)
    }

    fn exhaust(&self) -> Result<()> {
        if sys::nofile()?.0 == self.limits.0 {
            out_of_descriptors()?;
        }
        Ok(())
    }

    fn recover(&mut self) -> Result<u64> {
        sys::set_nofile(self.limits.0, self.limits.1)?;
        let before = self.accepted.len();
        loop {
            match sys::accept4(self.listening.fd(), 0) {
                Ok(client) => self.accepted.push(client),
                Err(Errno(libc::EAGAIN)) => break,
                Err(other) => return Err(other).context("accept4"),
            }
        }
        ensure!(self.accepted.len() < 10_000, "too many clients");
        Ok((self.accepted.len() - before) as u64)
    }
}
