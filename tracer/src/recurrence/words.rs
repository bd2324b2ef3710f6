//! Patterns in words.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp, civil::Weekday, tz::TimeZone};

use super::{
    Recurrence, Rhythm,
    rhythm::{DAY, MINUTE, WEEK},
};

const HOUR: i64 = 60 * MINUTE;

/// The name of a day.
pub(super) fn day(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

/// The name of a time zone.
pub(super) fn zone(zone: &TimeZone) -> String {
    match zone.iana_name() {
        Some(name) => name.to_owned(),
        None if *zone == TimeZone::UTC => "UTC".to_owned(),
        None => "local time".to_owned(),
    }
}

/// A time with its largest units, such as `7 d 0 h 2 min`; seconds only below an hour.
#[must_use]
pub fn lasting(time: SignedDuration) -> String {
    let seconds = time.as_secs().abs();
    let (days, hours) = (seconds / DAY, seconds % DAY / HOUR);
    let (minutes, seconds) = (seconds % HOUR / MINUTE, seconds % MINUTE);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) if seconds == 0 => format!("{minutes} min"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h {minutes} min"),
    }
}

fn clock(seconds: i64) -> String {
    let seconds = seconds.rem_euclid(DAY);
    format!("{:02}:{:02}", seconds / HOUR, seconds % HOUR / MINUTE)
}

fn ordinal(number: i64) -> String {
    match number {
        1 => "first".to_owned(),
        2 => "second".to_owned(),
        3 => "third".to_owned(),
        4 => "fourth".to_owned(),
        5 => "fifth".to_owned(),
        _ => format!("{number}th"),
    }
}

fn days(days: &[Weekday]) -> String {
    let numbers: Vec<i8> = days.iter().map(|day| day.to_monday_zero_offset()).collect();
    let is_run = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    match days {
        [] => String::new(),
        [first, .., last] if is_run && days.len() > 2 => {
            format!("{} to {}", day(*first), day(*last))
        }
        [one] => day(*one).to_owned(),
        [init @ .., last] => {
            let init: Vec<&str> = init.iter().map(|one| day(*one)).collect();
            format!("{} and {}", init.join(", "), day(*last))
        }
    }
}

/// A rhythm with its phase.
pub(super) fn pattern(rhythm: &Rhythm, center: i64, tolerance: SignedDuration) -> String {
    let at = clock(center);
    let weekday = |seconds: i64| {
        let number = i8::try_from(seconds.div_euclid(DAY).rem_euclid(7)).unwrap_or(0);
        Weekday::from_monday_zero_offset(number).map_or("", day)
    };
    let mut words = match rhythm {
        Rhythm::Minutes(60) => format!("hourly, at minute {}", center.rem_euclid(HOUR) / MINUTE),
        Rhythm::Minutes(minutes) if *minutes < 60 => {
            format!(
                "every {minutes} min, first at minute {} of the hour",
                center.rem_euclid(minutes * MINUTE) / MINUTE
            )
        }
        Rhythm::Minutes(minutes) => {
            format!(
                "every {} h, first at {}",
                minutes / 60,
                clock(center.rem_euclid(minutes * MINUTE))
            )
        }
        Rhythm::Daily => format!("daily, {at}"),
        Rhythm::Days(on) => format!("{}, {at}", days(on)),
        Rhythm::Weekly => format!("weekly, {} {at}", weekday(center)),
        Rhythm::Fortnightly => format!("every second {}, {at}", weekday(center)),
        Rhythm::MonthDay => format!("monthly, day {} {at}", center / DAY + 1),
        Rhythm::MonthEnd => match center / DAY {
            0 => format!("monthly, last day {at}"),
            1 => format!("monthly, the day before the last {at}"),
            days => format!("monthly, {days} days before the last {at}"),
        },
        Rhythm::MonthWeekday => {
            format!(
                "monthly, {} {} {at}",
                ordinal(center / WEEK + 1),
                weekday(center)
            )
        }
        Rhythm::MonthLastWeekday => match center / WEEK {
            0 => format!("monthly, last {} {at}", weekday(center)),
            weeks => format!(
                "monthly, {} week before the last {} {at}",
                ordinal(weeks),
                weekday(center)
            ),
        },
    };
    let _ = write!(words, " ± {} min", tolerance.as_secs() / MINUTE);
    words
}

/// A rhythm as crontab(5) has it.
pub(super) fn cron(rhythm: &Rhythm, center: i64) -> Option<String> {
    let (hour, minute) = (
        center.rem_euclid(DAY) / HOUR,
        center.rem_euclid(HOUR) / MINUTE,
    );
    // Sunday is 0 there.
    let number = |weekday: i64| (weekday + 1).rem_euclid(7).to_string();
    Some(match rhythm {
        Rhythm::Minutes(60) => format!("{minute} * * * *"),
        Rhythm::Minutes(minutes) if *minutes < 60 => {
            format!(
                "{}-59/{minutes} * * * *",
                center.rem_euclid(minutes * MINUTE) / MINUTE
            )
        }
        Rhythm::Minutes(minutes) => {
            let first = center.rem_euclid(minutes * MINUTE) / HOUR;
            format!("{minute} {first}-23/{} * * *", minutes / 60)
        }
        Rhythm::Daily => format!("{minute} {hour} * * *"),
        Rhythm::Days(days) => {
            let days: Vec<String> = days
                .iter()
                .map(|day| number(i64::from(day.to_monday_zero_offset())))
                .collect();
            format!("{minute} {hour} * * {}", days.join(","))
        }
        Rhythm::Weekly => {
            format!("{minute} {hour} * * {}", number(center.div_euclid(DAY)))
        }
        Rhythm::MonthDay => format!("{minute} {hour} {} * *", center / DAY + 1),
        _ => return None,
    })
}

/// A moment as it is shown.
pub(super) fn moment(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned_datetime(zone.clone())
        .strftime("%A %Y-%m-%d %H:%M %Z")
        .to_string()
}

/// All that is known.
pub(super) fn recurrence(known: &Recurrence, zone: &TimeZone) -> String {
    if let Some(apart) = known.apart {
        return format!("twice, {} apart", lasting(apart));
    }
    let Some(pattern) = &known.pattern else {
        return match known.incidents {
            1 => "once".to_owned(),
            times => format!(
                "{times} times from {} to {}, without a pattern that chance does not make as well",
                moment(known.first, zone),
                moment(known.last, zone)
            ),
        };
    };
    let hits = pattern.hits.len();
    let mut words = format!("{}: {hits} times", pattern.words);
    match pattern.missed.len() {
        0 => words.push_str(", never missed"),
        1 => words.push_str(", missed once"),
        missed => {
            let _ = write!(words, ", missed {missed} times");
        }
    }
    if pattern.unwatched > 0 {
        let _ = write!(words, ", not watched {} times", pattern.unwatched);
    }
    match pattern.others {
        0 => {}
        1 => words.push_str("; one other does not fit"),
        others => {
            let _ = write!(words, "; {others} others do not fit");
        }
    }
    if let Some(next) = pattern.next {
        let _ = write!(words, "; next {}", moment(next, zone));
    }
    let _ = write!(
        words,
        "; chance makes such a pattern in {}",
        probability(pattern.chance)
    );
    words
}

fn probability(chance: f64) -> String {
    if chance < 1e-6 {
        "fewer than one case in a million".to_owned()
    } else {
        format!("at most one case in {:.0}", (1.0 / chance).floor())
    }
}
