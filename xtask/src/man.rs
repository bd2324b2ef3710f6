//! `cargo xtask man`: man pages and completions, for packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::build;
use crate::command::CommandExt as _;

/// Options of `cargo xtask man`.
#[derive(Args)]
pub struct Options {
    /// The folder: man pages go to man1/ in it, completions to completions/
    pub dir: PathBuf,
}

/// Has turnaway write them: `TURNAWAY_BIN`, or the one that `cargo xtask build --release` makes.
pub fn run(options: &Options) -> Result<()> {
    let turnaway = match std::env::var_os("TURNAWAY_BIN") {
        Some(path) => PathBuf::from(path),
        None => build::turnaway(build::Options { release: true })?,
    };
    write(&turnaway, &options.dir)
}

/// Has this turnaway write them.
pub(crate) fn write(turnaway: &Path, dir: &Path) -> Result<()> {
    Command::new(turnaway)
        .arg("generate")
        .arg(dir)
        .quiet("mend what it says above")
}
