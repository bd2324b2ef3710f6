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
    /// When it started.
    pub(super) started: Option<SystemTime>,
}

impl Own {
    pub(super) fn read(now: SystemTime) -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").ok();
        // Fields after the name, which may hold anything: state is the first, proc(5)'s third.
        let field = |number: usize| -> Option<u64> {
            let (_, rest) = stat.as_deref()?.rsplit_once(") ")?;
            rest.split_ascii_whitespace().nth(number - 3)?.parse().ok()
        };
        let pages = field(24);
        let page = rustix::param::page_size() as u64;
        Self {
            cpu: duration(clock_gettime(ClockId::ProcessCPUTime)),
            resident: pages.map(|pages| pages.saturating_mul(page)),
            started: field(22).and_then(|ticks| started(ticks, now)),
        }
    }
}

/// The wall time of that many clock ticks after boot. Whole seconds, since what it is computed
/// from is read at different moments.
fn started(ticks: u64, now: SystemTime) -> Option<SystemTime> {
    let after_boot = Duration::from_secs(1)
        .saturating_mul(u32::try_from(ticks / rustix::param::clock_ticks_per_second()).ok()?);
    let up = duration(clock_gettime(ClockId::Boottime))?;
    let start = now.checked_sub(up.checked_sub(after_boot)?)?;
    let seconds = start.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn duration(time: rustix::time::Timespec) -> Option<Duration> {
    Some(Duration::new(
        u64::try_from(time.tv_sec).ok()?,
        u32::try_from(time.tv_nsec).ok()?,
    ))
}
