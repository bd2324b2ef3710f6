//! Recorded events through the command line. Nothing here needs root.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use turnaway_tests::tracer;

/// Four failed accepts, a stall of a minute and a half, drops, a client that did not get through; and
/// one refusal of somewhere else.
fn pooler() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replay/pooler.ndjson")
}

fn turnaway(arguments: &[&str]) -> Output {
    Command::new(tracer::binary().unwrap())
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn records(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_pooler_is_one_incident() {
    let path = pooler();
    let output = turnaway(&["replay", "-o", "json", path.to_str().unwrap()]);
    let records = records(&output);
    let first = &records[0];
    let last = records.last().unwrap();
    assert!(records.iter().all(|record| record["id"] == first["id"]));
    assert_eq!(first["status"], "firing");
    let began: jiff::Timestamp = first["started"].as_str().unwrap().parse().unwrap();
    let told: jiff::Timestamp = first["time"].as_str().unwrap().parse().unwrap();
    assert!(told.duration_since(began) <= jiff::SignedDuration::from_secs(3));
    assert_eq!(last["status"], "resolved");
    assert_eq!(last["severity"], "critical");
    assert_eq!(last["victim"]["process"]["comm"], "pgbouncer");
    let reasons: Vec<(&str, u64)> = last["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let reason = one["reason"].as_str().unwrap();
            (reason, one["count"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(
        reasons,
        [
            ("accept.emfile", 4),
            ("queue.stalled", 1),
            ("queue.ack_overflow", 70),
            ("connect.timeout", 30)
        ]
    );
    assert_eq!(last["sufferers"][0]["process"]["comm"], "haproxy");
    assert_eq!(last["sufferers"][0]["count"], 30);
    let resolved = records.iter().filter(|one| one["status"] == "resolved");
    assert_eq!(resolved.count(), 1);
}

#[test]
fn text_has_the_timeline_and_the_totals() {
    let path = pooler();
    let output = turnaway(&["replay", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    for words in [
        "FIRING critical",
        "pgbouncer (pid 812, pgbouncer.service) is out of file descriptors (1024 of 1024)",
        "nobody accepts",
        "haproxy (pid 900",
        "1 incident of 33 records",
        "accept.emfile        4",
        "connect.refused      1",
    ] {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
}

#[test]
fn stdin_is_read_and_broken_lines_are_said() {
    let mut child = Command::new(tracer::binary().unwrap())
        .args(["replay", "-o", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"schema\":\n\xff\n\x1b[2J\n").unwrap();
    stdin.write_all(&fs::read(pooler()).unwrap()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(!records(&output).is_empty());
    let said = said(&output);
    assert!(said.contains("3 lines could not be read"), "{said}");
    assert!(said.contains("line 2: not UTF-8"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn what_cannot_be_read_and_wrong_usage() {
    let output = turnaway(&["replay", "/nowhere/x.ndjson"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("/nowhere/x.ndjson"));
    for arguments in [&["replay"][..], &["replay", "--speed", "fast", "-"]] {
        let output = turnaway(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    }
}

#[test]
fn recorded_speed_takes_its_time() {
    let path = pooler();
    let begun = Instant::now();
    let output = turnaway(&["replay", "--speed", "300x", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    // 296 seconds were recorded.
    assert!(begun.elapsed() >= Duration::from_millis(980));
}

#[test]
fn a_day_takes_less_than_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("day.ndjson");
    let line = fs::read_to_string(pooler()).unwrap();
    let line = line
        .lines()
        .find(|line| line.contains("\"count\":1"))
        .unwrap();
    let template: Value = serde_json::from_str(line).unwrap();
    let mut text = String::new();
    let start: jiff::Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
    for second in 0..86_400 {
        let time = start + jiff::SignedDuration::from_secs(second);
        let mut record = template.clone();
        for field in ["time", "first", "last"] {
            record[field] = Value::from(format!("{time:.9}"));
        }
        for pid in 1..=5 {
            record["process"]["pid"] = Value::from(pid);
            writeln!(text, "{record}").unwrap();
        }
    }
    fs::write(&path, text).unwrap();
    let begun = Instant::now();
    let output = turnaway(&["replay", path.to_str().unwrap()]);
    let took = begun.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("432000"), "{text}");
    assert!(took < Duration::from_mins(1), "{took:?}");
}

/// `count` records of one server's failed accepts: so many failures, so many seconds after the start.
/// Half an hour later comes one more record, which nobody is told of: recorded time goes on until then.
fn failed_accepts(failures: impl Iterator<Item = (i64, u64)>) -> String {
    let text = fs::read_to_string(pooler()).unwrap();
    let line = text.lines().find(|line| line.contains("\"count\":1"));
    let mut record: Value = serde_json::from_str(line.unwrap()).unwrap();
    let start: jiff::Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
    let mut text = String::new();
    let mut write = |second: i64, count: u64, reason: &str| {
        let time = start + jiff::SignedDuration::from_secs(second);
        for field in ["time", "first", "last"] {
            record[field] = Value::from(format!("{time:.9}"));
        }
        record["count"] = Value::from(count);
        record["reason"] = Value::from(reason);
        writeln!(text, "{record}").unwrap();
    };
    let mut end = 0;
    for (second, count) in failures {
        write(second, count, "accept.emfile");
        end = second + 1_800;
    }
    write(end, 1, "accept.aborted");
    text
}

/// Replays records, and returns what became of incidents: seconds since the first record, the status, and
/// the failures by then.
fn told(records: &str) -> Vec<(i64, String, u64)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.ndjson");
    fs::write(&path, records).unwrap();
    let first: Value = serde_json::from_str(records.lines().next().unwrap()).unwrap();
    let time = |value: &Value| -> jiff::Timestamp { value.as_str().unwrap().parse().unwrap() };
    let output = turnaway(&["replay", "-o", "json", path.to_str().unwrap()]);
    self::records(&output)
        .iter()
        .filter(|record| record["type"] == "incident")
        .map(|record| {
            let after = time(&record["time"]).duration_since(time(&first["time"]));
            (
                after.as_secs(),
                record["status"].as_str().unwrap().to_owned(),
                record["reasons"][0]["count"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn half_a_million_a_second_are_told_once() {
    let told = told(&failed_accepts((0..10).map(|second| (second, 500_000))));
    let [(first, fires, _), (_, over, count)] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(
        *first <= 3 && fires == "firing" && over == "resolved",
        "{told:?}"
    );
    assert_eq!(*count, 5_000_000);
}

#[test]
fn flapping_is_told_twice_at_most() {
    // Ten seconds of failures, ten without, for ten minutes.
    let on = (0..600).filter(|second| second / 10 % 2 == 0);
    let told = told(&failed_accepts(on.map(|second| (second, 3))));
    assert!(told.len() <= 2, "{told:?}");
    let (_, over, count) = told.last().unwrap();
    assert_eq!((over.as_str(), *count), ("resolved", 900));
}

#[test]
fn a_configuration_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("turnaway.toml");
    fs::write(&path, "[[rule]]\nname = \"a\"\nreason = \"accept.*\"\n").unwrap();
    let output = turnaway(&["check-config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    fs::write(&path, "[[rule]]\nname = \"a\"\nreason = \"acept.*\"\n").unwrap();
    let output = turnaway(&["check-config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said_so = said(&output);
    assert!(said_so.contains("turnaway.toml:3:"), "{said_so}");
    assert!(said_so.contains("acept.*"), "{said_so}");
    let path = pooler();
    let config = dir.path().join("turnaway.toml");
    let output = turnaway(&[
        "replay",
        "--config",
        config.to_str().unwrap(),
        path.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(turnaway(&["check-config", "a", "b"]).status.code(), Some(2));
}

#[test]
fn rules_are_tested_on_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.toml");
    let good = r#"
[[record]]
at = "0s"
reason = "accept.emfile"
times = 19
every = "5s"
comm = "pgbouncer"
pid = 812
unit = "pgbouncer.service"
port = 6432

[[expect]]
at = "0s"
status = "firing"
severity = "critical"
labels = { comm = "pgbouncer", alertname = "OutOfDescriptors" }

[[expect]]
at = "150s"
status = "resolved"
"#;
    fs::write(&path, good).unwrap();
    let output = turnaway(&["rules", "test", path.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", said(&output));
    assert!(text.contains("as expected: 2 of 2"), "{text}");

    fs::write(&path, good.replace("critical", "info")).unwrap();
    let output = turnaway(&["rules", "test", path.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("- expected"), "{text}");
    assert!(text.contains("+ there"), "{text}");

    fs::copy(pooler(), dir.path().join("pooler.ndjson")).unwrap();
    let recorded = "records = \"pooler.ndjson\"\n[[expect]]\nat = \"0s\"\nstatus = \"firing\"\n[[expect]]\nat = \"30s\"\nwithin = \"10s\"\nstatus = \"firing\"\n[[expect]]\nat = \"149s\"\nstatus = \"resolved\"\n";
    fs::write(&path, recorded).unwrap();
    let output = turnaway(&["rules", "test", path.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", said(&output));

    fs::write(&path, "[[record]]\nat = \"0s\"\nreason = \"x\"\n").unwrap();
    let output = turnaway(&["rules", "test", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("test.toml:1:"), "{}", said(&output));
}
