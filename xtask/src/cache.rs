//! The folder outside the repository that keeps what is slow to get: tools and test kernels.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// `$XDG_CACHE_HOME/turnaway`, or `~/.cache/turnaway`.
pub(crate) fn dir() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("no cache folder: neither XDG_CACHE_HOME nor HOME is set; set one of them")?;
    Ok(base.join("turnaway"))
}

/// A tool installed by `cargo xtask setup`.
pub(crate) fn tool(name: &str) -> Result<PathBuf> {
    Ok(dir()?.join("bin").join(name))
}

/// Where the test kernels are unpacked.
pub(crate) fn kernels() -> Result<PathBuf> {
    Ok(dir()?.join("kernels"))
}
