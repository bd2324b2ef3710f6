//! How soon turnaway tells on its standard output.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use super::say;
use super::usage::Usage;
use crate::servers::acceptor::Acceptor;
use crate::sys;

/// How long it is looked at while nothing happens.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// Failures whose way to a line is timed.
const TIMED: usize = 300;

/// From asking for a failure to the line that shows it, and what turnaway takes while nothing happens.
pub(super) fn run(turnaway: &Path, scenarios: &Path) -> Result<()> {
    #[derive(Serialize)]
    struct Latency {
        timed: usize,
        to_stdout_p50_ms: f64,
        to_stdout_p99_ms: f64,
        start_to_ready_ms: f64,
        idle_percent_of_a_core: f64,
        idle_rss_mib: f64,
    }
    let mut acceptor = Acceptor::run(scenarios)?;
    let pid = acceptor.pid.to_string();
    let begun = Instant::now();
    let mut child = Command::new(turnaway)
        .args([
            "trace",
            "--json",
            "--exemplars",
            "100000",
            "--reason",
            "accept",
            "-p",
            &pid,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run turnaway")?;
    let mut said = BufReader::new(child.stderr.take().context("no standard error")?).lines();
    while !said.next().context("it ended")??.starts_with("tracing ") {}
    let start_to_ready_ms = begun.elapsed().as_secs_f64() * 1e3;
    let usage = Usage::of(child.id())?;
    thread::sleep(IDLE);
    let idle = usage.until_now()?;

    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut took = Vec::with_capacity(TIMED);
    while took.len() < TIMED {
        let asked = Instant::now();
        acceptor.fail(1)?;
        loop {
            let record: Value = serde_json::from_str(&lines.next().context("it ended")??)?;
            if record["type"] == "event" {
                break;
            }
        }
        took.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    sys::kill(child.id(), libc::SIGINT)?;
    child.wait()?;
    let (to_stdout_p50_ms, to_stdout_p99_ms) = median_and_p99(took);
    say(&Latency {
        timed: TIMED,
        to_stdout_p50_ms,
        to_stdout_p99_ms,
        start_to_ready_ms,
        idle_percent_of_a_core: idle.percent_of_a_core,
        idle_rss_mib: idle.rss_mib,
    })
}

/// The middle one, and the one that 99 in 100 do not exceed.
pub(super) fn median_and_p99(mut took: Vec<f64>) -> (f64, f64) {
    took.sort_by(f64::total_cmp);
    (took[took.len() / 2], took[took.len() * 99 / 100])
}
