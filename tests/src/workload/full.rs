//! A process at its limit of descriptors.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};

use super::descriptors;
use crate::sys::{self, Errno};
use crate::truth::{Failures, Process};

/// How many descriptors of this process have this number or a higher one.
fn open_from(lowest: u64) -> Result<u64> {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let number: u64 = name.to_str().unwrap_or_default().parse()?;
        count += u64::from(number >= lowest);
    }
    Ok(count)
}

/// All numbers below the soft limit are taken while this lives.
#[derive(Debug)]
pub struct Full {
    taken: Vec<OwnedFd>,
    limit: u64,
    before: (u64, u64),
    above: u64,
    refused: u64,
}

impl Full {
    /// Sets the soft limit and takes every free number below it.
    pub fn at(limit: u64) -> Result<Self> {
        let above = open_from(limit)?;
        let before = sys::nofile()?;
        sys::set_nofile(limit, before.1).context("cannot set RLIMIT_NOFILE")?;
        let mut full = Self {
            taken: Vec::new(),
            limit,
            before,
            above,
            refused: 0,
        };
        full.take()?;
        Ok(full)
    }

    /// Open descriptors of the process: every number below the limit, and those that it had been
    /// given above it, such as by whoever started it.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.limit + self.above
    }

    /// The failures that it took to find the limit.
    #[must_use]
    pub fn truth(&self, process: &Process) -> Failures {
        let errno = Errno(libc::EMFILE);
        descriptors::refused(process.clone(), "dup", errno, self.refused).at_limit(self.limit)
    }

    /// Takes every number that is free.
    pub fn take(&mut self) -> Result<()> {
        for _ in 0..=self.limit {
            match sys::dup(0) {
                Ok(fd) => self.taken.push(fd),
                Err(Errno(libc::EMFILE)) => {
                    self.refused += 1;
                    return Ok(());
                }
                Err(other) => return Err(other).context("dup"),
            }
        }
        anyhow::bail!("a limit of {} did not limit", self.limit)
    }

    /// Frees one number.
    pub fn free_one(&mut self) -> Result<()> {
        ensure!(self.taken.pop().is_some(), "nothing to free");
        Ok(())
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        // It was the limit before.
        let _ = sys::set_nofile(self.before.0, self.before.1);
    }
}
