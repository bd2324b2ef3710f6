//! `turnaway top`: listeners and their owners, live.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;

use super::{Usage, duration, filter::CallArgs};
use crate::{
    control::SOCKET,
    event::Tier,
    filter::Filter,
    kernel::session,
    stream::format::Format::Native,
    top::{self, Sort},
    trace::{self, Format},
};

/// Failures of one kind that are looked at in full each second.
const EXEMPLARS: u32 = 1;
/// The screen is drawn no more often.
const FASTEST: Duration = Duration::from_millis(100);

/// Show listeners and their owners, live
///
/// Who accepts how much, who fails and why, how full queues and tables of descriptors are, how long
/// connections wait; what is worst first. Enter shows more of a listener: its clients, what holds its
/// descriptors, advice. Needs root. ? shows all keys.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    filter: CallArgs,

    /// How often the screen is drawn anew, or a table printed; numbers are counted anew every second
    #[arg(short, long, value_name = "TIME", value_parser = delay, default_value = "1s")]
    delay: Duration,

    /// Print tables instead, for scripts
    #[arg(short, long)]
    batch: bool,

    /// Print so many tables, and end
    #[arg(short = 'n', long, value_name = "N", requires = "batch", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,

    /// Print one table, of the first second, and end
    #[arg(long, conflicts_with_all = ["batch", "iterations"])]
    once: bool,

    /// Sort by this
    #[arg(long, value_enum, value_name = "BY", default_value_t = Sort::Worst)]
    sort: Sort,

    /// The other way around
    #[arg(long)]
    reverse: bool,

    /// Only what fails or stalls
    #[arg(long)]
    failing: bool,

    /// The mouse selects rows. The terminal's own selection needs Shift then
    #[arg(long, conflicts_with_all = ["batch", "once"])]
    mouse: bool,

    /// Show what the running daemon sees, and place no hooks
    #[arg(long)]
    attach: bool,

    /// Where the daemon listens
    #[arg(long, value_name = "PATH", default_value = SOCKET, requires = "attach")]
    socket: PathBuf,

    /// Use hooks of this tier only, instead of the cheapest that works
    #[arg(long, value_enum, conflicts_with = "attach")]
    tier: Option<Tier>,
}

const EXAMPLES: &str = "\
Examples:
  turnaway top                            everything on this host
  turnaway top -P 6432                    the listener on port 6432
  turnaway top --failing                  only what fails
  turnaway top --once                     one table, of the first second
  turnaway top --batch -n 10 -d 5s        ten tables, five seconds apart
  turnaway top --attach                   what the running daemon sees

Exit codes: 0 it was told to stop, 1 failure, 2 wrong usage";

/// A time that a person can follow.
fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration(text)?;
    if delay < FASTEST {
        return Err(format!("nobody can follow that: use {FASTEST:?} or more"));
    }
    Ok(delay)
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let batch = args.batch || args.once;
    if !batch {
        if !io::stdout().is_terminal() {
            let words = "stdout is no terminal: use --batch to print tables, or --once for one";
            return Err(Usage(words.to_owned()).into());
        }
        if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
            let words = "this terminal (TERM) cannot move its cursor: use --batch, or --once";
            return Err(Usage(words.to_owned()).into());
        }
    }
    let filter = args.filter.filter()?;
    if !filter.uids.is_empty() {
        let words = "top does not tell users apart: use `turnaway trace -U`";
        return Err(Usage(words.to_owned()).into());
    }
    // What goes well, and how full queues are, is shown whichever failures are.
    let hooked = Filter {
        reasons: Vec::new(),
        ..filter.clone()
    };
    let options = top::Options {
        trace: trace::Options {
            session: session::Options {
                tier: args.tier,
                filter: hooked.for_kernel(EXEMPLARS),
                ..session::Options::default()
            },
            filter: filter.clone(),
            // Nothing of it is shown.
            format: Format::Records(Native),
            shown: trace::Shown::default(),
            duration: None,
            lines: None,
            quiet: true,
            counts: false,
            stalled: Duration::from_secs(2),
        },
        filter,
        delay: args.delay,
        tables: match (args.once, args.batch) {
            (true, _) => Some(Some(1)),
            (false, true) => Some(args.iterations),
            (false, false) => None,
        },
        sort: args.sort,
        reverse: args.reverse,
        only_failing: args.failing,
        mouse: args.mouse,
        attach: args.attach.then_some(args.socket),
    };
    top::run(&options)?;
    Ok(ExitCode::SUCCESS)
}
