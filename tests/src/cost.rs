//! What turnaway's programs take, by the kernel's own account of each (`kernel.bpf_stats_enabled`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::load;
use crate::tracer::Tracer;

/// Has the kernel count runs of BPF programs and how long they take.
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What one program took while a load ran.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// The tier that was asked for.
    pub tier: String,
    /// The load.
    pub load: String,
    /// The program.
    pub program: String,
    /// Runs for each time that the load did what it does.
    pub runs: f64,
    /// Nanoseconds a run.
    pub ns: f64,
}

/// Runs a load under turnaway, with hooks of one tier.
pub fn of(turnaway: &Path, tier: &str, name: &str, duration: Duration) -> Result<Vec<Cost>> {
    let before: BTreeSet<u64> = programs()?.iter().filter_map(id).collect();
    let tracer = Tracer::start(turnaway, &["--quiet", "--json", "--tier", tier])?;
    let stats = Stats::on()?;
    let done = load::run(name, duration)? * duration.as_secs_f64();
    drop(stats);
    let after = programs()?;
    tracer.stop()?;
    Ok(after
        .iter()
        .filter(|program| id(program).is_some_and(|id| !before.contains(&id)))
        .filter_map(|program| {
            let runs = program["run_cnt"].as_f64().filter(|runs| *runs > 0.0)?;
            Some(Cost {
                tier: tier.to_owned(),
                load: name.to_owned(),
                program: program["name"].as_str()?.to_owned(),
                runs: runs / done,
                ns: program["run_time_ns"].as_f64()? / runs,
            })
        })
        // What others on the machine do meanwhile is none of the load's.
        .filter(|cost| cost.runs >= 0.01)
        .collect())
}

fn id(program: &Value) -> Option<u64> {
    program["id"].as_u64()
}

/// Programs in the kernel.
fn programs() -> Result<Vec<Value>> {
    let output = Command::new("bpftool")
        .args(["prog", "show", "--json"])
        .output()
        .context("cannot run bpftool")?;
    ensure!(output.status.success(), "bpftool: {output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The kernel counts while this lives.
struct Stats(String);

impl Stats {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(STATS).with_context(|| format!("cannot read {STATS}"))?;
        fs::write(STATS, "1").with_context(|| format!("cannot write {STATS}"))?;
        Ok(Self(before))
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        // It could be written before.
        let _ = fs::write(STATS, &self.0);
    }
}
