//! Disks of a test's own, which hang or are full. Everybody sees them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A file system that only the test uses. It is unmounted when this is dropped.
pub struct Disk {
    _folder: tempfile::TempDir,
    /// Where it is.
    pub mounted: PathBuf,
}

/// A disk that hangs: whoever writes to it waits until this is dropped.
pub struct Frozen<'a>(&'a Path);

fn must(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

impl Disk {
    /// An ext4 of so many MiB.
    pub fn ext4(mib: u64) -> Result<Self> {
        let disk = Self::unmounted()?;
        let image = disk.mounted.with_extension("image");
        File::create(&image)?.set_len(mib << 20)?;
        must(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        disk.mount(&["-o", "loop", &image.to_string_lossy()])?;
        Ok(disk)
    }

    /// A tmpfs of so many KiB.
    pub fn tmpfs(kib: u32) -> Result<Self> {
        let disk = Self::unmounted()?;
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "none"])?;
        Ok(disk)
    }

    fn unmounted() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mounted = folder.path().join("mounted");
        fs::create_dir(&mounted)?;
        // Servers that run as others have to pass.
        crate::servers::foreground::open_to_all(folder.path())?;
        Ok(Self {
            _folder: folder,
            mounted,
        })
    }

    fn mount(&self, arguments: &[&str]) -> Result<()> {
        must(Command::new("mount").args(arguments).arg(&self.mounted))?;
        crate::servers::foreground::open_to_all(&self.mounted)
    }

    /// Gives a tmpfs so many KiB.
    pub fn grow(&self, kib: u32) -> Result<()> {
        let options = format!("remount,size={kib}k");
        must(
            Command::new("mount")
                .args(["-o", &options])
                .arg(&self.mounted),
        )
    }

    /// Makes it hang. Reading goes on.
    pub fn freeze(&self) -> Result<Frozen<'_>> {
        must(Command::new("fsfreeze").arg("-f").arg(&self.mounted))?;
        Ok(Frozen(&self.mounted))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let thawed = must(Command::new("fsfreeze").arg("-u").arg(self.0));
        if let Err(error) = thawed {
            // Those who wait would do so for ever.
            eprintln!("{} hangs: {error:#}", self.0.display());
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It fails only if that is done.
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}
