//! The guest's root file system.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cpio::newc::{Builder, ModeFileType, trailer};

use super::modules::Module;

/// Where `guest-init` looks for its orders: see that program.
const ORDERS: &str = "/turnaway";

/// Writes the archive that the kernel unpacks as its root.
pub(crate) struct Initramfs<W: Write> {
    out: W,
    directories: BTreeSet<PathBuf>,
    inode: u32,
}

impl<W: Write> Initramfs<W> {
    /// An archive with nothing but the console, which the kernel opens for its first program.
    pub(crate) fn new(out: W) -> Result<Self> {
        let mut archive = Self {
            out,
            directories: BTreeSet::new(),
            inode: 0,
        };
        archive.directory(Path::new("/dev"))?;
        let console = archive
            .entry(Path::new("/dev/console"), ModeFileType::Char, 0o600)
            .rdev_major(5)
            .rdev_minor(1);
        archive.write(console, &[])?;
        Ok(archive)
    }

    /// Adds the first program, the modules it loads and the command it runs.
    pub(crate) fn orders(
        &mut self,
        init: &Path,
        modules: &[Module],
        command: &[String],
    ) -> Result<()> {
        self.host_file(init, Path::new("/init"))?;
        let orders = Path::new(ORDERS);
        for (module, number) in modules.iter().zip(0..) {
            let name = format!("modules/{number:02}-{}", module.name);
            self.bytes(&orders.join(name), 0o600, &module.image)?;
        }
        let command = command.join("\0");
        self.bytes(&orders.join("command"), 0o600, command.as_bytes())
    }

    /// Adds a file or a folder of the host with its permissions.
    pub(crate) fn host_file(&mut self, host: &Path, guest: &Path) -> Result<()> {
        let cannot_read = || format!("cannot read {} for the guest", host.display());
        let meta = fs::metadata(host).with_context(cannot_read)?;
        if meta.is_dir() {
            self.directory(guest)?;
            for entry in host.read_dir().with_context(cannot_read)? {
                let entry = entry.with_context(cannot_read)?;
                let inside = guest.join(entry.file_name());
                if entry.file_type().with_context(cannot_read)?.is_symlink() {
                    self.symlink(&entry.path(), &inside)?;
                } else {
                    self.host_file(&entry.path(), &inside)?;
                }
            }
            return Ok(());
        }
        let content = fs::read(host).with_context(cannot_read)?;
        self.bytes(guest, meta.permissions().mode() & 0o7777, &content)
    }

    /// Adds a file.
    pub(crate) fn bytes(&mut self, guest: &Path, mode: u32, content: &[u8]) -> Result<()> {
        self.parents(guest)?;
        let entry = self.entry(guest, ModeFileType::Regular, mode);
        self.write(entry, content)
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> Result<W> {
        trailer(self.out).context("cannot write the initramfs")
    }

    /// Within folders, links stay links; what they point to is the folder's business.
    fn symlink(&mut self, host: &Path, guest: &Path) -> Result<()> {
        let target =
            fs::read_link(host).with_context(|| format!("cannot read {}", host.display()))?;
        let entry = self.entry(guest, ModeFileType::Symlink, 0o777);
        self.write(entry, target.as_os_str().as_bytes())
    }

    fn parents(&mut self, guest: &Path) -> Result<()> {
        if !guest.is_absolute() {
            bail!(
                "{} is no absolute path: write HOST:GUEST with a guest path like /bin/program",
                guest.display()
            );
        }
        match guest.parent() {
            Some(parent) => self.directory(parent),
            None => bail!("a guest's root folder cannot be a file"),
        }
    }

    fn directory(&mut self, guest: &Path) -> Result<()> {
        if guest.parent().is_none() || self.directories.contains(guest) {
            return Ok(());
        }
        self.parents(guest)?;
        let entry = self.entry(guest, ModeFileType::Directory, 0o755);
        self.write(entry, &[])?;
        self.directories.insert(guest.to_owned());
        Ok(())
    }

    fn entry(&mut self, guest: &Path, kind: ModeFileType, mode: u32) -> Builder {
        self.inode += 1;
        // Archives name files from the root on, without its slash.
        let name = guest.to_string_lossy();
        Builder::new(name.trim_start_matches('/'))
            .ino(self.inode)
            .mode(mode)
            .set_mode_file_type(kind)
    }

    fn write(&mut self, entry: Builder, content: &[u8]) -> Result<()> {
        let write = || {
            let size = u32::try_from(content.len()).map_err(io::Error::other)?;
            let mut file = entry.write(&mut self.out, size);
            file.write_all(content)?;
            file.finish().map(drop)
        };
        write().context("cannot write the initramfs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;

    fn names(archive: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        let mut rest = archive;
        loop {
            let reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return names;
            }
            names.push(reader.entry().name().to_owned());
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn every_file_comes_after_its_folders() {
        let mut archive = Initramfs::new(Vec::new()).unwrap();
        archive.bytes(Path::new("/a/b/c"), 0o644, b"x").unwrap();
        archive.bytes(Path::new("/a/d"), 0o644, b"y").unwrap();
        let archive = archive.finish().unwrap();
        assert_eq!(
            names(&archive),
            ["dev", "dev/console", "a", "a/b", "a/b/c", "a/d"]
        );
    }

    #[test]
    fn folders_of_the_host_are_packed_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "x").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("sub/link")).unwrap();
        let mut archive = Initramfs::new(Vec::new()).unwrap();
        archive.host_file(dir.path(), Path::new("/data")).unwrap();
        let mut names = names(&archive.finish().unwrap());
        names.sort();
        assert_eq!(
            names,
            [
                "data",
                "data/sub",
                "data/sub/file",
                "data/sub/link",
                "dev",
                "dev/console"
            ]
        );
    }

    #[test]
    fn relative_guest_paths_are_refused() {
        let mut archive = Initramfs::new(Vec::new()).unwrap();
        assert!(archive.bytes(Path::new("bin/x"), 0o755, b"").is_err());
    }
}
