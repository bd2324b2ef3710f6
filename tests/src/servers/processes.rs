//! The processes of a server.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::truth::stat_field;

/// All processes below another, parents before their children.
pub fn descendants(ancestor: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // It may be gone by now.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            parents.push((pid, u32::try_from(stat_field(&stat, 4)?)?));
        }
    }
    let mut found: Vec<u32> = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| pid),
        );
    }
    found.remove(0);
    Ok(found)
}

/// The name of a process.
#[must_use]
pub fn comm_of(pid: u32) -> Option<String> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&comm).trim_end().to_owned())
}

/// What a process does, as proc(5) has it: `S` waits, `D` waits for a disk, `T` is stopped.
pub fn state(pid: u32) -> Result<char> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    // The name in it may hold anything.
    let stat = String::from_utf8_lossy(&stat);
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next())
        .with_context(|| format!("no state in {stat:?}"))
}

/// Gives a running process of nobody's another soft limit of descriptors. As nobody, because root
/// may do it to others only with CAP_SYS_RESOURCE, which containers lack.
pub fn lower_limit(pid: u32, soft: u64) -> Result<()> {
    let status = as_nobody("/usr/bin/prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--nofile={soft}:"))
        .status()
        .context("cannot run prlimit")?;
    ensure!(
        status.success(),
        "cannot lower RLIMIT_NOFILE of process {pid}: {status}"
    );
    Ok(())
}

/// A command of nobody's, who cannot raise limits, and under whom those run that refuse to be
/// root.
#[must_use]
pub fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program);
    command
}
