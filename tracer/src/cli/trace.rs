//! `turnaway trace`: connections that are turned away, as it happens.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{ArgAction, ValueEnum};

use super::{Usage, duration, fields::FieldsArgs, filter::CallArgs, output::ToldArgs};
use crate::{
    event::Tier,
    kernel::session,
    stream,
    trace::{self, Format, Shown},
};

/// Show connections that are turned away, as it happens
///
/// By which process, on which listener or towards which address, why, how often, and what to type. Needs
/// root.
///
/// It watches failed accepts, what the kernel drops because a listener's queues are full, queues
/// that nobody serves, connections that are lost when a listener is closed, connects that
/// fail, at once or later, and whatever else cannot have a descriptor, with the processes that soon
/// cannot. Everything is counted in the kernel; a few of each kind a second are
/// shown one by one, the rest as an exact number. EAGAIN and EINTR from accept are normal life
/// and never shown.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    output: ToldArgs,

    #[command(flatten)]
    fields: FieldsArgs,

    /// Show times with their date and zone
    #[arg(short = 'T', long = "timestamp")]
    dates: bool,

    #[command(flatten)]
    filter: CallArgs,

    /// Stop after this long, such as 30s or 5m
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Stop after this many lines of failures
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Show the summary only
    #[arg(short, long, action = ArgAction::SetTrue)]
    quiet: bool,

    /// Most failures of one kind shown one by one each second
    #[arg(long, value_name = "N", default_value_t = 10)]
    exemplars: u32,

    /// From this long in the queue an accepted connection is slow, or a connect that waits for room in one
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "500ms")]
    slow: Duration,

    /// From this long without an accept, a queue in which connections wait is stalled
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    stalled: Duration,

    /// Use hooks of this tier only, instead of the cheapest that works
    #[arg(long, value_enum)]
    tier: Option<Tier>,

    /// When to colour
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    color: Color,
}

const EXAMPLES: &str = "\
Examples:
  turnaway trace                          everything on this host
  turnaway trace -P 6432                  who turns connections to port 6432 away
  turnaway trace --comm nginx -d 30s      nginx, for 30 seconds
  turnaway trace --reason accept.emfile --cgroup pgbouncer.service
  turnaway trace --reason queue           full queues, and queues that nobody serves
  turnaway trace --reason fd              who is out of descriptors, or soon will be
  turnaway trace -U www-data --fields time,reason,pid,unit
  turnaway trace --json --fields reason,process.pid,count
  turnaway trace -o ecs -d 5m > incident.ecs.ndjson
  turnaway trace --json | jq -c 'select(.type == \"count\")'

Exit codes: 0 it was told to stop, or the reader of its output has gone; 1 it cannot trace; 2 wrong usage";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let options = options(args)?;
    trace::run(&options)?;
    Ok(ExitCode::SUCCESS)
}

fn options(args: &Args) -> Result<trace::Options> {
    let filter = args.filter.filter()?;
    let mut shown = Shown {
        dates: args.dates,
        ..Shown::default()
    };
    match args.output.records() {
        Some(stream::format::Format::Native) => shown.fields = args.fields.paths()?,
        // Their names are those of others, which nobody here can tell to be wrong.
        Some(other) if args.fields.is_any() => {
            let name = other.name();
            return Err(Usage(format!(
                "--fields is for text and for records as they are: use it without -o {name}"
            ))
            .into());
        }
        Some(_) => {}
        None => shown.columns = args.fields.columns()?,
    }
    let terminal = std::io::stdout().is_terminal();
    let format = match args.output.records() {
        Some(format) => Format::Records(format),
        None => Format::Text {
            color: match args.color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => {
                    terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
                }
            },
            terminal,
            width: rustix::termios::tcgetwinsize(std::io::stdout())
                .ok()
                .map(|size| usize::from(size.ws_col))
                .filter(|width| *width > 0),
        },
    };
    Ok(trace::Options {
        session: session::Options {
            tier: args.tier,
            // One is read for each listener's name even where none is shown.
            filter: filter.for_kernel(if args.quiet { 1 } else { args.exemplars.max(1) }),
            slow: args.slow,
            ..session::Options::default()
        },
        filter,
        format,
        shown,
        duration: args.duration,
        lines: args.count,
        quiet: args.quiet || args.exemplars == 0,
        counts: !args.quiet,
        stalled: args.stalled,
    })
}
