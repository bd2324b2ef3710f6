//! How much came within the last so-and-so long.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

/// Slots of a window: it slides by its length over this.
const SLOTS: u32 = 60;
/// Shortest slot.
const SHORTEST: Duration = Duration::from_millis(100);

/// A sliding window. Empty slots take no room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Window {
    span: Duration,
    slots: VecDeque<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Slot {
    number: u64,
    /// Failures by exact counters.
    count: u64,
    /// Failures that were seen one by one: each is, or will be, in a count.
    exemplars: u64,
}

impl Window {
    /// An empty one.
    pub(super) fn new(span: Duration) -> Self {
        Self {
            span,
            slots: VecDeque::new(),
        }
    }

    fn number(&self, at: Duration) -> u64 {
        let slot = (self.span / SLOTS).max(SHORTEST);
        u64::try_from(at.as_nanos() / slot.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    /// Adds what came at `at`, which is not before what was added last.
    pub(super) fn add(&mut self, at: Duration, count: u64, exemplars: u64) {
        let number = self.number(at);
        match self.slots.back_mut() {
            Some(last) if last.number >= number => {
                last.count = last.count.saturating_add(count);
                last.exemplars = last.exemplars.saturating_add(exemplars);
            }
            _ => self.slots.push_back(Slot {
                number,
                count,
                exemplars,
            }),
        }
        self.forget(at);
    }

    fn forget(&mut self, now: Duration) {
        let oldest = self.number(now.saturating_sub(self.span));
        while self.slots.front().is_some_and(|slot| slot.number < oldest) {
            self.slots.pop_front();
        }
    }

    /// What came within the window before `now`: counted failures, or those that were seen one by
    /// one while their count is still to come.
    pub(super) fn sum(&mut self, now: Duration) -> u64 {
        self.forget(now);
        let sum = |of: fn(&Slot) -> u64| self.slots.iter().map(of).fold(0, u64::saturating_add);
        sum(|slot| slot.count).max(sum(|slot| slot.exemplars))
    }

    /// What was counted within the last `span`, which is no longer than the window.
    pub(super) fn within(&self, now: Duration, span: Duration) -> u64 {
        let oldest = self.number(now.saturating_sub(span));
        let slots = self.slots.iter().filter(|slot| slot.number >= oldest);
        slots.map(|slot| slot.count).fold(0, u64::saturating_add)
    }

    /// Adds all that another has.
    pub(super) fn merge(&mut self, other: &Self, now: Duration) {
        for slot in &other.slots {
            self.add(now, slot.count, slot.exemplars);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sum_is_what_came_within_the_window_to_a_slot(
            steps in proptest::collection::vec((0_u64..40_000, 0_u64..1_000), 1..300),
            span in 1_u64..600,
        ) {
            let (span, mut now) = (s(span), Duration::ZERO);
            let slot = (span / SLOTS).max(SHORTEST);
            let mut window = Window::new(span);
            let mut came = Vec::new();
            for (ms, count) in steps {
                now += Duration::from_millis(ms);
                window.add(now, count, 0);
                came.push((now, count));
                let since = |age: Duration| -> u64 {
                    let young = came.iter().filter(|(at, _)| now.saturating_sub(*at) <= age);
                    young.map(|(_, count)| count).sum()
                };
                let sum = window.sum(now);
                prop_assert!(since(span.saturating_sub(slot)) <= sum && sum <= since(span + slot));
                prop_assert_eq!(sum, window.within(now, span));
            }
        }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_older_than_the_window_is_gone() {
        let mut window = Window::new(s(60));
        window.add(s(0), 5, 0);
        window.add(s(30), 2, 0);
        assert_eq!(window.sum(s(60)), 7);
        assert_eq!(window.sum(s(62)), 2);
        assert_eq!(window.sum(s(92)), 0);
    }

    #[test]
    fn a_failure_that_is_seen_before_it_is_counted_is_one() {
        let mut window = Window::new(s(60));
        window.add(s(1), 0, 1);
        assert_eq!(window.sum(s(1)), 1);
        window.add(s(2), 1, 0);
        assert_eq!(window.sum(s(2)), 1);
    }

    #[test]
    fn it_takes_no_more_room_than_its_slots() {
        let mut window = Window::new(s(3600));
        for second in 0..100_000 {
            window.add(s(second), 1, 0);
        }
        assert!(window.slots.len() <= 62, "{}", window.slots.len());
        assert!((3_600..=3_660).contains(&window.sum(s(99_999))));
    }
}
