//! What is tried, and what must come of it.

pub mod check;
pub mod env;
mod list;
pub mod run;

pub use list::ALL;

use anyhow::Result;

use crate::workload::Stage;
use env::Need;

/// How turnaway gets at the failures.
pub const TIERS: [&str; 3] = ["trampoline", "kprobe", "tracepoint"];

/// A workload and what turnaway is to see of it: its tally, exactly.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// The workload.
    pub run: fn(&mut Stage) -> Result<()>,
    /// What it needs.
    pub needs: Need,
    /// Whether all its failures are those of the process that is started, so that `-p` finds
    /// them.
    pub one_process: bool,
    /// Whether it changes what others are told of, so that it needs a turnaway of its own.
    pub apart: bool,
    /// The hook that sees it.
    pub hook: &'static str,
    /// How the reasons begin that it is about.
    pub about: &'static [&'static str],
    /// Tiers that do not see it at all, which docs/limitations.md says.
    pub blind: &'static [&'static str],
}

/// The scenario of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}
