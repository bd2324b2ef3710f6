//! `cargo xtask plot`: what turnaway takes the more there is, from the figures of `cargo xtask bench`, as a picture for
//! docs/performance.md.

mod draw;
mod figures;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use self::figures::Panel;
use crate::workspace;

/// Options of `cargo xtask plot`.
#[derive(Args)]
pub struct Options {
    /// What `cargo xtask bench --json` wrote, or the lines of `turnaway-scenarios measure scale`
    file: PathBuf,
    /// Of which command: daemon or trace
    #[arg(long, default_value = "daemon")]
    program: String,
    /// Where the picture goes; docs/scale.svg if nothing is said
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Draws it, and prints the rows of the document's table.
pub fn run(options: &Options) -> Result<()> {
    let shown = options.file.display();
    let text = fs::read_to_string(&options.file).with_context(|| format!("cannot read {shown}"))?;
    print!("{}", figures::table(&text)?);
    let panels = Panel::all(&text, &options.program)
        .with_context(|| format!("{shown} is not what `cargo xtask bench --json` writes"))?;
    let picture = draw::svg(&panels)?;
    let output = options.output.clone();
    let output = output.unwrap_or_else(|| workspace::root().join("docs/scale.svg"));
    fs::write(&output, picture).with_context(|| format!("cannot write {}", output.display()))
}
