//! The time namespace this program runs in.
//!
//! The kernel side reads the host's clocks; in a time namespace, `clock_gettime` and
//! `/proc/PID/stat` show clocks that are shifted.

use std::{path::Path, sync::OnceLock};

use rustix::time::{ClockId, clock_gettime};

/// How far this process's clocks are ahead of the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Nanoseconds that `CLOCK_MONOTONIC` is ahead.
    pub monotonic_ns: i64,
    /// Nanoseconds that `CLOCK_BOOTTIME` is ahead.
    pub boottime_ns: i64,
}

impl Offsets {
    /// Reads `/proc/self/timens_offsets` under `root`.
    ///
    /// Zero where there is no such file: kernels before 5.6, or `CONFIG_TIME_NS` off.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        std::fs::read_to_string(root.join("proc/self/timens_offsets"))
            .map(|text| Self::parse(&text))
            .unwrap_or_default()
    }

    /// Lines of `clock seconds nanoseconds` (man 7 time_namespaces).
    fn parse(text: &str) -> Self {
        let mut offsets = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let clock = words.next();
            let mut number = || words.next().and_then(|word| word.parse::<i64>().ok());
            let (Some(seconds), Some(nanoseconds)) = (number(), number()) else {
                continue;
            };
            let total = seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(nanoseconds);
            match clock {
                Some("monotonic") => offsets.monotonic_ns = total,
                Some("boottime") => offsets.boottime_ns = total,
                _ => {}
            }
        }
        offsets
    }
}

/// Now by the kernel side's clock: nanoseconds of the host's `CLOCK_MONOTONIC`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    // A process stays in the time namespace that it was started in.
    static OFFSETS: OnceLock<Offsets> = OnceLock::new();
    let ahead = OFFSETS
        .get_or_init(|| Offsets::read(Path::new("/")))
        .monotonic_ns;
    let now = clock_gettime(ClockId::Monotonic);
    let now = now
        .tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec);
    u64::try_from(now.saturating_sub(ahead)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Offsets;

    #[test]
    fn seconds_and_nanoseconds_add_up() {
        let text = "monotonic           -2         5\nboottime      86400         0\n";
        assert_eq!(
            Offsets::parse(text),
            Offsets {
                monotonic_ns: -1_999_999_995,
                boottime_ns: 86_400_000_000_000,
            }
        );
        assert_eq!(
            Offsets::parse("monotonic\nrubbish x y\n"),
            Offsets::default()
        );
    }
}
