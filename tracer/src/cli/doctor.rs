//! `turnaway doctor`: what can be seen on this host, what cannot, and what is at risk.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};

use super::output::OutputArgs;
use crate::{
    doctor::{self, Audit, Report},
    event::Tier,
};

/// Say what can be seen on this kernel, what cannot, and what is at risk now
///
/// Every hook is attached for a moment, and removed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    output: OutputArgs,

    /// Try hooks of this tier only, instead of the cheapest that works
    #[arg(long, value_enum)]
    tier: Option<Tier>,

    /// Instead, count for this long what listeners drop, and compare it with the kernel's own counters
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    audit: Option<Duration>,
}

const EXAMPLES: &str = "\
Examples:
  turnaway doctor
  turnaway doctor --json | jq '.hooks[] | select(.status != \"attached\")'
  turnaway doctor --json | jq -c '.risks[] | [.code, .text, .advice]'
  turnaway doctor --audit 60s             do our counts equal the kernel's?

Exit codes: 0 everything can be seen, 1 something cannot (or, with --audit, counts differ);\nrisks do not change it (docs/doctor.md)";

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(duration) = args.audit {
        return audit(args, duration);
    }
    let progress = super::Progress::start("attaching every hook for a moment");
    let report = Report::gather(args.tier);
    drop(progress);
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

fn audit(args: &Args, duration: Duration) -> Result<ExitCode> {
    let audit = Audit::run(args.tier, duration, || {
        super::say(&format!("counting for {duration:?}; Ctrl-C stops"));
    })?;
    let text = if args.output.is_json() {
        let mut json = serde_json::to_string(&audit).context("cannot write JSON")?;
        json.push('\n');
        json
    } else {
        audit.text()
    };
    super::print(&text)?;
    Ok(if audit.agrees {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
