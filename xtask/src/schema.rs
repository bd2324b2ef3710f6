//! `cargo xtask schema`: the JSON Schema of records, which is committed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::CommandExt as _;
use crate::{build, workspace};

/// Has turnaway print it: `TURNAWAY_BIN`, or the one that `cargo xtask build` makes.
pub fn run() -> Result<()> {
    let turnaway = match std::env::var_os("TURNAWAY_BIN") {
        Some(path) => PathBuf::from(path),
        None => build::turnaway(build::Options { release: false })?,
    };
    let schema = Command::new(turnaway)
        .args(["generate", "schema"])
        .read("mend what it says above")?;
    let path = workspace::root().join("docs/schema/turnaway-1.json");
    fs::write(&path, schema).with_context(|| format!("cannot write {}", path.display()))
}
