//! One table that fills up.

/// Levels that are told, percent of the limit.
pub const LEVELS: [u8; 3] = [80, 90, 95];
/// Below this a table has room again, and its levels are told anew.
const ROOM: u64 = 75;

/// Which levels of a table were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge {
    /// The highest, since there was room.
    told: Option<u8>,
}

/// What a look at a table found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing new.
    None,
    /// These levels were crossed upwards, lowest first.
    Crossed(Vec<u8>),
    /// There is room again; this level was the highest.
    Ended(u8),
}

impl Gauge {
    /// Takes in how full the table is.
    pub fn look(&mut self, used: u64, limit: u64) -> Change {
        let reaches =
            |percent: u64| u128::from(used) * 100 >= u128::from(limit) * u128::from(percent);
        let crossed: Vec<u8> = LEVELS
            .into_iter()
            .filter(|level| self.told.is_none_or(|told| *level > told))
            .filter(|level| reaches(u64::from(*level)))
            .collect();
        if let Some(highest) = crossed.last() {
            self.told = Some(*highest);
            return Change::Crossed(crossed);
        }
        match self.told {
            Some(told) if !reaches(ROOM) => {
                self.told = None;
                Change::Ended(told)
            }
            _ => Change::None,
        }
    }

    /// The highest level that was told since there was room.
    #[must_use]
    pub fn told(self) -> Option<u8> {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_is_told_once_on_the_way_up() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.look(79, 100), Change::None);
        assert_eq!(gauge.look(80, 100), Change::Crossed(vec![80]));
        assert_eq!(gauge.look(89, 100), Change::None);
        assert_eq!(gauge.look(97, 100), Change::Crossed(vec![90, 95]));
        assert_eq!(gauge.look(100, 100), Change::None);
        assert_eq!(gauge.told(), Some(95));
    }

    #[test]
    fn a_level_is_told_again_only_after_there_was_room() {
        let mut gauge = Gauge::default();
        gauge.look(96, 100);
        assert_eq!(gauge.look(75, 100), Change::None);
        assert_eq!(gauge.look(96, 100), Change::None);
        assert_eq!(gauge.look(74, 100), Change::Ended(95));
        assert_eq!(gauge.look(60, 100), Change::None);
        assert_eq!(gauge.look(85, 100), Change::Crossed(vec![80]));
    }

    #[test]
    fn a_limit_that_is_raised_makes_room_and_one_that_is_lowered_takes_it() {
        let mut gauge = Gauge::default();
        gauge.look(90, 100);
        assert_eq!(gauge.look(90, 1_000), Change::Ended(90));
        assert_eq!(gauge.look(90, 50), Change::Crossed(vec![80, 90, 95]));
        assert_eq!(gauge.look(0, 0), Change::None);
        assert_eq!(
            Gauge::default().look(u64::MAX, u64::MAX),
            Change::Crossed(LEVELS.to_vec())
        );
    }
}
