//! The daemon while what it depends on is down, slow, broken or full, and while who it watches comes
//! and goes. The truth is what servers and receivers noted.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use turnaway_tests::daemon::{Daemon, configure, failures, fired_and_over};
use turnaway_tests::disk::Disk;
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::servers::alertmanager::Alertmanager;
use turnaway_tests::servers::foreground::{folder, free_port};
use turnaway_tests::servers::receiver::{Manner, Receiver};
use turnaway_tests::{apart, tracer, wait};

/// When an incident is over.
const RESOLVE: Duration = Duration::from_secs(6);
/// Within which it must be told.
const SOON: Duration = Duration::from_secs(3);

fn webhook(name: &str, receiver: &Receiver, timeout: &str) -> String {
    format!(
        "[[notify]]\ntype = \"webhook\"\nname = \"{name}\"\nurl = \"{}\"\ntimeout = \"{timeout}\"\n",
        receiver.url()
    )
}

fn start(dir: &Path, receivers: &str) -> Result<Daemon> {
    let config = configure(dir, receivers, RESOLVE)?;
    Daemon::start(&tracer::binary()?, &config, &dir.join("state"))
}

fn acceptor() -> Result<Acceptor> {
    Acceptor::run(&tracer::scenarios()?)
}

/// Whether an alert of Alertmanager's is of the server at a port.
fn is_at(alert: &Value, port: u16) -> bool {
    alert["labels"]["listener"] == format!("127.0.0.1:{port}")
}

/// Of what came of an incident, each once, in the order in which it first came.
fn different(told: &[String]) -> Vec<&str> {
    let mut different = Vec::new();
    for status in told {
        if !different.contains(&status.as_str()) {
            different.push(status.as_str());
        }
    }
    different
}

/// One receiver is down, one does not answer, one answers 500: the others are told at once, all is
/// counted meanwhile, and in the end everybody knows what is true.
#[test]
fn receivers_that_are_down_slow_or_broken_hold_up_nobody() {
    let dir = folder().unwrap();
    let passes_on = Receiver::start(Manner::Takes).unwrap();
    let quick = Receiver::start(Manner::Takes).unwrap();
    let slow = Receiver::start(Manner::Waits).unwrap();
    let broken = Receiver::start(Manner::Answers(500)).unwrap();
    let port = free_port().unwrap();
    let alertmanager = Alertmanager::start(port, &passes_on.url()).unwrap();
    let receivers = [
        format!(
            "[[notify]]\ntype = \"alertmanager\"\nurl = \"{}\"\n",
            alertmanager.url()
        ),
        webhook("slow", &slow, "1s"),
        webhook("broken", &broken, "10s"),
        webhook("quick", &quick, "10s"),
    ];
    let mut daemon = start(dir.path(), &receivers.concat()).unwrap();

    // The first is known when Alertmanager goes, and over when it comes back.
    let mut first = acceptor().unwrap();
    assert_eq!(first.fail(3).unwrap(), 3);
    alertmanager
        .until("the first", |firing| {
            firing.iter().any(|one| is_at(one, first.port))
        })
        .unwrap();
    drop(alertmanager);
    daemon.over(first.port).unwrap();

    // The second begins meanwhile, and lasts.
    let mut second = acceptor().unwrap();
    let client = second.client().unwrap();
    let failed = Instant::now();
    assert_eq!(second.fail(5).unwrap(), 5);
    quick.until_told(second.port, "firing").unwrap();
    let took = failed.elapsed();
    assert!(took < SOON, "{took:?}");
    daemon
        .until_counted("queue.stalled", second.port, 1)
        .unwrap();
    assert_eq!(second.fail(1_000).unwrap(), 1_005);
    for (port, count) in [(first.port, 3), (second.port, 1_005)] {
        daemon.until_counted("accept.emfile", port, count).unwrap();
    }
    for receiver in [&slow, &broken] {
        receiver.until_arrived(2).unwrap();
        assert!(receiver.took().is_empty());
    }

    // It has forgotten everything, and is told what is true now.
    let alertmanager = Alertmanager::start(port, &passes_on.url()).unwrap();
    alertmanager
        .until("the second alone", |firing| {
            firing.iter().any(|one| is_at(one, second.port))
                && !firing.iter().any(|one| is_at(one, first.port))
        })
        .unwrap();
    assert_eq!(second.recover().unwrap(), 1);
    daemon.over(second.port).unwrap();
    alertmanager
        .until("its end", |firing| {
            !firing.iter().any(|one| is_at(one, second.port))
        })
        .unwrap();

    // The others are told the whole story, each beginning before its end.
    slow.becomes(Manner::Takes);
    broken.becomes(Manner::Takes);
    for receiver in [&quick, &slow, &broken] {
        for port in [first.port, second.port] {
            receiver.until_told(port, "resolved").unwrap();
            let told = receiver.told(port);
            assert_eq!(different(&told), ["firing", "resolved"], "{told:?}");
        }
    }
    let metrics = daemon.get("/metrics").unwrap();
    for line in metrics.lines() {
        if line.starts_with("turnaway_notifications_dropped_total{") {
            assert!(line.ends_with(" 0"), "{line}");
        }
    }
    let ended = daemon.stop().unwrap();
    for port in [first.port, second.port] {
        let told = ended.told(port);
        let over = fired_and_over(&told).unwrap();
        let count = if port == first.port { 3 } else { 1_005 };
        assert_eq!(failures(over, "accept.emfile"), Some(count));
        // Nothing went wrong with these: they were told exactly what was written, once.
        let statuses: Vec<&str> = told
            .iter()
            .filter_map(|one| one["status"].as_str())
            .collect();
        for receiver in [&quick, &broken] {
            assert_eq!(receiver.told(port), statuses);
        }
    }
    drop(client);
}

/// The disk that the daemon's state and queue are on is full, and the receiver answers 500.
#[test]
fn a_full_disk_loses_nothing() {
    const WORDS: &str = "incidents are in memory only";
    let dir = folder().unwrap();
    let receiver = Receiver::start(Manner::Answers(500)).unwrap();
    let receivers = webhook("hook", &receiver, "10s");
    let ended = apart::on_small_disk(dir.path(), || {
        let mut daemon = start(dir.path(), &receivers)?;
        let filler = dir.path().join("filler");
        // More than fits: what fits is written.
        ensure!(fs::write(&filler, vec![0; 2 * apart::SMALL]).is_err());
        let mut acceptor = acceptor()?;
        let port = acceptor.port;
        // As long as it waits, it is not over.
        let _client = acceptor.client()?;
        acceptor.fail(4)?;
        let fired = daemon.fires(port)?;
        daemon.until_counted("queue.stalled", port, 1)?;
        daemon.says(WORDS)?;
        // What is written anew cannot be written either.
        let written = dir.path().join("state/incidents.json.new");
        fs::remove_file(&written)?;
        let mut other = self::acceptor()?;
        other.fail(1)?;
        daemon.fires(other.port)?;
        wait::until_true("the state to be written again", || Ok(written.exists()))?;
        receiver.until_arrived(2)?;
        // Told all the same, and counted.
        receiver.becomes(Manner::Takes);
        receiver.until_told(port, "firing")?;
        let tally = acceptor.fail(100)?;
        daemon.until_counted("accept.emfile", port, tally)?;
        // With room, it is kept after all.
        fs::remove_file(&filler)?;
        let id = fired["id"].as_str().context("no id")?;
        let kept = dir.path().join("state/incidents.json");
        wait::until_true("the state to be kept", || {
            let text = fs::read_to_string(&kept).unwrap_or_default();
            Ok(text.contains(id))
        })?;
        ensure!(acceptor.recover()? == 1, "nobody has waited");
        let over = daemon.over(port)?;
        ensure!(over["id"] == fired["id"], "another incident: {over}");
        ensure!(failures(&over, "accept.emfile") == Some(tally), "{over}");
        receiver.until_told(port, "resolved")?;
        let ended = daemon.stop()?;
        let told = ended.told(port);
        fired_and_over(&told)?;
        ensure!(
            receiver.told(port).len() == told.len(),
            "{:?}",
            receiver.took()
        );
        Ok(ended)
    })
    .unwrap();
    // It is said once, not each time.
    assert_eq!(ended.warned.matches(WORDS).count(), 1, "{}", ended.warned);
}

/// The disk that the daemon's state, queue and history are on hangs before anything happens, and for as long as
/// the incident lasts.
#[test]
fn a_disk_that_hangs_delays_nothing_and_is_caught_up_with() {
    let dir = folder().unwrap();
    let disk = Disk::ext4(32).unwrap();
    let state = disk.mounted.join("state");
    let receiver = Receiver::start(Manner::Takes).unwrap();
    let config = configure(dir.path(), &webhook("hook", &receiver, "10s"), RESOLVE).unwrap();
    let mut daemon = Daemon::start(&tracer::binary().unwrap(), &config, &state).unwrap();
    let mut acceptor = acceptor().unwrap();
    let port = acceptor.port;
    wait::until_true("the history to be there", || {
        Ok(state.join("history.db").exists())
    })
    .unwrap();

    let frozen = disk.freeze().unwrap();
    let failed = Instant::now();
    let tally = acceptor.fail(7).unwrap();
    receiver.until_told(port, "firing").unwrap();
    let took = failed.elapsed();
    assert!(took < SOON, "{took:?}");
    daemon.until_counted("accept.emfile", port, tally).unwrap();
    let took = failed.elapsed();
    assert!(took < SOON, "{took:?}");
    // More of it, and its end, while the disk still hangs.
    let tally = acceptor.fail(100).unwrap();
    daemon.until_counted("accept.emfile", port, tally).unwrap();
    receiver.until_told(port, "resolved").unwrap();
    let fired = daemon.fires(port).unwrap();
    daemon.over(port).unwrap();
    drop(frozen);

    let id = fired["id"].as_str().unwrap();
    let report = || -> Result<Option<Value>> {
        let output = Command::new(tracer::binary()?)
            .args(["report", "-o", "json", "--state"])
            .args([state.as_os_str(), id.as_ref()])
            .output()?;
        if !output.status.success() {
            return Ok(None);
        }
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let is_over = report["incidents"][0]["incident"]["status"] == "resolved";
        Ok(is_over.then(|| report["incidents"][0].clone()))
    };
    let kept = wait::until("the history to have all of it", report).unwrap();
    let counted = failures(&kept["incident"], "accept.emfile");
    assert_eq!(counted, Some(tally), "{kept:#}");
    assert!(kept["explanation"].is_object(), "{kept:#}");
    let ended = daemon.stop().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

/// The process that fails ends, and another is given its id.
#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let dir = folder().unwrap();
    let mut daemon = start(dir.path(), "").unwrap();
    let mut first = acceptor().unwrap();
    let started = Instant::now();
    let (pid, port) = (first.pid, first.port);
    assert_eq!(first.fail(3).unwrap(), 3);
    let one = daemon.fires(port).unwrap();
    // Starts that are closer may be one, told by clocks that were set meanwhile.
    thread::sleep(Duration::from_millis(2_500).saturating_sub(started.elapsed()));
    first.finish().unwrap();

    let mut command = Command::new(tracer::scenarios().unwrap());
    command.args(["driven", "--pid", &pid.to_string()]);
    let mut second = Acceptor::start(&mut command).unwrap();
    assert_eq!(second.pid, pid);
    assert_eq!(second.fail(4).unwrap(), 4);
    let other = daemon.fires(second.port).unwrap();
    assert_ne!(other["id"], one["id"]);
    for (incident, port, count) in [(&one, port, 3), (&other, second.port, 4)] {
        daemon.until_counted("accept.emfile", port, count).unwrap();
        let over = daemon.over(port).unwrap();
        assert_eq!(over["id"], incident["id"]);
        assert_eq!(over["victim"]["process"]["pid"], pid);
        assert_eq!(failures(&over, "accept.emfile"), Some(count), "{over}");
    }
    let start = |incident: &Value| incident["victim"]["process"]["start_time"].clone();
    assert_ne!(start(&one), start(&other));
    let ended = daemon.stop().unwrap();
    let summary = ended.records.last().unwrap();
    let counts: Vec<&Value> = summary["totals"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|total| total["process"]["pid"] == pid && total["reason"] == "accept.emfile")
        .map(|total| &total["count"])
        .collect();
    assert!(
        counts.len() == 2 && counts.contains(&&3.into()),
        "{counts:?}"
    );
}
