//! Receivers at sockets of this host.

use std::io::{BufRead as _, BufReader};

use serde_json::json;
use turnaway_tests::servers::collector::lines_at;

use crate::{numbers, push, record, start, until};

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
