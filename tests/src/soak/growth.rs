//! Whether something grew (pure).

use serde::Serialize;

/// A quarter that is compared has at least so many samples.
const QUARTER: usize = 3;

/// How a figure went, over a whole run.
#[derive(Debug, Serialize)]
pub(super) struct Growth {
    /// Of what.
    name: &'static str,
    /// The median of the second quarter: by then what fills at the start is full.
    second_quarter: f64,
    /// The median of the last.
    last_quarter: f64,
    /// How much more it may be.
    allowed: f64,
    /// The slope of the line that fits the second half best.
    per_hour: f64,
    /// Whether it did not grow by more than it may.
    pub(super) holds: bool,
}

/// Judges values by the seconds at which they were seen, oldest first. `None` where there are too few.
pub(super) fn growth(name: &'static str, values: &[(f64, f64)], allowed: f64) -> Option<Growth> {
    let quarter = values.len() / 4;
    if quarter < QUARTER {
        return None;
    }
    let median_of = |part: &[(f64, f64)]| median(part.iter().map(|(_, value)| *value).collect());
    let second_quarter = median_of(&values[quarter..2 * quarter]);
    let last_quarter = median_of(&values[values.len() - quarter..]);
    Some(Growth {
        name,
        second_quarter,
        last_quarter,
        allowed,
        per_hour: 3600.0 * slope(&values[values.len() / 2..]),
        holds: last_quarter <= second_quarter + allowed,
    })
}

/// Values are never more than fit into the mantissa.
#[expect(clippy::cast_precision_loss, reason = "samples are few")]
fn slope(values: &[(f64, f64)]) -> f64 {
    let count = values.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| values.iter().map(of).sum::<f64>() / count;
    let (middle, level) = (mean(|one| one.0), mean(|one| one.1));
    let (mut rise, mut run) = (0.0, 0.0);
    for (at, value) in values {
        rise += (at - middle) * (value - level);
        run += (at - middle).powi(2);
    }
    if run > 0.0 { rise / run } else { 0.0 }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value every half minute.
    fn every(values: impl IntoIterator<Item = f64>) -> Vec<(f64, f64)> {
        let mut at = 0.0;
        let timed = values.into_iter().map(|value| {
            at += 30.0;
            (at, value)
        });
        timed.collect()
    }

    #[test]
    fn what_fills_in_the_first_quarter_and_stays_did_not_grow() {
        let filling = (0..10).map(|n| 10.0 * f64::from(n));
        let values = every(filling.chain(std::iter::repeat_n(100.0, 30)));
        let judged = growth("fds", &values, 0.0).unwrap();
        assert!(judged.holds, "{judged:?}");
        assert!(judged.per_hour.abs() < 1e-6, "{judged:?}");
    }

    #[test]
    fn what_grows_a_little_all_the_time_grew() {
        let values = every((0..40).map(f64::from));
        let judged = growth("fds", &values, 0.0).unwrap();
        assert!(!judged.holds, "{judged:?}");
        // One every half minute.
        assert!((judged.per_hour - 120.0).abs() < 1e-6, "{judged:?}");
        assert!((judged.second_quarter - 14.5).abs() < 1e-6, "{judged:?}");
        assert!((judged.last_quarter - 34.5).abs() < 1e-6, "{judged:?}");
    }

    #[test]
    fn what_is_allowed_is_allowed_and_no_more() {
        let step = |by: f64| every((0..20).map(|n| if n < 10 { 0.0 } else { by }));
        assert!(growth("rss", &step(1024.0), 1024.0).unwrap().holds);
        assert!(!growth("rss", &step(1025.0), 1024.0).unwrap().holds);
    }

    #[test]
    fn one_value_beside_the_others_is_no_growth() {
        let mut values = every(std::iter::repeat_n(7.0, 20));
        values[18].1 = 1000.0;
        assert!(growth("fds", &values, 0.0).unwrap().holds);
    }

    #[test]
    fn of_few_values_nothing_is_said() {
        assert!(growth("fds", &every(std::iter::repeat_n(7.0, 11)), 0.0).is_none());
        assert!(growth("fds", &every(std::iter::repeat_n(7.0, 12)), 0.0).is_some());
        assert!(growth("fds", &[], 0.0).is_none());
    }
}
