//! The system's table of open files is full.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use super::listening::Listening;
use super::processes::{self, Family};
use super::{Stage, fail};
use crate::sys::{self, Call, Errno};
use crate::truth::{Failures, Tally};

/// A user without capabilities: root may always open one more file.
pub const NOBODY: u32 = 65_534;

/// `fs.file-max` of the machine, lowered while this lives.
pub(super) struct Table {
    before: String,
}

impl Table {
    const PATH: &str = "/proc/sys/fs/file-max";

    /// Lowers it to so many files.
    pub(super) fn of(files: u64) -> Result<Self> {
        let before = fs::read_to_string(Self::PATH).context("cannot read fs.file-max")?;
        fs::write(Self::PATH, files.to_string()).context("cannot lower fs.file-max")?;
        Ok(Self { before })
    }

    /// Lowers it below what is open.
    pub(super) fn full() -> Result<Self> {
        Self::of(8)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Self::PATH, &self.before) {
            eprintln!("cannot restore fs.file-max: {error}");
        }
    }
}

/// fs.file-max is lowered, and an acceptor without capabilities fails.
pub fn system_table(stage: &mut Stage) -> Result<()> {
    const COUNT: u64 = 31;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(2)?;
    let limit = sys::nofile()?.0;
    stage.ready()?;
    let (wait_here, go): (OwnedFd, OwnedFd) = sys::pipe()?;
    let mut family = Family::new()?;
    let pid = family.fork(|report| {
        sys::set_uid(NOBODY)?;
        report()?;
        sys::poll_readable(wait_here.as_raw_fd(), processes::PATIENCE)?;
        fail(Call::Accept4, listening.fd(), libc::ENFILE, COUNT).map(drop)
    })?;
    let process = family.report_of(pid)?.short_lived();
    let table = Table::full()?;
    sys::write_byte(&go)?;
    family.wait_for_all()?;
    drop(table);
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![
            Failures::new(
                process,
                listening.truth(2),
                Call::Accept4,
                Errno(libc::ENFILE),
                COUNT,
            )
            .at_limit(limit),
        ],
        accepted: 0,
        ..Tally::default()
    })
}
