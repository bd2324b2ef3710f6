//! `turnaway generate`: man pages and completions, from the definition of the command line itself; schemas,
//! from the types of the records.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Command, builder::PossibleValuesParser};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::replay::unless_broken_pipe;
use crate::record::schema;

/// Shells that completions are written for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Write man pages and completions of shells, or the schema of records
///
/// What there is already in that folder under these names is written anew.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,

    /// The folder: man pages go to man1/ in it, completions of bash, zsh and fish to completions/
    #[arg(value_name = "DIR", required = true)]
    dir: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Schema(SchemaArgs),
}

/// Print the JSON Schema of records
///
/// Made from the types that records are written from: docs/schema/turnaway-1.json is what this prints.
#[derive(Debug, clap::Args)]
#[command(after_help = SCHEMA_HELP)]
struct SchemaArgs {
    /// Of this type of record alone
    #[arg(value_name = "TYPE", value_parser = PossibleValuesParser::new(schema::TYPES))]
    name: Option<String>,
}

const HELP: &str = "\
Examples:
  turnaway generate /tmp/turnaway          then: man -l /tmp/turnaway/man1/turnaway-trace.1
  turnaway generate schema                 the JSON Schema of all records

Exit codes: 0 they are written, 1 they cannot be, 2 wrong usage";

const SCHEMA_HELP: &str = "\
Examples:
  turnaway generate schema > turnaway-1.json
  turnaway generate schema incident | jq '.\"$defs\".incident.required'

Exit codes: 0 it is written, 1 it cannot be, 2 wrong usage";

pub(super) fn run(args: &Args, command: Command) -> Result<ExitCode> {
    if let Some(What::Schema(args)) = &args.what {
        return print(args);
    }
    if let Some(dir) = &args.dir {
        let written = write(dir, command);
        written.with_context(|| format!("cannot write to {}", dir.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(args: &SchemaArgs) -> Result<ExitCode> {
    let of = args.name.as_deref().and_then(schema::of);
    let text = schema::text(&of.unwrap_or_else(schema::all));
    let written = io::stdout().write_all(text.as_bytes());
    unless_broken_pipe(written.map_err(Into::into), || {
        "cannot write the schema".to_owned()
    })
}

fn write(dir: &Path, command: Command) -> io::Result<()> {
    let completions = dir.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in SHELLS {
        let name = command.get_name().to_owned();
        clap_complete::generate_to(shell, &mut command.clone(), name, &completions)?;
    }
    let pages = dir.join("man1");
    fs::create_dir_all(&pages)?;
    // `turnaway help trace` is what `man turnaway-trace` is.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    page(&command, None, &pages)
}

/// Writes the page of a command, and those of the commands below it.
fn page(command: &Command, above: Option<&str>, dir: &Path) -> io::Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        page(one, Some(name), dir)?;
    }
    let mut page = Vec::new();
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .source(concat!("turnaway ", env!("CARGO_PKG_VERSION")))
        .manual("turnaway")
        // None, so that two builds give the same bytes; one that is empty would be left out.
        .date(" ");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    if let Some(help) = command.get_after_help() {
        sections(&mut rest, &help.to_string());
    }
    if let Some(above) = above {
        rest.control("SH", ["SEE ALSO"]);
        rest.text([bold(above), roman("(1)")]);
    }
    rest.to_writer(&mut page)?;
    fs::write(dir.join(format!("{name}.1")), page)
}

/// What stands below the options in `--help`: a paragraph is a section, called what stands before its
/// first colon. Examples stay as they are.
fn sections(page: &mut Roff, help: &str) {
    for paragraph in help.split("\n\n") {
        let (heading, text) = paragraph.split_once(':').unwrap_or(("Notes", paragraph));
        let heading = match heading {
            "Exit codes" => "EXIT STATUS".to_owned(),
            other => other.to_uppercase(),
        };
        page.control("SH", [heading.as_str()]);
        let as_they_are = heading == "EXAMPLES";
        if as_they_are {
            page.control("nf", []);
        }
        for (index, line) in text.trim_matches('\n').lines().enumerate() {
            if index > 0 && !as_they_are {
                page.control("br", []);
            }
            page.text([roman(line.trim_start())]);
        }
        if as_they_are {
            page.control("fi", []);
        }
    }
}
