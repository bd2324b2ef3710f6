//! How soon the daemon tells other programs: Alertmanager, and a SIEM that takes syslog over TCP.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use super::latency::{IDLE, median_and_p99};
use super::say;
use super::usage::Usage;
use crate::daemon::Daemon;
use crate::lines;
use crate::servers::acceptor::Acceptor;
use crate::servers::poster::Poster;

/// Incidents whose way to Alertmanager is timed.
const INCIDENTS: u32 = 50;
/// Failures whose way to the SIEM is timed.
const RECORDS: usize = 300;
/// Servers that fail in turn, and what is between two failures: of each server the daemon shows one failure a second, and the
/// same one fails again after two.
const SERVERS: usize = 40;
const PAUSE: Duration = Duration::from_millis(50);
/// How long what was told may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// Measures it.
pub(super) fn run(turnaway: &Path, scenarios: &Path) -> Result<()> {
    #[derive(Serialize)]
    struct Alerts {
        incidents: u32,
        to_alertmanager_p50_ms: f64,
        to_alertmanager_p99_ms: f64,
        records: usize,
        to_siem_p50_ms: f64,
        to_siem_p99_ms: f64,
        daemon_idle_percent_of_a_core: f64,
        daemon_idle_rss_mib: f64,
    }
    let (posted, alerts) = mpsc::channel();
    let alertmanager = Poster::start(move |_, request| {
        // Nobody waits for it any more once all has been measured.
        let _ = posted.send(String::from_utf8_lossy(&request.body).into_owned());
        (200, Vec::new())
    })?;
    let siem = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("turnaway.toml");
    fs::write(
        &config,
        format!(
            "[[notify]]\ntype = \"alertmanager\"\nurl = \"{}\"\n\
             [[stream]]\ntype = \"tcp\"\nenvelope = \"rfc5424\"\naddress = \"{}\"\n",
            alertmanager.url(),
            siem.local_addr()?
        ),
    )?;
    let daemon = Daemon::start(turnaway, &config, &dir.path().join("state"))?;
    let usage = Usage::of(daemon.child.id())?;
    thread::sleep(IDLE);
    let idle = usage.until_now()?;

    let (to_siem_p50_ms, to_siem_p99_ms) = median_and_p99(records(scenarios, &siem)?);
    let (to_alertmanager_p50_ms, to_alertmanager_p99_ms) =
        median_and_p99(incidents(scenarios, &alerts)?);
    daemon.stop()?;
    say(&Alerts {
        incidents: INCIDENTS,
        to_alertmanager_p50_ms,
        to_alertmanager_p99_ms,
        records: RECORDS,
        to_siem_p50_ms,
        to_siem_p99_ms,
        daemon_idle_percent_of_a_core: idle.percent_of_a_core,
        daemon_idle_rss_mib: idle.rss_mib,
    })
}

/// From asking for a failure to the record of it, milliseconds.
fn records(scenarios: &Path, siem: &TcpListener) -> Result<Vec<f64>> {
    let mut servers = (0..SERVERS)
        .map(|_| Acceptor::run(scenarios))
        .collect::<Result<Vec<_>>>()?;
    // It connects when it has something to say.
    servers[0].fail(1)?;
    let (connection, _) = siem.accept().context("nothing came to the SIEM")?;
    let lines = lines::of(connection);
    until(&lines, |line| is_event(line, servers[0].pid))?;
    let mut took = Vec::with_capacity(RECORDS);
    for number in 0..RECORDS {
        thread::sleep(PAUSE);
        let server = &mut servers[(number + 1) % SERVERS];
        let asked = Instant::now();
        server.fail(1)?;
        until(&lines, |line| is_event(line, server.pid))
            .with_context(|| format!("failure {number}, of process {}", server.pid))?;
        took.push(milliseconds(asked));
    }
    Ok(took)
}

/// Whether a syslog message has the record of one failure of a process.
fn is_event(message: &str, pid: u32) -> bool {
    let record = message.find('{').map(|at| &message[at..]);
    let record: Option<Value> = record.and_then(|text| serde_json::from_str(text).ok());
    record.is_some_and(|record| record["type"] == "event" && record["process"]["pid"] == pid)
}

/// From asking for a server's first failure to the alert, milliseconds.
fn incidents(scenarios: &Path, alerts: &Receiver<String>) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    let mut servers = Vec::new();
    for number in 0..INCIDENTS {
        let mut server = Acceptor::run(scenarios)?;
        // What the daemon does once a second is not to be met at the same point each time.
        thread::sleep(Duration::from_secs(1) * (number * 37 % INCIDENTS) / INCIDENTS);
        let asked = Instant::now();
        server.fail(1)?;
        let listener = format!("\"127.0.0.1:{}\"", server.port);
        until(alerts, |body| body.contains(&listener))?;
        took.push(milliseconds(asked));
        servers.push(server);
    }
    Ok(took)
}

fn until(said: &Receiver<String>, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let text = said.recv_timeout(left).context("what failed is not told")?;
        if wanted(&text) {
            return Ok(());
        }
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
