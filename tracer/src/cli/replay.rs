//! `turnaway replay`: recorded events through the rules, without root.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Progress, fields::RecordFieldsArgs, filter::AboutArgs, output::OutputArgs, say};
use crate::{
    incident::Change,
    record,
    replay::{self, Replay},
    rules::{self, Rules},
};

/// The longest that is waited for one record at recorded speed.
const LONGEST: f64 = 24.0 * 3600.0;

/// Show the incidents in recorded events
///
/// Reads what `turnaway trace --output json`, `turnaway daemon --record` or a stream wrote. Needs no root.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Records, one a line; - is stdin
    file: PathBuf,

    /// How fast: max, recorded, or so many times as fast as recorded, such as 10x
    #[arg(long, value_name = "SPEED", default_value = "max", value_parser = speed)]
    speed: Speed,

    /// Rules (docs/rules.md) in place of the default ones alone
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    filter: AboutArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    fields: RecordFieldsArgs,
}

const EXAMPLES: &str = "\
Examples:
  turnaway trace -o json > tuesday.ndjson
  turnaway replay tuesday.ndjson
  turnaway replay --config rules.toml -o json tuesday.ndjson | jq .statement
  turnaway replay -P 6432 --json --fields started,status,statement tuesday.ndjson

Exit codes: 0 read to its end (broken lines are counted and said), 1 it cannot be read, 2 wrong usage";

/// How fast records follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speed {
    /// As fast as can be.
    Max,
    /// So many times as fast as recorded.
    Times(f64),
}

fn speed(text: &str) -> Result<Speed, String> {
    match text {
        "max" => Ok(Speed::Max),
        "recorded" => Ok(Speed::Times(1.0)),
        _ => {
            let times = text.strip_suffix('x').and_then(|times| times.parse().ok());
            times
                .filter(|times: &f64| times.is_finite() && *times > 0.0)
                .map(Speed::Times)
                .ok_or_else(|| "use max, recorded, or a number and x, such as 10x".to_owned())
        }
    }
}

/// The rules of a file, or the default ones.
pub(super) fn rules(config: Option<&PathBuf>) -> Result<Rules> {
    match config {
        Some(path) => Ok(rules::load(path)?.rules),
        None => Ok(Rules::default()),
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let rules = rules(args.config.as_ref())?;
    let filter = args.filter.filter()?;
    let fields = args.fields.paths(args.output.is_json())?;
    let from: Box<dyn BufRead> = if args.file.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let name = args.file.display();
        let file = File::open(&args.file)
            .with_context(|| format!("cannot read {name}; give a file of records, or -"))?;
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    // A reader that has gone has seen what it wanted.
    match replay(args, Replay::new(rules).of(filter), &fields, from) {
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error.context(format!("cannot replay {}", args.file.display()))),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn replay(
    args: &Args,
    mut replay: Replay,
    fields: &[String],
    from: Box<dyn BufRead>,
) -> Result<()> {
    let is_json = args.output.is_json();
    let mut progress = Progress::start("reading records");
    let mut out = io::BufWriter::new(io::stdout());
    replay::lines(from, |line| {
        let (passed, changes) = replay.line(line);
        if let Speed::Times(times) = args.speed
            && !passed.is_zero()
        {
            out.flush()?;
            let wait = (passed.as_secs_f64() / times).min(LONGEST);
            std::thread::sleep(Duration::from_secs_f64(wait));
        }
        if !changes.is_empty() {
            progress.hide();
        }
        write(&mut out, &changes, is_json, fields)?;
        Ok(true)
    })?;
    let (changes, firing, totals) = replay.finish();
    drop(progress);
    write(&mut out, &changes, is_json, fields)?;
    if !is_json {
        out.write_all(replay::end(&firing, &totals).as_bytes())?;
    }
    out.flush()?;
    if totals.broken > 0 {
        say(&format!(
            "turnaway: {} lines could not be read:",
            totals.broken
        ));
        for (line, what) in &totals.examples {
            let what = crate::text::terminal(what.as_bytes());
            say(&format!("turnaway: line {line}: {what}"));
        }
    }
    Ok(())
}

fn write(
    out: &mut impl Write,
    changes: &[Change],
    is_json: bool,
    fields: &[String],
) -> io::Result<()> {
    for change in changes {
        if is_json {
            let line = serde_json::to_string(&change.record)?;
            if let Some(line) = record::only(line, fields) {
                writeln!(out, "{line}")?;
            }
        } else {
            out.write_all(replay::change(change).as_bytes())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Speed, speed};

    #[test]
    fn speeds_are_read_as_people_write_them() {
        assert_eq!(speed("max"), Ok(Speed::Max));
        assert_eq!(speed("recorded"), Ok(Speed::Times(1.0)));
        assert_eq!(speed("2.5x"), Ok(Speed::Times(2.5)));
        for bad in ["", "x", "0x", "-1x", "infx", "NaNx", "10"] {
            assert!(speed(bad).is_err(), "{bad}");
        }
    }
}
