//! Too much, and disks that take nothing.

use std::fs;

use serde_json::{Value, json};
use turnaway_tests::apart;
use turnaway_tests::servers::collector::Collector;

use crate::{different, numbers, push, start, until};

/// The receiver is down until the spool is far beyond its room.
#[test]
fn what_there_is_no_room_for_is_exactly_what_is_told() {
    const SENT: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().unwrap();
    collector.down();
    let address = format!("127.0.0.1:{}", collector.port);
    let spool = 512 << 10;
    let stream = json!({
        "type": "tcp", "address": address, "spool": format!("{}K", spool >> 10), "settle": "100ms",
    });
    let mut streams = start(std::slice::from_ref(&stream), dir.path());
    for number in 1..=SENT {
        push(&mut streams, number);
        if number % 1_000 == 0 {
            until(&streams, "the disk", |health| health.in_memory == 0);
        }
    }
    let full = streams.health().remove(0);
    assert!(full.spooled_bytes <= spool, "{full:?}");
    assert!(full.dropped > SENT / 2 && full.overflowed == 0, "{full:?}");
    assert_eq!(full.dropped + full.waiting, SENT);
    collector.up().unwrap();
    let health = until(&streams, "delivery", |health| health.waiting == 0);
    // One more says how many there were.
    push(&mut streams, SENT + 1);
    until(&streams, "the last", |health| {
        health.delivered == SENT + 1 - full.dropped
    });
    let records = collector.records().unwrap();
    let came: Vec<u64> = numbers(&records);
    assert!(came.is_sorted(), "in order");
    let lost = SENT + 1 - different(&records).len() as u64;
    assert_eq!(lost, health.dropped);
    let told: u64 = records
        .iter()
        .filter_map(|record| record["stream"]["lost"].as_u64())
        .sum();
    // What told of some of them was lost itself: those that are told are no more than there were, and the
    // rest is in the counter.
    assert!(told > 0 && told <= lost, "{told} of {lost}");
}

#[test]
fn a_folder_that_cannot_be_written_keeps_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("file");
    fs::write(&folder, "not a folder").unwrap();
    let collector = Collector::start().unwrap();
    let address = format!("127.0.0.1:{}", collector.port);
    let stream = json!({ "type": "tcp", "address": address, "settle": "100ms" });
    let mut streams = start(&[stream], &folder);
    for number in 1..=2_000 {
        push(&mut streams, number);
    }
    let health = until(&streams, "delivery", |health| health.delivered == 2_000);
    assert!(health.not_stored.is_some());
    let records = collector.records().unwrap();
    assert_eq!(different(&records), (1..=2_000).collect());
}

#[test]
fn a_folder_that_is_read_only_keeps_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    fs::create_dir(&folder).unwrap();
    let collector = Collector::start().unwrap();
    apart::on_small_disk(&folder, || {
        let path = folder.to_string_lossy().into_owned();
        apart::mount(&["-o", "remount,ro", &path])?;
        let address = format!("127.0.0.1:{}", collector.port);
        let stream = json!({ "type": "tcp", "address": address, "settle": "100ms" });
        let mut streams = start(&[stream], &folder);
        for number in 1..=500 {
            push(&mut streams, number);
        }
        let health = until(&streams, "delivery", |health| health.delivered == 500);
        let why = health.not_stored.unwrap_or_default();
        assert!(why.contains("Read-only"), "{why}");
        Ok(())
    })
    .unwrap();
    assert_eq!(
        different(&collector.records().unwrap()),
        (1..=500).collect()
    );
}

#[test]
fn a_disk_that_fills_up_loses_nothing_that_memory_has_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    fs::create_dir(&folder).unwrap();
    let mut collector = Collector::start().unwrap();
    collector.down();
    let sent = 20_000;
    apart::on_small_disk(&folder, || {
        let address = format!("127.0.0.1:{}", collector.port);
        let stream = json!({
            "type": "tcp", "address": address, "settle": "100ms", "queue": 100_000,
        });
        let mut streams = start(&[stream], &folder);
        for number in 1..=sent {
            push(&mut streams, number);
        }
        let health = until(&streams, "a full disk", |health| {
            health.not_stored.is_some()
        });
        let why = health.not_stored.unwrap_or_default();
        assert!(why.contains("No space"), "{why}");
        collector.up()?;
        let health = until(&streams, "delivery", |health| health.delivered == sent);
        assert_eq!((health.dropped, health.overflowed), (0, 0));
        Ok(())
    })
    .unwrap();
    let records = collector.records().unwrap();
    assert_eq!(different(&records), (1..=sent).collect());
    assert!(numbers(&records).is_sorted());
}

/// What is damaged is skipped and said; the rest arrives.
#[test]
fn a_damaged_spool_delivers_the_rest() {
    const SENT: u64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().unwrap();
    collector.down();
    let address = format!("127.0.0.1:{}", collector.port);
    let stream = json!({
        "type": "tcp", "address": address, "spool": "16M", "settle": "100ms",
    });
    let mut streams = start(std::slice::from_ref(&stream), dir.path());
    for number in 1..=SENT {
        push(&mut streams, number);
    }
    until(&streams, "the disk", |health| health.in_memory == 0);
    drop(streams.stop(std::time::Instant::now()));
    drop(streams);
    let mut damaged: Vec<_> = fs::read_dir(dir.path().join("tcp"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "seg"))
        .collect();
    damaged.sort();
    let mut bytes = fs::read(&damaged[0]).unwrap();
    // Far apart: each costs one record.
    let flips = 5;
    for flip in 0..flips {
        let at = bytes.len() / (flips + 1) * (flip + 1);
        bytes[at] ^= 0x10;
    }
    fs::write(&damaged[0], bytes).unwrap();
    collector.up().unwrap();
    let mut streams = start(&[stream], dir.path());
    let health = until(&streams, "delivery", |health| {
        health.damaged > 0 && health.waiting == 0
    });
    assert_eq!(health.damaged, flips as u64);
    let records = collector.records().unwrap();
    assert_eq!(different(&records).len() as u64, SENT - flips as u64);
    // The next record says so.
    push(&mut streams, SENT + 1);
    until(&streams, "the next", |health| {
        health.delivered == SENT + 1 - flips as u64
    });
    let records = collector.records().unwrap();
    let last: &Value = records.last().unwrap();
    assert_eq!(last["stream"]["lost"], flips);
}

/// Exemplars above a rate are withheld, totals are not, and what was withheld can be added up.
#[test]
fn what_is_withheld_is_stated() {
    use jiff::Timestamp;
    use turnaway::stream::entry::Kind;

    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start().unwrap();
    let address = format!("127.0.0.1:{}", collector.port);
    let stream = json!({ "type": "tcp", "address": address, "rate": 50, "settle": "100ms" });
    let mut streams = start(&[stream], dir.path());
    for number in 1..=1_000 {
        let event = json!({ "type": "event", "count": number });
        streams.push(Kind::Event, None, None, Timestamp::now(), &event);
    }
    for number in 1_001..=1_100 {
        push(&mut streams, number);
    }
    until(&streams, "delivery", |health| health.waiting == 0);
    let records = collector.records().unwrap();
    let of = |kind: &str| records.iter().filter(|one| one["type"] == kind).count() as u64;
    let withheld: u64 = records
        .iter()
        .filter_map(|record| record["stream"]["withheld"].as_u64())
        .sum();
    assert_eq!(of("count"), 100);
    assert!(withheld > 500, "{withheld}");
    assert_eq!(of("event") + withheld, 1_000);
}

/// As many records as come in five minutes at 1000 a second, ten times as fast, while the receiver is down: what its spool
/// has no room for is dropped, the oldest first, and counted. Nothing else is, and memory does not grow.
#[test]
fn a_receiver_that_is_down_for_long_costs_what_is_said() {
    const RECORDS: u64 = 300_000;
    const PIECE: u64 = 1_000;
    /// KiB: a third of what the records would take.
    const MEMORY: u64 = 48 << 10;
    let resident = || -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let words = line.unwrap().split_whitespace().nth(1);
        words.unwrap().parse().unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().unwrap();
    collector.down();
    let address = format!("127.0.0.1:{}", collector.port);
    let stream = json!({ "type": "tcp", "address": address, "spool": "32M", "settle": "100ms" });
    let mut streams = start(&[stream], dir.path());
    let before = resident();
    let mut most = before;
    for piece in 0..RECORDS / PIECE {
        // A queue that is never full: what is lost is lost by the spool.
        until(&streams, "room", |health| health.in_memory < 5_000);
        for number in 1..=PIECE {
            push(&mut streams, piece * PIECE + number);
        }
        most = most.max(resident());
    }
    assert!(most - before < MEMORY, "{before} KiB, then {most} KiB");
    until(&streams, "the disk", |health| health.in_memory == 0);
    collector.up().unwrap();
    let health = until(&streams, "delivery", |health| health.waiting == 0);
    let records = collector.records().unwrap();
    let came = different(&records);
    // The oldest are those that did not come.
    let missing = RECORDS - came.len() as u64;
    assert!(missing > RECORDS / 10, "{missing}");
    assert_eq!(came, (missing + 1..=RECORDS).collect());
    assert!(numbers(&records).is_sorted());
    assert_eq!((health.dropped, health.overflowed), (missing, 0));
}
