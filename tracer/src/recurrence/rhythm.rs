//! Rhythms: how a moment stands in them, and when they come again.

use jiff::{
    SignedDuration, Timestamp, ToSpan as _,
    civil::{Date, DateTime, Weekday, date},
    tz::TimeZone,
};
use serde::Serialize;

/// A rhythm that incidents may follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rhythm {
    /// Every so many minutes, counted from midnight.
    Minutes(i64),
    /// Every day.
    Daily,
    /// Every day that is one of these.
    Days(#[serde(serialize_with = "day_names")] Vec<Weekday>),
    /// Every week.
    Weekly,
    /// Every second week.
    Fortnightly,
    /// Every month, on the same day.
    MonthDay,
    /// Every month, so many days before its end.
    MonthEnd,
    /// Every month, on such as the second Tuesday.
    MonthWeekday,
    /// Every month, on such as the last Friday.
    MonthLastWeekday,
}

fn day_names<S: serde::Serializer>(days: &[Weekday], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(days.iter().map(|day| super::words::day(*day)))
}

pub(super) const MINUTE: i64 = 60;
pub(super) const DAY: i64 = 24 * 60 * MINUTE;
pub(super) const WEEK: i64 = 7 * DAY;

/// Where a moment stands: in which occurrence, and how many seconds into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: i64,
    pub(super) offset: i64,
}

/// A Monday.
const EPOCH: Date = date(1970, 1, 5);

impl Rhythm {
    /// Seconds of a period. Of months, as many as all have, which makes chance look no smaller than
    /// it is.
    pub(super) fn period(&self) -> i64 {
        match self {
            Self::Minutes(minutes) => minutes * MINUTE,
            Self::Daily | Self::Days(_) => DAY,
            Self::Weekly => WEEK,
            Self::Fortnightly => 2 * WEEK,
            _ => 4 * WEEK,
        }
    }

    /// Whether its end is next to its begin.
    pub(super) fn is_round(&self) -> bool {
        self.period() < 4 * WEEK
    }

    /// Where a moment of a clock on a wall stands.
    pub(super) fn place(&self, at: DateTime) -> Place {
        if self.is_round() {
            let seconds = seconds(at);
            let period = self.period();
            return Place {
                index: seconds.div_euclid(period),
                offset: seconds.rem_euclid(period),
            };
        }
        let index = i64::from(at.year()) * 12 + i64::from(at.month()) - 1;
        let day = i64::from(at.day()) - 1;
        let left = i64::from(at.days_in_month()) - 1 - day;
        let second = seconds(at).rem_euclid(DAY);
        let weekday = i64::from(at.weekday().to_monday_zero_offset());
        let offset = match self {
            Self::MonthDay => day * DAY + second,
            // Counted back in days and on in seconds: the same hour of the last day is the same.
            Self::MonthEnd => left * DAY + second,
            Self::MonthWeekday => day / 7 * WEEK + weekday * DAY + second,
            _ => left / 7 * WEEK + weekday * DAY + second,
        };
        Place { index, offset }
    }

    /// The moment of an occurrence; `None` where there is none, such as on the 31st of June.
    pub(super) fn moment(&self, place: Place) -> Option<DateTime> {
        let Place { index, offset } = place;
        if self.is_round() {
            let at = index.checked_mul(self.period())?.checked_add(offset)?;
            let at = EPOCH
                .at(0, 0, 0, 0)
                .checked_add(SignedDuration::from_secs(at))
                .ok()?;
            return match self {
                Self::Days(days) if !days.contains(&at.weekday()) => None,
                _ => Some(at),
            };
        }
        let year = i16::try_from(index.div_euclid(12)).ok()?;
        let month = i8::try_from(index.rem_euclid(12) + 1).ok()?;
        let first = Date::new(year, month, 1).ok()?;
        let (days, second) = (offset.div_euclid(DAY), offset.rem_euclid(DAY));
        let (weeks, weekday) = (days / 7, days % 7);
        let nth = |nth: i64| {
            let weekday = Weekday::from_monday_zero_offset(i8::try_from(weekday).ok()?).ok()?;
            first
                .nth_weekday_of_month(i8::try_from(nth).ok()?, weekday)
                .ok()
        };
        let length = i64::from(first.days_in_month());
        let day = match self {
            Self::MonthDay if days < length => first.checked_add(days.days()).ok()?,
            Self::MonthEnd if days < length => {
                first.checked_add((length - 1 - days).days()).ok()?
            }
            Self::MonthWeekday => nth(weeks + 1)?,
            Self::MonthLastWeekday => nth(-1 - weeks)?,
            _ => return None,
        };
        day.at(0, 0, 0, 0)
            .checked_add(SignedDuration::from_secs(second))
            .ok()
    }

    /// The moment of an occurrence in the time of the world. One that the clock skips, when it is
    /// set ahead, is as much later; of one that comes twice, it is the first.
    pub(super) fn time(&self, place: Place, zone: &TimeZone) -> Option<Timestamp> {
        zone.to_timestamp(self.moment(place)?).ok()
    }
}

/// Seconds on the clock since a Monday's midnight, as if no clock were ever set.
fn seconds(at: DateTime) -> i64 {
    at.duration_since(EPOCH.at(0, 0, 0, 0)).as_secs()
}
