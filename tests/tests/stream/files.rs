//! Files, which are rotated and moved while somebody reads them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use turnaway_tests::{lines, wait};

use crate::{PATIENCE, different, numbers, push, start, until};

fn read(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// `tail -F`, as log shippers do it.
#[test]
fn a_file_is_followed_through_its_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.ndjson");
    fs::write(&path, "").unwrap();
    let mut tail = Command::new("tail")
        .args(["-n", "+1", "--sleep-interval=0.05", "-F"])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = lines::of(tail.stdout.take().unwrap());
    let stream = json!({ "type": "file", "path": path, "size": "64K", "keep": 100 });
    let mut streams = start(&[stream], dir.path());
    let mut came = Vec::new();
    // Whoever follows keeps up: a file that is moved twice between two looks is missed by any.
    for round in 0..20 {
        for number in round * 100 + 1..=round * 100 + 100 {
            push(&mut streams, number);
        }
        for _ in 0..100 {
            let line = lines.recv_timeout(PATIENCE).unwrap();
            came.push(serde_json::from_str::<Value>(&line).unwrap());
        }
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert_eq!(numbers(&came), (1..=2_000).collect::<Vec<_>>());
    let rotated = fs::read_dir(dir.path()).unwrap().count();
    assert!(rotated > 4, "{rotated}");
    for file in fs::read_dir(dir.path()).unwrap() {
        let metadata = file.unwrap().metadata().unwrap();
        // It is full from this size: the last record may lie across it.
        assert!(metadata.len() < (64 << 10) + 300, "{}", metadata.len());
    }
}

/// What logrotate does: move, then signal.
#[test]
fn a_file_that_was_moved_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.ndjson");
    let mut streams = start(&[json!({ "type": "file", "path": path })], dir.path());
    push(&mut streams, 1);
    until(&streams, "the first", |health| health.delivered == 1);
    let moved = dir.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    push(&mut streams, 2);
    until(&streams, "the second", |health| health.delivered == 2);
    streams.reopen();
    wait::until_true("the new file", || {
        push(&mut streams, 3);
        Ok(path.exists())
    })
    .unwrap();
    until(&streams, "the rest", |health| health.waiting == 0);
    let before = read(&fs::read_to_string(&moved).unwrap());
    assert_eq!(numbers(&before)[..2], [1, 2]);
    assert_eq!(
        different(&read(&fs::read_to_string(&path).unwrap())),
        [3].into()
    );
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_file_begins_anew_after_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.ndjson");
    let stream = json!({ "type": "file", "path": path, "every": "1ms", "keep": 1000 });
    let mut streams = start(&[stream], dir.path());
    for number in 1..=20 {
        push(&mut streams, number);
        until(&streams, "it", |health| health.delivered == number);
    }
    let mut all = Vec::new();
    for file in fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        all.push(read(&fs::read_to_string(path).unwrap()));
    }
    assert!(all.len() > 1);
    let all: Vec<Value> = all.into_iter().flatten().collect();
    assert_eq!(different(&all), (1..=20).collect());
}
