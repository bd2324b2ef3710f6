//! `cargo xtask bench`: what turnaway costs programs whose calls succeed. Ratios of runs side by
//! side on one machine, medians of pairs; times of one run are worth nothing.

mod hooks;
mod peers;
mod tracer;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use self::hooks::{Cost, HEADER};
use self::peers::Peer;
use self::tracer::Tracer;
use crate::command::{CommandExt as _, is_root};
use crate::vm::INIT;
use crate::{build, setup};

/// Accept calls that fail: what the other tools are asked for, too.
const FAILED_CALLS: &[&str] = &[
    "trace",
    "--quiet",
    "--reason",
    "accept.emfile",
    "--reason",
    "accept.enfile",
    "--reason",
    "accept.nomem",
    "--reason",
    "accept.aborted",
    "--reason",
    "accept.denied",
    "--reason",
    "accept.misuse",
    "--reason",
    "accept.other",
];
/// What is looked at, and how turnaway is run for that.
const TRACED: [(&str, &[&str]); 4] = [
    ("calls", FAILED_CALLS),
    ("accept", &["trace", "--quiet", "--reason", "accept"]),
    ("everything", &["trace", "--quiet"]),
    ("daemon", &["daemon", "--no-state", "--no-metrics"]),
];
const LOADS: [&str; 6] = [
    "getppid",
    "open",
    "accept",
    "unix",
    "redis",
    "redis-connects",
];

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
    /// What each program takes in a guest with this test kernel, in all tiers, and nothing else
    #[arg(long, conflicts_with_all = ["pairs", "load", "tier", "json"])]
    kernel: Option<String>,
    /// Only the costs of storms and floods, of many listeners, processes, cgroups and keys, and the time until it tells
    #[arg(long, conflicts_with_all = ["pairs", "load", "tier", "kernel"])]
    measure: bool,
    /// Write the figures here, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Builds, measures and prints the table.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.pairs > 0, "nothing to measure: --pairs is 0");
    let (turnaway, loads) = programs("bench", true)?;
    if let Some(kernel) = &options.kernel {
        build::static_programs(&["xtask"], &[INIT], true)?;
        return hooks::in_guest(options.seconds, kernel, &turnaway, &loads);
    }
    let bench = Bench {
        turnaway,
        loads,
        options,
    };
    println!("{}", machine()?);
    if options.measure {
        let measured = bench.measure()?;
        return options.write(&json!({"machine": machine()?, "measured": measured}));
    }
    println!("TRACED      LOAD                BARE/s     TRACED/s   RATIO    NS MORE");
    let mut figures = Vec::new();
    for (traced, arguments) in TRACED {
        for load in LOADS {
            if options.load.as_deref().is_none_or(|only| only == load) {
                let figure = bench.pairs(load, arguments)?;
                println!(
                    "{traced:<11} {load:<14} {:>11.0} {:>12.0} {:>7.3} {:>10.1}",
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
    println!("\n{PEERS}");
    let mut beside = Vec::new();
    for peer in Peer::ALL {
        if !peer.is_there() {
            println!(
                "{:<11} is not installed: apt install {}",
                peer.name(),
                peer.package()
            );
            continue;
        }
        let (ratio, to_turnaway) = bench.beside(peer)?;
        println!("{:<11} {ratio:>14.3} {to_turnaway:>18.3}", peer.name());
        beside.push(
            json!({"peer": peer.name(), "ratio_to_bare": ratio, "turnaway_to_peer": to_turnaway}),
        );
    }
    println!();
    let measured = bench.measure()?;
    println!("\n{HEADER}");
    let costs = bench.costs()?;
    for cost in &costs {
        println!("{cost}");
    }
    options.write(&json!({"machine": machine()?, "loads": figures, "peers": beside, "measured": measured, "programs": costs.iter().map(|cost| &cost.0).collect::<Vec<_>>()}))
}

/// turnaway and `turnaway-scenarios`, as they are released, with what they need, for a chore that needs root; with
/// the tools that they are compared with, if that is wanted.
pub(crate) fn programs(chore: &str, bench: bool) -> Result<(PathBuf, PathBuf)> {
    ensure!(
        is_root(),
        "hooks need root: run `sudo -E cargo xtask {chore}`"
    );
    setup::run(setup::Options { tests: true, bench })?;
    build::ebpf()?;
    let programs = build::static_programs(
        &["turnaway", "turnaway-tests"],
        &["turnaway", "turnaway-scenarios"],
        true,
    )?;
    Ok((
        programs.join("turnaway"),
        programs.join("turnaway-scenarios"),
    ))
}

impl Options {
    /// Writes figures, if that is wanted.
    fn write(&self, figures: &Value) -> Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        fs::write(path, format!("{figures:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The kernel and the processors, in a line.
pub(crate) fn machine() -> Result<String> {
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
        self.rate(Command::new(&self.loads), load)
    }

    /// The same for a command that runs the loads in some way.
    fn rate(&self, mut command: Command, load: &str) -> Result<f64> {
        let output = command
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
        command.args(arguments);
        if let Some(tier) = &self.options.tier {
            command.args(["--tier", tier]);
        }
        Tracer::start(command)
    }

    /// Accepts a second with another tool to those without, and those with turnaway to those with the tool: medians.
    fn beside(&self, peer: Peer) -> Result<(f64, f64)> {
        let (mut to_bare, mut to_turnaway) = (vec![], vec![]);
        for _ in 0..self.options.pairs {
            let bare = self.once("accept")?;
            let guard = peer.beside()?;
            let with_peer = match peer.load(&self.loads) {
                Some(command) => self.rate(command, "accept")?,
                None => self.once("accept")?,
            };
            drop(guard);
            let tracer = self.trace(FAILED_CALLS)?;
            let with_turnaway = self.once("accept")?;
            drop(tracer);
            to_bare.push(with_peer / bare);
            to_turnaway.push(with_turnaway / with_peer);
        }
        Ok((median(to_bare), median(to_turnaway)))
    }

    /// Storms, much to look at, and how soon it tells.
    fn measure(&self) -> Result<Vec<Value>> {
        let mut command = Command::new(&self.loads);
        command.arg("measure").arg("--turnaway").arg(&self.turnaway);
        let output = command.read("it could not be measured")?;
        let measured: Vec<Value> = output
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        for one in &measured {
            let fields = one.as_object().into_iter().flatten();
            let words: Vec<String> = fields
                .map(|(name, value)| match value.as_f64() {
                    Some(number) if !value.is_u64() => format!("{name} {number:.2}"),
                    _ => format!("{name} {value}"),
                })
                .collect();
            println!("{}", words.join("  "));
        }
        Ok(measured)
    }

    /// What each program takes while loads run.
    fn costs(&self) -> Result<Vec<Cost>> {
        let tier = self.options.tier.as_deref().unwrap_or("tracepoint");
        let output = Command::new(&self.loads)
            .args(["cost", "--tier", tier, "--seconds"])
            .arg(self.options.seconds.to_string())
            .arg("--turnaway")
            .arg(&self.turnaway)
            .read("the programs' cost could not be measured")?;
        Ok(output.lines().filter_map(Cost::parse).collect())
    }
}

const PEERS: &str = "BESIDE      RATIO TO BARE  TURNAWAY TO THIS   (accepts a second; turnaway for failed accept calls only)";

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
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
