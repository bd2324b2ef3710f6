//! `turnaway report`: incidents as people read them, without root.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use jiff::{Span, Timestamp, civil, tz::TimeZone};

use super::{Progress, errors::Usage, filter::AboutArgs, say};
use crate::{
    history::{FILE, Reader, Wanted},
    report::{Facts, gather, html, markdown, tell, text},
};

/// Tell of incidents, and whether they come again
///
/// What each was, who suffered, what helps, whether it happened before and when it will again. A list, or one
/// in full. Reads the daemon's history, or recorded records; root is not needed where these can be read.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The incident to tell in full: its id, or the beginning of that
    #[arg(value_name = "ID", conflicts_with_all = ["last", "since", "until"])]
    id: Option<String>,

    /// The newest incident in full
    #[arg(long)]
    last: bool,

    /// Incidents that lasted then or began later: a time, a date, or how long ago, such as 7d
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,

    /// Incidents that began before
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,

    #[command(flatten)]
    filter: AboutArgs,

    /// Where the daemon keeps its history
    #[arg(long, value_name = "DIR", default_value = "/var/lib/turnaway")]
    state: PathBuf,

    /// Tell of recorded records instead: incidents that are among them, and those that rules see in the
    /// rest; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    from: Option<PathBuf>,

    /// Rules (docs/rules.md) for recorded records in place of the default ones alone
    #[arg(long, value_name = "FILE", requires = "from")]
    config: Option<PathBuf>,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Write it to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// The time zone to show times in, and whose days and hours patterns follow; the system's
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  turnaway report                            incidents, newest first, and whether they come again
  turnaway report --last                     the newest in full
  turnaway report 5c1f0a                     the one whose id begins so
  turnaway report --since 30d --unit pgbouncer -o html --to pgbouncer.html
  turnaway report --since 7d --reason accept.emfile -P 6432
  turnaway report --from tuesday.ndjson --time-zone Europe/Berlin -o markdown

Exit codes: 0 it was written (no incident is no failure), 1 it cannot be read or there is no such ID, 2 wrong usage";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Markdown,
    Json,
    Html,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let zone = zone(args.time_zone.as_deref())?;
    let now = Timestamp::now();
    let when = |text: &Option<String>, name| {
        text.as_ref()
            .map(|text| when(text, now, &zone, name))
            .transpose()
    };
    let wanted = Wanted {
        id: args.id.clone(),
        since: when(&args.since, "--since")?,
        until: when(&args.until, "--until")?,
        filter: args.filter.filter()?,
        newest: args.last.then_some(1),
    };
    let progress = Progress::start("reading");
    let facts = if let Some(path) = &args.from {
        recorded(args, path, &wanted, &zone)?
    } else {
        let path = args.state.join(FILE);
        let reader = Reader::open(&path)?;
        gather::from_history(&reader, &wanted, now, &zone)
            .with_context(|| format!("cannot tell of the history {}", path.display()))?
    };
    let written = write(&facts, args.output, &zone)?;
    drop(progress);
    match &args.to {
        Some(path) => fs::write(path, written)
            .with_context(|| format!("cannot write the report to {}", path.display()))?,
        None => super::print(&written)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn recorded(args: &Args, path: &Path, wanted: &Wanted, zone: &TimeZone) -> Result<Facts> {
    let rules = super::replay::rules(args.config.as_ref())?;
    let name = path.display();
    let from: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(path)
            .with_context(|| format!("cannot read {name}; give a file of records, or -"))?;
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    let (facts, totals) = gather::from_lines(from, rules, wanted, zone)
        .with_context(|| format!("cannot read {name}"))?;
    if totals.broken > 0 {
        say(&format!(
            "turnaway: {} lines of {name} could not be read:",
            totals.broken
        ));
        for (line, what) in &totals.examples {
            let what = crate::text::terminal(what.as_bytes());
            say(&format!("turnaway: line {line}: {what}"));
        }
    }
    if let Some(id) = &wanted.id {
        let found: Vec<_> = facts
            .incidents
            .iter()
            .map(|one| one.incident.clone())
            .collect();
        gather::one(id, &found)?;
    }
    Ok(facts)
}

fn write(facts: &Facts, output: Output, zone: &TimeZone) -> Result<String> {
    Ok(match output {
        Output::Text => text::text(&tell(facts, zone, false)),
        Output::Markdown => markdown::markdown(&tell(facts, zone, true)),
        Output::Html => {
            let at = facts.generated.to_zoned_datetime(zone.clone());
            let at = at.strftime("%Y-%m-%d %H:%M:%S %Z");
            let made = format!(
                "turnaway {}, {at}; times are of {}",
                env!("CARGO_PKG_VERSION"),
                facts.zone
            );
            html::html(&tell(facts, zone, true), &made, zone)
        }
        Output::Json => {
            let mut text = serde_json::to_string(facts).context("cannot write JSON")?;
            text.push('\n');
            text
        }
    })
}

fn zone(name: Option<&str>) -> Result<TimeZone> {
    match name {
        None => Ok(TimeZone::system()),
        Some(name) => TimeZone::get(name).map_err(|_| {
            Usage(format!(
                "--time-zone {name}: there is no such time zone here; use a name such as Europe/Berlin or UTC"
            ))
            .into()
        }),
    }
}

/// A time as people write it: RFC 3339, a date or a date and time of that zone, or how long ago.
fn when(text: &str, now: Timestamp, zone: &TimeZone, name: &str) -> Result<Timestamp> {
    let ago = |span: Span| {
        let now = now.to_zoned_datetime(zone.clone());
        now.checked_sub(span.abs())
            .ok()
            .map(|then| then.timestamp())
    };
    let local = |local: civil::DateTime| zone.to_timestamp(local).ok();
    let found = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| text.parse::<civil::DateTime>().ok().and_then(local))
        .or_else(|| {
            text.parse::<civil::Date>()
                .ok()
                .and_then(|day| local(day.at(0, 0, 0, 0)))
        })
        .or_else(|| text.parse::<Span>().ok().and_then(ago));
    found.ok_or_else(|| {
        Usage(format!(
            "{name} {text}: use a time such as 2026-11-24T03:12:00Z, a date such as 2026-11-24, or how long ago, \
             such as 7d"
        ))
        .into()
    })
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};

    use super::when;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: Timestamp = "2026-03-30T10:00:00Z".parse().unwrap();
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let at = |text: &str| when(text, now, &zone, "--since").map(|time| time.to_string());
        assert_eq!(at("2026-03-01T00:00:00Z").unwrap(), "2026-03-01T00:00:00Z");
        assert_eq!(at("2026-03-01").unwrap(), "2026-02-28T23:00:00Z");
        assert_eq!(at("2026-03-01 12:30").unwrap(), "2026-03-01T11:30:00Z");
        assert_eq!(at("90m").unwrap(), "2026-03-30T08:30:00Z");
        // A day ago by the clock on the wall, and one hour less by the sun.
        assert_eq!(at("2d").unwrap(), "2026-03-28T11:00:00Z");
        for bad in ["", "yesterday", "2026-02-30", "7"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
