//! Servers fail while a syslog server is restarted twenty times and the daemon is killed twice: what rsyslog
//! wrote adds up to the servers' own tallies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use turnaway_tests::daemon::{Daemon, configure};
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::servers::foreground::{folder, unread};
use turnaway_tests::{tracer, wait};

use crate::daemon::failed;
use crate::syslog::Rsyslog;

const SERVERS: usize = 3;
const RESTARTS: usize = 20;
/// Between failures of the servers. Nothing waits for it.
const PACE: Duration = Duration::from_millis(20);
/// A record that rsyslog's kernel has for longer counts as arrived: the restarts below are quicker, but the
/// last of them.
const SETTLE: &str = "5s";

/// A server, and how often it has failed by its own account.
struct Server {
    acceptor: Acceptor,
    failed: u64,
}

/// The host: those who fail, who tells, and who is told.
struct Host {
    servers: Vec<Server>,
    rsyslog: Rsyslog,
    /// None while it is killed.
    daemon: Option<Daemon>,
    binary: PathBuf,
    config: PathBuf,
    state: PathBuf,
    /// What each server had failed when this daemon began.
    before: Vec<u64>,
}

impl Host {
    fn start(dir: &Path) -> Self {
        let rsyslog = Rsyslog::start(dir, "", "");
        let stream = format!(
            "heartbeat = \"1s\"\n[[stream]]\ntype = \"tcp\"\naddress = \"127.0.0.1:{}\"\n\
             envelope = \"rfc5424\"\nframing = \"octet-counted\"\nsettle = \"{SETTLE}\"\n",
            rsyslog.port
        );
        let scenarios = tracer::scenarios().unwrap();
        let servers = (0..SERVERS).map(|_| Server {
            acceptor: Acceptor::run(&scenarios).unwrap(),
            failed: 0,
        });
        let mut host = Self {
            servers: servers.collect(),
            rsyslog,
            daemon: None,
            binary: tracer::binary().unwrap(),
            config: configure(dir, &stream, Duration::from_secs(3)).unwrap(),
            state: dir.join("state"),
            before: Vec::new(),
        };
        host.begin();
        host
    }

    fn begin(&mut self) {
        self.before = self.servers.iter().map(|server| server.failed).collect();
        let daemon = Daemon::start(&self.binary, &self.config, &self.state);
        self.daemon = Some(daemon.unwrap());
    }

    /// Kills the daemon, which gets to say nothing more.
    fn kill(&mut self) {
        let daemon = self.daemon.take().unwrap();
        daemon.signal(libc::SIGKILL).unwrap();
    }

    /// All that came to rsyslog, each record once however often it came.
    fn came(&self) -> BTreeMap<String, Value> {
        by_ids(self.rsyslog.by_lives().into_iter().flatten())
    }

    /// The same, and what the daemon keeps on disk.
    fn kept(&self) -> BTreeMap<String, Value> {
        let mut all = by_ids(spooled(&self.state.join("stream/tcp")).into_iter());
        all.append(&mut self.came());
        all
    }

    /// Waits until the servers' own tallies are what records add up to.
    fn until_told(&self, what: &str, records: impl Fn(&Self) -> BTreeMap<String, Value>) {
        let tallies: Vec<u64> = self.servers.iter().map(|server| server.failed).collect();
        let mut sums = Vec::new();
        let told = wait::until_true(what, || {
            let records = records(self);
            let ports = self.servers.iter().map(|server| server.acceptor.port);
            sums = ports.map(|port| sum(&records, port)).collect();
            Ok(sums == tallies)
        });
        told.unwrap_or_else(|error| panic!("{error:#}: {sums:?}, not {tallies:?}"));
    }

    /// Waits until all that has come by now counts as arrived, and returns the ids of that.
    fn until_settled(&self) -> BTreeSet<String> {
        let records = self.came();
        let (run, last) = newest(records.values()).unwrap();
        wait::until_true("all of it to count as arrived", || {
            let life = self.rsyslog.by_lives().pop().unwrap();
            let now = newest(life.iter()).filter(|(now, _)| *now == run);
            let Some((_, now)) = now else {
                return Ok(false);
            };
            // At least so many were made before it is asked how many wait, and they wait in order.
            Ok(now >= last + self.waiting()?)
        })
        .unwrap();
        records.into_keys().collect()
    }

    /// How many records wait, as the daemon answers.
    fn waiting(&self) -> Result<u64> {
        let mut ask = Command::new(&self.binary);
        ask.args(["status", "--json", "--socket"]);
        let answer = ask.arg(self.state.join("control.sock")).output()?;
        let status: Value = serde_json::from_slice(&answer.stdout)?;
        let waiting = status["streams"][0]["waiting"].as_u64();
        waiting.with_context(|| format!("{answer:?}"))
    }

    /// Restarts rsyslog so often while the servers fail.
    fn restarts(&mut self, times: usize) {
        let Self {
            servers, rsyslog, ..
        } = self;
        let (end, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(PACE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    for server in &mut *servers {
                        server.failed = server.acceptor.fail(7).unwrap();
                    }
                }
            });
            for restart in 0..times {
                wait::until_true("something new", || Ok(rsyslog.has_written())).unwrap();
                if restart % 2 == 0 {
                    rsyslog.end();
                } else {
                    // What it has not read dies with it.
                    rsyslog.freeze();
                    wait::until_true("something unread", || Ok(unread(rsyslog.port)? > 0)).unwrap();
                    rsyslog.kill();
                }
                rsyslog.up();
            }
            drop(end);
        });
    }
}

/// Records by their ids. The same id is the same record.
fn by_ids(records: impl Iterator<Item = Value>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for record in records {
        let id = record["record_id"].as_str().unwrap().to_owned();
        if let Some(before) = all.insert(id, record.clone()) {
            assert_eq!(before, record);
        }
    }
    all
}

/// Failures at a port that records of growth add up to.
fn sum(records: &BTreeMap<String, Value>, port: u16) -> u64 {
    let own = records.values().filter(|record| {
        record["type"] == "count"
            && record["reason"] == "accept.emfile"
            && record["listener"]["port"] == port
    });
    own.map(|record| record["count"].as_u64().unwrap()).sum()
}

/// The records that are in the files of a folder, among whatever else is there.
fn spooled(folder: &Path) -> Vec<Value> {
    let mut records = Vec::new();
    for file in fs::read_dir(folder).into_iter().flatten() {
        // One that has arrived is removed meanwhile.
        let bytes = fs::read(file.unwrap().path()).unwrap_or_default();
        let begins = bytes
            .windows(10)
            .enumerate()
            .filter(|(_, at)| at == b"{\"schema\":");
        for (begins, _) in begins {
            let mut json =
                serde_json::Deserializer::from_slice(&bytes[begins..]).into_iter::<Value>();
            // The last may be half written.
            records.extend(json.next().and_then(Result::ok));
        }
    }
    records
}

/// The run that a record is of, and its number in that.
fn place(record: &Value) -> (String, u64) {
    let (run, number) = record["record_id"]
        .as_str()
        .unwrap()
        .split_once('-')
        .unwrap();
    (run.to_owned(), number.parse().unwrap())
}

/// The latest run of which there is a record, and its highest number.
fn newest<'a>(records: impl Iterator<Item = &'a Value> + Clone) -> Option<(String, u64)> {
    // Times of one format are in the order of their text.
    let latest = records
        .clone()
        .max_by_key(|record| record["time"].as_str())?;
    let (run, _) = place(latest);
    records.map(place).filter(|one| one.0 == run).max()
}

/// How many records each run has: none is missing.
fn no_gaps<'a>(records: impl Iterator<Item = &'a Value>) -> BTreeMap<String, u64> {
    let mut runs: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for record in records {
        let (run, number) = place(record);
        runs.entry(run).or_default().insert(number);
    }
    for numbers in runs.values() {
        let last = *numbers.last().unwrap();
        let missing: Vec<u64> = (1..=last).filter(|one| !numbers.contains(one)).collect();
        assert!(missing.is_empty(), "of {last} are missing {missing:?}");
    }
    let count = |(run, numbers): (String, BTreeSet<u64>)| (run, numbers.len() as u64);
    runs.into_iter().map(count).collect()
}

#[test]
fn every_record_arrives_across_twenty_restarts_and_two_kills() {
    let dir = folder().unwrap();
    let mut host = Host::start(dir.path());
    let clients: Vec<_> = host
        .servers
        .iter()
        .map(|server| server.acceptor.client().unwrap())
        .collect();

    // Killed while some of it is under way, which is with nobody but the disk.
    host.restarts(RESTARTS / 2);
    wait::until_true("something new", || Ok(host.rsyslog.has_written())).unwrap();
    host.rsyslog.freeze();
    wait::until_true("something unread", || Ok(unread(host.rsyslog.port)? > 0)).unwrap();
    host.until_told("all that failed to be kept", Host::kept);
    host.kill();
    host.rsyslog.kill();
    host.rsyslog.up();

    // Killed when nothing waits: what has arrived is not sent again.
    host.begin();
    host.restarts(RESTARTS / 2 - 2);
    host.until_told("all that failed to arrive", Host::came);
    let settled = host.until_settled();
    host.rsyslog.end();
    host.kill();
    let lives = host.rsyslog.by_lives().len();
    host.rsyslog.up();

    host.begin();
    host.restarts(RESTARTS / 10);
    host.until_told("all that ever failed to arrive", Host::came);
    host.daemon.take().unwrap().stop().unwrap();
    let is_summary = |record: &Value| record["type"] == "summary";
    wait::until_true("the summary", || Ok(host.came().values().any(is_summary))).unwrap();

    let came = host.came();
    let runs = no_gaps(came.values());
    assert_eq!(runs.len(), 3, "{runs:?}");
    let summary = came.values().find(|record| is_summary(record)).unwrap();
    for (server, before) in host.servers.iter().zip(&host.before) {
        assert_eq!(
            failed(summary, server.acceptor.port),
            Some(server.failed - before)
        );
    }
    let by_lives = host.rsyslog.by_lives();
    let again: Vec<&str> = by_lives[lives - 1..]
        .iter()
        .flatten()
        .filter_map(|record| record["record_id"].as_str())
        .filter(|id| settled.contains(*id))
        .collect();
    assert!(again.is_empty(), "{} came again: {again:?}", again.len());
    let all: usize = by_lives.iter().map(Vec::len).sum();
    println!("{all} came, {} different: {runs:?}", came.len());
    drop(clients);
    host.rsyslog.kill();
}
