//! Calendars that are known, and chance.

use jiff::{
    SignedDuration, Timestamp, ToSpan as _,
    civil::{DateTime, date},
    tz::TimeZone,
};
use proptest::prelude::*;

use super::{Pattern, Ran, Recurrence, Rhythm, Span, precursors, recurrence};

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn at(local: DateTime, zone: &TimeZone) -> Timestamp {
    zone.to_timestamp(local).unwrap()
}

fn all(onsets: &[DateTime], now: DateTime, zone: &TimeZone) -> Recurrence {
    let onsets: Vec<Timestamp> = onsets.iter().map(|local| at(*local, zone)).collect();
    recurrence(&onsets, &[], at(now, zone), zone).unwrap()
}

fn pattern(onsets: &[DateTime], now: DateTime, zone: &TimeZone) -> Pattern {
    let known = all(onsets, now, zone);
    known.pattern.unwrap_or_else(|| panic!("{}", known.words))
}

/// Moments of a clock on the wall, so many seconds off.
fn off(local: DateTime, seconds: i64) -> DateTime {
    local
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap()
}

#[test]
fn one_is_once_and_two_are_twice() {
    let zone = TimeZone::UTC;
    let now = date(2026, 12, 1).at(0, 0, 0, 0);
    let first = date(2026, 11, 10).at(3, 12, 0, 0);
    assert_eq!(all(&[first], now, &zone).words, "once");
    let second = date(2026, 11, 17).at(3, 14, 30, 0);
    let twice = all(&[first, second], now, &zone);
    assert_eq!(twice.words, "twice, 7 d 0 h 2 min apart");
    assert_eq!(twice.pattern, None);
    assert!(recurrence(&[], &[], Timestamp::UNIX_EPOCH, &zone).is_none());
}

#[test]
fn three_tuesdays_are_weekly() {
    let zone = berlin();
    let tuesday = date(2026, 11, 10).at(3, 12, 0, 0);
    let onsets = [
        off(tuesday, -70),
        off(tuesday + 7.days(), 15),
        off(tuesday + 14.days(), 80),
    ];
    let known = all(&onsets, date(2026, 11, 25).at(9, 0, 0, 0), &zone);
    let pattern = known.pattern.clone().unwrap();
    assert_eq!(pattern.rhythm, Rhythm::Weekly);
    assert_eq!(pattern.words, "weekly, Tuesday 03:12 ± 2 min");
    assert_eq!(pattern.cron.as_deref(), Some("12 3 * * 2"));
    assert_eq!(pattern.missed, []);
    assert_eq!(pattern.others, 0);
    assert_eq!(pattern.zone, "Europe/Berlin");
    assert!(pattern.chance < 1e-4, "{}", pattern.chance);
    let next = date(2026, 12, 1).at(3, 12, 0, 0);
    assert_eq!(pattern.next, Some(at(next, &zone)));
    assert!(
        known.words.contains("next Tuesday 2026-12-01 03:12 CET"),
        "{}",
        known.words
    );
}

#[test]
fn other_incidents_do_not_hide_it() {
    let zone = TimeZone::UTC;
    let tuesday = date(2026, 11, 3).at(3, 12, 0, 0);
    let onsets = [
        tuesday,
        date(2026, 11, 5).at(14, 2, 0, 0),
        date(2026, 11, 8).at(20, 45, 0, 0),
        off(tuesday + 7.days(), 60),
        date(2026, 11, 13).at(9, 31, 0, 0),
        off(tuesday + 14.days(), -45),
    ];
    let found = pattern(&onsets, date(2026, 11, 18).at(0, 0, 0, 0), &zone);
    assert_eq!(found.rhythm, Rhythm::Weekly);
    assert_eq!((found.hits.len(), found.others), (3, 3));
}

#[test]
fn clocks_that_are_set_do_not_break_a_rhythm() {
    // Set ahead on 29 March 2026 and back on 25 October 2026, in Berlin.
    let zone = berlin();
    for first in [date(2026, 3, 10), date(2026, 10, 6)] {
        let local = first.at(3, 12, 0, 0);
        let onsets: Vec<DateTime> = (0..4).map(|week| local + (7 * week).days()).collect();
        let found = pattern(&onsets, onsets[3] + 1.day(), &zone);
        assert_eq!(found.words, "weekly, Tuesday 03:12 ± 1 min");
        assert_eq!(found.missed, []);
        assert_eq!(found.next, Some(at(local + 28.days(), &zone)));
        // An hour of that is the clock's, not the world's.
        let apart = found.hits[3].duration_since(found.hits[0]);
        assert_ne!(apart, SignedDuration::from_hours(21 * 24));
    }
}

#[test]
fn what_follows_the_clock_of_the_world_is_told_apart() {
    // Every day at 02:00 UTC: 03:00 in Berlin, and 04:00 in summer.
    let zone = berlin();
    let utc = TimeZone::UTC;
    let first = date(2026, 3, 22).at(2, 0, 0, 0);
    let onsets: Vec<Timestamp> = (0..14).map(|day| at(first + day.days(), &utc)).collect();
    let now = *onsets.last().unwrap() + SignedDuration::from_hours(1);
    let found = recurrence(&onsets, &[], now, &zone)
        .unwrap()
        .pattern
        .unwrap();
    assert_eq!(found.zone, "UTC");
    assert_eq!(found.words, "daily, 02:00 ± 1 min (UTC)");
    assert_eq!(found.hits.len(), 14);
}

#[test]
fn an_hour_that_the_clock_skips_comes_later_and_one_that_comes_twice_is_its_first() {
    let zone = berlin();
    // 02:30 does not exist on 29 March: cron and systemd run what was due, and so is expected.
    let onsets: Vec<DateTime> = (23..29)
        .map(|day| date(2026, 3, day).at(2, 30, 0, 0))
        .collect();
    let found = pattern(&onsets, date(2026, 3, 28).at(12, 0, 0, 0), &zone);
    let skipped = date(2026, 3, 29).at(3, 30, 0, 0);
    assert_eq!(found.next, Some(at(skipped, &zone)));
    // And one that came then was not missed.
    let mut onsets = onsets;
    onsets.push(skipped);
    onsets.push(date(2026, 3, 30).at(2, 30, 0, 0));
    let found = pattern(&onsets, date(2026, 3, 30).at(12, 0, 0, 0), &zone);
    assert_eq!(found.missed, []);
    // 02:30 comes twice on 25 October.
    let onsets: Vec<DateTime> = (19..25)
        .map(|day| date(2026, 10, day).at(2, 30, 0, 0))
        .collect();
    let found = pattern(&onsets, date(2026, 10, 24).at(12, 0, 0, 0), &zone);
    let twice = zone.to_ambiguous_timestamp(date(2026, 10, 25).at(2, 30, 0, 0));
    assert_eq!(found.next, Some(twice.earlier().unwrap()));
}

#[test]
fn months_have_ends_and_middles() {
    let zone = berlin();
    let months = |days: [i8; 6], hour| -> Vec<DateTime> {
        (1..7)
            .zip(days)
            .map(|(month, day)| date(2026, month, day).at(hour, 10, 0, 0))
            .collect()
    };
    let now = date(2026, 7, 1).at(0, 0, 0, 0);
    let last = pattern(&months([31, 28, 31, 30, 31, 30], 23), now, &zone);
    assert_eq!(last.words, "monthly, last day 23:10 ± 1 min");
    assert_eq!(
        last.next,
        Some(at(date(2026, 7, 31).at(23, 10, 0, 0), &zone))
    );
    let first = pattern(&months([1; 6], 0), now, &zone);
    assert_eq!(first.words, "monthly, day 1 00:10 ± 1 min");
    assert_eq!(first.cron.as_deref(), Some("10 0 1 * *"));
    // First Tuesdays.
    let tuesdays = pattern(&months([6, 3, 3, 7, 5, 2], 3), now, &zone);
    assert_eq!(tuesdays.words, "monthly, first Tuesday 03:10 ± 1 min");
    assert_eq!(
        tuesdays.next,
        Some(at(date(2026, 7, 7).at(3, 10, 0, 0), &zone))
    );
    // Last Fridays.
    let fridays = pattern(&months([30, 27, 27, 24, 29, 26], 18), now, &zone);
    assert_eq!(fridays.words, "monthly, last Friday 18:10 ± 1 min");
    assert_eq!(
        fridays.next,
        Some(at(date(2026, 7, 31).at(18, 10, 0, 0), &zone))
    );
}

#[test]
fn a_day_that_a_month_has_not_is_not_missed() {
    let zone = TimeZone::UTC;
    let onsets: Vec<DateTime> = [1, 3, 5, 7, 8, 10]
        .map(|month| date(2026, month, 31).at(4, 0, 0, 0))
        .to_vec();
    let found = pattern(&onsets, date(2026, 11, 2).at(0, 0, 0, 0), &zone);
    // It is the last day of these months, too, but then it would have been missed elsewhere.
    assert_eq!(found.words, "monthly, day 31 04:00 ± 1 min");
    assert_eq!(found.missed, []);
    assert_eq!(
        found.next,
        Some(at(date(2026, 12, 31).at(4, 0, 0, 0), &zone))
    );
}

#[test]
fn working_days() {
    let zone = berlin();
    let monday = date(2026, 11, 2).at(8, 55, 0, 0);
    let onsets: Vec<DateTime> = (0..19)
        .map(|day| monday + day.days())
        .filter(|local| local.weekday().to_monday_zero_offset() < 5)
        .collect();
    let found = pattern(&onsets, date(2026, 11, 21).at(12, 0, 0, 0), &zone);
    assert_eq!(found.words, "Monday to Friday, 08:55 ± 1 min");
    assert_eq!(found.cron.as_deref(), Some("55 8 * * 1,2,3,4,5"));
    assert_eq!(found.missed, []);
    assert_eq!(
        found.next,
        Some(at(date(2026, 11, 23).at(8, 55, 0, 0), &zone))
    );
}

#[test]
fn some_days_of_the_week() {
    let zone = TimeZone::UTC;
    let tuesday = date(2026, 11, 3).at(5, 30, 0, 0);
    let mut onsets = Vec::new();
    for week in 0..4 {
        onsets.extend([tuesday + (7 * week).days(), tuesday + (7 * week + 2).days()]);
    }
    let found = pattern(&onsets, date(2026, 11, 30).at(0, 0, 0, 0), &zone);
    assert_eq!(found.words, "Tuesday and Thursday, 05:30 ± 1 min");
    assert_eq!(found.cron.as_deref(), Some("30 5 * * 2,4"));
}

#[test]
fn hours_and_quarters() {
    let zone = berlin();
    let first = date(2026, 11, 3).at(0, 7, 0, 0);
    let hours: Vec<DateTime> = (0..9).map(|hour| first + hour.hours()).collect();
    let found = pattern(&hours, first + 10.hours(), &zone);
    assert_eq!(found.words, "hourly, at minute 7 ± 1 min");
    assert_eq!(found.cron.as_deref(), Some("7 * * * *"));
    assert_eq!(found.missed.len(), 1, "the tenth");
    let quarters: Vec<DateTime> = (0..20)
        .map(|quarter| first + (15 * quarter).minutes())
        .collect();
    let found = pattern(&quarters, quarters[19] + 1.minute(), &zone);
    assert_eq!(found.rhythm, Rhythm::Minutes(15));
    assert_eq!(found.cron.as_deref(), Some("7-59/15 * * * *"));
    let sixth: Vec<DateTime> = (0..9).map(|time| first + (6 * time).hours()).collect();
    let found = pattern(&sixth, sixth[8] + 1.minute(), &zone);
    assert_eq!(found.words, "every 6 h, first at 00:07 ± 1 min");
    assert_eq!(found.cron.as_deref(), Some("7 0-23/6 * * *"));
}

#[test]
fn around_midnight_it_is_one_rhythm() {
    let zone = TimeZone::UTC;
    let midnight = date(2026, 11, 3).at(0, 0, 0, 0);
    let onsets: Vec<DateTime> = (0..8)
        .map(|day| off(midnight + day.days(), if day % 2 == 0 { -40 } else { 50 }))
        .collect();
    let found = pattern(&onsets, midnight + 7.days() + 1.hour(), &zone);
    assert_eq!(found.words, "daily, 00:00 ± 1 min");
    assert_eq!(found.hits.len(), 8);
    assert_eq!(found.missed, []);
}

#[test]
fn what_was_missed_is_counted_and_what_nobody_watched_is_not() {
    let zone = TimeZone::UTC;
    let first = date(2026, 11, 1).at(3, 0, 0, 0);
    let onsets: Vec<Timestamp> = [0, 1, 2, 4, 5, 8, 9]
        .map(|day| at(first + day.days(), &zone))
        .to_vec();
    let now = at(first + 9.days() + 1.hour(), &zone);
    let all = recurrence(&onsets, &[], now, &zone)
        .unwrap()
        .pattern
        .unwrap();
    assert_eq!(all.missed.len(), 3);
    assert_eq!(all.missed[0], at(first + 3.days(), &zone));
    assert_eq!(all.unwatched, 0);
    // Nobody watched on the sixth and seventh day.
    let hour = SignedDuration::from_hours(1);
    let watched = [
        Span {
            from: onsets[0] - hour,
            until: at(first + 5.days(), &zone) + hour,
        },
        Span {
            from: at(first + 8.days(), &zone) - hour,
            until: now,
        },
    ];
    let some = recurrence(&onsets, &watched, now, &zone)
        .unwrap()
        .pattern
        .unwrap();
    assert_eq!((some.missed.len(), some.unwatched), (1, 2));
}

#[test]
fn a_rhythm_that_has_ended_is_none() {
    let zone = TimeZone::UTC;
    let first = date(2026, 9, 1).at(3, 0, 0, 0);
    let onsets: Vec<DateTime> = (0..5).map(|day| first + day.days()).collect();
    let soon = all(&onsets, first + 6.days(), &zone);
    assert!(soon.pattern.is_some());
    let late = all(&onsets, first + 60.days(), &zone);
    assert_eq!(late.pattern, None, "{}", late.words);
}

#[test]
fn trouble_that_comes_back_at_once_is_one_occurrence() {
    let zone = TimeZone::UTC;
    let mut onsets = Vec::new();
    for week in 0..3 {
        let tuesday = date(2026, 11, 3).at(3, 12, 0, 0) + (7 * week).days();
        onsets.extend([0, 4, 9, 21].map(|minute| tuesday + minute.minutes()));
    }
    let found = pattern(&onsets, date(2026, 11, 18).at(0, 0, 0, 0), &zone);
    assert_eq!(found.words, "weekly, Tuesday 03:12 ± 1 min");
    assert_eq!((found.hits.len(), found.others), (3, 0));
}

/// Seconds until the next event of so many a day, on average.
fn next(random: &mut fastrand::Rng, a_day: f64) -> f64 {
    -(1.0 - random.f64()).ln() * 86_400.0 / a_day
}

fn claims(series: impl Fn(&mut fastrand::Rng, Timestamp) -> Vec<Timestamp>) -> usize {
    let zones = [TimeZone::UTC, berlin()];
    let begin = at(date(2026, 8, 20).at(0, 0, 0, 0), &TimeZone::UTC);
    (0..1_000)
        .filter(|seed| {
            let mut random = fastrand::Rng::with_seed(*seed);
            let onsets = series(&mut random, begin);
            let now = begin + SignedDuration::from_hours(24 * 84);
            let zone = &zones[usize::try_from(seed % 2).unwrap()];
            recurrence(&onsets, &[], now, zone).is_some_and(|known| known.pattern.is_some())
        })
        .count()
}

fn after(begin: Timestamp, seconds: f64) -> Timestamp {
    begin + SignedDuration::from_secs_f64(seconds)
}

#[test]
fn chance_is_hardly_ever_taken_for_a_pattern() {
    for a_day in [0.05, 0.2, 1.0] {
        let found = claims(|random, begin| {
            let mut onsets = Vec::new();
            let mut seconds = next(random, a_day);
            while seconds < 84.0 * 86_400.0 {
                onsets.push(after(begin, seconds));
                seconds += next(random, a_day);
            }
            onsets
        });
        assert!(found <= 10, "{found} of 1000 at {a_day} a day");
    }
}

#[test]
fn neither_are_bursts_nor_working_hours() {
    let bursts = claims(|random, begin| {
        let mut onsets = Vec::new();
        let mut seconds = next(random, 0.2);
        while seconds < 84.0 * 86_400.0 {
            for _ in 0..random.usize(1..6) {
                onsets.push(after(begin, seconds + next(random, 24.0)));
            }
            seconds += next(random, 0.2);
        }
        onsets
    });
    assert!(bursts <= 10, "{bursts} of 1000");
    let working_hours = claims(|random, begin| {
        (0..84)
            .filter(|_| random.f64() < 0.2)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|day| {
                after(
                    begin,
                    (f64::from(day) * 24.0 + 8.0 + 9.0 * random.f64()) * 3_600.0,
                )
            })
            .collect()
    });
    assert!(working_hours <= 10, "{working_hours} of 1000");
}

/// Runs of a program every night at 02:45, so many seconds long.
fn nightly(program: &str, nights: i64, first: DateTime, zone: &TimeZone) -> Vec<Ran> {
    (0..nights)
        .map(|night| {
            let started = at(first + night.days(), zone);
            Ran {
                program: program.to_owned(),
                started,
                ended: Some(started + SignedDuration::from_mins(40)),
            }
        })
        .collect()
}

#[test]
fn what_always_ran_before_is_told_from_what_runs_anyway() {
    let zone = berlin();
    let tuesdays: Vec<DateTime> = (0..3)
        .map(|week| date(2026, 11, 10).at(3, 12, 0, 0) + (7 * week).days())
        .collect();
    let onsets: Vec<Timestamp> = tuesdays.iter().map(|local| at(*local, &zone)).collect();
    let mut runs = nightly("logrotate", 28, date(2026, 11, 1).at(3, 0, 0, 0), &zone);
    for (tuesday, lag) in tuesdays.iter().zip([25, 27, 29]) {
        let started = at(*tuesday - lag.minutes(), &zone);
        runs.push(Ran {
            program: "pg_dump in backup.service".to_owned(),
            started,
            ended: Some(started + SignedDuration::from_mins(50)),
        });
    }
    // Something that always runs says nothing.
    for minute in 0..28 * 24 * 12 {
        let started = at(date(2026, 11, 1).at(0, 0, 0, 0), &zone);
        let started = started + SignedDuration::from_mins(5 * minute);
        runs.push(Ran {
            program: "health".to_owned(),
            started,
            ended: Some(started + SignedDuration::from_secs(3)),
        });
    }
    runs.sort_by_key(|run| run.started);
    let found = precursors(&onsets, &onsets, &runs, &[]);
    assert_eq!(
        found[0].words,
        "pg_dump in backup.service began 25 to 29 min before in 3 of 3, and never without an incident"
    );
    assert_eq!(found[0].lag_median, SignedDuration::from_mins(27));
    assert_eq!((found[0].runs, found[0].without), (3, 0));
    assert_eq!(found[1].program, "logrotate");
    assert_eq!((found[1].before, found[1].without), (3, 25));
    assert!(found.iter().all(|one| one.program != "health"), "{found:?}");
}

#[test]
fn what_ran_at_random_is_no_precursor() {
    let zone = TimeZone::UTC;
    let mut claimed = 0;
    for seed in 0..1_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let begin = at(date(2026, 11, 1).at(0, 0, 0, 0), &zone);
        let mut moments = |a_day: f64| {
            let mut moments = Vec::new();
            let mut seconds = next(&mut random, a_day);
            while seconds < 28.0 * 86_400.0 {
                moments.push(after(begin, seconds));
                seconds += next(&mut random, a_day);
            }
            moments
        };
        let onsets = moments(0.2);
        let mut runs = Vec::new();
        for (program, a_day) in [("a", 1.0), ("b", 4.0), ("c", 24.0)] {
            runs.extend(moments(a_day).into_iter().map(|started| Ran {
                program: program.to_owned(),
                started,
                ended: Some(started + SignedDuration::from_mins(10)),
            }));
        }
        claimed += usize::from(!precursors(&onsets, &onsets, &runs, &[]).is_empty());
    }
    assert!(claimed <= 10, "{claimed} of 1000");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whenever it is and wherever, a weekly rhythm is found, and its next time is a week after the
    /// last by the clock on the wall.
    #[test]
    fn any_week_is_found(
        day in 0_i64..3_000,
        minute in 0_i64..1_440,
        weeks in 4_i64..9,
        zone in 0_usize..4,
        jitter in proptest::collection::vec(-60_i64..60, 9),
    ) {
        let zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];
        let zone = TimeZone::get(zones[zone]).unwrap();
        let first = date(2020, 1, 1).at(0, 0, 0, 0) + day.days() + minute.minutes();
        let onsets: Vec<DateTime> = (0..weeks)
            .map(|week| off(first + (7 * week).days(), jitter[usize::try_from(week).unwrap()]))
            .collect();
        let now = onsets[onsets.len() - 1] + 1.day();
        let found = all(&onsets, now, &zone);
        let found = found.pattern.unwrap();
        prop_assert!(matches!(found.rhythm, Rhythm::Weekly | Rhythm::Fortnightly), "{}", found.words);
        let next = zone.to_datetime(found.next.unwrap());
        let ideal = first + (7 * weeks).days();
        let apart = next.duration_since(ideal).abs();
        // An hour where the clock skips one.
        prop_assert!(apart <= SignedDuration::from_mins(62), "{next} {ideal}");
        prop_assert!(found.chance <= super::UNLIKELY);
    }

    /// Whatever comes, nothing breaks, and what is claimed adds up.
    #[test]
    fn any_series_is_looked_at(
        seconds in proptest::collection::vec(0_i64..200_000_000, 0..60),
        zone in 0_usize..3,
    ) {
        let zones = ["UTC", "Europe/Berlin", "America/St_Johns"];
        let zone = TimeZone::get(zones[zone]).unwrap();
        let begin = at(date(2020, 1, 1).at(0, 0, 0, 0), &zone);
        let onsets: Vec<Timestamp> = seconds
            .iter()
            .map(|seconds| begin + SignedDuration::from_secs(*seconds))
            .collect();
        let now = begin + SignedDuration::from_secs(200_000_001);
        if let Some(pattern) = recurrence(&onsets, &[], now, &zone).and_then(|known| known.pattern) {
            prop_assert!(pattern.hits.len() >= super::FEWEST);
            prop_assert!(pattern.hits.iter().all(|hit| onsets.contains(hit)));
            prop_assert!(pattern.next.is_none_or(|next| next > now));
            prop_assert!(pattern.missed.len() <= pattern.hits.len());
        }
    }
}
