//! `cargo xtask lint`.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::command::CommandExt as _;
use crate::toolchain::Compiler;
use crate::{build, cache, workspace};

/// Options of `cargo xtask lint`.
#[derive(Args, Clone, Copy)]
pub struct Options {
    /// Also look for known vulnerabilities, which downloads the advisory database
    #[arg(long)]
    advisories: bool,
}

/// Everything except the kernel side, which has a target of its own.
const HOST: [&str; 3] = ["--workspace", "--exclude", "turnaway-ebpf"];

/// Runs all checks, also after one has failed, with a line for each.
pub fn run(options: Options) -> Result<()> {
    // The user side embeds the kernel side, and does not compile without it.
    build::ebpf()?;
    let checks = [
        ("format", format()),
        ("clippy", clippy()),
        ("clippy of the kernel side", clippy_ebpf()?),
        ("documentation", documentation()),
        ("licences, bans and sources", deny(options)?),
    ];
    let mut failed = Vec::new();
    for (name, mut check) in checks {
        // Errors come as they are, above the verdict, as the programs' own messages do.
        let done = check.show("mend what is reported above, or run `cargo xtask setup --tests`");
        if let Err(error) = done {
            eprintln!("{error:#}\nlint: {name}: FAILED");
            failed.push(name);
        } else {
            eprintln!("lint: {name}: ok");
        }
    }
    if !failed.is_empty() {
        bail!("not clean: {}", failed.join(", "));
    }
    Ok(())
}

fn format() -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["fmt", "--all", "--check"]);
    cargo
}

fn clippy() -> Command {
    let mut cargo = workspace::cargo();
    cargo.arg("clippy").args(HOST).arg("--all-targets");
    cargo.args(["--quiet", "--", "-Dwarnings"]);
    cargo
}

fn clippy_ebpf() -> Result<Command> {
    let mut cargo = Compiler::detect()?.cargo("clippy")?;
    cargo.args(["--no-deps", "--quiet", "--", "-Dwarnings"]);
    Ok(cargo)
}

fn documentation() -> Command {
    let mut cargo = workspace::cargo();
    cargo.arg("doc").args(HOST).args(["--no-deps", "--quiet"]);
    cargo.env("RUSTDOCFLAGS", "-Dwarnings");
    cargo
}

fn deny(options: Options) -> Result<Command> {
    let mut deny = Command::new(cache::tool("cargo-deny")?);
    deny.current_dir(workspace::root());
    deny.args(["check", "--hide-inclusion-graph"]);
    deny.args(["licenses", "bans", "sources"]);
    deny.args(options.advisories.then_some("advisories"));
    Ok(deny)
}
