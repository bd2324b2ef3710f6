//! `turnaway daemon`, and those who ask it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde_json::Value;
use turnaway_tests::{lines, sys, tracer, wait};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The daemon. It is killed when this is dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    pub(crate) state: PathBuf,
}

impl Daemon {
    /// Starts it with a state of its own, and waits until hooks are in place.
    pub(crate) fn start(dir: &Path, config: &str, more: &[&str]) -> Self {
        let file = dir.join("turnaway.toml");
        fs::write(&file, config).unwrap();
        let state = dir.join("state");
        let mut child = Command::new(tracer::binary().unwrap())
            .args(["daemon", "--json", "--config"])
            .arg(&file)
            .arg("--state")
            .arg(&state)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines::of(child.stdout.take().unwrap());
        let errors = lines::of(child.stderr.take().unwrap());
        let daemon = Self {
            child,
            lines,
            errors,
            state,
        };
        daemon.says("tracing with");
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.state.join("control.sock")
    }

    /// Waits until it says that on stderr.
    pub(crate) fn says(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.errors.recv_timeout(left).unwrap_or_else(|error| {
                panic!("waited for {words:?}: {error}; it said {said:#?}");
            });
            if line.contains(words) {
                return;
            }
            said.push(line);
        }
    }

    /// The next record of an incident with this status at a port.
    pub(crate) fn incident(&self, status: &str, port: u16) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|error| {
                panic!("waited for an incident that is {status}: {error}");
            });
            let record: Value = serde_json::from_str(&line).unwrap();
            if record["status"] == status && is_at(&record, port) {
                return record;
            }
        }
    }

    /// All records of incidents at a port that it writes until it has ended.
    pub(crate) fn rest(&self, port: u16) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut rest = Vec::new();
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            let record: Value = serde_json::from_str(&line).unwrap();
            if is_at(&record, port) {
                rest.push(record);
            }
        }
        rest
    }

    /// Runs `turnaway ARGUMENTS --socket` with its socket, as this user.
    pub(crate) fn ask_as(&self, uid: u32, arguments: &[&str]) -> Output {
        Command::new(tracer::binary().unwrap())
            .args(arguments)
            .arg("--socket")
            .arg(self.socket())
            .uid(uid)
            .output()
            .unwrap()
    }

    /// The same as root; it must be answered.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let output = self.ask_as(0, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ask(&["status", "--json"])).unwrap()
    }

    /// Waits until its status is so.
    pub(crate) fn until_status(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, || {
            let status = self.status();
            Ok(holds(&status).then_some(status))
        })
        .unwrap()
    }

    pub(crate) fn signal(&self, signal: i32) {
        sys::kill(self.child.id(), signal).unwrap();
    }

    /// Ends it well; says how long that took.
    pub(crate) fn end(&mut self) -> Duration {
        let begun = Instant::now();
        self.signal(libc::SIGTERM);
        let status = tracer::wait_for(&mut self.child, PATIENCE).unwrap();
        assert!(status.success(), "{status}");
        begun.elapsed()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether it is the record of an incident at a port.
pub(crate) fn is_at(record: &Value, port: u16) -> bool {
    let listeners = record["listeners"].as_array();
    record["type"] == "incident"
        && listeners.is_some_and(|all| all.iter().any(|one| one["port"] == port))
}

/// Failures of a reason in an incident.
pub(crate) fn count(record: &Value, reason: &str) -> u64 {
    let reasons = record["reasons"].as_array().unwrap();
    let of = reasons.iter().filter(|one| one["reason"] == reason);
    of.map(|one| one["count"].as_u64().unwrap()).sum()
}

/// `GET path` from a port of this host; `None` where nobody listens.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    Some(answer)
}
