//! What the daemon records, replayed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use turnaway_tests::tracer;

use crate::daemon::{Daemon, count, is_at};
use crate::server::{Role, Server};

/// Rules that are over soon, one of them about a share of attempts.
const RULES: &str = "
[[rule]]
name = \"OutOfDescriptors\"
resolve_after = \"2s\"
[[rule]]
name = \"DescriptorsExhausted\"
resolve_after = \"2s\"
[[rule]]
name = \"DescriptorPressure\"
resolve_after = \"2s\"
[[rule]]
name = \"ListenerStalled\"
resolve_after = \"2s\"
[[rule]]
name = \"AcceptSlow\"
resolve_after = \"2s\"
[[rule]]
name = \"ManyOfFew\"
reason = \"accept.emfile\"
ratio = 0.3
window = \"5m\"
resolve_after = \"2s\"
";

fn replayed(config: &Path, file: &Path, port: u16) -> Vec<Value> {
    let output = Command::new(tracer::binary().unwrap())
        .args(["replay", "--json", "--config"])
        .arg(config)
        .arg(file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record| is_at(record, port))
        .collect()
}

/// What a replay must find again: when it is told may differ by what a second is divided at.
const ESSENCE: [&str; 7] = [
    "status", "severity", "started", "victim", "reasons", "fd", "waits",
];

/// The same, but for times: the kernel's clock is set against wall time each second.
fn assert_same(one: &Value, other: &Value) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            assert_eq!(
                one.keys().collect::<Vec<_>>(),
                other.keys().collect::<Vec<_>>()
            );
            for (name, value) in one {
                assert_same(value, &other[name]);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            assert_eq!(one.len(), other.len());
            for (one, other) in one.iter().zip(other) {
                assert_same(one, other);
            }
        }
        (Value::String(text), Value::String(other_text)) => {
            match (text.parse::<Timestamp>(), other_text.parse::<Timestamp>()) {
                (Ok(time), Ok(other)) => {
                    let apart = time.duration_since(other).abs();
                    assert!(apart < SignedDuration::from_millis(1), "{time} {other}");
                }
                _ => assert_eq!(text, other_text),
            }
        }
        _ => assert_eq!(one, other),
    }
}

fn by_status<'a>(records: &'a [Value], status: &str) -> Vec<&'a Value> {
    let of = records.iter().filter(|record| record["status"] == status);
    of.collect()
}

#[test]
fn a_recording_replays_to_what_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.ndjson");
    let mut server = Server::start(Role::default());
    let more = ["--no-metrics", "--record", record.to_str().unwrap()];
    let mut daemon = Daemon::start(dir.path(), RULES, &more);
    let port = server.port;
    let accepted = server.act("accept", 40);
    let mut failed = server.act("fail", 10);
    let mut told = vec![daemon.incident("firing", port)];
    failed += server.act("fail", 5);
    told.push(daemon.incident("resolved", port));
    // It comes back, and nobody accepts for a while.
    server.act("queue", 3);
    told.push(daemon.incident("firing", port));
    let waited = server.act("serve-queue", 0);
    told.push(daemon.incident("resolved", port));
    let status = daemon.status();
    assert_eq!(status["recording"]["file"], record.to_str().unwrap());
    assert_eq!(status["recording"]["lost"], 0);
    assert!(status["recording"]["written"].as_u64() > Some(3));
    daemon.end();
    told.extend(daemon.rest(port));

    let mode = fs::metadata(&record).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // The workload's own tally.
    let over = by_status(&told, "resolved");
    assert_eq!(count(over[0], "accept.emfile"), failed);
    assert_eq!(count(over[1], "queue.stalled"), 1);
    let text = fs::read_to_string(&record).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let here: u64 = lines
        .iter()
        .filter(|line| line["type"] == "accepted" && line["listener"]["port"] == port)
        .map(|line| line["count"].as_u64().unwrap())
        .sum();
    assert_eq!(here, accepted + waited);
    assert_eq!(lines[0]["state"], "began");
    assert_eq!(lines.last().unwrap()["state"], "ended");

    let again = replayed(&dir.path().join("turnaway.toml"), &record, port);
    let over_again = by_status(&again, "resolved");
    assert_eq!(over_again.len(), over.len(), "{again:#?}");
    for (told, again) in over.iter().zip(over_again) {
        for field in ESSENCE {
            assert_same(&told[field], &again[field]);
        }
    }
    assert_eq!(
        by_status(&again, "firing")[0]["severity"],
        by_status(&told, "firing")[0]["severity"]
    );
}

#[test]
fn a_recording_has_no_more_room_than_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.ndjson");
    let mut server = Server::start(Role::default());
    let more = [
        "--no-metrics",
        "--record",
        record.to_str().unwrap(),
        "--record-size",
        "8K",
        "--record-keep",
        "50",
    ];
    let mut daemon = Daemon::start(dir.path(), "", &more);
    let mut failed = 0;
    let older = dir.path().join("record.ndjson.2");
    let begun = std::time::Instant::now();
    while !older.exists() {
        assert!(
            begun.elapsed() < crate::daemon::PATIENCE,
            "it does not grow"
        );
        failed += server.act("fail-for-ms", 100);
    }
    daemon.end();
    let mut seen = 0;
    let mut files = 0;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().contains("record.ndjson") {
            continue;
        }
        files += 1;
        let text = fs::read_to_string(&path).unwrap();
        // The last line may pass the size.
        assert!(text.len() < (8 << 10) + 4096, "{}", text.len());
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let ours = record["process"]["pid"] == server.pid();
            if record["type"] == "count" && record["reason"] == "accept.emfile" && ours {
                seen += record["count"].as_u64().unwrap();
            }
        }
    }
    assert!(files > 2);
    assert_eq!(seen, failed);
}

/// A file system with little room; it is gone when this is dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn at(path: &'a Path) -> Self {
        fs::create_dir(path).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "none"])
            .arg(path)
            .status()
            .unwrap();
        assert!(status.success());
        Self(path)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn what_a_full_disk_does_not_take_is_counted_and_capture_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("small");
    let small = Small::at(&folder);
    let filler = folder.join("filler");
    // Until there is no room left.
    let _ = fs::write(&filler, vec![0; 240 << 10]);
    let record = folder.join("record.ndjson");
    let mut server = Server::start(Role::default());
    let path = record.to_str().unwrap();
    let more = ["--no-metrics", "--log", "warn", "--record", path];
    let mut daemon = Daemon::start(dir.path(), "", &more);
    let begun = std::time::Instant::now();
    let mut failed = 0;
    let lost = loop {
        failed += server.act("fail-for-ms", 100);
        let recording = &daemon.status()["recording"];
        if recording["lost"].as_u64() > Some(0) {
            break recording["lost"].as_u64().unwrap();
        }
        assert!(begun.elapsed() < crate::daemon::PATIENCE, "it is not full");
    };
    let fired = daemon.incident("firing", server.port);
    assert!(count(&fired, "accept.emfile") <= failed);
    daemon.says("records are lost: No space left");

    fs::remove_file(&filler).unwrap();
    turnaway_tests::wait::until_true("it to be recorded again", || {
        server.act("fail", 1);
        Ok(daemon.status()["recording"]["error"].is_null())
    })
    .unwrap();
    daemon.end();
    let text = fs::read_to_string(&record).unwrap();
    // None is half a line, and the last says how many are missing.
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(last["state"], "ended");
    assert!(last["lost"]["output"].as_u64() >= Some(lost), "{last}");
    drop(small);
}
