//! A sender that is killed in the middle of it, and goes on.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use turnaway_tests::servers::collector::Collector;
use turnaway_tests::{lines, sys};

use crate::{different, push, start, until};

/// Where another process finds what it needs.
const FOLDER: &str = "TURNAWAY_TEST_STREAM";
const PORT: &str = "TURNAWAY_TEST_PORT";

/// Sends for ever, and says how far what it sent is on disk.
fn sender(folder: &Path, port: &str) {
    let address = format!("127.0.0.1:{port}");
    let mut streams = start(&[json!({ "type": "tcp", "address": address })], folder);
    for number in 1..100_000 {
        push(&mut streams, number);
        if number % 100 == 0 {
            until(&streams, "the disk", |health| health.in_memory == 0);
            println!("kept {number}");
        }
    }
}

#[test]
fn what_waits_survives_sigkill_of_the_sender() {
    if let (Some(folder), Ok(port)) = (std::env::var_os(FOLDER), std::env::var(PORT)) {
        sender(Path::new(&folder), &port);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().unwrap();
    collector.down();
    let mut kept = Vec::new();
    for life in 0..3 {
        let mut sender = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "sender::what_waits_survives_sigkill_of_the_sender",
                "--nocapture",
            ])
            .env(FOLDER, dir.path())
            .env(PORT, collector.port.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = lines::numbered(sender.stdout.take().unwrap(), "kept ");
        let last = ready.find(|number| *number >= 2_000);
        sys::kill(sender.id(), libc::SIGKILL).unwrap();
        sender.wait().unwrap();
        kept.push(last.expect("it ended too early"));
        // The second life delivers some of what the first has left, and is killed at that.
        if life == 0 {
            collector.up().unwrap();
        }
    }
    let address = format!("127.0.0.1:{}", collector.port);
    let mut streams = start(&[json!({ "type": "tcp", "address": address })], dir.path());
    // One more, behind all that waits.
    push(&mut streams, 0);
    let health = until(&streams, "delivery", |health| {
        health.delivered > 0 && health.waiting == 0
    });
    assert_eq!((health.damaged, health.dropped), (0, 0));
    let records = collector.records().unwrap();
    // Each life begins to count anew, with ids of its own.
    let mut lives: std::collections::BTreeMap<String, Vec<serde_json::Value>> =
        std::collections::BTreeMap::new();
    for record in records {
        let id = record["record_id"].as_str().unwrap();
        let life = id.split_once('-').unwrap().0.to_owned();
        lives.entry(life).or_default().push(record);
    }
    let mut firsts: Vec<_> = lives.values().map(|records| different(records)).collect();
    assert_eq!(firsts.len(), 4);
    for kept in kept {
        let all = |numbers: &std::collections::BTreeSet<u64>| {
            (1..=kept).all(|number| numbers.contains(&number))
        };
        let at = firsts.iter().position(all).expect("all that were kept");
        firsts.remove(at);
    }
}
