//! The command line: one file a command, each from raw arguments to validated options.

mod control;
mod daemon;
mod doctor;
mod errors;
mod filter;
mod output;
mod replay;
mod report;
mod rules;
mod top;
mod trace;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

pub use errors::Usage;

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

const EXIT_CODES: &str = "\
Exit codes:
  0  success (a closed output pipe is one)
  1  failure; for doctor: something cannot be seen on this host
  2  wrong usage";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show connections that are turned away, as it happens
    Trace(Box<trace::Args>),
    /// Show listeners and their owners, live
    Top(Box<top::Args>),
    /// Watch always: alert when connections are turned away, and serve metrics
    Daemon(daemon::Args),
    /// Say how the running daemon is
    Status(control::StatusArgs),
    /// Show the incidents that the running daemon tells of
    Incidents(control::IncidentsArgs),
    /// Silence incidents for a time
    Silence(control::SilenceArgs),
    /// Say what can be seen on this kernel, and what cannot
    Doctor(doctor::Args),
    /// Show the incidents in recorded events
    Replay(replay::Args),
    /// Tell of incidents, and whether they come again
    Report(Box<report::Args>),
    /// Say whether a configuration is right
    CheckConfig(rules::CheckArgs),
    /// Try rules on recorded events
    Rules(rules::Args),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
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
        // They would be in the midst of the screen.
        Command::Top(_) => "off",
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
        Command::Top(args) => top::run(*args),
        Command::Daemon(args) => daemon::run(args),
        Command::Status(args) => control::status(&args),
        Command::Incidents(args) => control::incidents(&args),
        Command::Silence(args) => control::silence(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Report(args) => report::run(&args),
        Command::CheckConfig(args) => rules::check(&args),
        Command::Rules(args) => rules::run(&args),
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
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_holds_together() {
        super::Cli::command().debug_assert();
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
