//! Debian's packages: the machine's own, and archives read beside them without touching the
//! machine's configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{CommandExt as _, as_root, find_program};

/// Debian's policy hook: where it exists and says 101, packages start no services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Signs every Debian suite; part of Debian's `debian-archive-keyring`, an essential package.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Whether this machine installs packages with apt.
pub(crate) fn exists() -> bool {
    find_program("apt-get").is_some() && find_program("dpkg-query").is_some()
}

/// Those of `packages` that are not installed.
pub(crate) fn missing(packages: &[&'static str]) -> Result<Vec<&'static str>> {
    // It fails when one is unknown, and still lists the others: only the list counts.
    let known = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output()
        .context("cannot run dpkg-query: install dpkg")?;
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    Ok(not_installed(packages, &known))
}

fn not_installed(packages: &[&'static str], known: &str) -> Vec<&'static str> {
    packages
        .iter()
        .copied()
        .filter(|package| {
            !known
                .lines()
                .any(|line| line.split_once(' ') == Some((package, "installed")))
        })
        .collect()
}

/// Refreshes the machine's package lists.
pub(crate) fn update() -> Result<()> {
    as_root("apt-get")
        .args(["update", "--quiet"])
        .quiet("check this machine's network and apt sources, then try again")
}

/// Installs packages and starts none of their services.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    update()?;
    let _no_services = NoServices::begin()?;
    // Through env, because sudo does not pass its caller's environment on.
    as_root("env")
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install"])
        .args(["--yes", "--quiet", "--no-install-recommends"])
        .args(packages)
        .quiet(&format!(
            "install them by hand: apt-get install {}",
            packages.join(" ")
        ))
}

/// While it lives, package scripts start no services.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        // Somebody else's policy is theirs to decide.
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let script = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
        fs::write(script.path(), "#!/bin/sh\nexit 101\n")
            .with_context(|| format!("cannot write {}", script.path().display()))?;
        as_root("install")
            .args(["-m", "755"])
            .arg(script.path())
            .arg(POLICY)
            .quiet("become root, or let sudo do it")?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        if let Err(error) = as_root("rm")
            .args(["-f", POLICY])
            .quiet("remove it by hand")
        {
            eprintln!("warning: {POLICY} still keeps services from starting: {error:#}");
        }
    }
}

/// The address of Debian's archive with this label (`Debian`, `Debian-Security`), as this
/// machine's own configuration has it.
pub(crate) fn archive(label: &str) -> Result<String> {
    let find = || {
        Command::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI)"])
            .args(["Origin: Debian", &format!("Label: {label}")])
            .read("check this machine's apt sources")
    };
    let mut found = find()?;
    if found.is_empty() {
        // Labels are known only after a first update.
        update()?;
        found = find()?;
    }
    let first = found.lines().next().map(str::to_owned);
    first.with_context(|| {
        format!(
            "no apt source of this machine is labelled {label}: \
             add Debian's to its sources and run apt-get update"
        )
    })
}

/// A suite of an archive, with lists and configuration of its own.
pub(crate) struct Suite {
    dir: PathBuf,
}

impl Suite {
    /// Reads the suite's index into `dir`. apt verifies its signature.
    pub(crate) fn open(dir: &Path, archive: &str, suite: &str) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let sources = dir.join("sources.list");
        fs::write(
            &sources,
            format!("deb [signed-by={KEYRING}] {archive} {suite} main\n"),
        )
        .with_context(|| format!("cannot write {}", sources.display()))?;
        let suite = Self {
            dir: dir.to_owned(),
        };
        suite
            .apt("apt-get")
            .args(["update", "--quiet"])
            .quiet("check this machine's network; does its mirror still carry this suite?")?;
        Ok(suite)
    }

    /// The names of the packages that start with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self
            .apt("apt-cache")
            .args(["pkgnames", prefix])
            .read("try again")?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads a package (apt verifies its hash) and returns its path.
    pub(crate) fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
        self.apt("apt-get")
            .current_dir(into)
            .args(["download", "--quiet", package])
            .quiet("check this machine's network, then try again")?;
        let start = format!("{package}_");
        for entry in into
            .read_dir()
            .with_context(|| format!("cannot read {}", into.display()))?
        {
            let entry = entry.with_context(|| format!("cannot read {}", into.display()))?;
            if entry.file_name().to_string_lossy().starts_with(&start) {
                return Ok(entry.path());
            }
        }
        bail!(
            "apt-get download {package} succeeded but left no file in {}",
            into.display()
        )
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        for (key, file) in [
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::sourcelist", "sources.list"),
        ] {
            apt.arg("-o")
                .arg(format!("{key}={}", self.dir.join(file).display()));
        }
        for option in [
            "Dir::Etc::sourceparts=/dev/null",
            // The cache is in a home folder, which apt's sandbox user cannot enter.
            "APT::Sandbox::User=root",
            // Old suites' indexes have expired; their signatures are verified all the same.
            "Acquire::Check-Valid-Until=false",
            // Else an index that cannot be fetched is a warning only.
            "APT::Update::Error-Mode=any",
            "Acquire::Languages=none",
            "Acquire::PDiffs=false",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
        ] {
            apt.args(["-o", option]);
        }
        apt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count_as_installed() {
        let known = "gcc installed\nhaproxy config-files\ngcc-12 installed\n";
        assert_eq!(
            not_installed(&["gcc", "haproxy", "strace"], known),
            ["haproxy", "strace"]
        );
    }
}
