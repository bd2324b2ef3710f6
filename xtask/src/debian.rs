//! A small Debian that tests install packages in.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cache;
use crate::command::{CommandExt as _, as_root};

/// The release: the oldest that packages are for.
const RELEASE: &str = "bookworm";

/// Where it is, or would be. Tests look at it through a layer of their own, and change nothing in it.
pub fn dir() -> Result<PathBuf> {
    Ok(cache::dir()?.join("debian").join(RELEASE))
}

/// Whether it is missing.
pub(crate) fn is_missing() -> Result<bool> {
    Ok(!dir()?.is_dir())
}

/// Downloads and unpacks it.
pub(crate) fn fetch() -> Result<()> {
    let finished = dir()?;
    let all = finished.parent().context("no folder")?;
    fs::create_dir_all(all).with_context(|| format!("cannot create {}", all.display()))?;
    let scratch = tempfile::tempdir_in(all).context("cannot create a temporary folder")?;
    let (memory, root) = (scratch.path().join("memory"), scratch.path().join("root"));
    fs::create_dir(&memory).context("cannot create a folder")?;
    // dpkg waits for the disk after each file, which takes longer than everything else: in memory, it does not.
    let script = "set -e
        mount -t tmpfs -o size=1g,mode=755 debian \"$1\"
        debootstrap --variant=minbase \"$3\" \"$1/system\"
        rm -rf \"$1/system/var/cache/apt\" \"$1/system/var/lib/apt/lists\"
        cp -a \"$1/system\" \"$2\"";
    as_root("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([&memory, &root])
        .arg(RELEASE)
        .quiet("check this machine's network, then try again")?;
    fs::rename(&root, &finished).with_context(|| format!("cannot create {}", finished.display()))
}
