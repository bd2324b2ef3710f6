//! `cargo xtask bench`: what turnaway costs programs whose calls succeed. Ratios of runs side by
//! side on one machine, medians of pairs; times of one run are worth nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::command::{CommandExt as _, is_root};
use crate::{build, setup};

/// Has the kernel count runs of BPF programs and how long they take.
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// What is looked at, and the options of `turnaway trace` that it is traced with.
const TRACED: [(&str, &[&str]); 2] = [("accept", &["--reason", "accept"]), ("everything", &[])];
const LOADS: [&str; 4] = ["getppid", "open", "accept", "unix"];

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub struct Options {
    /// Pairs of runs, without and with turnaway, one after the other
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// How long each run takes, seconds
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Only this load
    #[arg(long)]
    load: Option<String>,
    /// Hooks of this tier only
    #[arg(long)]
    tier: Option<String>,
    /// Write the figures here, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Builds, measures and prints the table.
pub fn run(options: &Options) -> Result<()> {
    ensure!(
        is_root(),
        "hooks need root: run `sudo -E cargo xtask bench`"
    );
    ensure!(options.pairs > 0, "nothing to measure: --pairs is 0");
    setup::run(setup::Options { tests: true })?;
    build::ebpf()?;
    let programs = build::static_programs(
        &["turnaway", "turnaway-tests"],
        &["turnaway", "turnaway-scenarios"],
        true,
    )?;
    let bench = Bench {
        turnaway: programs.join("turnaway"),
        loads: programs.join("turnaway-scenarios"),
        options,
    };
    println!("{}", machine()?);
    println!("TRACED      LOAD            BARE/s     TRACED/s   RATIO    NS MORE");
    let mut figures = Vec::new();
    for (traced, arguments) in TRACED {
        for load in LOADS {
            if options.load.as_deref().is_none_or(|only| only == load) {
                let figure = bench.pairs(load, arguments)?;
                println!(
                    "{traced:<11} {load:<10} {:>11.0} {:>12.0} {:>7.3} {:>10.1}",
                    figure.bare, figure.traced, figure.ratio, figure.ns_more
                );
                figures.push(json!({
                    "traced": traced, "load": load, "bare_per_second": figure.bare,
                    "traced_per_second": figure.traced, "ratio": figure.ratio,
                    "ns_more": figure.ns_more,
                }));
            }
        }
    }
    println!("\nHOOK               LOAD            RUNS     NS A RUN");
    let mut hooks = Vec::new();
    for load in LOADS {
        if options.load.as_deref().is_none_or(|only| only == load) {
            for (name, runs, ns) in bench.hooks(load)? {
                println!("{name:<18} {load:<10} {runs:>9} {ns:>12.1}");
                hooks.push(json!({"hook": name, "load": load, "runs": runs, "ns": ns}));
            }
        }
    }
    if let Some(path) = &options.json {
        let all = json!({"machine": machine()?, "loads": figures, "hooks": hooks});
        fs::write(path, format!("{all:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("", |rest| rest.trim_start_matches(['\t', ' ', ':']));
    let count = cpus.matches("processor\t").count();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("Linux {}, {count} x {model}", release.trim()))
}

struct Bench<'a> {
    turnaway: PathBuf,
    loads: PathBuf,
    options: &'a Options,
}

/// Medians.
struct Figure {
    bare: f64,
    traced: f64,
    ratio: f64,
    ns_more: f64,
}

impl Bench<'_> {
    fn pairs(&self, load: &str, arguments: &[&str]) -> Result<Figure> {
        let (mut bare, mut traced, mut ratio, mut more) = (vec![], vec![], vec![], vec![]);
        for _ in 0..self.options.pairs {
            let without = self.once(load)?;
            let tracer = self.trace(arguments)?;
            let with = self.once(load)?;
            drop(tracer);
            bare.push(without);
            traced.push(with);
            ratio.push(with / without);
            more.push(1e9 / with - 1e9 / without);
        }
        Ok(Figure {
            bare: median(bare),
            traced: median(traced),
            ratio: median(ratio),
            ns_more: median(more),
        })
    }

    fn once(&self, load: &str) -> Result<f64> {
        let output = Command::new(&self.loads)
            .args(["load", load, "--seconds"])
            .arg(self.options.seconds.to_string())
            .read("the load failed")?;
        output
            .trim()
            .parse()
            .with_context(|| format!("{load} printed {output:?}"))
    }

    fn trace(&self, arguments: &[&str]) -> Result<Tracer> {
        let mut command = Command::new(&self.turnaway);
        command.args(["trace", "--quiet"]).args(arguments);
        if let Some(tier) = &self.options.tier {
            command.args(["--tier", tier]);
        }
        Tracer::start(command)
    }

    /// Runs of each hook's programs while a load is traced, and nanoseconds a run, by the kernel.
    fn hooks(&self, load: &str) -> Result<Vec<(String, u64, f64)>> {
        let before: BTreeSet<u64> = programs()?.iter().filter_map(id).collect();
        let tracer = self.trace(&[])?;
        let stats = Stats::on()?;
        self.once(load)?;
        drop(stats);
        let after = programs()?;
        drop(tracer);
        Ok(after
            .iter()
            .filter(|program| id(program).is_some_and(|id| !before.contains(&id)))
            .filter_map(|program| {
                let runs = program["run_cnt"].as_u64().filter(|runs| *runs > 0)?;
                let ns = program["run_time_ns"].as_u64()?;
                let name = program["name"].as_str()?.to_owned();
                // To a tenth of a nanosecond.
                let tenths = u32::try_from(ns.saturating_mul(10) / runs).ok()?;
                Some((name, runs, f64::from(tenths) / 10.0))
            })
            .collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

fn id(program: &Value) -> Option<u64> {
    program["id"].as_u64()
}

/// Programs in the kernel.
fn programs() -> Result<Vec<Value>> {
    let bpftool = ["/usr/sbin/bpftool", "/usr/bin/bpftool"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("no bpftool: run `cargo xtask setup --tests`")?;
    let output = Command::new(bpftool)
        .args(["prog", "show", "--json"])
        .read("bpftool failed")?;
    Ok(serde_json::from_str(&output)?)
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

/// A running turnaway. It is stopped when this is dropped.
struct Tracer(Child);

impl Tracer {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run turnaway")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let tracer = Self(child);
        for line in BufReader::new(stderr).lines() {
            if line?.starts_with("tracing with") {
                return Ok(tracer);
            }
        }
        bail!("turnaway ended before it traced");
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Both fail only if it has ended. What it had to say is of no matter here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle_one_counts() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < f64::EPSILON);
    }
}
