//! Numbers, times, bars and lines of bars, in few columns.

use jiff::{Timestamp, tz::TimeZone};

use super::style::Look;

/// What is not known.
pub const UNKNOWN: &str = "-";

/// A number in at most five columns: `999`, `12.3k`, `45M`.
#[must_use]
pub fn number(value: u64) -> String {
    scaled(value, &["", "k", "M", "G", "T", "P", "E"])
}

fn scaled(value: u64, units: &[&str]) -> String {
    let (mut unit, mut divisor) = (0, 1_u64);
    while value / divisor >= 1000 && unit + 1 < units.len() {
        divisor = divisor.saturating_mul(1000);
        unit += 1;
    }
    // Up to five digits are exact.
    if value < 100_000 {
        return value.to_string();
    }
    let whole = value / divisor;
    let tenth = value % divisor * 10 / divisor;
    if whole < 100 {
        format!("{whole}.{tenth}{}", units[unit])
    } else {
        format!("{whole}{}", units[unit])
    }
}

/// A rate: `0`, `0.4`, `12`, `1234`, `123k`.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are small and not negative"
)]
pub fn rate(value: f64) -> String {
    if value <= 0.0 {
        "0".to_owned()
    } else if value < 9.95 {
        // A rate that is not nothing does not look like nothing.
        format!("{:.1}", value.max(0.1))
    } else {
        number(value.round() as u64)
    }
}

/// A time in at most four columns: `0s`, `59s`, `12m`, `3h`, `5d`.
#[must_use]
pub fn age(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0..=99 => format!("{seconds}s"),
        100..=5_999 => format!("{}m", seconds / 60),
        6_000..=359_999 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time of day, as clocks here show it.
#[must_use]
pub fn clock(time: Timestamp) -> String {
    let local = TimeZone::system().to_datetime(time);
    local.strftime("%H:%M:%S").to_string()
}

/// A wait in at most five columns: `4ms`, `1.0s`, `33s`, `2m`.
#[must_use]
pub fn wait(ns: u64) -> String {
    let ms = ns / 1_000_000;
    match ms {
        0 if ns == 0 => "0".to_owned(),
        0 => "<1ms".to_owned(),
        1..=999 => format!("{ms}ms"),
        1_000..=9_999 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        10_000..=99_999 => format!("{}s", ms / 1000),
        _ => format!("{}m", ms / 60_000),
    }
}

/// A bar of `width` characters, of which `full` thousandths are filled: one at least if anything is.
#[must_use]
pub fn bar(full: u64, width: usize, look: Look) -> String {
    let (on, off) = if look.unicode {
        ('█', '░')
    } else {
        ('#', '.')
    };
    let full = full.min(1000);
    let width = width as u64;
    let mut filled = full * width / 1000;
    if full > 0 {
        filled = filled.max(1);
    }
    (0..width)
        .map(|at| if at < filled { on } else { off })
        .collect()
}

/// A line of bars, the highest of which is `most`.
#[must_use]
pub fn spark(values: impl Iterator<Item = u32>, most: u32, look: Look) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const ASCII: [char; 8] = ['.', ':', '-', '=', '+', '*', '%', '#'];
    let bars = if look.unicode { BARS } else { ASCII };
    values
        .map(|value| match value {
            0 => ' ',
            value => {
                let step = u64::from(value) * 8 / u64::from(most.max(1));
                bars[usize::try_from(step).unwrap_or(0).clamp(1, 8) - 1]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look {
        color: false,
        unicode: false,
    };

    #[test]
    fn numbers_are_short_and_what_is_small_is_exact() {
        let seen: Vec<String> = [0, 999, 99_999, 100_000, 1_234_567, 12_345_678, u64::MAX]
            .into_iter()
            .map(number)
            .collect();
        assert_eq!(
            seen,
            ["0", "999", "99999", "100k", "1.2M", "12.3M", "18.4E"]
        );
        let rates: Vec<String> = [0.0, 0.01, 0.4, 9.96, 1234.5, 2e6]
            .into_iter()
            .map(rate)
            .collect();
        assert_eq!(rates, ["0", "0.1", "0.4", "10", "1235", "2.0M"]);
    }

    #[test]
    fn times_are_short() {
        let seconds = |s: u64| age(s * 1_000_000_000);
        let ages = [0, 99, 100, 5_999, 7_200, 86_400 * 9].map(seconds);
        assert_eq!(ages, ["0s", "99s", "1m", "99m", "2h", "9d"]);
        let waits = [
            0,
            500,
            4_000_000,
            1_024_000_000,
            33_000_000_000,
            131_000_000_000,
        ]
        .map(wait);
        assert_eq!(waits, ["0", "<1ms", "4ms", "1.0s", "33s", "2m"]);
    }

    #[test]
    fn bars_show_little_as_something_and_nothing_as_nothing() {
        assert_eq!(bar(0, 5, PLAIN), ".....");
        assert_eq!(bar(1, 5, PLAIN), "#....");
        assert_eq!(bar(999, 5, PLAIN), "####.");
        assert_eq!(bar(1300, 5, PLAIN), "#####");
        let look = Look {
            unicode: true,
            ..PLAIN
        };
        assert_eq!(bar(500, 4, look), "██░░");
        assert_eq!(spark([0, 1, 50, 100].into_iter(), 100, look), " ▁▄█");
        assert_eq!(spark([0, 1, 50, 100].into_iter(), 100, PLAIN), " .=#");
    }
}
