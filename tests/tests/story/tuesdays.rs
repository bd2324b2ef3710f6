//! One evening's recording as three Tuesdays among four weeks in which other things happened: its times are moved, and
//! nothing else but how long before the backup began.

use std::fs;
use std::path::Path;
use std::process::Command;

use jiff::civil::date;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use turnaway_tests::tracer;

/// Whose clock cron follows.
const ZONE: &str = "Europe/Berlin";
const BACKUP: &str = "pg_basebackup";
/// How many minutes after three each Tuesday's began, and how many minutes before that the backup.
const TUESDAYS: [(i8, i8, i64); 3] = [(10, 11, 25), (17, 12, 27), (24, 14, 29)];
/// Others, at no particular time: day, hour and minute.
const OTHERS: [(i8, i8, i8); 5] = [
    (2, 14, 3),
    (4, 9, 41),
    (5, 22, 17),
    (11, 16, 50),
    (19, 7, 8),
];
/// The days that are watched.
const DAYS: std::ops::Range<i8> = 1..27;

fn at(day: i8, hour: i8, minute: i8) -> Timestamp {
    let zone = TimeZone::get(ZONE).unwrap();
    let local = date(2026, 11, day).at(hour, minute, 0, 0);
    zone.to_timestamp(local).unwrap()
}

/// Moves every time in a record.
fn shifted(value: &Value, by: SignedDuration) -> Value {
    match value {
        Value::String(text) => match text.parse::<Timestamp>() {
            Ok(time) => json!(format!("{:.9}", time + by)),
            Err(_) => value.clone(),
        },
        Value::Array(items) => items.iter().map(|item| shifted(item, by)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), shifted(field, by)))
            .collect(),
        _ => value.clone(),
    }
}

/// The same failures as those of another program.
fn of_another(mut record: Value) -> Value {
    if let Some(comm) = record.pointer_mut("/process/comm") {
        *comm = json!("web");
    }
    record
}

fn time(record: &Value) -> Timestamp {
    record["time"].as_str().unwrap().parse().unwrap()
}

/// Four weeks, in order.
fn weeks(recorded: &[Value], onset: Timestamp) -> Vec<Value> {
    let (programs, failures): (Vec<&Value>, Vec<&Value>) = recorded
        .iter()
        .filter(|record| record["type"] != "run")
        .partition(|record| record["type"] == "program");
    let backups: Vec<&Value> = programs
        .into_iter()
        .filter(|record| record["program"] == BACKUP)
        .collect();
    let began: Timestamp = backups[0]["started"].as_str().unwrap().parse().unwrap();
    let run = |time: Timestamp, state: &str| {
        json!({
            "schema": "turnaway/1", "type": "run", "time": time.to_string(), "host": "db1",
            "state": state, "version": "0", "accepts": false,
        })
    };
    let mut all = vec![run(at(DAYS.start, 0, 0), "began")];
    for (day, minute, before) in TUESDAYS {
        let by = at(day, 3, minute).duration_since(onset);
        all.extend(failures.iter().map(|record| shifted(record, by)));
        let start = at(day, 3, minute) - SignedDuration::from_mins(before);
        let by = start.duration_since(began);
        all.extend(backups.iter().map(|record| shifted(record, by)));
    }
    for (day, hour, minute) in OTHERS {
        let by = at(day, hour, minute).duration_since(onset);
        let moved = failures.iter().map(|record| shifted(record, by));
        all.extend(moved.map(of_another));
    }
    for night in DAYS {
        let started = at(night, 3, 0);
        all.push(json!({
            "schema": "turnaway/1", "type": "program", "host": "db1", "pid": 99,
            "time": (started + SignedDuration::from_mins(30)).to_string(),
            "program": "logrotate", "started": started.to_string(),
            "ended": (started + SignedDuration::from_mins(30)).to_string(),
        }));
    }
    all.push(run(at(DAYS.end, 0, 0), "ended"));
    all.sort_by_key(time);
    all
}

/// What the report says of it.
pub(super) fn are_recognised(recording: &Path, onset: Timestamp, dir: &Path) {
    let text = fs::read_to_string(recording).unwrap();
    let recorded: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut lines = String::new();
    for record in weeks(&recorded, onset) {
        lines += &record.to_string();
        lines.push('\n');
    }
    let file = dir.join("weeks.ndjson");
    fs::write(&file, lines).unwrap();
    let output = Command::new(tracer::binary().unwrap())
        .args(["report", "--time-zone", ZONE, "--from"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "weekly, Tuesday 03:13 ± 2 min: 3 times, never missed",
        "pg_basebackup began 25 to 29 min before in 3 of 3, and never without an incident",
        "next Tuesday 2026-12-01 03:13 CET",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // Five others at no particular time are no pattern.
    assert_eq!(text.matches("never missed").count(), 1, "{text}");
}
