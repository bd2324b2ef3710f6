//! What turnaway itself takes.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// What this process takes; what cannot be read is unknown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    /// Processor time, all threads together.
    pub(super) cpu: Option<Duration>,
    /// Resident memory, bytes.
    pub(super) resident: Option<u64>,
}

impl Own {
    pub(super) fn read() -> Self {
        let page = rustix::param::page_size() as u64;
        Self {
            cpu: duration(clock_gettime(ClockId::ProcessCPUTime)),
            resident: stat(24).map(|pages| pages.saturating_mul(page)),
        }
    }
}

/// When this process started.
pub(super) fn started(now: SystemTime) -> Option<SystemTime> {
    let seconds = stat(22)? / rustix::param::clock_ticks_per_second();
    let up = duration(clock_gettime(ClockId::Boottime))?;
    now.checked_sub(up.checked_sub(Duration::from_secs(seconds))?)
}

/// A field of `/proc/self/stat`, by its number in proc(5).
fn stat(number: usize) -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The third comes after the name, which may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

fn duration(time: rustix::time::Timespec) -> Option<Duration> {
    Some(Duration::new(
        u64::try_from(time.tv_sec).ok()?,
        u32::try_from(time.tv_nsec).ok()?,
    ))
}
