//! A Debian of the test's own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use turnaway_tests::apart::{in_netns, mount, with_mounts};

/// Its root: a layer in memory over the Debian that `cargo xtask setup --tests` fetched, in a namespace of
/// mounts and one of networks that go with the thread.
pub(crate) struct Chroot {
    root: PathBuf,
}

/// Runs `body` in the thread that has it.
pub(crate) fn with_chroot(body: impl FnOnce(&Chroot) + Send) {
    let prepared = || {
        let dir = tempfile::tempdir()?;
        let place = dir.path().to_str().unwrap();
        mount(&["-t", "tmpfs", "-o", "mode=755", "layer", place])?;
        let folders = ["root", "changed", "work"].map(|name| dir.path().join(name));
        for folder in &folders {
            fs::create_dir(folder)?;
        }
        let [root, changed, work] = folders;
        let debian = xtask::debian::dir()?;
        assert!(
            debian.is_dir(),
            "no {}: run `cargo xtask setup --tests`",
            debian.display()
        );
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            debian.display(),
            changed.display(),
            work.display()
        );
        let at = root.to_str().unwrap().to_owned();
        mount(&["-t", "overlay", "-o", &options, "debian", &at])?;
        mount(&["-t", "proc", "proc", &format!("{at}/proc")])?;
        mount(&["--rbind", "/sys", &format!("{at}/sys")])?;
        let chroot = Chroot { root };
        chroot.play_systemd();
        body(&chroot);
        Ok(())
    };
    in_netns(|| with_mounts(prepared)).unwrap();
}

impl Chroot {
    fn play_systemd(&self) {
        let systemctl = self.path("/usr/bin/systemctl");
        fs::write(&systemctl, include_str!("systemctl")).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        // By which Debian's scripts know that systemd runs.
        fs::create_dir_all(self.path("/run/systemd/system")).unwrap();
    }

    /// A path in it, from outside.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Runs a program in it.
    pub(crate) fn output(&self, words: &[&str]) -> Output {
        Command::new("chroot")
            .arg(&self.root)
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C")
            .output()
            .unwrap()
    }

    /// The same, which must succeed and say nothing on standard error.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && stderr.is_empty(),
            "{words:?}: {}\n{stderr}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Puts a package in it and installs it.
    pub(crate) fn install(&self, package: &Path) {
        fs::copy(package, self.path("/tmp/package.deb")).unwrap();
        self.run(&["dpkg", "--install", "/tmp/package.deb"]);
    }

    /// All that is in it, but for the installer's own notes and what is no disk.
    pub(crate) fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let inside = Path::new("/").join(path.strip_prefix(&self.root).unwrap());
                let own = ["/proc", "/sys", "/tmp", "/var/lib/dpkg", "/var/log"];
                if own.iter().any(|folder| inside == Path::new(folder)) {
                    continue;
                }
                if path.symlink_metadata().unwrap().is_dir() {
                    folders.push(path);
                }
                files.insert(inside);
            }
        }
        files
    }

    /// The process that the unit started.
    pub(crate) fn main_pid(&self) -> u32 {
        let text = fs::read_to_string(self.path("/tmp/systemd/pid")).unwrap();
        text.trim().parse().unwrap()
    }

    /// What systemd was asked for, since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        let path = self.path("/tmp/systemd/asked");
        let text = fs::read_to_string(&path).unwrap_or_default();
        // It may not have been asked for anything.
        let _ = fs::remove_file(path);
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("is-") && !line.starts_with("preset"));
        lines.map(str::to_owned).collect()
    }
}
