//! `cargo xtask fuzz`: libFuzzer thinks up bytes for everything that reads what comes from outside (tests/fuzz).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::build;
use crate::command::CommandExt as _;
use crate::workspace;

/// Options of `cargo xtask fuzz`.
#[derive(Args)]
pub struct Options {
    /// Only these targets, which `ls tests/fuzz/corpus` names
    targets: Vec<String>,
    /// How long each runs, seconds
    #[arg(long, default_value_t = 600)]
    seconds: u32,
}

/// Builds the targets and runs them, one after the other. What it finds stays in tests/fuzz/artifacts; inputs that reach
/// further than those of the repository are kept in target/fuzz.
pub fn run(options: &Options) -> Result<()> {
    build::ebpf()?;
    let folder = workspace::root().join("tests/fuzz");
    let mut targets = options.targets.clone();
    if targets.is_empty() {
        for entry in fs::read_dir(folder.join("corpus")).context("no corpora")? {
            targets.push(entry?.file_name().to_string_lossy().into_owned());
        }
        targets.sort();
    }
    ensure!(
        cargo_fuzz()
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success()),
        "cargo-fuzz is not installed: run `cargo install --locked cargo-fuzz`"
    );
    for target in &targets {
        let seeds = folder.join("corpus").join(target);
        ensure!(
            seeds.is_dir(),
            "no target is called {target}: {} name them",
            folder.join("corpus").display()
        );
        let reached = reached(target);
        fs::create_dir_all(&reached)?;
        cargo_fuzz()
            .current_dir(&folder)
            .env("TURNAWAY_BPF_OBJECT", workspace::bpf_object())
            // Needs no nightly compiler.
            .args(["run", "--sanitizer", "none", target])
            .args([&reached, &seeds])
            .arg("--")
            .arg(format!("-max_total_time={}", options.seconds))
            // What takes longer hangs.
            .args(["-timeout=20", "-max_len=16384", "-print_final_stats=1"])
            .show(&format!("the input is in tests/fuzz/artifacts/{target}"))?;
    }
    Ok(())
}

fn cargo_fuzz() -> Command {
    let mut command = workspace::cargo();
    command.arg("fuzz");
    command
}

fn reached(target: &str) -> PathBuf {
    workspace::target().join("fuzz").join(target)
}
