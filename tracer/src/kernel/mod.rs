//! Everything that touches the kernel: [`btf`] and [`offsets`] (its layout), [`features`]
//! (what it offers), [`plan`] (pure: features → hooks), [`attach`] and [`kretprobe`]
//! (hooks in place), [`session`] (counters and exemplars).

pub mod attach;
mod batch;
pub mod btf;
pub mod diagnostics;
pub mod features;
pub mod jiffies;
pub mod kretprobe;
pub mod offsets;
pub mod plan;
pub mod programs;
pub mod session;
pub mod tracefs;
pub mod words;

/// Where a kernel shows its own and its modules' BTF.
pub const BTF_DIR: &str = "/sys/kernel/btf";
