//! The command line: one file a command, each from raw arguments to validated options.

mod control;
mod daemon;
mod doctor;
mod errors;
mod explain;
mod fields;
mod filter;
mod generate;
mod output;
mod progress;
mod replay;
mod report;
mod rules;
mod trace;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

pub use errors::Usage;
use progress::Progress;

/// Shows which process turns connections away, on which listener, why, and what to type.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Show turnaway's own messages on stderr: error, warn, info, debug or trace; of the
    /// daemon info, of others error, if this is not given. The kernel programs' messages
    /// are among those of debug.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "RUST_LOG",
        hide_env_values = true
    )]
    log: Option<String>,
}

/// What the name alone says: what most people need.
const START: &str = "\
turnaway shows which process turns connections away, on which listener, why, and what to type.

  turnaway trace     what is turned away now, as it happens; Ctrl-C ends it
  turnaway doctor    what can be seen on this host, and what is at risk
  turnaway daemon    watch always, and alert

turnaway --help lists all commands, turnaway COMMAND --help tells of one, with examples.
";

const EXIT_CODES: &str = "\
Exit codes:
  0  success (a closed output pipe is one)
  1  failure; for doctor: something cannot be seen on this host
  2  wrong usage";

#[derive(Debug, Subcommand)]
enum Command {
    Trace(Box<trace::Args>),
    Daemon(daemon::Args),
    Status(control::StatusArgs),
    Incidents(control::IncidentsArgs),
    Silence(control::SilenceArgs),
    Doctor(doctor::Args),
    Replay(replay::Args),
    Report(Box<report::Args>),
    CheckConfig(rules::CheckArgs),
    Rules(rules::Args),
    Explain(explain::Args),
    Generate(generate::Args),
}

/// What the command line is made of: for documentation, and for whoever tests it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    if std::env::args_os().len() == 1 {
        // Nobody who types the name alone wants a list of everything.
        let _ = io::stderr().write_all(START.as_bytes());
        return ExitCode::from(2);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and are no errors.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let usual = match &cli.command {
        // Nobody looks on: what cannot be delivered or kept must be found in the journal.
        Command::Daemon(_) => "info",
        _ => "error",
    };
    env_logger::Builder::new()
        .parse_filters(cli.log.as_deref().unwrap_or(usual))
        // It would log addresses that are secrets.
        .filter_module("ureq", log::LevelFilter::Warn)
        .format_timestamp_millis()
        .init();
    let result = match cli.command {
        Command::Trace(args) => trace::run(&args),
        Command::Daemon(args) => daemon::run(args),
        Command::Status(args) => control::status(&args),
        Command::Incidents(args) => control::incidents(&args),
        Command::Silence(args) => control::silence(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Report(args) => report::run(&args),
        Command::CheckConfig(args) => rules::check(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Generate(args) => generate::run(&args, command()),
    };
    match result {
        Ok(code) => code,
        Err(error) => errors::report(&error),
    }
}

/// Prints a result. A reader that has gone is no error: it has seen what it wanted.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to stdout"),
    }
}

/// Says something on stderr. That nobody listens there is no error.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A time as people write it.
fn duration(text: &str) -> Result<Duration, String> {
    let help = || "use a time such as 30s, 5m or 1h".to_owned();
    let duration: jiff::SignedDuration = text.parse().map_err(|_| help())?;
    let duration = Duration::try_from(duration).map_err(|_| help())?;
    if duration.is_zero() {
        return Err(help());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_holds_together() {
        super::command().debug_assert();
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(
            super::duration("30s"),
            Ok(std::time::Duration::from_secs(30))
        );
        assert_eq!(
            super::duration("1m30s"),
            Ok(std::time::Duration::from_secs(90))
        );
        for bad in ["", "30", "-5s", "0s", "soon"] {
            assert!(super::duration(bad).is_err(), "{bad}");
        }
    }
}
