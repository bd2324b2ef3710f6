//! Readings of the counters that wait to be told. The kernel side has room for so many keys, and a reading that comes
//! late finds it full: so it is taken when it is due, whatever takes long, and told in its turn.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::pipeline::READING;

/// With more keys than this waiting, none is taken: what comes then stays with the kernel side, which counts what it
/// has no room for. As many as it has room for twice.
const MOST: usize = 32_768;

/// Readings, oldest first.
pub(super) struct Taken<C> {
    readings: VecDeque<Vec<C>>,
    keys: usize,
    due: Instant,
}

impl<C> Taken<C> {
    /// None yet; the first is due in its time.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            readings: VecDeque::new(),
            keys: 0,
            due: now + READING,
        }
    }

    /// Whether it is time for the next, and there is room for it.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due && self.keys < MOST
    }

    /// One was taken.
    pub(super) fn add(&mut self, reading: Vec<C>, now: Instant) {
        self.keys += reading.len();
        self.readings.push_back(reading);
        self.due = now + READING;
    }

    /// Whether any waits.
    pub(super) fn waits(&self) -> bool {
        !self.readings.is_empty()
    }

    /// The one that has waited longest.
    pub(super) fn next(&mut self) -> Option<Vec<C>> {
        let reading = self.readings.pop_front()?;
        self.keys -= reading.len();
        Some(reading)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn readings_are_told_in_turn_and_taken_while_others_wait() {
        let start = Instant::now();
        let mut taken = Taken::new(start);
        assert!(!taken.is_due(start) && !taken.waits());
        assert!(taken.is_due(start + READING));
        taken.add(vec![1], start + READING);
        assert!(!taken.is_due(start + READING) && taken.waits());
        let late = start + READING * 2 + Duration::from_millis(1);
        assert!(taken.is_due(late), "one waits, and the next is due");
        taken.add(vec![2, 3], late);
        let told: Vec<Vec<u32>> = std::iter::from_fn(|| taken.next()).collect();
        assert_eq!(told, [vec![1], vec![2, 3]]);
        assert!(!taken.waits());
    }

    #[test]
    fn what_waits_has_a_bound() {
        let start = Instant::now();
        let mut taken = Taken::new(start);
        taken.add(vec![0; MOST], start);
        let late = start + READING * 3;
        assert!(!taken.is_due(late));
        assert_eq!(taken.next().map(|one| one.len()), Some(MOST));
        assert!(taken.is_due(late));
    }
}
