//! `cargo xtask run`: builds turnaway and becomes `turnaway trace`.

use std::convert::Infallible;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::command::as_root;
use crate::{build, setup};

/// Options of `cargo xtask run`.
#[derive(Args)]
pub struct Options {
    /// Arguments of `turnaway trace`
    #[arg(last = true)]
    pub args: Vec<String>,
}

/// Builds, then replaces this process, so that signals and the terminal are turnaway's own.
pub fn run(options: &Options) -> Result<Infallible> {
    setup::run(setup::Options::default())?;
    let turnaway = build::turnaway(build::Options { release: true })?;
    let error = as_root(&turnaway).arg("trace").args(&options.args).exec();
    Err(error).with_context(|| {
        format!(
            "cannot run {}: become root, or install sudo",
            turnaway.display()
        )
    })
}
