//! What holds of the daemon on every machine: run here by tests, and in guests by
//! `turnaway-scenarios check NAME`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::cgroup::{Cgroup, Hierarchy, hierarchies};
use crate::daemon::{Daemon, configure, failures, fired_and_over};
use crate::scenario::env;
use crate::scenario::run::Programs;
use crate::servers::acceptor::Acceptor;
use crate::sys;

/// When an incident is over.
const RESOLVE: Duration = Duration::from_secs(3);

/// The daemon's time goes on in steps of so much.
const TICK: Duration = Duration::from_secs(1);

/// Runs the check of that name.
pub fn run(name: &str, programs: &Programs) -> Result<()> {
    match name {
        "cgroups" => {
            for hierarchy in hierarchies()? {
                println!("two cgroups of the {} hierarchy", hierarchy.name);
                two_cgroups(programs, &hierarchy)?;
                println!("a cgroup of the {} hierarchy is removed", hierarchy.name);
                removed_cgroup(programs, &hierarchy)?;
            }
            Ok(())
        }
        "clock" => {
            println!("a clock that is set back");
            clock_set_back(programs)
        }
        _ => bail!("no check is called {name}"),
    }
}

fn acceptor(programs: &Programs) -> Result<Acceptor> {
    Acceptor::run(&programs.scenarios)
}

fn daemon(programs: &Programs, dir: &Path) -> Result<Daemon> {
    let config = configure(dir, "", RESOLVE)?;
    Daemon::start(&programs.turnaway, &config, &dir.join("state"))
}

/// An incident has this victim, of that cgroup.
fn is_of(record: &Value, acceptor: &Acceptor, cgroup: &Cgroup) -> Result<()> {
    let victim = &record["victim"]["process"];
    ensure!(
        victim["pid"] == acceptor.pid
            && victim["comm"] == "turnaway-scenar"
            && victim["cgroup"] == cgroup.name
            && victim["unit"] == cgroup.name[1..],
        "not process {} of {}: {victim}",
        acceptor.pid,
        cgroup.name
    );
    Ok(())
}

/// The same program in two cgroups is two, in everything that is told.
fn two_cgroups(programs: &Programs, hierarchy: &Hierarchy) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut daemon = daemon(programs, dir.path())?;
    let cgroups = [
        Cgroup::make(hierarchy, "a.service")?,
        Cgroup::make(hierarchy, "b.service")?,
    ];
    let mut acceptors = [acceptor(programs)?, acceptor(programs)?];
    for (acceptor, cgroup) in acceptors.iter().zip(&cgroups) {
        cgroup.take(acceptor.pid)?;
    }
    // Numbers that cannot be taken for one another.
    for (acceptor, count) in acceptors.iter_mut().zip([7, 11]) {
        acceptor.fail(count)?;
    }
    for (acceptor, cgroup) in acceptors.iter().zip(&cgroups) {
        let fired = daemon.fires(acceptor.port)?;
        is_of(&fired, acceptor, cgroup)?;
    }
    let tally = [acceptors[0].fail(5)?, acceptors[1].fail(0)?];
    ensure!(tally == [12, 11], "{tally:?}");
    let mut ids = Vec::new();
    for ((acceptor, cgroup), count) in acceptors.iter().zip(&cgroups).zip(tally) {
        daemon.until_counted("accept.emfile", acceptor.port, count)?;
        let over = daemon.over(acceptor.port)?;
        is_of(&over, acceptor, cgroup)?;
        let told = failures(&over, "accept.emfile");
        ensure!(told == Some(count), "{count}: {over}");
        ids.push(over["id"].clone());
    }
    ensure!(ids[0] != ids[1], "one incident: {ids:?}");
    let ended = daemon.stop()?;
    let summary = ended.records.last().context("no summary")?;
    for ((acceptor, cgroup), count) in acceptors.iter().zip(&cgroups).zip(tally) {
        fired_and_over(&ended.told(acceptor.port))?;
        let totals = summary["totals"].as_array().context("no totals")?;
        let ours: Vec<&Value> = totals
            .iter()
            .filter(|total| total["process"]["cgroup"] == cgroup.name)
            .filter(|total| total["reason"] == "accept.emfile")
            .collect();
        ensure!(
            matches!(ours[..], [one] if one["count"] == count && one["process"]["pid"] == acceptor.pid),
            "{count} of {}: {ours:#?}",
            cgroup.name
        );
    }
    drop(acceptors);
    Ok(())
}

/// A process ends, and its cgroup is removed, in the middle of its incident: that keeps its name
/// and its failures, and ends.
fn removed_cgroup(programs: &Programs, hierarchy: &Hierarchy) -> Result<()> {
    const FAILURES: u64 = 9;
    let dir = tempfile::tempdir()?;
    let mut daemon = daemon(programs, dir.path())?;
    let cgroup = Cgroup::make(hierarchy, "gone.service")?;
    let name = cgroup.name.clone();
    let mut acceptor = acceptor(programs)?;
    let (pid, port) = (acceptor.pid, acceptor.port);
    cgroup.take(pid)?;
    acceptor.fail(FAILURES)?;
    let fired = daemon.fires(port)?;
    is_of(&fired, &acceptor, &cgroup)?;
    acceptor.finish()?;
    cgroup.remove()?;
    let over = daemon.over(port)?;
    let victim = &over["victim"]["process"];
    ensure!(
        over["id"] == fired["id"]
            && victim["pid"] == pid
            && victim["cgroup"] == name
            && failures(&over, "accept.emfile") == Some(FAILURES),
        "{over}"
    );
    daemon.stop()?;
    Ok(())
}

/// The clock of the machine is set back by an hour in the middle of an incident.
fn clock_set_back(programs: &Programs) -> Result<()> {
    const HOUR_NS: i128 = 3_600_000_000_000;
    ensure!(env::is_guest(), "the clock is set in guests only");
    let dir = tempfile::tempdir()?;
    let mut daemon = daemon(programs, dir.path())?;
    let mut acceptor = acceptor(programs)?;
    let port = acceptor.port;
    acceptor.fail(4)?;
    let fired = daemon.fires(port)?;
    let before = sys::clock_ns(libc::CLOCK_REALTIME);
    sys::set_clock(before - HOUR_NS)?;
    let last = Instant::now();
    let tally = acceptor.fail(6)?;
    daemon.until_counted("accept.emfile", port, tally)?;
    let over = daemon.over(port)?;
    let took = last.elapsed();
    ensure!(over["id"] == fired["id"], "another incident: {over}");
    ensure!(
        took + TICK >= RESOLVE && took < RESOLVE * 10,
        "it was over after {took:?}"
    );
    ensure!(
        failures(&over, "accept.emfile") == Some(tally),
        "{tally}: {over}"
    );
    let time = |name: &str| -> Result<jiff::Timestamp> {
        let text = over[name].as_str().context("no time")?;
        Ok(text.parse()?)
    };
    ensure!(time("started")? <= time("ended")?, "{over}");

    // What comes after that is told like any other.
    acceptor.recover()?;
    acceptor.fail(3)?;
    let again = daemon.until("another incident", |record| {
        record["status"] == "firing" && record["id"] != fired["id"]
    })?;
    ensure!(again["again_of"] == fired["id"], "{again}");
    let over = daemon.over(port)?;
    ensure!(over["id"] == again["id"], "{over}");
    ensure!(failures(&over, "accept.emfile") == Some(3), "{over}");
    daemon.stop()?;
    Ok(())
}
