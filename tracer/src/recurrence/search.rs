//! Which rhythm fits best.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp, civil::Weekday, tz::TimeZone};

use super::{
    FEWEST, Pattern, Rhythm, Span, UNLIKELY, chance,
    rhythm::{DAY, MINUTE, Place},
    words,
};

/// Moments are known no better than this: agreement to the second is no better evidence.
const FINEST: i64 = MINUTE;
/// What is further apart is no pattern that anybody could use.
const COARSEST: i64 = 3 * 60 * MINUTE;
/// What comes again so soon is the same trouble, not another occurrence.
const AGAIN: i64 = 30 * MINUTE;
/// Of the occurrences since the first, so large a part must have had an incident.
const PRESENT: f64 = 0.5;
/// Most occurrences that are looked at for being missed.
const OCCURRENCES: i64 = 20_000;

/// What is tried, and how much of the error that is allowed goes to it. What people and their
/// computers do more often gets more; together no more than all of it.
const TRIED: &[(Rhythm, Clock, f64)] = &[
    (Rhythm::Minutes(5), Clock::Local, 0.01),
    (Rhythm::Minutes(10), Clock::Local, 0.01),
    (Rhythm::Minutes(15), Clock::Local, 0.01),
    (Rhythm::Minutes(20), Clock::Local, 0.01),
    (Rhythm::Minutes(30), Clock::Local, 0.02),
    (Rhythm::Minutes(60), Clock::Local, 0.07),
    (Rhythm::Minutes(120), Clock::Local, 0.01),
    (Rhythm::Minutes(180), Clock::Local, 0.01),
    (Rhythm::Minutes(240), Clock::Local, 0.01),
    (Rhythm::Minutes(360), Clock::Local, 0.02),
    (Rhythm::Minutes(480), Clock::Local, 0.01),
    (Rhythm::Minutes(720), Clock::Local, 0.01),
    (Rhythm::Daily, Clock::Local, 0.20),
    (Rhythm::Daily, Clock::Utc, 0.04),
    (Rhythm::Weekly, Clock::Local, 0.25),
    (Rhythm::Weekly, Clock::Utc, 0.05),
    (Rhythm::Fortnightly, Clock::Local, 0.04),
    (Rhythm::MonthDay, Clock::Local, 0.07),
    (Rhythm::MonthEnd, Clock::Local, 0.04),
    (Rhythm::MonthWeekday, Clock::Local, 0.07),
    (Rhythm::MonthLastWeekday, Clock::Local, 0.04),
];

/// Whose clock a rhythm follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Local,
    Utc,
}

/// The pattern that chance is least likely to make, if that is unlikely enough. `onsets` are in order.
pub(super) fn best(
    onsets: &[Timestamp],
    watched: &[Span],
    now: Timestamp,
    zone: &TimeZone,
) -> Option<Pattern> {
    let patterns = TRIED.iter().filter_map(|(rhythm, clock, weight)| {
        let utc = TimeZone::UTC;
        let zone = match clock {
            Clock::Local => zone,
            // Where both are the same, it is the local one that is known.
            Clock::Utc if *zone == utc => return None,
            Clock::Utc => &utc,
        };
        let mut pattern = fit(rhythm, *weight, onsets, watched, now, zone)?;
        if *clock == Clock::Utc {
            pattern.words.push_str(" (UTC)");
        }
        Some(pattern)
    });
    patterns.min_by(|one, other| one.chance.total_cmp(&other.chance))
}

fn fit(
    rhythm: &Rhythm,
    weight: f64,
    onsets: &[Timestamp],
    watched: &[Span],
    now: Timestamp,
    zone: &TimeZone,
) -> Option<Pattern> {
    let period = rhythm.period();
    let onsets = without_repeats(onsets, AGAIN.min(period / 4));
    let n = onsets.len();
    if n < FEWEST {
        return None;
    }
    let places: Vec<Place> = onsets
        .iter()
        .map(|onset| rhythm.place(zone.to_datetime(*onset)))
        .collect();
    let widest = COARSEST.min(period / 6);
    let around = Around::new(&places, rhythm);
    let narrowest = around.narrowest(widest);
    let candidates = narrowest
        .iter()
        .enumerate()
        .skip(FEWEST)
        .filter_map(|(k, arc)| {
            let arc = (*arc)?;
            let share = seconds(arc.width.max(FINEST)) / seconds(period);
            // That all fit is what is looked for first.
            let part = match n - k {
                _ if n == FEWEST => 1.0,
                0 => 0.5,
                _ => 0.5 / chance::count(n - FEWEST),
            };
            let chance = chance::within_arc(n, k, share) / (weight * part);
            Some((chance, arc))
        });
    let (chance, arc) = candidates
        .filter(|(chance, _)| *chance <= UNLIKELY)
        .min_by(|(one, _), (other, _)| one.total_cmp(other))?;
    let begin = around.order[arc.first].offset;
    let center = round(begin + arc.width / 2);
    let furthest = (begin + arc.width - center).max(center - begin);
    let tolerance = SignedDuration::from_secs(up(furthest).max(MINUTE));
    let mut found = Found {
        center,
        tolerance,
        hits: around.hits(arc).map(|at| onsets[at]).collect(),
    };
    found.take_moved(rhythm, &onsets, zone);
    let others = n - found.hits.len();
    let (rhythm, calls) = found.expected(rhythm, watched, now, zone)?;
    let next = found.next(&rhythm, now, zone);
    Some(Pattern {
        words: words::pattern(&rhythm, center, tolerance),
        cron: words::cron(&rhythm, center),
        zone: words::zone(zone),
        tolerance,
        hits: found.hits,
        others,
        missed: calls.missed,
        unwatched: calls.unwatched,
        next,
        chance,
        rhythm,
    })
}

/// Incidents without those that followed another soon.
fn without_repeats(onsets: &[Timestamp], soon: i64) -> Vec<Timestamp> {
    let mut kept = Vec::new();
    let mut before: Option<Timestamp> = None;
    for onset in onsets {
        if before.is_none_or(|before| onset.duration_since(before).as_secs() >= soon) {
            kept.push(*onset);
        }
        before = Some(*onset);
    }
    kept
}

/// A part of a period: the moments from one to another, in their order around it.
#[derive(Clone, Copy, Debug)]
struct Arc {
    width: i64,
    first: usize,
    last: usize,
}

/// A moment in a period.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Seconds into it; beyond its end for one that is there a second time.
    offset: i64,
    /// Its occurrence, counted from 0.
    occurrence: usize,
    /// Which incident it is.
    at: usize,
}

/// Incidents in the order in which they lie in a period.
struct Around {
    order: Vec<Moment>,
    /// Incidents.
    incidents: usize,
    /// Different occurrences.
    occurrences: usize,
}

impl Around {
    fn new(places: &[Place], rhythm: &Rhythm) -> Self {
        let mut indexes = HashMap::new();
        let mut moments: Vec<(i64, i64, usize)> = places
            .iter()
            .enumerate()
            .map(|(at, place)| (place.offset, place.index, at))
            .collect();
        moments.sort_unstable();
        if rhythm.is_round() {
            // Once around, and on: what begins before midnight may end after it, one occurrence on.
            let period = rhythm.period();
            let again: Vec<_> = moments
                .iter()
                .map(|(offset, index, at)| (offset + period, index - 1, *at))
                .collect();
            moments.extend(again);
        }
        let order = moments
            .into_iter()
            .map(|(offset, index, at)| {
                let next = indexes.len();
                Moment {
                    offset,
                    occurrence: *indexes.entry(index).or_insert(next),
                    at,
                }
            })
            .collect();
        Self {
            order,
            incidents: places.len(),
            occurrences: indexes.len(),
        }
    }

    /// For each number of different occurrences, the narrowest arc that meets so many.
    fn narrowest(&self, widest: i64) -> Vec<Option<Arc>> {
        let mut narrowest: Vec<Option<Arc>> = vec![None; self.incidents + 1];
        // By which begin an occurrence was met last.
        let mut met = vec![usize::MAX; self.occurrences];
        for first in 0..self.incidents {
            let mut count = 0;
            for (last, moment) in self.order.iter().enumerate().skip(first) {
                let width = moment.offset - self.order[first].offset;
                if width > widest {
                    break;
                }
                if std::mem::replace(&mut met[moment.occurrence], first) == first {
                    continue;
                }
                count += 1;
                let slot = &mut narrowest[count.min(self.incidents)];
                if slot.is_none_or(|arc| width < arc.width) {
                    *slot = Some(Arc { width, first, last });
                }
            }
        }
        narrowest
    }

    /// The first incident of each occurrence in an arc, in the order of time.
    fn hits(&self, arc: Arc) -> impl Iterator<Item = usize> {
        let mut met = vec![false; self.occurrences];
        let mut hits: Vec<usize> = self.order[arc.first..=arc.last]
            .iter()
            .filter(|moment| !std::mem::replace(&mut met[moment.occurrence], true))
            .map(|moment| moment.at)
            .collect();
        hits.sort_unstable();
        hits.into_iter()
    }
}

/// A rhythm's phase, and what fits it.
struct Found {
    /// Seconds into the period.
    center: i64,
    tolerance: SignedDuration,
    hits: Vec<Timestamp>,
}

/// Occurrences without an incident.
#[derive(Default)]
struct Calls {
    missed: Vec<Timestamp>,
    unwatched: usize,
}

impl Found {
    /// Takes in incidents of occurrences that were moved because the clock skips an hour.
    fn take_moved(&mut self, rhythm: &Rhythm, onsets: &[Timestamp], zone: &TimeZone) {
        let moved = onsets.iter().filter(|onset| {
            let index = self.index(rhythm, **onset, zone);
            let time = self.time(rhythm, index, zone);
            time.is_some_and(|time| onset.duration_since(time).abs() <= self.tolerance)
        });
        let moved: Vec<Timestamp> = moved.copied().collect();
        self.hits.extend(moved);
        self.hits.sort_unstable();
        self.hits.dedup();
    }

    /// The rhythm, perhaps on some days of the week only, and what it missed; `None` where it misses
    /// more than it meets.
    fn expected(
        &self,
        rhythm: &Rhythm,
        watched: &[Span],
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<(Rhythm, Calls)> {
        let calls = self.calls(rhythm, watched, now, zone)?;
        if *rhythm == Rhythm::Daily
            && let Some(days) = self.days(&calls, zone)
        {
            let rhythm = Rhythm::Days(days);
            let calls = self.calls(&rhythm, watched, now, zone)?;
            return self.is_met(&calls).then_some((rhythm, calls));
        }
        self.is_met(&calls).then(|| (rhythm.clone(), calls))
    }

    fn is_met(&self, calls: &Calls) -> bool {
        let met = chance::count(self.hits.len());
        met / (met + chance::count(calls.missed.len())) >= PRESENT
    }

    /// The days of the week on which it comes, where on the others it never does.
    fn days(&self, calls: &Calls, zone: &TimeZone) -> Option<Vec<Weekday>> {
        let weekday = |time: &Timestamp| zone.to_datetime(*time).weekday();
        let hit = |day: Weekday| self.hits.iter().filter(|time| weekday(time) == day).count();
        let missed = |day: Weekday| {
            calls
                .missed
                .iter()
                .filter(|time| weekday(time) == day)
                .count()
        };
        let all: Vec<Weekday> = (0..7)
            .filter_map(|day| Weekday::from_monday_zero_offset(day).ok())
            .collect();
        let (on, off): (Vec<Weekday>, Vec<Weekday>) =
            all.into_iter().partition(|day| hit(*day) > 0);
        // Days of which too little is known are no days on which it never comes.
        let is_sure =
            on.iter().all(|day| hit(*day) >= 2) && off.iter().all(|day| missed(*day) >= 2);
        (is_sure && !off.is_empty()).then_some(on)
    }

    /// Occurrences since the first hit that had no incident, and are over.
    fn calls(
        &self,
        rhythm: &Rhythm,
        watched: &[Span],
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<Calls> {
        let mut calls = Calls::default();
        let first = self.index(rhythm, *self.hits.first()?, zone);
        let last = self.index(rhythm, now, zone) + 1;
        for index in first..=last.min(first.saturating_add(OCCURRENCES)) {
            let Some(time) = self.time(rhythm, index, zone) else {
                continue;
            };
            let (from, until) = (time - self.tolerance, time + self.tolerance);
            let is_hit = |hit: &Timestamp| {
                // Rounding, and an hour that the clock skips, move an occurrence.
                self.index(rhythm, *hit, zone) == index || (from..=until).contains(hit)
            };
            if until >= now || self.hits.iter().any(is_hit) {
                continue;
            }
            let covers = |span: &Span| span.from <= from && until <= span.until;
            if watched.is_empty() || watched.iter().any(covers) {
                calls.missed.push(time);
            } else {
                calls.unwatched += 1;
            }
        }
        Some(calls)
    }

    fn next(&self, rhythm: &Rhythm, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let from = self.index(rhythm, now, zone);
        // Some months have no 31st, and no rhythm skips more than a few occurrences.
        (from - 1..from + 14)
            .filter_map(|index| self.time(rhythm, index, zone))
            .find(|time| *time > now)
    }

    fn time(&self, rhythm: &Rhythm, index: i64, zone: &TimeZone) -> Option<Timestamp> {
        let place = Place {
            index,
            offset: self.center,
        };
        rhythm.time(place, zone)
    }

    /// The occurrence that is nearest to a moment.
    fn index(&self, rhythm: &Rhythm, time: Timestamp, zone: &TimeZone) -> i64 {
        let place = rhythm.place(zone.to_datetime(time));
        if !rhythm.is_round() {
            return place.index;
        }
        let period = rhythm.period();
        let from_center = place.index * period + place.offset - self.center;
        (from_center + period / 2).div_euclid(period)
    }
}

/// To the next full minute.
fn up(seconds: i64) -> i64 {
    (seconds + MINUTE - 1).div_euclid(MINUTE) * MINUTE
}

/// To the nearest full minute.
fn round(seconds: i64) -> i64 {
    (seconds + MINUTE / 2).div_euclid(MINUTE) * MINUTE
}

#[expect(clippy::cast_precision_loss, reason = "a period has few seconds")]
fn seconds(seconds: i64) -> f64 {
    debug_assert!(seconds < 1000 * DAY);
    seconds as f64
}

#[cfg(test)]
mod tests {
    use super::TRIED;

    #[test]
    fn no_more_error_is_given_out_than_there_is() {
        let sum: f64 = TRIED.iter().map(|(_, _, weight)| weight).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
}
