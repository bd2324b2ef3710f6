//! Exact totals over a run (pure).

use std::collections::{HashMap, HashSet};

use crate::event::{Address, Count, Failure, Key, Listener, Process, Target};

/// Most keys that are told apart; what comes after is kept as one number. It is what a hash map of 2^14
/// places takes before it makes twice as many: some 6 MiB in all.
const MAX_KEYS: usize = 14_336;
/// The same for who runs for weeks, and comes to any bound: what takes 2^12 places, some 1.5 MiB.
const MAX_KEYS_FOR_LONG: usize = 3_584;
/// Most listeners and names that are remembered, each: they are small.
const MAX_NAMES: usize = 100_000;

/// What one key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// Failures.
    pub count: u64,
    /// First of them, nanoseconds of `CLOCK_MONOTONIC`.
    pub first_ns: u64,
    /// Last of them, nanoseconds of `CLOCK_MONOTONIC`.
    pub last_ns: u64,
    /// The process at the first of them, where the key has one.
    pub process: Option<Process>,
    /// The listener at the first of them.
    pub listener: Listener,
    /// The longest that one of them waited, nanoseconds.
    pub waited_max_ns: Option<u64>,
    /// Only the sum over several listeners is exact.
    pub approximate: bool,
}

/// Totals of a run, and how many of the failures were shown one by one.
#[derive(Debug)]
pub struct Totals {
    keys: HashMap<Key, Total>,
    /// How many of them there may be.
    most: usize,
    /// Failures of keys beyond those.
    other: u64,
    /// Exemplars shown whose failure has not come with a count yet.
    shown: HashMap<Key, u64>,
    /// Listeners with failures, by socket inode.
    failed_at: HashSet<u64>,
    /// Names of AF_UNIX listeners by socket inode: counts come without.
    paths: HashMap<u64, Address>,
    /// Names of AF_UNIX sockets that were to be connected to, by the hash that counts have.
    targets: HashMap<[u8; 16], Vec<u8>>,
}

impl Default for Totals {
    fn default() -> Self {
        Self::with_room(MAX_KEYS)
    }
}

impl Totals {
    /// Totals that nobody will ask for: all is one number.
    #[must_use]
    pub fn untold() -> Self {
        Self::with_room(0)
    }

    /// Totals of what runs until the host ends.
    #[must_use]
    pub fn for_long() -> Self {
        Self::with_room(MAX_KEYS_FOR_LONG)
    }

    fn with_room(most: usize) -> Self {
        Self {
            keys: HashMap::new(),
            most,
            other: 0,
            shown: HashMap::new(),
            failed_at: HashSet::new(),
            paths: HashMap::new(),
            targets: HashMap::new(),
        }
    }

    /// Notes an exemplar; `shown` if it became a line of its own.
    pub fn exemplar(&mut self, failure: &Failure, shown: bool) {
        if shown {
            *self.shown.entry(failure.key).or_default() += 1;
        }
        self.failed(&failure.key);
        if let (Some(inode), Some(address @ Address::Unix(_))) =
            (failure.key.socket_inode, &failure.listener.address)
            && self.paths.len() < MAX_NAMES
        {
            self.paths.insert(inode, address.clone());
        }
    }

    /// Notes the name of an AF_UNIX socket that was to be connected to.
    pub fn target(&mut self, failure: &Failure) {
        if let (Some(Target::Unix(hash)), Some(path)) = (failure.key.target, &failure.target_path)
            && self.targets.len() < MAX_NAMES
        {
            self.targets.insert(hash, path.clone());
        }
    }

    /// The name of an AF_UNIX socket that was to be connected to, if an exemplar brought it.
    #[must_use]
    pub fn target_path(&self, target: Target) -> Option<&[u8]> {
        match target {
            Target::Unix(hash) => self.targets.get(&hash).map(Vec::as_slice),
            _ => None,
        }
    }

    /// The name of an AF_UNIX listener, if an exemplar brought it.
    #[must_use]
    pub fn path(&self, socket_inode: u64) -> Option<&Address> {
        self.paths.get(&socket_inode)
    }

    /// Adds the growth of a counter; returns how many of those failures were not shown
    /// one by one.
    ///
    /// Over a run, lines shown and numbers returned add up to the counts exactly. An
    /// exemplar may come a moment before or after the count that holds it.
    pub fn count(&mut self, count: &Count) -> u64 {
        let more = match self.shown.get_mut(&count.key) {
            Some(shown) => {
                let matched = count.count.min(*shown);
                *shown -= matched;
                if *shown == 0 {
                    self.shown.remove(&count.key);
                }
                count.count - matched
            }
            None => count.count,
        };
        self.failed(&count.key);
        if let Some(total) = self.keys.get_mut(&count.key) {
            total.count += count.count;
            total.last_ns = total.last_ns.max(count.last_ns);
            total.waited_max_ns = total.waited_max_ns.max(count.waited_max_ns);
            total.approximate |= count.approximate;
        } else if self.keys.len() < self.most {
            self.keys.insert(
                count.key,
                Total {
                    count: count.count,
                    first_ns: count.first_ns,
                    last_ns: count.last_ns,
                    process: count.process.clone(),
                    listener: count.listener.clone(),
                    waited_max_ns: count.waited_max_ns,
                    approximate: count.approximate,
                },
            );
        } else {
            self.other += count.count;
        }
        more
    }

    /// Notes how long a failure lasted that was counted before.
    pub fn waited(&mut self, failure: &Failure) {
        if let Some(total) = self.keys.get_mut(&failure.key) {
            total.waited_max_ns = total.waited_max_ns.max(failure.waited_ns);
            total.last_ns = total.last_ns.max(failure.monotonic_ns);
        }
    }

    fn failed(&mut self, key: &Key) {
        if let Some(inode) = key.socket_inode
            && self.failed_at.len() < MAX_NAMES
        {
            self.failed_at.insert(inode);
        }
    }

    /// Whether anything was counted at a listener.
    #[must_use]
    pub fn has_failures_of(&self, socket_inode: u64) -> bool {
        self.failed_at.contains(&socket_inode)
    }

    /// Every key and its total, most failures first.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&Key, &Total)> {
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_by(|(a_key, a), (b_key, b)| b.count.cmp(&a.count).then(a_key.cmp(b_key)));
        keys
    }

    /// Failures of keys that were too many to tell apart.
    #[must_use]
    pub fn other(&self) -> u64 {
        self.other
    }
}

#[cfg(test)]
mod tests {
    use turnaway_common::Reason;

    use super::*;
    use crate::{
        event::{Op, ProcessId, Tier},
        record::samples,
    };

    fn key(pid: u32) -> Key {
        Key {
            call: None,
            level: None,
            target: None,
            process: Some(ProcessId {
                pid,
                start_boottime_ns: 1,
            }),
            socket_inode: Some(9),
            reason: Reason::AcceptEmfile,
            errno: Some(24),
            op: Op::Syscall,
            tier: Tier::Tracepoint,
        }
    }

    fn failure(pid: u32) -> Failure {
        Failure {
            key: key(pid),
            ..samples::minimal().0
        }
    }

    fn count(pid: u32, count: u64) -> Count {
        let Failure {
            key,
            process,
            listener,
            ..
        } = failure(pid);
        Count {
            key,
            count,
            first_ns: 10,
            last_ns: 20,
            process,
            listener,
            waited_max_ns: None,
            approximate: false,
        }
    }

    #[test]
    fn lines_and_the_rest_add_up_however_they_interleave() {
        let mut totals = Totals::default();
        let (mut lines, mut rest) = (0, 0);
        // An exemplar of the next reading may come before this one's count.
        for (exemplars, counted) in [(10, 7), (0, 3), (4, 100), (10, 10), (2, 0), (0, 2)] {
            for _ in 0..exemplars {
                totals.exemplar(&failure(1), true);
                lines += 1;
            }
            if counted > 0 {
                rest += totals.count(&count(1, counted));
            }
        }
        assert_eq!(lines + rest, 122);
        assert_eq!(totals.sorted()[0].1.count, 122);
        assert!(totals.shown.is_empty());
    }

    #[test]
    fn an_exemplar_that_was_not_shown_is_among_the_rest() {
        let mut totals = Totals::default();
        totals.exemplar(&failure(1), false);
        assert_eq!(totals.count(&count(1, 1)), 1);
    }

    #[test]
    fn too_many_keys_keep_their_sum() {
        for (mut totals, most, places) in [
            (Totals::default(), MAX_KEYS, 1 << 14),
            (Totals::for_long(), MAX_KEYS_FOR_LONG, 1 << 12),
        ] {
            let keys = u32::try_from(most).unwrap() + 5;
            for pid in 0..keys {
                totals.count(&count(pid, 2));
            }
            let told_apart: u64 = totals.sorted().iter().map(|(_, total)| total.count).sum();
            assert_eq!(told_apart + totals.other(), u64::from(keys) * 2);
            assert_eq!(totals.other(), 10);
            // One more, and the map would take twice as much.
            assert_eq!(
                (totals.keys.len(), totals.keys.capacity()),
                (most, places / 8 * 7)
            );
        }
    }
}
