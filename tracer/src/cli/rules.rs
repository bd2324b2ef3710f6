//! `turnaway check-config` and `turnaway rules`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Subcommand;

use crate::rules::{self, trial::Trial};

/// Where the configuration is, unless another is given.
pub(super) const CONFIG: &str = "/etc/turnaway/turnaway.toml";

/// Say whether a configuration is right
///
/// And if not, in which line of it and what would do.
#[derive(Debug, clap::Args)]
#[command(after_help = CHECK)]
pub(super) struct CheckArgs {
    /// The configuration (docs/rules.md)
    #[arg(default_value = CONFIG)]
    file: PathBuf,
}

const CHECK: &str = "\
Examples:
  turnaway check-config turnaway.toml

Exit codes: 0 it is right, 1 it is not, 2 wrong usage";

pub(super) fn check(args: &CheckArgs) -> Result<ExitCode> {
    let all = rules::load(&args.file)?;
    let rules = &all.rules;
    super::print(&format!(
        "{}: right: {} rules, {} ignored, {} silences, {} to notify, {} streams\n",
        args.file.display(),
        rules.rules.len(),
        rules.ignore.len(),
        rules.silences.len(),
        all.notifiers.len(),
        all.streams.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Try rules on recorded events
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

const TEST: &str = "\
Examples:
  turnaway rules test tuesday.toml

Exit codes: 0 they are as expected, 1 they are not, 2 wrong usage";

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare the alerts that recorded events give with those that are expected
    #[command(after_help = TEST)]
    Test {
        /// What is recorded and what is expected (docs/rules.md)
        file: PathBuf,
    },
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let Command::Test { file } = &args.command;
    let outcome = Trial::load(file)?.run()?;
    super::print(&outcome.text())?;
    Ok(if outcome.is_as_expected() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
