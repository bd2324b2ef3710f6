//! What can be seen on this host and what is at risk there: gathered once, then rendered as
//! text or JSON (docs/doctor.md).

mod audit;
mod facts;
mod gather;
mod render;
pub mod risks;

use serde::Serialize;

pub use audit::{Audit, Compared, Numbers};
pub use render::text;

use crate::event::Tier;
use risks::Risk;

/// Everything that `turnaway doctor` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of this record.
    pub schema: &'static str,
    /// Always `doctor`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Every hook is in place.
    pub healthy: bool,
    /// Why nothing could be loaded at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Version of turnaway.
    pub version: &'static str,
    /// The running kernel.
    pub kernel: Kernel,
    /// The kernel's type information.
    pub btf: Check,
    /// Where tracepoints are listed.
    pub tracefs: Check,
    /// Which cgroup hierarchies are mounted.
    pub cgroup: Check,
    /// Capabilities that matter, and whether this process has them.
    pub capabilities: Vec<Capability>,
    /// One for each hook.
    pub hooks: Vec<Hook>,
    /// Fields that this kernel's BTF does not have: what is told by them stays unknown.
    pub absent_fields: Vec<&'static str>,
    /// Whether connections are tracked here, and how full the table is.
    pub conntrack: Check,
    /// What is about to turn connections away.
    pub risks: Vec<Risk>,
    /// What could not be found out about risks, in words.
    pub risks_unknown: Vec<String>,
}

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// As `uname -r` has it.
    pub release: String,
    /// As `uname -m` has it.
    pub machine: String,
    /// Lockdown mode: `none`, `integrity` or `confidentiality`; absent where the kernel
    /// does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lockdown: Option<String>,
}

/// Something that is there or is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// It is there.
    pub ok: bool,
    /// In words: what was found, or what is missing and what to do.
    pub detail: String,
}

/// A capability of this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// Such as `CAP_BPF`.
    pub name: &'static str,
    /// It is effective.
    pub effective: bool,
    /// What it is for.
    pub purpose: &'static str,
}

/// A hook, as it was put in place for a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// Its name.
    pub name: &'static str,
    /// `attached` or `unavailable`.
    pub status: &'static str,
    /// The tier it works in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Where it sits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What cannot be seen without it, if it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<&'static str>,
    /// The better ways that did not work, and why.
    pub refused: Vec<Refusal>,
}

/// A way to put a hook in place that did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Its tier.
    pub tier: Tier,
    /// Why, in words.
    pub why: String,
}
