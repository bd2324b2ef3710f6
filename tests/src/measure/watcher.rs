//! The turnaway that is measured.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::records::{Key, Summary};
use crate::tracer::Tracer;

/// What the kernel calls loads: what other programs of this machine fail meanwhile is theirs.
pub(super) const LOAD: &str = "measured";

/// How long the last of many failures may take to be counted.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at what was counted: each has a price.
const PAUSE: Duration = Duration::from_millis(500);

/// Which command.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Program {
    Trace,
    Daemon,
}

impl Program {
    pub(super) const ALL: [Self; 2] = [Self::Trace, Self::Daemon];
}

/// It, running.
pub(super) enum Watcher {
    Trace(Tracer),
    Daemon(Daemon, TempDir),
}

impl Watcher {
    /// Starts it: trace with these options, the daemon as it is without a configuration.
    pub(super) fn start(program: Program, turnaway: &Path, options: &[&str]) -> Result<Self> {
        match program {
            Program::Trace => {
                let arguments = [&["--json"], options].concat();
                Ok(Self::Trace(Tracer::start(turnaway, &arguments)?))
            }
            Program::Daemon => {
                let dir = tempfile::tempdir()?;
                let config = dir.path().join("turnaway.toml");
                fs::write(&config, "")?;
                let daemon = Daemon::start(turnaway, &config, &dir.path().join("state"))?;
                Ok(Self::Daemon(daemon, dir))
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Trace(tracer) => tracer.pid(),
            Self::Daemon(daemon, _) => daemon.child.id(),
        }
    }

    /// Ends it once all failures of a reason are counted, or have not been for long. Returns how many were.
    pub(super) fn stop_after(self, reason: &str, failures: u64) -> Result<(Summary, u64)> {
        match self {
            Self::Trace(_) => {
                let summary = self.stop()?;
                let counted = counted(&summary, reason);
                Ok((summary, counted))
            }
            Self::Daemon(ref daemon, _) => {
                let deadline = Instant::now() + PATIENCE;
                let counted = loop {
                    let counted = in_metrics(&daemon.get("/metrics")?, reason)?;
                    // What is not counted by then is what is to be seen.
                    if counted >= failures || Instant::now() > deadline {
                        break counted;
                    }
                    thread::sleep(PAUSE);
                };
                Ok((self.stop()?, counted))
            }
        }
    }

    /// Ends it.
    pub(super) fn stop(self) -> Result<Summary> {
        match self {
            Self::Trace(tracer) => Ok(tracer.stop()?.records()?.summary),
            Self::Daemon(daemon, _dir) => {
                let last = daemon.stop()?.records.pop().context("no records")?;
                serde_json::from_value(last).context("the last record is no summary")
            }
        }
    }
}

/// The totals of a reason, of loads.
pub(super) fn totals<'a>(summary: &'a Summary, reason: &str) -> impl Iterator<Item = &'a Key> {
    let totals = summary.totals.iter();
    totals
        .filter(move |total| total.reason == reason && total.process.comm.as_deref() == Some(LOAD))
}

/// Failures of a reason, of loads. Its metrics say more than the daemon's summary, where failures that are too many to be
/// told apart have no reason.
fn in_metrics(metrics: &str, reason: &str) -> Result<u64> {
    let reason = format!("reason=\"{reason}\"");
    let comms = [LOAD, "other"].map(|comm| format!("comm=\"{comm}\""));
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("turnaway_failures_total{") && line.contains(&reason))
        .filter(|line| comms.iter().any(|comm| line.contains(comm)));
    let values = lines.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>());
    values.sum::<Result<u64, _>>().context("no number")
}

/// Failures of a reason, of loads, with those that were too many to be told apart: of these, other programs' are few.
fn counted(summary: &Summary, reason: &str) -> u64 {
    let told: u64 = totals(summary, reason)
        .filter_map(|total| total.count)
        .sum();
    told + summary.other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_metrics_the_loads_and_what_has_no_series_count() {
        let line = |reason: &str, comm: &str, count: u64| {
            format!(
                "turnaway_failures_total{{reason=\"{reason}\",comm=\"{comm}\",port=\"1\"}} {count}\n"
            )
        };
        let metrics = [
            line("accept.emfile", "measured", 7),
            line("accept.emfile", "nginx", 100),
            line("accept.emfile", "other", 11),
            line("fd.pressure", "measured", 1000),
        ];
        assert_eq!(in_metrics(&metrics.concat(), "accept.emfile").unwrap(), 18);
        assert!(in_metrics(&line("a", "other", 1).replace(" 1\n", " x"), "a").is_err());
    }
}
