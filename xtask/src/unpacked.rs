//! Debian packages that are unpacked and not installed: they exclude another that is installed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::CommandExt as _;
use crate::{cache, packages};

/// Where a package is, or would be, unpacked.
pub fn dir(package: &str) -> Result<PathBuf> {
    Ok(cache::dir()?.join("unpacked").join(package))
}

/// Those that are not there.
pub(crate) fn missing() -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for package in packages::UNPACKED {
        if !dir(package)?.is_dir() {
            missing.push(*package);
        }
    }
    Ok(missing)
}

/// Downloads and unpacks one.
pub(crate) fn fetch(package: &str) -> Result<()> {
    let finished = dir(package)?;
    let all = finished.parent().context("no folder")?;
    fs::create_dir_all(all).with_context(|| format!("cannot create {}", all.display()))?;
    let scratch = tempfile::tempdir_in(all).context("cannot create a temporary folder")?;
    Command::new("apt-get")
        .current_dir(&scratch)
        .args([
            "download",
            "--quiet",
            "-o",
            "APT::Sandbox::User=root",
            package,
        ])
        .quiet("check this machine's network, then try again")?;
    let file = fs::read_dir(&scratch)
        .context("cannot read what was downloaded")?
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|path| path.extension().is_some_and(|suffix| suffix == "deb"))
        .with_context(|| format!("apt-get download {package} left no file"))?;
    let root = scratch.path().join("root");
    Command::new("dpkg")
        .arg("--extract")
        .args([&file, &root])
        .quiet("is there room on the disk?")?;
    fs::rename(&root, &finished).with_context(|| format!("cannot create {}", finished.display()))
}
