//! A number for each of the last 60 seconds.

/// Seconds that are kept.
pub const SECONDS: usize = 60;

/// Numbers by second. Takes no room until there is one.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    slots: Option<Box<[u32; SECONDS]>>,
    /// The latest second.
    second: u64,
}

impl Ring {
    /// Adds to a second.
    pub fn add(&mut self, second: u64, more: u64) {
        if more > 0 {
            let slot = self.slot(second);
            *slot = slot.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        }
    }

    /// Notes the highest of a second.
    pub fn highest(&mut self, second: u64, value: u32) {
        if value > 0 {
            let slot = self.slot(second);
            *slot = (*slot).max(value);
        }
    }

    fn slot(&mut self, second: u64) -> &mut u32 {
        let slots = self.slots.get_or_insert_with(|| Box::new([0; SECONDS]));
        let second = second.max(self.second);
        let passed = (second - self.second).min(SECONDS as u64);
        for back in 0..passed {
            slots[index(second - back)] = 0;
        }
        self.second = second;
        &mut slots[index(second)]
    }

    /// The last `count` seconds until `now`, oldest first.
    pub fn last(&self, now: u64, count: usize) -> impl Iterator<Item = u32> + '_ {
        let now = now.max(self.second);
        (0..count.min(SECONDS))
            .rev()
            .map(move |back| {
                let slots = self.slots.as_ref()?;
                let second = now.checked_sub(back as u64)?;
                let kept = second <= self.second && self.second - second < SECONDS as u64;
                kept.then(|| slots[index(second)])
            })
            .map(Option::unwrap_or_default)
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self, now: u64, count: usize) -> u64 {
        match &self.slots {
            Some(_) => self.last(now, count).map(u64::from).sum(),
            None => 0,
        }
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_kept_and_no_more() {
        let mut ring = Ring::default();
        assert_eq!(ring.sum(100, SECONDS), 0);
        ring.add(100, 3);
        ring.add(100, 4);
        ring.add(102, 5);
        assert_eq!(ring.last(102, 4).collect::<Vec<_>>(), [0, 7, 0, 5]);
        assert_eq!(ring.last(104, 4).collect::<Vec<_>>(), [0, 5, 0, 0]);
        assert_eq!(ring.sum(159, SECONDS), 12);
        assert_eq!(ring.sum(160, SECONDS), 5, "the first is a minute ago");
        ring.add(400, 1);
        assert_eq!(ring.sum(400, SECONDS), 1, "all else is long ago");
        assert_eq!(ring.sum(460, SECONDS), 0);
    }

    #[test]
    fn the_highest_stays() {
        let mut ring = Ring::default();
        ring.highest(7, 3);
        ring.highest(7, 2);
        assert_eq!(ring.last(7, 1).collect::<Vec<_>>(), [3]);
    }
}
