//! What is measured is done by processes of their own: `turnaway-scenarios` with these.

use anyhow::Result;
use clap::Subcommand;

use super::{crowd, floods, keys, listeners, storms};

/// Parts of what is measured.
#[derive(Subcommand)]
pub enum Load {
    /// Fork so many processes that fail once each
    Lives {
        /// How many
        count: u64,
    },
    /// Listen so many times until the input ends
    Listeners {
        /// Which addresses
        group: u8,
        /// How many
        count: usize,
        /// Fail so often a second, at each in turn, once a line was read
        #[arg(long, default_value_t = 0)]
        failing: usize,
    },
    /// Fork so many processes, each of which fails at a listener of its own, once a line was read
    Crowd {
        /// How many
        count: u32,
        /// How often a second, all together
        #[arg(long)]
        failing: u64,
        /// For how long
        #[arg(long)]
        seconds: u64,
        /// Each in a cgroup of its own, which is removed when the input ends
        #[arg(long)]
        cgroups: bool,
    },
    /// Connect to so many places in turn where nobody listens, once a line was read
    Places {
        /// How many
        count: u32,
        /// Connections
        #[arg(long)]
        total: u32,
        /// Within how many seconds
        #[arg(long)]
        seconds: u32,
    },
    /// Flood a full listener of a network namespace of its own, once a line was read
    Flood {
        /// What is full: `queue`, the same with `cookies`, or `requests`
        name: String,
        /// For how long
        #[arg(long)]
        seconds: u64,
    },
}

impl Load {
    /// Does it.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Lives { count } => storms::lives(count),
            Self::Listeners {
                group,
                count,
                failing,
            } => listeners::run(group, count, failing),
            Self::Crowd {
                count,
                failing,
                seconds,
                cgroups,
            } => crowd::run(count, failing, seconds, cgroups),
            Self::Places {
                count,
                total,
                seconds,
            } => keys::run(count, total, seconds),
            Self::Flood { name, seconds } => floods::run(&name, seconds),
        }
    }
}
