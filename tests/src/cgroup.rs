//! Cgroups of a test's own.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::sys;
use crate::wait;

/// A hierarchy: where it is mounted, and whose line in /proc/PID/cgroup it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mounted: PathBuf,
    /// `unified` or `systemd`.
    pub name: &'static str,
}

/// The hierarchies of this machine that systemd puts its units in: the unified one, and the v1
/// hierarchy of its name.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let mut found = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').take(4).collect();
        let &[_, mounted, kind, options] = fields.as_slice() else {
            continue;
        };
        let has = |wanted: &str| options.split(',').any(|option| option == wanted);
        let name = match kind {
            "cgroup2" => "unified",
            "cgroup" if has("name=systemd") => "systemd",
            _ => continue,
        };
        found.push(Hierarchy {
            mounted: mounted.into(),
            name,
        });
    }
    Ok(found)
}

/// A cgroup at the root of a hierarchy. It is removed when this is dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    /// Its path in its hierarchy.
    pub name: String,
}

impl Cgroup {
    /// Makes it. No other test has one of this name.
    pub fn make(hierarchy: &Hierarchy, name: &str) -> Result<Self> {
        let name = format!("turnaway-test-{}-{name}", sys::own_pid());
        let path = hierarchy.mounted.join(&name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            path,
            name: format!("/{name}"),
        })
    }

    /// Moves a process into it.
    pub fn take(&self, pid: u32) -> Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("cannot move process {pid} into {}", self.path.display()))
    }

    /// Its id, as the kernel's programs are told it: of a cgroup of the unified hierarchy.
    pub fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.path)?.ino())
    }

    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, once its last process is gone.
    pub fn remove(self) -> Result<()> {
        wait::until_true("the cgroup to be empty", || remove(&self.path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It fails only if a process is still in it, or if it was removed.
        let _ = fs::remove_dir(&self.path);
    }
}

fn remove(path: &Path) -> Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}
