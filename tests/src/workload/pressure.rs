//! Processes that come close to their limit of descriptors, before anything fails.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Stage, descriptors};
use crate::sys::{self, Call, Errno};
use crate::truth::{Failures, Listener, Process};

/// The limit: each level is reached at exactly one number of descriptors.
const LIMIT: u64 = 100;
/// Nothing tells the workload that it was looked at, which is done once a second.
const LOOKS: Duration = Duration::from_secs(4);

/// A process under a limit.
struct Under {
    open: Vec<OwnedFd>,
    before: (u64, u64),
}

impl Under {
    fn limit(limit: u64) -> Result<Self> {
        let before = sys::nofile()?;
        sys::set_nofile(limit, before.1)?;
        let mut under = Self {
            open: Vec::new(),
            before,
        };
        under.hold(40)?;
        Ok(under)
    }

    /// Opens and closes until so many descriptors are open in all.
    fn hold(&mut self, wanted: u64) -> Result<()> {
        // The folder that is read is one of them while it is.
        let now = std::fs::read_dir("/proc/self/fd")?.count() as u64 - 1;
        for _ in now..wanted {
            self.open.push(sys::dup(0)?);
        }
        for _ in wanted..now {
            ensure!(self.open.pop().is_some(), "nothing to close");
        }
        Ok(())
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        // It was the limit before.
        let _ = sys::set_nofile(self.before.0, self.before.1);
    }
}

/// So many crossings of a level, of which so many ended at it.
fn crossed(process: &Process, level: u8, limit: u64, count: u64, ended: u64) -> Failures {
    Failures {
        reason: Some("fd.pressure".to_owned()),
        call: String::new(),
        errno: String::new(),
        level: Some(level),
        tier: Some("poll".to_owned()),
        shown: Some(count + ended),
        // An end has that of its own time.
        limit: (ended == 0).then_some(limit),
        ..Failures::new(
            process.clone().as_holder(),
            Listener::default(),
            Call::Accept,
            Errno(0),
            count,
        )
    }
}

/// Just below, at, and above each level.
pub fn crosses_each_level(stage: &mut Stage) -> Result<()> {
    let process = Process::current()?;
    stage.ready()?;
    let mut under = Under::limit(LIMIT)?;
    for open in [79, 80, 81, 89, 90, 94, 95, 99] {
        under.hold(open)?;
    }
    std::thread::sleep(LOOKS);
    // To and fro, but never as low as where there is room.
    for open in [85, 97, 76, 99] {
        under.hold(open)?;
    }
    std::thread::sleep(LOOKS);
    let failures = [80, 90, 95].map(|level| crossed(&process, level, LIMIT, 1, 0));
    descriptors::report(stage, &process, failures.into())
}

/// Below the lowest level there is nothing to be told.
pub fn stays_below(stage: &mut Stage) -> Result<()> {
    let process = Process::current()?;
    stage.ready()?;
    let mut under = Under::limit(LIMIT)?;
    // What is counted is the descriptors, not their numbers.
    // SAFETY: takes numbers only.
    let high = unsafe { libc::fcntl(0, libc::F_DUPFD, 98) };
    ensure!(high == 98, "F_DUPFD gave {high}");
    under.hold(79)?;
    std::thread::sleep(LOOKS);
    descriptors::report(stage, &process, Vec::new())
}

/// It crosses, has room again, and crosses again.
pub fn crosses_again(stage: &mut Stage) -> Result<()> {
    let process = Process::current()?;
    stage.ready()?;
    let mut under = Under::limit(LIMIT)?;
    under.hold(82)?;
    std::thread::sleep(LOOKS);
    under.hold(50)?;
    std::thread::sleep(LOOKS);
    under.hold(83)?;
    std::thread::sleep(LOOKS);
    let failed = crossed(&process, 80, LIMIT, 2, 1);
    descriptors::report(stage, &process, vec![failed])
}

/// A higher limit ends it, a lower one begins it with the next descriptor.
pub fn limit_changes(stage: &mut Stage) -> Result<()> {
    const LOWER: u64 = 60;
    let process = Process::current()?;
    stage.ready()?;
    let before = sys::nofile()?;
    let mut under = Under::limit(LIMIT)?;
    under.hold(55)?;
    sys::set_nofile(LOWER, before.1)?;
    under.hold(56)?;
    std::thread::sleep(LOOKS);
    sys::set_nofile(LIMIT, before.1)?;
    std::thread::sleep(LOOKS);
    let failures = vec![
        crossed(&process, 80, LOWER, 1, 0),
        crossed(&process, 90, LOWER, 1, 1),
    ];
    descriptors::report(stage, &process, failures)
}
