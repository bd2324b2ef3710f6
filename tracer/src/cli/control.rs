//! `turnaway status`, `turnaway incidents` and `turnaway silence`: what the running daemon says.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::{ArgGroup, Subcommand};
use jiff::Timestamp;

use super::{Usage, duration, fields::RecordFieldsArgs, filter::AboutArgs, output::OutputArgs};
use crate::{
    control::{self, Answer, Request, SOCKET, text},
    history::Incident,
    record,
    rules::{self, Matcher, Silence},
};

/// Where the daemon is, and how its answer is printed.
#[derive(Debug, clap::Args)]
struct Common {
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,

    #[command(flatten)]
    output: OutputArgs,
}

/// Say how the running daemon is
///
/// Hooks, what was seen and lost, incidents, notifiers, rules. Needs root.
#[derive(Debug, clap::Args)]
#[command(after_help = STATUS)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    common: Common,
}

const STATUS: &str = "\
Examples:
  turnaway status
  turnaway status --json | jq .lost

Exit codes: 0 the daemon answered, 1 none does, 2 wrong usage";

/// Show the incidents that the running daemon tells of
///
/// Those that fire now, each with what happened in order. Needs root.
#[derive(Debug, clap::Args)]
#[command(after_help = INCIDENTS)]
pub(super) struct IncidentsArgs {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    filter: AboutArgs,

    #[command(flatten)]
    fields: RecordFieldsArgs,
}

const INCIDENTS: &str = "\
Examples:
  turnaway incidents                      with what happened, in order
  turnaway incidents --json               one `incident` record a line (docs/records.md)
  turnaway incidents --unit pgbouncer -P 6432
  turnaway incidents --json --fields id,statement

Exit codes: 0 the daemon answered, 1 none does, 2 wrong usage";

/// Silence incidents for a time
///
/// They are written all the same, and told if they last when the silence ends. Silences outlive a restart of
/// the daemon. Needs root.
#[derive(Debug, clap::Args)]
#[command(after_help = SILENCE)]
pub(super) struct SilenceArgs {
    #[command(subcommand)]
    command: SilenceCommand,
}

const SILENCE: &str = "\
Examples:
  turnaway silence add --for 2h --unit pgbouncer.service --comment \"moves today\"
  turnaway silence add --for 30m --comm 'nginx*' --port 443
  turnaway silence list
  turnaway silence remove s-4f2a09c1

Exit codes: 0 done, 1 it cannot be done, 2 wrong usage";

#[derive(Debug, Subcommand)]
enum SilenceCommand {
    Add(Box<AddArgs>),
    /// Show silences
    List {
        #[command(flatten)]
        common: Common,
    },
    /// End a silence now
    #[command(alias = "expire")]
    Remove {
        /// Its id, as `list` shows it
        id: String,

        #[command(flatten)]
        common: Common,
    },
}

/// Be silent about incidents that match
///
/// All that is given must match, and of each at least one. Texts may end in *.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("end").required(true))]
#[command(group = ArgGroup::new("about").required(true).multiple(true))]
struct AddArgs {
    /// How long, such as 30m or 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration, group = "end")]
    lasts: Option<Duration>,

    /// Until when, such as 2026-11-25T06:00:00Z
    #[arg(long, value_name = "TIME", group = "end")]
    until: Option<Timestamp>,

    /// Incidents whose cause is this reason, such as accept.emfile or queue.*
    #[arg(long, value_name = "CODE", value_parser = reason, group = "about")]
    reason: Vec<String>,

    /// Incidents of processes of this name
    #[arg(long, value_name = "NAME", value_parser = not_empty, group = "about")]
    comm: Vec<String>,

    /// Incidents of this systemd unit
    #[arg(long, value_name = "UNIT", value_parser = not_empty, group = "about")]
    unit: Vec<String>,

    /// Incidents of this container: its name, or the beginning of its id
    #[arg(long, value_name = "NAME", value_parser = not_empty, group = "about")]
    container: Vec<String>,

    /// Incidents at listeners on this port, or of connects to it
    #[arg(short = 'P', long, value_name = "PORT", value_parser = clap::value_parser!(u32).range(1..=65_535), group = "about")]
    port: Vec<u32>,

    /// Incidents at AF_UNIX listeners at this path, or of connects to it
    #[arg(long, value_name = "PATH", value_parser = not_empty, group = "about")]
    path: Vec<String>,

    /// All incidents
    #[arg(long, group = "about", conflicts_with_all = ["reason", "comm", "unit", "container", "port", "path"])]
    all: bool,

    /// Why, for others to read
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,

    #[command(flatten)]
    common: Common,
}

fn reason(pattern: &str) -> Result<String, String> {
    rules::known_reason(pattern).map(|()| pattern.to_owned())
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("an empty text matches nothing".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn status(args: &StatusArgs) -> Result<ExitCode> {
    match args.common.ask(&Request::Status {})? {
        Answer::Status(status) => args.common.print(&*status, || text::status(&status)),
        other => unexpected(&other),
    }
}

pub(super) fn incidents(args: &IncidentsArgs) -> Result<ExitCode> {
    let fields = args.fields.paths(args.common.output.is_json())?;
    let filter = args.filter.filter()?;
    let answer = match args.common.ask(&Request::Incidents {})? {
        Answer::Incidents(mut all) => {
            let before = all.incidents.len();
            all.incidents.retain(|one| {
                Incident::of(&one.record).is_none_or(|incident| filter.wants_incident(&incident))
            });
            let others = before - all.incidents.len();
            if others > 0 {
                super::say(&format!("turnaway: {others} others fire, too"));
            }
            Answer::Incidents(all)
        }
        other => other,
    };
    match answer {
        Answer::Incidents(all) if args.common.output.is_json() => {
            let mut lines = String::new();
            for one in &all.incidents {
                let line = serde_json::to_string(&one.record)?;
                if let Some(line) = record::only(line, &fields) {
                    lines.push_str(&line);
                    lines.push('\n');
                }
            }
            super::print(&lines)?;
            Ok(ExitCode::SUCCESS)
        }
        Answer::Incidents(all) => args.common.print(&all, || text::incidents(&all)),
        other => unexpected(&other),
    }
}

pub(super) fn silence(args: SilenceArgs) -> Result<ExitCode> {
    match args.command {
        SilenceCommand::Add(args) => add(*args),
        SilenceCommand::List { common } => match common.ask(&Request::Silences {})? {
            Answer::Silences(all) => common.print(&all, || text::silences(&all, Timestamp::now())),
            other => unexpected(&other),
        },
        SilenceCommand::Remove { id, common } => match common.ask(&Request::Unsilence { id })? {
            Answer::Unsilenced(done) => common.print(&done, || text::unsilenced(&done)),
            other => unexpected(&other),
        },
    }
}

fn add(args: AddArgs) -> Result<ExitCode> {
    let now = Timestamp::now();
    let until = match (args.lasts, args.until) {
        (Some(lasts), _) => now
            .checked_add(lasts)
            .map_err(|_| Usage(format!("--for {lasts:?} is too long")))?,
        (None, Some(until)) if until <= now => {
            return Err(Usage(format!("--until {until} is over already")).into());
        }
        (None, Some(until)) => until,
        (None, None) => return Err(Usage("give --for or --until".to_owned()).into()),
    };
    let silence = Silence {
        id: format!("s-{:08x}", fastrand::u32(..)),
        matcher: Matcher {
            reason: args.reason,
            comm: args.comm,
            unit: args.unit,
            container: args.container,
            port: args.port,
            path: args.path,
        },
        until,
        comment: args.comment,
    };
    match args.common.ask(&Request::Silence(silence))? {
        Answer::Silenced(done) => args.common.print(&done, || text::silenced(&done)),
        other => unexpected(&other),
    }
}

impl Common {
    fn ask(&self, request: &Request) -> Result<Answer> {
        control::ask(&self.socket, request)
    }

    fn print(
        &self,
        answer: &impl serde::Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<ExitCode> {
        let shown = if self.output.is_json() {
            serde_json::to_string(answer)? + "\n"
        } else {
            text()
        };
        super::print(&shown)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn unexpected(answer: &Answer) -> Result<ExitCode> {
    bail!("the daemon answered something else: {answer:?}; is it another version?")
}
