//! How long a jiffy is on this kernel.

use std::{fs, time::Duration};

/// Jiffies begin this long before they would wrap, so that code which cannot bear it is
/// found early (`INITIAL_JIFFIES`, include/linux/jiffies.h).
const UNTIL_WRAP: u64 = 300;

/// Length of a jiffy; `None` where the kernel does not show how many there were.
#[must_use]
pub fn length() -> Option<Duration> {
    let list = fs::read_to_string("/proc/timer_list").ok()?;
    let (now_ns, jiffies) = parse(&list)?;
    Some(Duration::from_secs(1) / rate(now_ns, jiffies)?)
}

/// The monotonic time, nanoseconds, and the jiffies in a `/proc/timer_list`.
fn parse(list: &str) -> Option<(u64, u64)> {
    let number = |prefix: &str, suffix: &str| {
        list.lines()
            .find_map(|line| line.strip_prefix(prefix)?.strip_suffix(suffix))?
            .trim()
            .parse()
            .ok()
    };
    Some((
        number("now at ", " nsecs")?,
        // Of the first processor; the others' are the same.
        number("jiffies: ", "")?,
    ))
}

/// Jiffies a second: the rate that a kernel can be built with and that explains the count.
fn rate(now_ns: u64, jiffies: u64) -> Option<u32> {
    [100_u32, 250, 300, 1000]
        .into_iter()
        .map(|rate| {
            let begin = (1_u64 << 32) - UNTIL_WRAP * u64::from(rate);
            let since = u128::from(now_ns) * u128::from(rate) / 1_000_000_000;
            let expected = begin + u64::try_from(since).unwrap_or(u64::MAX / 2);
            (expected.abs_diff(jiffies), rate)
        })
        .min()
        // A minute, for a clock that counts a suspend differently.
        .filter(|(off, rate)| *off < 60 * u64::from(*rate))
        .map(|(_, rate)| rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_explains_the_count() {
        for (rate_is, uptime) in [
            (250_u64, 20_u64),
            (1000, 301),
            (100, 299),
            (300, 10_000_000),
        ] {
            let jiffies = (1 << 32) - 300 * rate_is + uptime * rate_is;
            let found = rate(uptime * 1_000_000_000, jiffies);
            assert_eq!(found.map(u64::from), Some(rate_is), "{uptime} s");
        }
        assert_eq!(rate(1_000_000_000, 5), None);
    }

    #[test]
    fn a_list_is_read() {
        let list = "Timer List Version: v0.10\nHRTIMER_MAX_CLOCK_BASES: 8\n\
            now at 19000123456 nsecs\n\ncpu: 0\n  .idle_jiffies   : 5\njiffies: 4294897046\n";
        assert_eq!(parse(list), Some((19_000_123_456, 4_294_897_046)));
        assert_eq!(parse(""), None);
    }
}
