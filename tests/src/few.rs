//! turnaway as any user, with a few capabilities.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::scenario::TIERS;
use crate::scenario::run::Programs;
use crate::servers::acceptor::Acceptor;
use crate::sys;
use crate::tracer::Tracer;

/// A user who is nobody.
pub const NOBODY: &str = "65534";

/// What turnaway takes (docs/packaging.md).
pub const ENOUGH: [&str; 4] = ["bpf", "perfmon", "sys_ptrace", "dac_read_search"];

/// A command that runs the command behind it as a user.
#[must_use]
pub fn user(id: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", id, "--regid", id, "--clear-groups"]);
    command
}

/// turnaway as a user with these capabilities and no other.
#[must_use]
pub fn with(turnaway: &Path, id: &str, capabilities: &[&str]) -> Command {
    let some = [&["-all"], capabilities].concat().join(",+");
    let mut command = user(id);
    for set in ["inh-caps", "ambient-caps", "bounding-set"] {
        command.arg(format!("--{set}={some}"));
    }
    command.arg(turnaway);
    command
}

/// Says for each tier, as root and as nobody, whether [`ENOUGH`] is: a line such as `trampoline 65534: 17 of 17`, or why
/// not, and the same with CAP_SYS_ADMIN.
pub fn in_each_tier(programs: &Programs) -> Result<()> {
    // As the unit does: maps count as that before Linux 5.11.
    sys::lock_any_memory()?;
    for tier in TIERS {
        for id in ["0", NOBODY] {
            let told = match count(programs, tier, id, &ENOUGH) {
                Ok(count) => format!("{count} of 17"),
                Err(error) => {
                    println!("{error:#}");
                    let more = [&ENOUGH[..], &["sys_admin"]].concat();
                    let count = count(programs, tier, id, &more)?;
                    format!("{count} of 17 with sys_admin")
                }
            };
            println!("{tier} {id}: {told}");
        }
    }
    Ok(())
}

fn count(programs: &Programs, tier: &str, id: &str, capabilities: &[&str]) -> Result<u64> {
    let mut acceptor = Acceptor::run(&programs.scenarios)?;
    let port = acceptor.port.to_string();
    let mut command = with(&programs.turnaway, id, capabilities);
    command.args(["trace", "--json", "--tier", tier]);
    command.args(["--reason", "accept", "-P", &port]);
    let tracer = Tracer::spawn(&mut command)?;
    let _client = acceptor.client()?;
    if acceptor.fail(17)? != 17 {
        bail!("the server did not fail 17 times");
    }
    let records = tracer.stop()?.records()?;
    let totals = records.summary.totals.iter();
    let ours = totals.filter(|total| total.process.pid == acceptor.pid);
    let counted = ours.filter_map(|total| total.count).sum();
    acceptor.recover()?;
    acceptor.finish()?;
    Ok(counted)
}
