//! `turnaway convert`: recorded records in the words of others, without root.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;

use super::replay::{input, unless_broken_pipe};
use crate::{
    record::SCHEMA,
    replay,
    stream::format::{Format, Object, convert},
    text,
};

/// Broken lines that are said one by one.
const EXAMPLES_SAID: u64 = 5;

/// Tells records in the words of ECS or OCSF (docs/formats.md).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Records, one a line; - is stdin
    file: PathBuf,

    /// In whose words
    #[arg(long, value_enum)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  turnaway convert --format ecs tuesday.ndjson
  turnaway convert --format ocsf tuesday.ndjson > tuesday.ocsf.ndjson

Exit codes: 0 read to its end (broken lines are counted and said), 1 it cannot be read, 2 wrong usage";

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let from = input(&args.file)?;
    let mut out = io::BufWriter::new(io::stdout());
    let (mut number, mut broken) = (0_u64, 0);
    let read = replay::lines(from, |line| {
        number += 1;
        match line.and_then(record) {
            Ok(None) => {}
            Ok(Some(record)) => {
                serde_json::to_writer(&mut out, &convert(args.format, record))?;
                out.write_all(b"\n")?;
            }
            Err(what) => {
                broken += 1;
                if broken <= EXAMPLES_SAID {
                    let what = text::terminal(what.as_bytes());
                    eprintln!("turnaway: line {number}: {what}");
                }
            }
        }
        Ok(true)
    });
    let done = read.and_then(|()| out.flush());
    if broken > 0 {
        eprintln!("turnaway: {broken} lines were no records");
    }
    unless_broken_pipe(done.map_err(Into::into), || {
        format!("cannot convert {}", args.file.display())
    })
}

/// The record of a line; none of an empty one.
fn record(line: &str) -> Result<Option<Object>, String> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let record: Object =
        serde_json::from_str(line).map_err(|error| format!("it is no JSON object: {error}"))?;
    match record.get("schema") {
        Some(schema) if schema.as_str() == Some(SCHEMA) => Ok(Some(record)),
        _ => Err(format!("it is no record: its `schema` is not {SCHEMA:?}")),
    }
}
