//! From the kernel's clocks to wall time.

use std::path::Path;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::attribute::timens::Offsets;

/// Where the kernel's clocks stand in wall time.
///
/// Wall time is stepped and slewed, so a clock is good for about a second; then it is to be
/// read [`again`](Clock::again).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Wall time when `CLOCK_MONOTONIC` was 0, nanoseconds since 1970.
    monotonic_zero_ns: i128,
    /// Wall time when `CLOCK_BOOTTIME` was 0, nanoseconds since 1970.
    boottime_zero_ns: i128,
}

impl Clock {
    /// Reads the clocks. Exact to the time that three readings take, some 100 ns.
    #[must_use]
    pub fn now() -> Self {
        let ahead = Offsets::read(Path::new("/"));
        let monotonic = nanoseconds(ClockId::Monotonic) - i128::from(ahead.monotonic_ns);
        let wall = nanoseconds(ClockId::Realtime);
        let boottime = nanoseconds(ClockId::Boottime) - i128::from(ahead.boottime_ns);
        Self {
            monotonic_zero_ns: wall - monotonic,
            boottime_zero_ns: wall - boottime,
        }
    }

    /// The clocks read again, but for the start of the boot: what is told by it, such as
    /// the start of a process, stays the same in every record of a run.
    #[must_use]
    pub fn again(self) -> Self {
        Self {
            boottime_zero_ns: self.boottime_zero_ns,
            ..Self::now()
        }
    }

    /// A clock that stands still: `wall` is the moment at which `CLOCK_MONOTONIC` and
    /// `CLOCK_BOOTTIME` had these values, in nanoseconds.
    #[must_use]
    pub fn fixed(wall: Timestamp, monotonic_ns: u64, boottime_ns: u64) -> Self {
        Self {
            monotonic_zero_ns: wall.as_nanosecond() - i128::from(monotonic_ns),
            boottime_zero_ns: wall.as_nanosecond() - i128::from(boottime_ns),
        }
    }

    /// Wall time of a reading of `CLOCK_MONOTONIC`, nanoseconds.
    #[must_use]
    pub fn wall_of_monotonic(&self, ns: u64) -> Timestamp {
        timestamp(self.monotonic_zero_ns + i128::from(ns))
    }

    /// Wall time of a reading of `CLOCK_BOOTTIME`, nanoseconds.
    #[must_use]
    pub fn wall_of_boottime(&self, ns: u64) -> Timestamp {
        timestamp(self.boottime_zero_ns + i128::from(ns))
    }
}

fn nanoseconds(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// The last moment there is, should a reading be beyond it.
fn timestamp(ns: i128) -> Timestamp {
    Timestamp::from_nanosecond(ns).unwrap_or(Timestamp::MAX)
}

/// RFC 3339 in UTC with nine digits after the point.
pub(super) fn rfc3339(time: Timestamp) -> String {
    format!("{time:.9}")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Clock, rfc3339};

    #[test]
    fn readings_become_wall_time() {
        let wall = Timestamp::new(1_700_000_000, 5).expect("in range");
        let clock = Clock::fixed(wall, 1_000, 3_000_000_000);
        assert_eq!(clock.wall_of_monotonic(1_000), wall);
        assert_eq!(
            rfc3339(clock.wall_of_monotonic(995)),
            "2023-11-14T22:13:20.000000000Z"
        );
        assert_eq!(
            rfc3339(clock.wall_of_boottime(0)),
            "2023-11-14T22:13:17.000000005Z"
        );
    }

    #[test]
    fn no_reading_is_out_of_range() {
        let clock = Clock::fixed(Timestamp::MAX, 0, 0);
        assert_eq!(clock.wall_of_monotonic(u64::MAX), Timestamp::MAX);
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH, 0, 0);
        assert_eq!(
            rfc3339(clock.wall_of_monotonic(u64::MAX)),
            "2554-07-21T23:34:33.709551615Z"
        );
    }

    #[test]
    fn this_hosts_clocks_agree() {
        let before = Timestamp::now();
        let clock = Clock::now();
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let ns =
            u64::try_from(monotonic.tv_sec * 1_000_000_000 + monotonic.tv_nsec).expect("positive");
        let wall = clock.wall_of_monotonic(ns);
        assert!(
            wall.duration_since(before).abs() < jiff::SignedDuration::from_secs(1),
            "{wall}"
        );
        // Boot lies at or before the start of CLOCK_MONOTONIC, which stops in suspend.
        assert!(clock.wall_of_boottime(0) <= clock.wall_of_monotonic(1_000_000));
    }
}
