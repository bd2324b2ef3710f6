//! How long to wait before the next attempt. Pure.

use std::time::Duration;

/// Before the second attempt.
const FIRST: Duration = Duration::from_millis(500);
/// Between attempts at most, where the receiver does not say: a receiver that was down is told
/// within this time after it came back.
const MOST: Duration = Duration::from_secs(15);
/// A receiver may ask for more, but not for ever.
const MOST_ASKED: Duration = Duration::from_mins(5);

/// The wait after `failed` failures in a row. `chance`, from 0 to 1, spreads the attempts of many
/// hosts over the second half of it. What the receiver `asked` for is respected.
pub(crate) fn wait(failed: u32, chance: f64, asked: Option<Duration>) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failed.saturating_sub(1).min(10));
    let spread = doubled.min(MOST).mul_f64(chance.mul_add(0.5, 0.5));
    spread.max(asked.unwrap_or_default().min(MOST_ASKED))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::wait;

    #[test]
    fn waits_double_up_to_a_limit() {
        let waits: Vec<u128> = (1..10)
            .map(|failed| wait(failed, 1.0, None).as_millis())
            .collect();
        assert_eq!(waits[..7], [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        assert_eq!(waits[8], 15_000);
        assert_eq!(wait(u32::MAX, 1.0, None), Duration::from_secs(15));
    }

    #[test]
    fn chance_moves_half_of_it_and_the_receiver_may_ask_for_more() {
        assert_eq!(wait(3, 0.0, None), Duration::from_secs(1));
        let asked = Some(Duration::from_secs(7));
        assert_eq!(wait(3, 0.0, asked), Duration::from_secs(7));
        let asked = Some(Duration::from_hours(7));
        assert_eq!(wait(3, 0.0, asked), Duration::from_mins(5));
    }
}
