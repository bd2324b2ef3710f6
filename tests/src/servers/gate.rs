//! Keeping a server busy for exactly as long as a test wants.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::wait;

/// A file that is locked. Programs that a server runs write their process id to the file `began`
/// beside it, then wait for the lock (flock(2)) until this is dropped.
pub struct Gate {
    _locked: File,
    began: PathBuf,
}

impl Gate {
    /// Name of the locked file.
    pub const NAME: &str = "gate";
    /// Name of the file that whoever waits has written its process id to.
    pub const BEGAN: &str = "began";

    /// Makes it in a folder.
    pub fn closed(dir: &Path) -> Result<Self> {
        let file = File::create(dir.join(Self::NAME)).context("cannot make the gate")?;
        file.lock().context("cannot lock the gate")?;
        Ok(Self {
            _locked: file,
            began: dir.join(Self::BEGAN),
        })
    }

    /// Waits until somebody else than `before` has come to it, and says who.
    pub fn wait_for(&self, before: Option<u32>) -> Result<u32> {
        wait::until("a program to be busy", || {
            let text = fs::read_to_string(&self.began).unwrap_or_default();
            // It is empty for a moment while it is written.
            Ok(text.parse().ok().filter(|pid| Some(*pid) != before))
        })
    }
}
