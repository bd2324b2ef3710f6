//! Cgroups of a test's own.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The hierarchy that limits memory, of either version.
pub fn memory() -> Result<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let mut found = None;
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').take(4).collect();
        let &[_, mounted, kind, options] = fields.as_slice() else {
            continue;
        };
        let mounted = PathBuf::from(mounted);
        match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                let name = "memory";
                return Ok(Hierarchy { mounted, name });
            }
            "cgroup2" => found = Some(mounted),
            _ => {}
        }
    }
    let mounted = found.context("no cgroup hierarchy is mounted")?;
    fs::write(mounted.join("cgroup.subtree_control"), "+memory")
        .context("no controller of memory")?;
    let name = "unified";
    Ok(Hierarchy { mounted, name })
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

    /// A command that runs another in it from its first moment on: what that allocates counts here.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""])
            .args([&self.path, program]);
        command
    }

    /// Limits its memory, where the [controller](memory) is, to what it uses or to so many bytes. Whether that could
    /// be done: version 1 refuses a limit that it cannot get down to.
    pub fn limit_memory(&self, bytes: Option<u64>) -> Result<bool> {
        let is_old = self.path.join("memory.limit_in_bytes").exists();
        let (limit, used) = if is_old {
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            ("memory.max", "memory.current")
        };
        let swap = self.path.join("memory.swap.max");
        if swap.exists() {
            fs::write(swap, "0")?;
        }
        let bytes = match bytes {
            Some(bytes) => bytes.to_string(),
            None => fs::read_to_string(self.path.join(used))?,
        };
        match fs::write(self.path.join(limit), bytes.trim()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot set {limit}")),
        }
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub fn killed(&self) -> Result<u64> {
        let events = fs::read_to_string(self.path.join("memory.events"))
            .or_else(|_| fs::read_to_string(self.path.join("memory.oom_control")))
            .context("the kernel does not tell what it killed")?;
        let mut killed = events
            .lines()
            .filter_map(|line| line.strip_prefix("oom_kill "));
        Ok(killed.next().context("no count")?.trim().parse()?)
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
