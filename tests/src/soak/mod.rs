//! Hours of failures of mixed servers, and whether turnaway stays as it is and counts them all: for
//! `cargo xtask soak`.
//!
//! Rounds follow each other, with pauses in which all incidents but those of servers that stay are over. A round is
//! real servers that are out of descriptors, a queue that is full, processes that come, fail and go, and
//! connects that are refused; each has a tally that turnaway has no part in. Between two rounds nothing of the loads
//! is going on: then is looked at what turnaway takes.

mod books;
mod growth;
mod loads;
mod sample;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use self::books::{Balance, Written, balance};
use self::growth::{Growth, growth};
use self::loads::Loads;
use self::sample::Sample;
use crate::apart;
use crate::daemon::{Daemon, configure};
use crate::servers::foreground::folder;

/// After so long without failures an incident is over, if it is not one that comes again.
const RESOLVE: Duration = Duration::from_secs(3);
/// So much more memory may be resident in the last quarter than in the second, KiB: the allocator's pages that are
/// in use here and there.
const ALLOWED_KIB: f64 = 1024.0;

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    /// How long it runs, such as 2h
    #[arg(long = "for", value_parser = duration)]
    length: Duration,
    /// How often is looked at what turnaway takes, such as 30s
    #[arg(long, value_parser = duration)]
    every: Duration,
    /// How long a round takes, its pause included
    #[arg(long, value_parser = duration, default_value = "10s")]
    round: Duration,
    /// The program to test
    #[arg(long)]
    turnaway: PathBuf,
}

fn duration(text: &str) -> Result<Duration> {
    let duration: jiff::SignedDuration = text.parse()?;
    Ok(Duration::try_from(duration)?)
}

/// What came of it.
#[derive(Serialize)]
struct Verdict {
    holds: bool,
    minutes: f64,
    rounds: u64,
    /// Incidents that turnaway told of.
    incidents: usize,
    counts: Vec<Balance>,
    /// What turnaway says that it lost.
    lost: BTreeMap<String, u64>,
    growth: Vec<Growth>,
    /// What else is wrong.
    wrong: Vec<String>,
}

/// Runs it, and prints a line of JSON for each look and for the verdict. Whether that is good.
pub fn run(options: &Options) -> Result<bool> {
    let scenarios = std::env::current_exe()?;
    let dir = folder()?;
    let (state, stream) = (dir.path().join("state"), dir.path().join("stream.ndjson"));
    let config = configure(dir.path(), &kept(&stream), RESOLVE)?;
    let daemon = Daemon::start(&options.turnaway, &config, &state)?;
    let pid = daemon.child.id();
    let begun = Instant::now();
    let (samples, rounds, failed, ours) = apart::in_netns(|| {
        let mut loads = Loads::start(&scenarios, dir.path())?;
        let (mut samples, mut rounds) = (Vec::new(), 0_u32);
        let mut due = Duration::ZERO;
        while begun.elapsed() < options.length {
            let next = begun.elapsed() + options.round;
            loads
                .round(rounds.into())
                .with_context(|| format!("round {rounds}"))?;
            rounds += 1;
            // A machine that is busy has shorter pauses, and no fewer failures.
            thread::sleep(next.saturating_sub(begun.elapsed()));
            if begun.elapsed() >= due {
                due = begun.elapsed() + options.every;
                let seconds = begun.elapsed().as_secs_f64();
                let sample = Sample::take(pid, seconds, &state, &stream)?;
                println!("{}", serde_json::to_string(&sample)?);
                samples.push(sample);
            }
        }
        let (failed, ours) = loads.end()?;
        Ok((samples, rounds, failed, ours))
    })?;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let ended = daemon.stop()?;
    let written = Written::read(&stream, &ours)?;
    let ids: BTreeSet<&str> = ended
        .records
        .iter()
        .filter_map(|record| record["id"].as_str())
        .collect();
    let mut verdict = Verdict {
        holds: false,
        minutes,
        rounds: rounds.into(),
        incidents: ids.len(),
        counts: balance(&failed, &written.counted),
        lost: written.lost,
        growth: grown(&samples),
        wrong: Vec::new(),
    };
    if !written.ended {
        verdict.wrong.push("the stream has no summary".to_owned());
    }
    if verdict.growth.is_empty() {
        verdict
            .wrong
            .push("too few looks to say whether anything grew: run it for longer".to_owned());
    }
    verdict.holds = verdict.wrong.is_empty()
        && verdict.lost.is_empty()
        && verdict.counts.iter().all(Balance::holds)
        && verdict.growth.iter().all(|one| one.holds);
    println!("{}", serde_json::to_string(&verdict)?);
    Ok(verdict.holds)
}

/// The configuration of a stream to a file: what turnaway counted.
fn kept(stream: &std::path::Path) -> String {
    format!(
        "[[stream]]\ntype = \"file\"\npath = \"{}\"\nsize = \"64G\"\nevery = \"1000h\"\nfsync = \"never\"\n\
         types = [\"count\", \"incident\", \"heartbeat\", \"summary\"]\n",
        stream.display()
    )
}

/// What may grow and what may not.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn grown(samples: &[Sample]) -> Vec<Growth> {
    let judge = |name, of: fn(&Sample) -> f64, allowed| {
        let values: Vec<_> = samples.iter().map(|one| (one.seconds, of(one))).collect();
        growth(name, &values, allowed)
    };
    [
        judge("rss_kib", |one| one.rss_kib, ALLOWED_KIB),
        judge("fds", |one| one.fds as f64, 0.0),
        judge("threads", |one| one.threads as f64, 0.0),
        judge("entries", |one| one.entries as f64, 0.0),
    ]
    .into_iter()
    .flatten()
    .collect()
}
