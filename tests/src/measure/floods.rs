//! A full listener that SYNs flood, in a network namespace of its own. The kernel's counters there are the truth.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::holder::{Holder, told_to_go, wait_for_line};
use super::usage::Usage;
use super::watcher::{Program, Watcher};
use super::{say, storms::Storm};
use crate::apart::set;
use crate::servers::overflow::DROPS;
use crate::sys;
use crate::workload::listening::Listening;
use crate::workload::queue::{Counters, quiet, settled};

/// Connections that are begun between two looks at the clock.
const BATCH: usize = 64;
/// How long it lasts.
const SECONDS: u64 = 10;
/// As users name them, and as `flood` does.
const FLOODS: [(&str, &str); 3] = [
    ("flood of a full queue, no cookies", "queue"),
    ("flood of a full queue, cookies", "cookies"),
    ("flood of requests, no cookies", "requests"),
];

/// What the kernel counted.
#[derive(Deserialize, Serialize)]
struct Flooded {
    /// The listener's socket.
    inode: u64,
    overflows: u64,
    drops: u64,
    request_drops: u64,
}

/// A listener that has no room: for connections, or for those who ask for one.
fn full(name: &str) -> Result<(Listening, Vec<OwnedFd>)> {
    quiet()?;
    let cookies = if name == "cookies" { "1" } else { "0" };
    set("ipv4/tcp_syncookies", cookies)?;
    match name {
        "queue" | "cookies" => {
            // The kernel lets one more in than the backlog.
            let listening = Listening::tcp4(2)?;
            let clients = listening.queue_up(3)?;
            Ok((listening, clients))
        }
        "requests" => {
            let listening = Listening::tcp4(4)?;
            // They are not done until they say something.
            sys::defer_accept(listening.socket(), 60)?;
            let clients = listening.begin_many(4)?;
            Ok((listening, clients))
        }
        _ => bail!("no flood is called {name}"),
    }
}

/// Floods it for so long once a line was read, says what the kernel counted, and keeps the listener until the input ends.
pub(super) fn run(name: &str, seconds: u64) -> Result<()> {
    let (listening, _clients) = full(name)?;
    let before = settled()?;
    if !told_to_go()? {
        return Ok(());
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        // Those who give up send no more.
        drop(listening.begin_many(BATCH)?);
    }
    let Counters {
        overflows,
        drops,
        request_drops,
        ..
    } = settled()?.since(before);
    let flooded = Flooded {
        inode: listening.truth(0).inode.context("no inode")?,
        overflows,
        drops,
        request_drops,
    };
    println!("{}", serde_json::to_string(&flooded)?);
    wait_for_line()?;
    Ok(())
}

/// Measures them.
pub(super) fn measure(turnaway: &Path, scenarios: &Path) -> Result<()> {
    for program in Program::ALL {
        for (name, flood) in FLOODS {
            let seconds = SECONDS.to_string();
            let mut command = Command::new(scenarios);
            command.args(["flood", flood, "--seconds", &seconds]);
            // It is there first: a listener is counted from when it was first seen.
            let mut holder = Holder::start(&mut command)?;
            let watcher = Watcher::start(program, turnaway, &["--reason", "queue"])?;
            let usage = Usage::of(watcher.pid())?;
            holder.go()?;
            let flooded: Flooded = holder.tally()?;
            let used = usage.until_now()?;
            let of_kind = if flood == "requests" {
                flooded.request_drops
            } else {
                flooded.overflows
            };
            ensure!(
                of_kind == flooded.drops,
                "{name}: {of_kind} of {} packets were dropped for that",
                flooded.drops
            );
            let summary = watcher.stop()?;
            let totals = summary.totals.iter();
            let counted = totals
                .filter(|total| DROPS.iter().any(|reason| total.reason.starts_with(reason)))
                .filter(|total| total.listener.inode == Some(flooded.inode))
                .filter_map(|total| total.count)
                .sum();
            say(&Storm {
                name,
                program,
                failures: flooded.drops,
                counted,
                lost_map: summary.lost.map,
                lost_missed: summary.lost.missed,
                used,
            })?;
        }
    }
    Ok(())
}
