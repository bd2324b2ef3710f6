//! Records reach receivers that are down, slow, or killed with what sends to them. The truth is what the test
//! put in and what the receiver noted.

#[path = "stream/bodies.rs"]
mod bodies;
#[path = "stream/daemon.rs"]
mod daemon;
#[path = "stream/delivery.rs"]
mod delivery;
#[path = "stream/faults.rs"]
mod faults;
#[path = "stream/files.rs"]
mod files;
#[path = "stream/formats.rs"]
mod formats;
#[path = "stream/sender.rs"]
mod sender;
#[path = "stream/sockets.rs"]
mod sockets;
#[path = "stream/syslog.rs"]
mod syslog;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use turnaway::alert::Severity;
use turnaway::stream::{
    Health, Streams,
    config::{Config, understand},
    entry::Kind,
    privacy::Privacy,
};
use turnaway_tests::wait;

/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_mins(1);

/// Streams as the daemon would read them.
fn start(streams: &[Value], folder: &Path) -> Streams {
    let configs: Vec<Config> = streams
        .iter()
        .map(|one| serde_json::from_value(one.clone()).unwrap())
        .collect();
    Streams::start(
        &understand(&configs, &Privacy::default()).unwrap(),
        Some(folder),
    )
    .unwrap()
}

/// A record with a number, by which the test knows it.
fn record(number: u64) -> Value {
    json!({
        "schema": "turnaway/1",
        "type": "count",
        "time": "2026-03-03T03:12:00.123456789Z",
        "host": "db1",
        "reason": "accept.emfile",
        "process": { "pid": 17, "comm": "pgbouncer" },
        "count": number,
    })
}

fn push(streams: &mut Streams, number: u64) {
    streams.push(
        Kind::Count,
        Some(Severity::Warning),
        Some("accept.emfile"),
        Timestamp::now(),
        &record(number),
    );
}

/// The numbers of records.
fn numbers(records: &[Value]) -> Vec<u64> {
    records
        .iter()
        .map(|record| record["count"].as_u64().unwrap())
        .collect()
}

fn different(records: &[Value]) -> BTreeSet<u64> {
    numbers(records).into_iter().collect()
}

/// Waits until the first stream is in some state.
fn until(streams: &Streams, what: &str, holds: impl Fn(&Health) -> bool) -> Health {
    let found = wait::until(what, || {
        let health = streams.health().remove(0);
        Ok(holds(&health).then_some(health))
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {:?}", streams.health()))
}
