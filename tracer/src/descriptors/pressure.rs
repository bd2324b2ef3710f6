//! Processes that are near their limit of descriptors.

use std::collections::{HashMap, VecDeque};

use super::{Change, Gauge};
use crate::event::ProcessId;

/// Most processes that are looked at each second.
const PROCESSES: usize = 4096;

/// What a look at a process found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Open descriptors, and the soft limit now; `None` is unlimited.
    Found {
        /// Open descriptors.
        used: u64,
        /// Soft limit.
        limit: Option<u64>,
    },
    /// It is there, and does not tell.
    Unknown,
    /// It has ended.
    Gone,
}

/// What is to be told of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The level that was crossed or, of an end, the highest.
    pub level: u8,
    /// There is room again, or the process has ended.
    pub ended: bool,
}

/// Follows processes from look to look.
#[derive(Debug, Default)]
pub struct Pressure {
    gauges: HashMap<ProcessId, Gauge>,
    /// Those to look at, the one that was looked at longest ago first.
    order: VecDeque<ProcessId>,
}

impl Pressure {
    /// A process may be near its limit.
    pub fn note(&mut self, id: ProcessId) {
        if self.gauges.len() < PROCESSES && !self.gauges.contains_key(&id) {
            self.gauges.insert(id, Gauge::default());
            self.order.push_front(id);
        }
    }

    /// How many there are to look at.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The one to look at next; it must be handed to [`Self::look`].
    pub fn take_next(&mut self) -> Option<ProcessId> {
        self.order.pop_front()
    }

    /// Takes in what a look found. One that is not near its limit any more is forgotten until it is
    /// noted again.
    pub fn look(&mut self, id: ProcessId, look: Look) -> Vec<Told> {
        let Some(gauge) = self.gauges.get_mut(&id) else {
            return Vec::new();
        };
        let change = match look {
            Look::Found {
                used,
                limit: Some(limit),
            } => gauge.look(used, limit),
            Look::Found { limit: None, .. } | Look::Gone => match gauge.told() {
                Some(level) => {
                    *gauge = Gauge::default();
                    Change::Ended(level)
                }
                None => Change::None,
            },
            Look::Unknown => Change::None,
        };
        if gauge.told().is_some() {
            self.order.push_back(id);
        } else {
            self.gauges.remove(&id);
        }
        let told = |level, ended| Told { level, ended };
        match change {
            Change::None => Vec::new(),
            Change::Crossed(levels) => levels.into_iter().map(|level| told(level, false)).collect(),
            Change::Ended(level) => vec![told(level, true)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ProcessId = ProcessId {
        pid: 7,
        start_boottime_ns: 1,
    };

    fn found(used: u64) -> Look {
        Look::Found {
            used,
            limit: Some(100),
        }
    }

    fn at(pressure: &mut Pressure, look: Look) -> Vec<(u8, bool)> {
        let id = pressure.take_next().expect("one to look at");
        let told = pressure.look(id, look);
        told.into_iter()
            .map(|told| (told.level, told.ended))
            .collect()
    }

    #[test]
    fn a_process_is_followed_until_it_has_room() {
        let mut pressure = Pressure::default();
        pressure.note(ID);
        pressure.note(ID);
        assert_eq!(pressure.len(), 1);
        assert_eq!(at(&mut pressure, found(85)), [(80, false)]);
        pressure.note(ID);
        assert_eq!(pressure.len(), 1);
        assert_eq!(at(&mut pressure, Look::Unknown), []);
        assert_eq!(at(&mut pressure, found(96)), [(90, false), (95, false)]);
        assert_eq!(at(&mut pressure, found(10)), [(95, true)]);
        assert!(pressure.is_empty());
        pressure.note(ID);
        assert_eq!(at(&mut pressure, found(81)), [(80, false)]);
    }

    #[test]
    fn one_that_is_not_near_its_limit_is_forgotten() {
        for look in [found(50), Look::Gone, Look::Unknown] {
            let mut pressure = Pressure::default();
            pressure.note(ID);
            assert_eq!(at(&mut pressure, look), []);
            assert!(pressure.is_empty());
        }
    }

    #[test]
    fn an_end_and_no_limit_end_it() {
        for look in [
            Look::Gone,
            Look::Found {
                used: 99,
                limit: None,
            },
        ] {
            let mut pressure = Pressure::default();
            pressure.note(ID);
            at(&mut pressure, found(99));
            assert_eq!(at(&mut pressure, look), [(95, true)]);
            assert!(pressure.is_empty());
        }
    }

    #[test]
    fn whoever_was_looked_at_longest_ago_comes_first() {
        let other = ProcessId { pid: 8, ..ID };
        let mut pressure = Pressure::default();
        pressure.note(ID);
        assert_eq!(at(&mut pressure, found(85)), [(80, false)]);
        pressure.note(other);
        assert_eq!(pressure.take_next(), Some(other));
        pressure.look(other, found(85));
        assert_eq!(pressure.take_next(), Some(ID));
    }

    #[test]
    fn no_more_are_followed_than_there_is_time_for() {
        let mut pressure = Pressure::default();
        for pid in 0..u32::try_from(PROCESSES).unwrap() + 9 {
            pressure.note(ProcessId { pid, ..ID });
        }
        assert_eq!(pressure.len(), PROCESSES);
    }
}
