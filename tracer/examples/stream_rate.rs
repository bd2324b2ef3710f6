//! What it costs to stream records to a file: `cargo run --release --example stream_rate -- FILE [FORMAT]`.
//!
//! Pushes a million records in each format as whoever captures does, at most 100 000 a second and no faster than
//! they are written, and says how much processor time all threads took together. It is that which counts: how
//! long it takes on the clock depends on what else the machine does.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use jiff::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde_json::{Value, json};
use turnaway::{
    alert::Severity,
    stream::{
        Streams,
        config::{Config, understand},
        entry::Kind,
        format::Format,
        privacy::Privacy,
    },
};

const RECORDS: u32 = 1_000_000;
const RATE: u32 = 100_000;
/// Records are pushed in pieces of so many.
const PIECE: u32 = 1_000;
/// So many wait at most: the queue has room for them.
const WAITING: u64 = 20_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("give the file to write")?;
    let file = std::path::absolute(file)?;
    let formats = match arguments.next() {
        Some(name) => vec![Format::from_str(&name, true).map_err(anyhow::Error::msg)?],
        None => Format::ALL.to_vec(),
    };
    for format in formats {
        measure(&file, format)?;
    }
    Ok(())
}

fn measure(file: &Path, format: Format) -> Result<()> {
    let name = format.name();
    let config: Config = serde_json::from_value(json!({
        "type": "file", "path": file, "size": "4G", "queue": 200_000, "batch": 4096, "format": name,
    }))?;
    let mut streams = Streams::start(&understand(&[config], &Privacy::default())?, None)?;
    let record = record();
    let cpu = || clock_gettime(ClockId::ProcessCPUTime);
    let own = || clock_gettime(ClockId::ThreadCPUTime);
    let (before, own_before, begun) = (cpu(), own(), Instant::now());
    for piece in 0..RECORDS / PIECE {
        let due = begun + Duration::from_secs(1) * (piece * PIECE) / RATE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        while streams.health()[0].waiting > WAITING {
            thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..PIECE {
            let (severity, reason) = (Some(Severity::Warning), Some("accept.emfile"));
            streams.push(Kind::Event, severity, reason, Timestamp::now(), &record);
        }
    }
    let health = streams
        .stop(Instant::now() + Duration::from_mins(1))
        .remove(0);
    let took = begun.elapsed().as_secs_f64();
    let (all, own) = (seconds(before, cpu())?, seconds(own_before, own())?);
    let each = |seconds: f64| seconds * 1e6 / f64::from(RECORDS);
    println!(
        "{name}: {:.2} us of processor time a record, {:.2} of it where they are pushed; at {RATE} a \
         second {:.2} cores. {} delivered in {took:.1} s, {} lost, {} bytes each",
        each(all),
        each(own),
        each(all) * f64::from(RATE) / 1e6,
        health.delivered,
        health.overflowed,
        fs::metadata(file)?.len() / u64::from(RECORDS),
    );
    ensure!(
        health.delivered == u64::from(RECORDS),
        "not all were delivered"
    );
    Ok(fs::remove_file(file)?)
}

fn seconds(from: Timespec, to: Timespec) -> Result<f64> {
    Ok(Duration::try_from(to - from)?.as_secs_f64())
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
