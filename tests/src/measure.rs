//! What turnaway costs when much fails, when there is much to look at, and how soon it tells: for `cargo xtask bench`.
//! Counts are compared with what the loads themselves counted.

mod alerts;
mod crowd;
mod floods;
mod holder;
mod keys;
mod latency;
mod listeners;
mod loads;
mod scale;
mod storms;
mod top;
mod usage;
mod watcher;

use std::ffi::CString;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;

pub use self::loads::Load;
pub(crate) use self::storms::short_lives;
pub use self::usage::{cpu_time, memory_kib};
use self::watcher::LOAD;
use crate::sys;

/// What can be measured.
pub const ALL: &[&str] = &["storms", "floods", "scale", "latency", "alerts", "top"];
/// `scale` is all of these.
const SCALES: [&str; 4] = ["listeners", "processes", "cgroups", "keys"];

/// Listeners that one process holds: its limit of descriptors may not be raised without CAP_SYS_RESOURCE.
const HELD: usize = 10_000;

/// Measures, and prints a line of JSON for each thing that was.
pub fn run(what: &str, turnaway: &Path, scenarios: &Path) -> Result<()> {
    // Loads, and this process, which does what threads can do, have a name of their own.
    let dir = tempfile::tempdir()?;
    let named = dir.path().join(LOAD);
    symlink(scenarios, &named)?;
    sys::set_thread_name(&CString::new(LOAD)?)?;
    let scenarios = named.as_path();
    match what {
        "storms" => storms::run(turnaway, scenarios),
        "floods" => floods::measure(turnaway, scenarios),
        "scale" => SCALES
            .iter()
            .try_for_each(|one| scale::run(one, turnaway, scenarios)),
        one if SCALES.contains(&one) => scale::run(one, turnaway, scenarios),
        "latency" => latency::run(turnaway, scenarios),
        "alerts" => alerts::run(turnaway, scenarios),
        "top" => top::run(turnaway, scenarios),
        _ => bail!(
            "nothing called {what} is measured: there are {}, and of scale {}",
            ALL.join(", "),
            SCALES.join(", ")
        ),
    }
}

fn say(measured: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(measured)?);
    Ok(())
}
