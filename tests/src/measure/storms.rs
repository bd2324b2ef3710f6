//! What turnaway takes when much fails at once.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::say;
use super::usage::{Usage, Used};
use super::watcher::{Program, Watcher};
use crate::servers::acceptor::Acceptor;
use crate::sys;
use crate::workload::listening::Listening;
use crate::workload::processes::fail_at_limit;

/// Processes of the storm of short lives.
const LIVES: u64 = 50_000;
/// How long the other storms last.
const WHILE: Duration = Duration::from_secs(10);

/// A storm: what failed, what turnaway made of it, and what that took.
#[derive(Debug, Serialize)]
pub(super) struct Storm {
    #[serde(rename = "storm")]
    pub(super) name: &'static str,
    pub(super) program: Program,
    pub(super) failures: u64,
    pub(super) counted: u64,
    pub(super) lost_map: u64,
    pub(super) lost_missed: Option<u64>,
    #[serde(flatten)]
    pub(super) used: Used,
}

/// Measures them.
pub(super) fn run(turnaway: &Path, scenarios: &Path) -> Result<()> {
    for program in Program::ALL {
        let storm = |name, reason, load: &dyn Fn() -> Result<u64>| -> Result<()> {
            let watcher = Watcher::start(
                program,
                turnaway,
                &["--reason", "accept", "--reason", "connect"],
            )?;
            let usage = Usage::of(watcher.pid())?;
            let failures = load()?;
            let used = usage.until_now()?;
            let (summary, counted) = watcher.stop_after(reason, failures)?;
            say(&Storm {
                name,
                program,
                failures,
                counted,
                lost_map: summary.lost.map,
                lost_missed: summary.lost.missed,
                used,
            })
        };
        storm("spin", "accept.emfile", &|| spin(scenarios))?;
        storm("short lives", "accept.emfile", &|| {
            short_lives(scenarios, LIVES)
        })?;
        storm("connects", "connect.refused", &connects)?;
    }
    Ok(())
}

/// Two processes that fail as fast as they can.
fn spin(scenarios: &Path) -> Result<u64> {
    let mut acceptors = [Acceptor::run(scenarios)?, Acceptor::run(scenarios)?];
    thread::scope(|scope| {
        let spinning: Vec<_> = acceptors
            .iter_mut()
            .map(|one| scope.spawn(|| one.spin(WHILE)))
            .collect();
        spinning
            .into_iter()
            .map(|one| {
                one.join()
                    .map_err(|_| anyhow::anyhow!("a thread panicked"))?
            })
            .sum()
    })
}

/// So many processes that fail once each and end, children of a process without threads.
pub(crate) fn short_lives(scenarios: &Path, count: u64) -> Result<u64> {
    let done = Command::new(scenarios)
        .args(["lives", &count.to_string()])
        .status()?;
    ensure!(done.success(), "the processes failed: {done}");
    Ok(count)
}

/// Forks so many processes, one after the other, each of which fails one accept and ends well.
pub(super) fn lives(count: u64) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    for _ in 0..count {
        sys::fork(|| fail_at_limit(&listening, 40, 1))?.wait()?;
    }
    Ok(())
}

/// Connections that are refused, as fast as they are.
fn connects() -> Result<u64> {
    let nobody = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.local_addr()?
    };
    let refused = |_| {
        let mut refused = 0_u64;
        let end = Instant::now() + WHILE;
        while Instant::now() < end {
            refused += u64::from(TcpStream::connect(nobody).is_err());
        }
        refused
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|number| scope.spawn(move || refused(number)))
            .collect();
        threads
            .into_iter()
            .map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked")))
            .sum()
    })
}
