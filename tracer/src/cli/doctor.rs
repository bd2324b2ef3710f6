//! `turnaway doctor`: what can be seen on this host, and what cannot.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::output::OutputArgs;
use crate::{
    doctor::{self, Report},
    event::Tier,
};

/// Says what can be seen on this kernel: every hook is attached for a moment, and removed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    output: OutputArgs,

    /// Try hooks of this tier only, instead of the cheapest that works
    #[arg(long, value_enum)]
    tier: Option<Tier>,
}

const EXAMPLES: &str = "\
Examples:
  turnaway doctor
  turnaway doctor --json | jq '.hooks[] | select(.status != \"attached\")'

Exit codes: 0 everything can be seen, 1 something cannot";

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let report = Report::gather(args.tier);
    let text = if args.output.is_json() {
        let mut json = serde_json::to_string(&report).context("cannot write JSON")?;
        json.push('\n');
        json
    } else {
        doctor::text(&report)
    };
    super::print(&text)?;
    Ok(if report.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
