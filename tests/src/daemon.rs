//! Running `turnaway daemon` and reading what it tells while it runs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::servers::foreground::free_port;
use crate::tracer::wait_for;
use crate::{lines, sys, wait};

/// How long a word may take to come. Emulated processors are slow.
const PATIENCE: Duration = Duration::from_mins(1);

/// Rules that end an incident.
const QUICK: [&str; 7] = [
    "OutOfDescriptors",
    "ListenerStalled",
    "DescriptorsExhausted",
    "DescriptorPressure",
    "AcceptQueueOverflow",
    "AcceptQueueOverflows",
    "ConnectFails",
];

/// Writes a configuration: those receivers, and the default rules, by which all is over so soon.
pub fn configure(dir: &Path, receivers: &str, resolve_after: Duration) -> Result<PathBuf> {
    let mut text = receivers.to_owned();
    for name in QUICK {
        let seconds = resolve_after.as_secs();
        writeln!(
            text,
            "[[rule]]\nname = \"{name}\"\nresolve_after = \"{seconds}s\""
        )?;
        // Packets that were dropped are of account for a whole window.
        if name.contains("Overflow") || name == "ConnectFails" {
            text += "window = \"5s\"\n";
        }
    }
    let path = dir.join("turnaway.toml");
    fs::write(&path, text)?;
    Ok(path)
}

/// `turnaway daemon --json`. It is killed when this is dropped.
pub struct Daemon {
    /// Its process.
    pub child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    /// The records that were read so far.
    told: Vec<Value>,
    /// Which of them somebody has waited for.
    asked: BTreeSet<usize>,
    /// What was read of its standard error.
    warned: String,
    /// Where its metrics are.
    pub metrics: u16,
}

/// All that a daemon said, from its start to its end.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// From the signal to the end.
    pub took: Duration,
    /// Its records.
    pub records: Vec<Value>,
    /// Its standard error.
    pub warned: String,
}

impl Daemon {
    /// Starts it and waits until its hooks are in place.
    pub fn start(binary: &Path, config: &Path, state: &Path) -> Result<Self> {
        Self::start_with(binary, config, state, &[])
    }

    /// The same, with further arguments.
    pub fn start_with(binary: &Path, config: &Path, state: &Path, more: &[&OsStr]) -> Result<Self> {
        Self::start_by(&mut Command::new(binary), config, state, more)
    }

    /// The same, by a command that runs turnaway in some way.
    pub fn start_by(
        command: &mut Command,
        config: &Path,
        state: &Path,
        more: &[&OsStr],
    ) -> Result<Self> {
        let metrics = free_port()?;
        let mut child = command
            .args(["daemon", "--json", "--config"])
            .arg(config)
            .arg("--state")
            .arg(state)
            .args(["--metrics", &format!("127.0.0.1:{metrics}")])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run turnaway")?;
        let lines = lines::of(child.stdout.take().context("no output")?);
        let errors = lines::of(child.stderr.take().context("no standard error")?);
        let mut daemon = Self {
            child,
            lines,
            errors,
            told: Vec::new(),
            asked: BTreeSet::new(),
            warned: String::new(),
            metrics,
        };
        daemon.says("tracing with")?;
        Ok(daemon)
    }

    /// Waits until it says that on its standard error.
    pub fn says(&mut self, words: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.errors.recv_timeout(left) else {
                bail!("waited for {words:?}; it said:\n{}", self.warned);
            };
            self.warned += &line;
            self.warned.push('\n');
            if line.contains(words) {
                return Ok(());
            }
        }
    }

    /// The first record of an incident that is wanted, of those that were not asked for yet.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut next = 0;
        loop {
            while let Some(record) = self.told.get(next) {
                if record["type"] == "incident" && !self.asked.contains(&next) && wanted(record) {
                    self.asked.insert(next);
                    return Ok(record.clone());
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                bail!("waited for {what}; it told {:#?}", self.told);
            };
            self.take(&line)?;
        }
    }

    /// Waits until an incident of the server at a port fires.
    pub fn fires(&mut self, port: u16) -> Result<Value> {
        self.incident("firing", port)
    }

    /// Waits until an incident of the server at a port is over.
    pub fn over(&mut self, port: u16) -> Result<Value> {
        self.incident("resolved", port)
    }

    fn incident(&mut self, status: &str, port: u16) -> Result<Value> {
        self.until(&format!("{port} to be {status}"), |record| {
            record["status"] == status && is_at(record, port)
        })
    }

    /// Every record so far of incidents of the server at a port, oldest first.
    pub fn told(&mut self, port: u16) -> Result<Vec<Value>> {
        while let Ok(line) = self.lines.try_recv() {
            self.take(&line)?;
        }
        Ok(told(&self.told, port))
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let record = serde_json::from_str(line).with_context(|| format!("no record: {line:?}"))?;
        self.told.push(record);
        Ok(())
    }

    /// What its endpoint answers.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        Ok(answer)
    }

    /// What it has counted of a reason at a port.
    pub fn counted(&self, reason: &str, port: u16) -> Result<Option<u64>> {
        let (reason, port) = (format!("reason=\"{reason}\""), format!("port=\"{port}\""));
        let metrics = self.get("/metrics")?;
        let values = metrics
            .lines()
            .filter(|line| line.starts_with("turnaway_failures_total{"))
            .filter(|line| line.contains(&reason) && line.contains(&port))
            .map(|line| line.rsplit(' ').next().unwrap_or_default().parse());
        let values: Vec<u64> = values.collect::<Result<_, _>>()?;
        Ok((!values.is_empty()).then(|| values.iter().sum()))
    }

    /// Waits until it has counted so many of a reason at a port, and no more.
    pub fn until_counted(&self, reason: &str, port: u16, count: u64) -> Result<()> {
        let mut last = None;
        wait::until_true("the count", || {
            last = self.counted(reason, port)?;
            Ok(last == Some(count))
        })
        .with_context(|| format!("{reason} at {port}: {last:?}, not {count}"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        Ok(sys::kill(self.child.id(), signal)?)
    }

    /// Tells it to end, and returns all that it said. It must end well.
    pub fn stop(mut self) -> Result<Ended> {
        let begun = Instant::now();
        self.signal(libc::SIGTERM)?;
        let status = wait_for(&mut self.child, PATIENCE)?;
        let took = begun.elapsed();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.take(&line)?;
        }
        while let Ok(line) = self.errors.recv_timeout(PATIENCE) {
            self.warned += &line;
            self.warned.push('\n');
        }
        ensure!(
            status.success() && !self.warned.contains("panicked"),
            "{status}: {}",
            self.warned
        );
        Ok(Ended {
            status,
            took,
            records: std::mem::take(&mut self.told),
            warned: std::mem::take(&mut self.warned),
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Every record of incidents of the server at a port, oldest first.
    #[must_use]
    pub fn told(&self, port: u16) -> Vec<Value> {
        told(&self.records, port)
    }
}

/// Whether an incident is of the server at a port of 127.0.0.1.
#[must_use]
pub fn is_at(record: &Value, port: u16) -> bool {
    let statement = record["statement"].as_str().unwrap_or_default();
    let address = format!("127.0.0.1:{port}");
    // Another port may begin with the same digits.
    statement
        .match_indices(&address)
        .any(|(at, _)| !statement[at + address.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

fn told(records: &[Value], port: u16) -> Vec<Value> {
    let ours = |record: &&Value| record["type"] == "incident" && is_at(record, port);
    records.iter().filter(ours).cloned().collect()
}

/// What came of a reason in an incident.
#[must_use]
pub fn failures(incident: &Value, reason: &str) -> Option<u64> {
    incident["reasons"]
        .as_array()?
        .iter()
        .find(|one| one["reason"] == reason)?["count"]
        .as_u64()
}

/// One incident, which fires and is over: its records say nothing else. Returns the last.
pub fn fired_and_over(told: &[Value]) -> Result<&Value> {
    let (last, before) = told.split_last().context("nothing was told")?;
    let one = |record: &Value| record["id"] == last["id"];
    ensure!(
        last["status"] == "resolved"
            && !before.is_empty()
            && before
                .iter()
                .all(|record| one(record) && record["status"] == "firing"),
        "not one incident that fires and is over: {told:#?}"
    );
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_begins_like_another_is_another() {
        let record = serde_json::json!({ "statement": "accepts no more on 127.0.0.1:6432; and" });
        assert!(is_at(&record, 6432));
        assert!(!is_at(&record, 643));
    }
}
