//! A map that never grows beyond a bound.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, mem};

/// Keeps the most recently used entries: between half of its capacity and all of it.
///
/// Two generations take the place of a list in order of use. When the young one is full
/// the old one is dropped and the young one grows old; what is looked up there is young
/// again. That costs O(1) and no bookkeeping per look-up.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation: usize,
}

impl<K: Eq + Hash, V> Cache<K, V> {
    /// A cache of at most `capacity` entries, at least two.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation: (capacity / 2).max(1),
        }
    }

    pub(super) fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.generation && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// The keys, in no order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.young.keys().chain(self.old.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = Cache::new(10);
        cache.insert("used", 0);
        for (index, key) in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]
            .into_iter()
            .enumerate()
        {
            cache.insert(key, index);
            assert_eq!(cache.get("used"), Some(&0), "after {key}");
            assert!(cache.keys().count() <= 10);
        }
        assert_eq!(cache.get("l"), Some(&11));
        assert_eq!(cache.get("a"), None);
    }

    #[test]
    fn an_entry_is_kept_once() {
        let mut cache = Cache::new(4);
        for value in 0..20 {
            cache.insert("one", value);
            cache.insert("two", value);
            assert_eq!(cache.keys().count(), 2);
            assert_eq!(cache.get("one"), Some(&value));
        }
    }
}
