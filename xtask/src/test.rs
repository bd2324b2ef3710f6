//! `cargo xtask test`.

use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::command::{CommandExt as _, is_root};
use crate::toolchain::target_variable;
use crate::vm::{self, kernels_dir};
use crate::{build, setup, workspace};

/// Options of `cargo xtask test`.
#[derive(Args)]
pub struct Options {
    /// Leave the tests in virtual machines out
    #[arg(long)]
    no_guests: bool,
    /// Run the tests in virtual machines with this test kernel only
    #[arg(long, conflicts_with = "no_guests")]
    kernel: Option<String>,
    /// Run only tests whose name contains this
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Sets up, builds, and runs the tests as root.
pub fn run(options: &Options) -> Result<()> {
    if let Some(name) = &options.kernel {
        vm::kernel_by_name(name)?;
    }
    let start = Instant::now();
    setup::run(setup::Options {
        tests: true,
        ..setup::Options::default()
    })?;
    build::ebpf()?;
    let programs = build::static_programs(
        &["turnaway", "turnaway-tests", "xtask"],
        &["turnaway", "turnaway-scenarios", "guest-init"],
        true,
    )?;

    // Tests are built without optimisation: that is faster, and arithmetic is checked. What they
    // run is the program that ships.
    let mut cargo = workspace::cargo();
    cargo
        .args(["test", "--workspace", "--exclude", "turnaway-ebpf"])
        .args(["--no-fail-fast", "--target-dir"])
        .arg(workspace::target());
    cargo
        .env("TURNAWAY_BIN", programs.join("turnaway"))
        .env("TURNAWAY_SCENARIOS", programs.join("turnaway-scenarios"))
        .env("TURNAWAY_GUEST_INIT", programs.join("guest-init"))
        .env("TURNAWAY_KERNELS", kernels_dir()?)
        .arg("--")
        .args(&options.filter);
    if options.no_guests {
        cargo.env(vm::NO_GUESTS, "1");
    }
    if let Some(name) = &options.kernel {
        cargo.env(vm::ONE_KERNEL, name);
    }
    if !is_root() {
        eprintln!("tests load programs into the kernel, so they run through `sudo -E`");
        let runner = target_variable(&workspace::host_triple()?, "RUNNER");
        cargo.env(runner, "sudo -E");
    }
    cargo.show("mend the tests that failed above")?;
    eprintln!("test: all passed, in {} s", start.elapsed().as_secs());
    Ok(())
}
