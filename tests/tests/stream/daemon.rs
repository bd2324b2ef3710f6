//! The daemon's own stream: what a server failed, by its own tally, is what a receiver adds up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use turnaway_tests::daemon::{Daemon, configure};
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::servers::collector::Collector;
use turnaway_tests::servers::foreground::folder;
use turnaway_tests::{tracer, wait};

/// Failures at a port that records of growth add up to, each counted once however often it came.
fn total(records: &[Value], port: u16) -> u64 {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for record in records {
        if record["type"] == "count"
            && record["reason"] == "accept.emfile"
            && record["listener"]["port"] == port
        {
            let id = record["record_id"].as_str().unwrap();
            counts.insert(id, record["count"].as_u64().unwrap());
        }
    }
    counts.values().sum()
}

/// What the ids of the last daemon's records begin with.
fn run(records: &[Value]) -> &str {
    let last = records.last().unwrap()["record_id"].as_str().unwrap();
    last.split_once('-').unwrap().0
}

/// Failures of which a daemon's heartbeats say that they were counted.
fn beats(records: &[Value], run: &str) -> u64 {
    let beats: BTreeMap<&str, u64> = records
        .iter()
        .filter(|record| record["type"] == "heartbeat")
        .filter_map(|record| {
            let id = record["record_id"]
                .as_str()
                .filter(|id| id.starts_with(run))?;
            Some((id, record["counts"]["accept.emfile"].as_u64()?))
        })
        .collect();
    beats.values().sum()
}

/// Heartbeats rule out what was watched and not counted, and nothing else.
fn silence_means_something(records: &[Value]) {
    let codes = |list: &Value, name: Option<&str>| -> BTreeSet<String> {
        let all = list.as_array().expect("a list").iter();
        let code = |one: &Value| name.map_or(one.clone(), |name| one[name].clone());
        all.map(|one| code(one).as_str().unwrap().to_owned())
            .collect()
    };
    let mut ruled_out = 0;
    for beat in records
        .iter()
        .filter(|record| record["type"] == "heartbeat")
    {
        let out = codes(&beat["ruled_out"], None);
        ruled_out += out.len();
        let counted = beat["counts"].as_object().unwrap();
        assert!(
            !counted.keys().any(|reason| out.contains(reason)),
            "{beat:#}"
        );
        let blind = codes(&beat["blind"], Some("reason"));
        assert!(out.is_disjoint(&blind), "{beat:#}");
        let hooks = beat["hooks"].as_array().unwrap();
        let is_whole = hooks
            .iter()
            .filter(|hook| hook["name"] != "programs")
            .all(|hook| hook["status"] == "attached");
        assert_eq!(blind.is_empty(), is_whole, "{beat:#}");
    }
    assert!(ruled_out > 0, "nothing was ever ruled out");
}

/// What the last summary says of a port.
fn summed(records: &[Value], port: u16) -> Option<u64> {
    let summary = records.iter().rfind(|record| record["type"] == "summary")?;
    failed(summary, port)
}

/// What a summary says of a port.
pub(crate) fn failed(summary: &Value, port: u16) -> Option<u64> {
    let totals = summary["totals"].as_array()?.iter();
    let own = totals
        .filter(|total| total["listener"]["port"] == port && total["reason"] == "accept.emfile");
    own.map(|total| total["count"].as_u64()).sum()
}

/// The value of a metric of the stream.
fn metric(daemon: &Daemon, name: &str) -> f64 {
    let metrics = daemon.get("/metrics").unwrap();
    let name = format!("turnaway_stream_{name}");
    let line = metrics.lines().find(|line| line.starts_with(&name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_receiver_adds_up_what_the_daemon_tells() {
    let dir = folder().unwrap();
    let collector = Collector::start().unwrap();
    let stream = format!(
        "heartbeat = \"1s\"\n[[stream]]\ntype = \"tcp\"\naddress = \"127.0.0.1:{}\"\n\
         settle = \"300ms\"\n",
        collector.port
    );
    let config = configure(dir.path(), &stream, Duration::from_secs(3)).unwrap();
    let state = dir.path().join("state");
    let binary = tracer::binary().unwrap();
    let mut acceptor = Acceptor::run(&tracer::scenarios().unwrap()).unwrap();
    let port = acceptor.port;
    let _client = acceptor.client().unwrap();

    let mut daemon = Daemon::start(&binary, &config, &state).unwrap();
    let first = acceptor.fail(1_000).unwrap();
    wait::until_true("all that failed", || {
        Ok(total(&collector.records()?, port) == first)
    })
    .unwrap();

    // A SIEM that hears nothing of failures hears that somebody looks.
    wait::until_true("a heartbeat", || {
        let records = collector.records()?;
        Ok(records.iter().any(|record| {
            let hooks = record["hooks"].as_array();
            record["type"] == "heartbeat"
                && hooks.is_some_and(|hooks| hooks.iter().any(|hook| hook["name"] == "accept"))
        }))
    })
    .unwrap();
    // The configuration is read again, and the same stream goes on.
    daemon.signal(libc::SIGHUP).unwrap();
    daemon.says("was read again").unwrap();
    let last = acceptor.fail(100).unwrap();
    wait::until_true("what came after that", || {
        Ok(total(&collector.records()?, port) == last)
    })
    .unwrap();
    wait::until_true("metrics", || {
        Ok(metric(&daemon, "delivered_total") > 0.0 && metric(&daemon, "connected") > 0.0)
    })
    .unwrap();
    // Others on this host may fail as well: these are among them.
    wait::until_true("heartbeats to have counted them", || {
        let records = collector.records()?;
        Ok(beats(&records, run(&records)) >= last)
    })
    .unwrap();
    daemon.stop().unwrap();
    let records = collector.records().unwrap();
    assert_eq!(summed(&records, port), Some(last));
    silence_means_something(&records);
    for kind in ["event", "count", "incident", "heartbeat", "summary"] {
        assert!(
            records.iter().any(|record| record["type"] == kind),
            "no {kind}"
        );
    }
}

#[test]
fn a_file_is_opened_anew_on_sigusr1() {
    let dir = folder().unwrap();
    let path = dir.path().join("records.ndjson");
    let stream = format!(
        "heartbeat = \"1s\"\n[[stream]]\ntype = \"file\"\npath = \"{}\"\n",
        path.display()
    );
    let config = configure(dir.path(), &stream, Duration::from_secs(3)).unwrap();
    let daemon = Daemon::start(
        &tracer::binary().unwrap(),
        &config,
        &dir.path().join("state"),
    )
    .unwrap();
    wait::until_true("a heartbeat", || Ok(path.exists())).unwrap();
    std::fs::rename(&path, dir.path().join("moved")).unwrap();
    daemon.signal(libc::SIGUSR1).unwrap();
    wait::until_true("another", || Ok(path.exists())).unwrap();
    daemon.stop().unwrap();
}
