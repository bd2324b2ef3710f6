//! Receivers and senders that end, and go on.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use turnaway_tests::servers::collector::{Collector, lines_at};
use turnaway_tests::{lines, sys, wait};

use crate::{different, numbers, push, record, start, until};

/// Where another process finds what it needs.
const FOLDER: &str = "TURNAWAY_TEST_STREAM";
const PORT: &str = "TURNAWAY_TEST_PORT";

#[test]
fn every_record_arrives_across_twenty_restarts_of_the_receiver() {
    const RESTARTS: u64 = 20;
    const EACH: u64 = 500;
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::start().unwrap();
    let address = format!("127.0.0.1:{}", collector.port);
    let mut streams = start(
        &[json!({ "type": "tcp", "address": address, "settle": "300ms", "batch": 50 })],
        dir.path(),
    );
    let mut sent = 0;
    for _ in 0..RESTARTS {
        let before = collector.count();
        for _ in 0..EACH {
            sent += 1;
            push(&mut streams, sent);
        }
        // In the middle of it: what it has not read is lost with the connection.
        wait::until_true("some of it", || Ok(collector.count() > before)).unwrap();
        collector.down();
        for _ in 0..EACH {
            sent += 1;
            push(&mut streams, sent);
        }
        collector.up().unwrap();
    }
    let health = until(&streams, "delivery", |health| health.waiting == 0);
    let records = collector.records().unwrap();
    assert_eq!(different(&records), (1..=sent).collect());
    // The same record has the same id each time, and no other has it.
    let mut ids = std::collections::BTreeMap::new();
    for (record, number) in records.iter().zip(numbers(&records)) {
        let id = record["record_id"].as_str().unwrap().to_owned();
        assert_eq!(*ids.entry(id).or_insert(number), number);
    }
    assert_eq!(ids.len() as u64, sent);
    assert_eq!((health.dropped, health.overflowed), (0, 0));
    assert_eq!(health.delivered, sent);
    println!("{} came, {sent} different", records.len());
}

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
                "restarts::what_waits_survives_sigkill_of_the_sender",
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

#[test]
fn a_receiver_that_does_not_read_gets_everything_in_order_once_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut streams = start(
        &[json!({ "type": "unix", "path": socket, "timeout": "1s" })],
        &dir.path().join("spool"),
    );
    for number in 1..=20_000 {
        push(&mut streams, number);
        if number % 5_000 == 0 {
            until(&streams, "the disk", |health| health.in_memory == 0);
        }
    }
    let health = until(&streams, "a word", |health| health.last_error.is_some());
    assert!(health.last_error.unwrap().contains("does not read"));
    let connection = listener.accept().unwrap().0;
    connection.set_read_timeout(Some(crate::PATIENCE)).unwrap();
    let mut came = Vec::new();
    for line in BufReader::new(connection).lines().take(20_000) {
        came.push(serde_json::from_str(&line.unwrap()).unwrap());
    }
    // One connection, so that each came once.
    assert_eq!(numbers(&came), (1..=20_000).collect::<Vec<_>>());
    assert_eq!(record(1)["count"], came[0]["count"]);
}

#[test]
fn a_socket_of_this_host_is_delivered_to() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let mut streams = start(
        &[json!({ "type": "unix", "path": socket, "settle": "10ms" })],
        &dir.path().join("spool"),
    );
    push(&mut streams, 1);
    until(&streams, "a failure", |health| health.failed_attempts > 0);
    let lines = lines_at(&socket).unwrap();
    let line = lines.recv_timeout(crate::PATIENCE).unwrap();
    assert!(line.contains("\"count\":1,"), "{line}");
    until(&streams, "delivery", |health| health.delivered == 1);
}
