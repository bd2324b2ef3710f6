//! Which kernels the tests run on, and where they are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cache;
use crate::command::find_program;

/// Emulates the guests.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// A kernel of the test matrix and where Debian keeps it.
#[derive(Debug)]
pub struct Kernel {
    /// What it is called here: `5.10`, `6.1`, `6.12` or `newest`.
    pub name: &'static str,
    /// Debian's suite.
    pub suite: &'static str,
    /// Which of Debian's archives has the suite.
    pub archive: Archive,
    /// How the package's name starts, up to the version's first changing digit.
    pub prefix: &'static str,
    /// The prefix of the package with its modules, where that is not the same one.
    pub modules_prefix: Option<&'static str>,
}

/// Debian's archives.
#[derive(Clone, Copy, Debug)]
pub enum Archive {
    /// The distribution itself.
    Main,
    /// Security updates, among them newer kernels for old releases.
    Security,
}

impl Archive {
    /// The label in the archive's signed index.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Main => "Debian",
            Self::Security => "Debian-Security",
        }
    }
}

/// How the names of cloud kernels' packages end. Those have what guests need and little else.
pub(crate) const SUFFIX: &str = "-cloud-amd64";

const KERNELS: [Kernel; 4] = [
    // The oldest long-term kernel with BPF ring buffers: several hooks and fields differ.
    Kernel {
        name: "5.10",
        suite: "bullseye",
        archive: Archive::Main,
        prefix: "linux-image-5.10.",
        modules_prefix: None,
    },
    Kernel {
        name: "6.1",
        suite: "bookworm",
        archive: Archive::Main,
        prefix: "linux-image-6.1.",
        modules_prefix: None,
    },
    Kernel {
        name: "6.12",
        suite: "bookworm-security",
        archive: Archive::Security,
        prefix: "linux-image-6.12.",
        modules_prefix: None,
    },
    // Whatever Debian has that is newest, to learn early what changes.
    Kernel {
        name: "newest",
        suite: "sid",
        archive: Archive::Main,
        prefix: "linux-binary-",
        modules_prefix: Some("linux-modules-"),
    },
];

/// The test matrix, oldest first.
#[must_use]
pub fn kernels() -> &'static [Kernel] {
    &KERNELS
}

/// A kernel ready to boot.
#[derive(Clone, Debug)]
pub struct UnpackedKernel {
    /// Its [`Kernel::name`].
    pub name: &'static str,
    /// What `uname -r` says in the guest.
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    /// `/lib/modules/RELEASE` of its package.
    pub modules: PathBuf,
}

/// Where the unpacked kernels are: `TURNAWAY_KERNELS`, or setup's cache.
pub fn kernels_dir() -> Result<PathBuf> {
    match std::env::var_os("TURNAWAY_KERNELS") {
        Some(dir) => Ok(dir.into()),
        None => cache::kernels(),
    }
}

/// Whether [`locate`] would find the kernel's files.
#[must_use]
pub fn is_unpacked(dir: &Path, name: &str) -> bool {
    dir.join(name).is_dir()
}

/// Finds an unpacked kernel, or says what is missing for running guests with it.
pub fn locate(dir: &Path, name: &str) -> Result<UnpackedKernel> {
    let kernel = by_name(name)?;
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "no guests on {}: the test kernels are x86_64's",
            std::env::consts::ARCH
        );
    }
    if find_program(QEMU).is_none() {
        bail!("no {QEMU} here: run `cargo xtask setup --tests`, or install QEMU");
    }
    if !is_unpacked(dir, name) {
        bail!(
            "no test kernel {name} in {}: run `cargo xtask vm fetch` (it needs apt)",
            dir.display()
        );
    }
    inspect(kernel, &dir.join(name))
}

/// The kernel of that name.
pub(crate) fn by_name(name: &str) -> Result<&'static Kernel> {
    kernels()
        .iter()
        .find(|kernel| kernel.name == name)
        .with_context(|| {
            let names: Vec<_> = kernels().iter().map(|kernel| kernel.name).collect();
            format!(
                "no test kernel is called {name:?}: choose from {}",
                names.join(", ")
            )
        })
}

/// Reads the layout of unpacked kernel packages, which changed with merged /usr.
pub(crate) fn inspect(kernel: &'static Kernel, root: &Path) -> Result<UnpackedKernel> {
    for lib in ["usr/lib/modules", "lib/modules"] {
        let Ok(mut entries) = root.join(lib).read_dir() else {
            continue;
        };
        let Some(Ok(entry)) = entries.next() else {
            continue;
        };
        let release = entry.file_name().to_string_lossy().into_owned();
        let modules = entry.path();
        let images = [
            root.join(format!("boot/vmlinuz-{release}")),
            modules.join("vmlinuz"),
        ];
        if let Some(image) = images.into_iter().find(|image| image.is_file()) {
            return Ok(UnpackedKernel {
                name: kernel.name,
                release,
                image,
                modules,
            });
        }
    }
    bail!(
        "no kernel image in {}: remove that folder and run `cargo xtask vm fetch`",
        root.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn both_package_layouts_are_understood() {
        let layouts = [
            ("boot/vmlinuz-1.2-x", "lib/modules/1.2-x/kernel"),
            (
                "usr/lib/modules/1.2-x/vmlinuz",
                "usr/lib/modules/1.2-x/kernel",
            ),
        ];
        for (image, modules) in layouts {
            let dir = tempfile::tempdir().unwrap();
            let image = dir.path().join(image);
            fs::create_dir_all(image.parent().unwrap()).unwrap();
            fs::create_dir_all(dir.path().join(modules)).unwrap();
            fs::write(&image, "").unwrap();
            let unpacked = inspect(&KERNELS[0], dir.path()).unwrap();
            assert_eq!(unpacked.release, "1.2-x");
            assert_eq!(unpacked.image, image);
        }
    }

    #[test]
    fn what_is_missing_is_said_with_its_mend() {
        let error = by_name("2.4").unwrap_err().to_string();
        assert!(error.contains("5.10, 6.1, 6.12, newest"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        let error = inspect(&KERNELS[0], empty.path()).unwrap_err().to_string();
        assert!(error.contains("cargo xtask vm fetch"), "{error}");
    }
}
