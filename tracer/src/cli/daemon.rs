//! `turnaway daemon`: watch always, alert, serve metrics.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;

use super::{duration, output::OutputArgs, rules::CONFIG};
use crate::{
    control,
    daemon::{self, Recording},
    event::Tier,
    filter::Filter,
    kernel::session,
    metrics::Listen,
    stream::format::Format::Native,
    text::size,
    trace::{self, Format, Shown},
};

/// Watch always: alert when connections are turned away, and serve metrics
///
/// Failures of one cause are one incident, which is told when it begins and when it
/// ends; metrics are served. Without a configuration, good defaults hold and incidents are
/// written to stdout only. Needs root.
///
/// SIGHUP has the configuration read again; one that is wrong is refused, and the old one holds.
/// SIGTERM ends within five seconds: what waits to be delivered is kept and goes on with the next start.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    output: OutputArgs,

    /// The configuration (docs/rules.md, docs/notify.md); /etc/turnaway/turnaway.toml if that is there
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where incidents and alerts that wait are kept
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state: PathBuf,

    /// Keep nothing on disk
    #[arg(long, conflicts_with = "state")]
    no_state: bool,

    /// Where metrics are served: a loopback address with its port, or unix:/PATH
    #[arg(long, value_name = "WHERE")]
    metrics: Option<Listen>,

    /// Serve no metrics
    #[arg(long, conflicts_with = "metrics")]
    no_metrics: bool,

    /// Where `turnaway status`, `incidents` and `silence` ask it, which only root may:
    /// /run/turnaway/control.sock or, with a --state of its own, control.sock in there
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Record what is seen to this file, as `turnaway replay` reads it
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// From this size the recording goes on in another file: FILE becomes FILE.1, and so on
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "100M", requires = "record")]
    record_size: u64,

    /// So many full files of the recording are kept
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1000), default_value_t = 4, requires = "record")]
    record_keep: u32,

    /// From this long in the queue an accepted connection is slow, or a connect that waits for room in one
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "500ms")]
    slow: Duration,

    /// From this long without an accept, a queue in which connections wait is stalled
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    stalled: Duration,

    /// Use hooks of this tier only, instead of the cheapest that works
    #[arg(long, value_enum)]
    tier: Option<Tier>,
}

const EXAMPLES: &str = "\
Examples:
  turnaway daemon                         with /etc/turnaway/turnaway.toml, if that is there
  turnaway daemon --no-state --json       incidents as records on stdout, nothing on disk
  turnaway daemon -c turnaway.toml --metrics 127.0.0.1:9800
  turnaway daemon --record /var/log/turnaway/seen.ndjson

Exit codes: 0 it was told to stop, 1 it cannot watch or the configuration is wrong, 2 wrong usage";

const STATE: &str = "/var/lib/turnaway";

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let filter = Filter::default();
    let json = args.output.is_json();
    let config = args
        .config
        .or_else(|| Some(PathBuf::from(CONFIG)).filter(|path| path.exists()));
    let socket = args.socket.unwrap_or_else(|| {
        if args.no_state || args.state == Path::new(STATE) {
            PathBuf::from(control::SOCKET)
        } else {
            // Its folder must be named from the root, whatever the state's is.
            let state = std::path::absolute(&args.state).unwrap_or_else(|_| args.state.clone());
            control::beside(&state)
        }
    });
    let options = daemon::Options {
        trace: trace::Options {
            session: session::Options {
                tier: args.tier,
                filter: filter.for_kernel(1),
                slow: args.slow,
                programs: true,
                ..session::Options::default()
            },
            filter,
            format: if json {
                Format::Records(Native)
            } else {
                Format::Text {
                    color: false,
                    terminal: false,
                    width: None,
                }
            },
            shown: Shown::default(),
            duration: None,
            lines: None,
            quiet: true,
            counts: false,
            stalled: args.stalled,
        },
        config,
        state: (!args.no_state).then_some(args.state),
        listen: match args.metrics {
            _ if args.no_metrics => Some(None),
            Some(listen) => Some(Some(listen)),
            None => None,
        },
        socket,
        recording: args.record.map(|file| Recording {
            file,
            size: args.record_size,
            keep: args.record_keep,
        }),
        json,
    };
    daemon::run(&options)?;
    Ok(ExitCode::SUCCESS)
}
