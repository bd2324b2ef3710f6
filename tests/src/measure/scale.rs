//! What turnaway takes the more there is to look at, and the more processes, cgroups and kinds of failures there are while as
//! much fails as ever.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::holder::Holder;
use super::usage::{Usage, Used};
use super::watcher::{Program, Watcher, totals};
use super::{HELD, listeners, say};
use crate::records::{Key, Peer};

const LISTENERS: [usize; 4] = [1, 100, 10_000, 50_000];
const PROCESSES: [u64; 4] = [1, 100, 1_000, 10_000];
const CGROUPS: [u64; 3] = [1, 100, 2_000];
const KEYS: [u64; 3] = [100, 10_000, 100_000];

/// How long listeners are looked at.
const WHILE: Duration = Duration::from_secs(10);
/// Failures a second of all processes together, and for how long: each of 10 000 fails twice.
const RATE: u64 = 1_000;
const SECONDS: u64 = 20;
/// Failures of all keys together, and within how many seconds.
const REFUSED: u64 = 100_000;
const MINUTE: u64 = 60;

/// What so many of something took.
#[derive(Serialize)]
struct Scale {
    #[serde(rename = "scale")]
    of: &'static str,
    size: u64,
    program: Program,
    #[serde(flatten)]
    failed: Option<Failed>,
    #[serde(flatten)]
    used: Used,
}

/// What failed, and what turnaway made of it.
#[derive(Serialize)]
struct Failed {
    failures: u64,
    counted: u64,
    /// How many of what there were so many of are in its totals.
    told_apart: usize,
    /// Failures that are in none.
    other: u64,
    lost_map: u64,
    lost_missed: Option<u64>,
}

/// Measures one of them.
pub(super) fn run(what: &str, turnaway: &Path, scenarios: &Path) -> Result<()> {
    let crowd = |size: u64, apart: &[&str]| {
        let mut command = Command::new(scenarios);
        command.arg("crowd").arg(size.to_string());
        command.args(["--failing", &RATE.to_string()]);
        command
            .args(["--seconds", &SECONDS.to_string()])
            .args(apart);
        command
    };
    let places = |size: u64| {
        let mut command = Command::new(scenarios);
        command.arg("places").arg(size.to_string());
        command.args(["--total", &REFUSED.to_string()]);
        command.args(["--seconds", &MINUTE.to_string()]);
        command
    };
    let each = |sizes: &[u64], measured: &dyn Fn(u64, Program) -> Result<()>| {
        Program::ALL
            .iter()
            .try_for_each(|program| sizes.iter().try_for_each(|size| measured(*size, *program)))
    };
    match what {
        "listeners" => LISTENERS
            .into_iter()
            .try_for_each(|size| listening(turnaway, scenarios, size)),
        "processes" => each(&PROCESSES, &|size, program| {
            failing("processes", size, program, turnaway, crowd(size, &[]))
        }),
        "cgroups" => each(&CGROUPS, &|size, program| {
            let command = crowd(size, &["--cgroups"]);
            failing("cgroups", size, program, turnaway, command)
        }),
        "keys" => each(&KEYS, &|size, program| {
            failing("keys", size, program, turnaway, places(size))
        }),
        _ => bail!("there is no scale of {what}"),
    }
}

/// What asking for so many listeners takes: processes have them, and nothing happens.
fn listening(turnaway: &Path, scenarios: &Path, size: usize) -> Result<()> {
    let mut holders = Vec::new();
    for group in 0..size.div_ceil(HELD) {
        let held = HELD.min(size - group * HELD);
        holders.push(Holder::start(&mut listeners::command(
            scenarios, group, held, 0,
        ))?);
    }
    for program in Program::ALL {
        let watcher = Watcher::start(program, turnaway, &[])?;
        // The first look at all of them is over by then.
        thread::sleep(Duration::from_secs(3));
        let usage = Usage::of(watcher.pid())?;
        thread::sleep(WHILE);
        let used = usage.until_now()?;
        watcher.stop()?;
        say(&Scale {
            of: "listeners",
            size: size as u64,
            program,
            failed: None,
            used,
        })?;
    }
    Ok(())
}

/// What so many kinds of failures take, which a process makes and counts.
fn failing(
    of: &'static str,
    size: u64,
    program: Program,
    turnaway: &Path,
    mut command: Command,
) -> Result<()> {
    let mut holder = Holder::start(&mut command)?;
    let pid = holder.pid().to_string();
    let (options, reason): (&[&str], _) = if of == "keys" {
        // What finds no room among the keys has no process: nobody else's is to be there.
        (&["--reason", "connect", "-p", &pid], "connect.refused")
    } else {
        (&["--reason", "accept"], "accept.emfile")
    };
    let watcher = Watcher::start(program, turnaway, options)?;
    let usage = Usage::of(watcher.pid())?;
    holder.go()?;
    let failures = holder.tally()?;
    let used = usage.until_now()?;
    let (summary, counted) = watcher.stop_after(reason, failures)?;
    let name = |key: &Key| match of {
        "processes" => Some(key.process.pid.to_string()),
        "cgroups" => key.process.cgroup.clone(),
        _ => key.peer.as_ref().map(Peer::name),
    };
    let told: HashSet<String> = totals(&summary, reason).filter_map(name).collect();
    say(&Scale {
        of,
        size,
        program,
        failed: Some(Failed {
            failures,
            counted,
            told_apart: told.len(),
            other: summary.other,
            lost_map: summary.lost.map,
            lost_missed: summary.lost.missed,
        }),
        used,
    })
}
