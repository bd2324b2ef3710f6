//! Where things are in this repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::CommandExt as _;

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// The host's artifacts. Named outright, so that `CARGO_TARGET_DIR` cannot move
/// the paths that the documentation promises.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The kernel side's own target folder: no lock or artifact in common with the host's.
pub(crate) fn bpf_target() -> PathBuf {
    target().join("bpf")
}

/// What the kernel side's build leaves for the user side to embed.
pub(crate) fn bpf_object() -> PathBuf {
    bpf_target().join("turnaway.bpf.o")
}

/// The cargo that runs this task, at the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The host's target triple, for example `x86_64-unknown-linux-gnu`.
pub(crate) fn host_triple() -> Result<String> {
    let version = Command::new("rustc")
        .current_dir(root())
        .arg("-vV")
        .read("install Rust with rustup")?;
    parse_host_triple(&version)
        .with_context(|| format!("no `host:` line in the output of `rustc -vV`:\n{version}"))
}

fn parse_host_triple(version: &str) -> Option<String> {
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))?;
    Some(host.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_triple_is_read_from_rustc() {
        let version =
            "rustc 1.95.0 (abc 2026-01-01)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n";
        assert_eq!(
            parse_host_triple(version).as_deref(),
            Some("x86_64-unknown-linux-gnu")
        );
        assert_eq!(parse_host_triple("rustc 1.95.0"), None);
    }
}
