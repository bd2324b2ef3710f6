//! What it costs to stream records to a file: `cargo run --release --example stream_rate -- FILE`.
//!
//! Pushes 100 000 records a second for ten seconds, as whoever captures does, and says how much processor
//! time all threads took together.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use turnaway::{
    alert::Severity,
    stream::{
        Streams,
        config::{Config, understand},
        entry::Kind,
        privacy::Privacy,
    },
};

const RATE: u64 = 100_000;
const SECONDS: u64 = 10;
/// Records are pushed in pieces: so many a second.
const PIECES: u64 = 100;

fn main() -> Result<()> {
    let file = std::env::args().nth(1).context("give the file to write")?;
    let file = std::path::absolute(file)?;
    let config: Config = serde_json::from_value(json!({
        "type": "file", "path": file, "size": "1G", "queue": 200_000, "batch": 4096,
    }))?;
    let mut streams = Streams::start(&understand(&[config], &Privacy::default())?, None)?;
    let record = record();
    let cpu = || clock_gettime(ClockId::ProcessCPUTime);
    let own = || clock_gettime(ClockId::ThreadCPUTime);
    let (before, own_before, begun) = (cpu(), own(), Instant::now());
    for piece in 0..SECONDS * PIECES {
        let due = begun + Duration::from_secs(piece) / u32::try_from(PIECES)?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        for _ in 0..RATE / PIECES {
            let (severity, reason) = (Some(Severity::Warning), Some("accept.emfile"));
            streams.push(Kind::Event, severity, reason, Timestamp::now(), &record);
        }
    }
    let took = begun.elapsed();
    let health = streams
        .stop(Instant::now() + Duration::from_secs(30))
        .remove(0);
    let seconds = |from: rustix::time::Timespec, to: rustix::time::Timespec| {
        Duration::try_from(to - from).map(|time| time.as_secs_f64())
    };
    let (all, own) = (seconds(before, cpu())?, seconds(own_before, own())?);
    let sent = RATE * SECONDS;
    println!(
        "{sent} records in {:.2} s: {} delivered, {} lost; {:.2} s of processor time, {:.2} of it \
         where they are pushed: {:.2} cores, {:.2} us a record",
        took.as_secs_f64(),
        health.delivered,
        health.overflowed,
        all,
        own,
        all / took.as_secs_f64(),
        all * 1e6 / 1e6_f64.max(f64::from(u32::try_from(sent)?)),
    );
    ensure!(health.delivered == sent, "not all were delivered");
    Ok(())
}

/// A record as they are: an exemplar of a process in a container.
fn record() -> Value {
    json!({
        "schema": "turnaway/1", "type": "event", "time": "2026-03-03T03:12:00.123456789Z",
        "host": "db1", "monotonic_ns": 123_456_789_012_u64, "reason": "accept.emfile",
        "errno": "EMFILE", "op": "accept4", "tier": "trampoline",
        "process": {
            "pid": 4242, "tid": 4242, "start_time": "2026-03-01T00:00:00.000000000Z",
            "comm": "pgbouncer", "exe": "/usr/sbin/pgbouncer", "uid": 105,
            "cgroup": "/system.slice/pgbouncer.service", "unit": "pgbouncer.service",
            "parent": { "pid": 1, "comm": "systemd" },
        },
        "listener": {
            "family": "ipv4", "protocol": "tcp", "address": "0.0.0.0", "port": 6432,
            "netns": 4_026_531_840_u64, "queue": 511, "backlog": 511,
        },
        "fd": { "used": 1024, "limit": 1024 },
    })
}
