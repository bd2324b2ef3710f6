//! Records through the engine.

use std::time::Duration;

use super::{Clock, Replay, lines};
use crate::{incident::What, rules::Rules};

#[test]
fn a_clock_that_is_set_back_makes_no_time_pass() {
    let mut clock = Clock::default();
    let at = |second: i64| jiff::Timestamp::from_second(1_000_000 + second).unwrap();
    assert_eq!(clock.follow(at(0)), Duration::ZERO);
    assert_eq!(clock.follow(at(5)), Duration::from_secs(5));
    // A count of the second before.
    assert_eq!(clock.follow(at(4)), Duration::ZERO);
    assert_eq!(clock.follow(at(6)), Duration::from_secs(1));
    // Set back an hour.
    assert_eq!(clock.follow(at(-3_600)), Duration::ZERO);
    assert_eq!(clock.follow(at(-3_599)), Duration::from_secs(1));
    assert_eq!(clock.now(Duration::ZERO).steady, Duration::from_secs(7));
}

#[test]
fn lines_of_any_length_and_bytes_are_read() {
    let mut text = vec![b'x'; 3 << 20];
    text.extend(b"\nshort\n\xff\xfe\n\nlast");
    let mut seen = Vec::new();
    lines(&text[..], |line| {
        seen.push(line.map(str::to_owned));
        Ok(true)
    })
    .unwrap();
    assert_eq!(seen.len(), 5);
    assert!(seen[0].as_ref().unwrap_err().contains("longer"));
    assert_eq!(seen[1].as_deref(), Ok("short\n"));
    assert_eq!(seen[2].as_deref(), Err(&"not UTF-8".to_owned()));
    assert_eq!(seen[4].as_deref(), Ok("last"));
}

fn count(second: i64, pid: u32, failures: u64) -> String {
    let time = jiff::Timestamp::from_second(1_795_489_920 + second).unwrap();
    format!(
        r#"{{"schema":"turnaway/1","type":"count","time":"{time:.9}","host":"db1","reason":"accept.emfile","errno":"EMFILE","syscall":"accept4","process":{{"pid":{pid},"start_time":"2026-11-23T02:11:08.123456788Z","comm":"web","unit":"web{pid}.service","cgroup":"/system.slice/web{pid}.service"}},"listener":{{"inode":{pid},"family":"inet","address":"0.0.0.0","port":80,"netns":1}},"fd":{{"limit":1024}},"tier":"trampoline","count":{failures},"first":"{time:.9}","last":"{time:.9}"}}"#
    )
}

#[test]
fn incidents_that_end_in_a_gap_end_then() {
    let mut replay = Replay::new(Rules::default());
    let mut changes = Vec::new();
    for second in [0, 1, 86_400] {
        changes.extend(replay.line(Ok(&count(second, 1, 2))).1);
    }
    let (last, firing, totals) = replay.finish();
    changes.extend(last);
    assert_eq!(changes.len(), 3, "{changes:?}");
    let ended = changes[1]
        .record
        .time()
        .duration_since(changes[0].record.started);
    assert_eq!(ended.as_secs(), 61);
    assert_eq!(firing.len(), 1);
    assert_eq!(totals.fired, 2);
    assert_eq!(totals.failures.values().sum::<u64>(), 6);
}

#[test]
fn broken_lines_are_counted_and_the_rest_is_read() {
    let mut replay = Replay::new(Rules::default());
    for line in ["{", "null", "\u{0}", "[]", "{}", "\"", &count(0, 1, 7)] {
        replay.line(Ok(line));
    }
    let whole = count(1, 1, 7);
    for cut in (0..whole.len()).step_by(3) {
        replay.line(Ok(&whole[..cut]));
    }
    let (_, _, totals) = replay.finish();
    assert_eq!(totals.records, 1);
    assert_eq!(totals.broken, 6 + whole.len().div_ceil(3) as u64 - 1);
    assert_eq!(totals.examples[0].0, 1);
    assert_eq!(totals.failures.values().sum::<u64>(), 7);
}

/// What lasts keeps an incident open; a source that says nothing for years is none.
#[test]
fn years_without_a_record_are_gone_through_at_once() {
    let stalled = include_str!("../../../tests/tests/replay/pooler.ndjson");
    let mut replay = Replay::new(Rules::default());
    let mut changes = Vec::new();
    let until_it_stalls = stalled
        .lines()
        .take_while(|line| !line.contains("\"ended\""));
    for line in until_it_stalls {
        changes.extend(replay.line(Ok(line)).1);
    }
    assert!(changes.iter().any(|change| change.what == What::Fired));
    let centuries = 1_000 * 365 * 86_400;
    changes.extend(replay.line(Ok(&count(centuries, 9, 1))).1);
    let over = changes.iter().find(|change| change.what == What::Resolved);
    let lasted = over.expect("it is over").record.time();
    let lasted = lasted.duration_since(changes[0].record.started);
    assert!(
        lasted.as_hours() >= 24 && lasted.as_hours() < 26,
        "{lasted:?}"
    );
}
