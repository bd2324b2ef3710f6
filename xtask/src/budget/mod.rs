//! `cargo xtask budget`: what the kernel's verifier takes for each program, and how deep each program's stack gets.

pub mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::build;
use crate::setup;
use crate::vm::{Guest, INIT, kernels, kernels_dir, locate};
use crate::workspace;

/// Most instructions that the verifier may go through for one program: the kernel allows a million. A program that comes
/// near this is one that another kernel's verifier may refuse.
pub const MOST_VERIFIED: u32 = 200_000;
/// Most stack, bytes, of the [512](stack::MOST) that the kernel allows.
pub const MOST_STACK: u32 = 448;

/// A line of `turnaway-scenarios programs`: `PROGRAM tier name instructions bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The tier that was asked for.
    pub tier: String,
    /// What the kernel calls it: 15 bytes of its name.
    pub name: String,
    /// Instructions that were verified; `None` where the kernel keeps no count.
    pub verified: Option<u32>,
}

impl Program {
    /// Reads one; other lines are none.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.trim().strip_prefix("PROGRAM ")?.split(' ');
        Some(Self {
            tier: words.next()?.to_owned(),
            name: words.next()?.to_owned(),
            verified: words.next()?.parse().ok(),
        })
    }
}

/// Where the eBPF object is that `cargo xtask build-ebpf` made.
#[must_use]
pub fn object() -> PathBuf {
    workspace::bpf_object()
}

/// Builds, boots every test kernel and prints the table.
pub fn run() -> Result<()> {
    setup::run(setup::Options {
        tests: true,
        ..setup::Options::default()
    })?;
    build::ebpf()?;
    let programs = build::static_programs(
        &["turnaway", "turnaway-tests", "xtask"],
        &["turnaway", "turnaway-scenarios", INIT],
        true,
    )?;
    let depths = stack::depths(&fs::read(object()).context("cannot read the eBPF object")?)?;
    let mut table: BTreeMap<(String, String), BTreeMap<&str, u32>> = BTreeMap::new();
    for kernel in kernels() {
        let name = kernel.name;
        let mut guest = Guest::new(
            locate(&kernels_dir()?, name)?,
            [
                "/bin/turnaway-scenarios",
                "programs",
                "--turnaway",
                "/bin/turnaway",
            ],
        );
        guest.timeout = Duration::from_mins(5);
        guest.file(programs.join("turnaway"), "/bin/turnaway");
        guest.file(
            programs.join("turnaway-scenarios"),
            "/bin/turnaway-scenarios",
        );
        let exit = guest.run(|_| ())?;
        ensure!(
            exit.code == 0,
            "{name}: the guest's end was {}:\n{}",
            exit.code,
            exit.console
        );
        for program in exit.console.lines().filter_map(Program::parse) {
            let Some(verified) = program.verified else {
                continue;
            };
            let of_kernel = table.entry((program.tier, program.name)).or_default();
            let most = of_kernel.entry(name).or_default();
            *most = verified.max(*most);
        }
    }
    print(&table, &depths);
    Ok(())
}

fn print(table: &BTreeMap<(String, String), BTreeMap<&str, u32>>, depths: &BTreeMap<String, u32>) {
    let kernels: BTreeSet<&str> = table.values().flat_map(BTreeMap::keys).copied().collect();
    let heads: Vec<String> = kernels.iter().map(|name| format!("| {name} ")).collect();
    println!("| tier | program {}| stack |", heads.concat());
    println!("|---|---{}|---|", "|---".repeat(kernels.len()));
    for ((tier, program), verified) in table {
        let of = |kernel: &&str| {
            verified
                .get(*kernel)
                .map_or_else(|| "| ".to_owned(), |count| format!("| {count} "))
        };
        let counts: String = kernels.iter().map(of).collect();
        let depth = depths
            .iter()
            .filter(|(name, _)| name.starts_with(program.as_str()))
            .map(|(_, depth)| depth)
            .max();
        let depth = depth.map_or_else(String::new, u32::to_string);
        println!("| {tier} | `{program}` {counts}| {depth} |");
    }
}
