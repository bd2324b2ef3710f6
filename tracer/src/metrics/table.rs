//! Series of one kind, no more than so many.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Rows by key. A key that there is no room for gets none, and is counted.
#[derive(Clone, Debug)]
pub(super) struct Table<K, V> {
    most: usize,
    rows: HashMap<K, Row<V>>,
    dropped: u64,
}

#[derive(Clone, Debug)]
struct Row<V> {
    value: V,
    touched: Instant,
}

impl<K: Eq + Hash, V> Table<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            rows: HashMap::new(),
            dropped: 0,
        }
    }

    /// There is room for so many rows from now on; those that are there stay.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// The row of a key, made if there is room. Rows that nobody touched for `keep` make room.
    pub(super) fn row(
        &mut self,
        key: K,
        now: Instant,
        keep: Duration,
        make: impl FnOnce() -> V,
    ) -> Option<&mut V> {
        if !self.rows.contains_key(&key) && self.rows.len() >= self.most {
            self.forget(now, keep);
            if self.rows.len() >= self.most {
                self.dropped += 1;
                return None;
            }
        }
        let row = self.rows.entry(key).or_insert_with(|| Row {
            value: make(),
            touched: now,
        });
        row.touched = now;
        Some(&mut row.value)
    }

    /// Removes what nobody touched for so long.
    pub(super) fn forget(&mut self, now: Instant, keep: Duration) {
        self.rows
            .retain(|_, row| now.saturating_duration_since(row.touched) <= keep);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter().map(|(key, row)| (key, &row.value))
    }

    /// How often a key found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// A counter that is read from something which may start again at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// All growth so far: never less than before.
    pub(super) total: u64,
    last: u64,
}

impl Reading {
    /// Takes in what is read now; returns how much it grew by.
    pub(super) fn read(&mut self, now: u64) -> u64 {
        let grown = if now >= self.last {
            now - self.last
        } else {
            now
        };
        self.last = now;
        self.total += grown;
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(10);

    #[test]
    fn there_are_no_more_rows_than_so_many() {
        let start = Instant::now();
        let mut table: Table<u32, u32> = Table::new(2);
        for key in 0..5 {
            let row = table.row(key, start, KEEP, || key);
            assert_eq!(row.is_some(), key < 2);
        }
        assert_eq!(table.dropped(), 3);
        assert!(table.row(1, start, KEEP, || 0).is_some(), "it has one");
    }

    #[test]
    fn what_nobody_touches_makes_room() {
        let start = Instant::now();
        let mut table: Table<u32, u32> = Table::new(2);
        table.row(0, start, KEEP, || 0);
        table.row(1, start + KEEP, KEEP, || 1);
        let later = start + KEEP + Duration::from_secs(1);
        assert!(table.row(2, later, KEEP, || 2).is_some());
        let mut keys: Vec<u32> = table.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert_eq!(keys, [1, 2]);
    }

    #[test]
    fn a_reading_that_starts_again_never_takes_away() {
        let mut reading = Reading::default();
        assert_eq!(reading.read(5), 5);
        assert_eq!(reading.read(7), 2);
        assert_eq!(reading.read(3), 3);
        assert_eq!(reading.total, 10);
    }
}
