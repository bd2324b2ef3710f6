//! What each of turnaway's programs takes, by the kernel's own account.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::vm::{Guest, kernels_dir, locate};

/// The head of the table.
pub(super) const HEADER: &str =
    "TIER        LOAD     PROGRAM                   RUNS A TIME  NS A RUN";

/// What a program takes, as `turnaway-scenarios cost` says it.
pub(super) struct Cost(pub(super) Value);

impl Cost {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line.trim()).ok()?;
        value["program"].is_string().then_some(Self(value))
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |name: &str| self.0[name].as_str().unwrap_or_default();
        let number = |name: &str| self.0[name].as_f64().unwrap_or_default();
        write!(
            f,
            "{:<11} {:<8} {:<25} {:>11.2} {:>9.1}",
            text("tier"),
            text("load"),
            text("program"),
            number("runs"),
            number("ns")
        )
    }
}

/// The same in a guest, of all tiers. Its processors are emulated: its figures tell how programs
/// compare to each other, and no more.
pub(super) fn in_guest(seconds: u64, kernel: &str, turnaway: &Path, loads: &Path) -> Result<()> {
    let kernel = locate(&kernels_dir()?, kernel)?;
    println!("Linux {}, emulated", kernel.release);
    let mut command = vec![
        "/bin/turnaway-scenarios",
        "cost",
        "--turnaway",
        "/bin/turnaway",
    ];
    for tier in ["trampoline", "kprobe", "tracepoint"] {
        command.extend(["--tier", tier]);
    }
    let for_seconds = seconds.to_string();
    command.extend(["--seconds", &for_seconds]);
    let mut guest = Guest::new(kernel, command);
    guest.timeout = Duration::from_secs(120 + 30 * seconds);
    guest.file(turnaway, "/bin/turnaway");
    guest.file(loads, "/bin/turnaway-scenarios");
    guest.program(Path::new("/usr/sbin/bpftool"), "/bin/bpftool")?;
    println!("{HEADER}");
    let exit = guest.run(|line| {
        if let Some(cost) = Cost::parse(line) {
            println!("{cost}");
        }
    })?;
    ensure!(
        exit.code == 0,
        "the guest's end was {}:\n{}",
        exit.code,
        exit.console
    );
    Ok(())
}
