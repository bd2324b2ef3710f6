//! The turnaway that is measured.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::records::{Key, Summary};
use crate::tracer::Tracer;

/// What the kernel calls loads: what other programs of this machine fail meanwhile is theirs.
pub(super) const LOAD: &str = "measured";

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
    /// Starts it: trace with `--reason` for each of these, the daemon as it is without a configuration.
    pub(super) fn start(program: Program, turnaway: &Path, reasons: &[&str]) -> Result<Self> {
        match program {
            Program::Trace => {
                let mut arguments = vec!["--json"];
                arguments.extend(reasons.iter().flat_map(|reason| ["--reason", reason]));
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

/// Failures of a reason, of loads, with those that were too many to be told apart: of these, other programs' are few.
pub(super) fn counted(summary: &Summary, reason: &str) -> u64 {
    let told: u64 = totals(summary, reason)
        .filter_map(|total| total.count)
        .sum();
    told + summary.other
}
