//! Getting the test kernels from Debian's archive.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::kernel::{Kernel, SUFFIX, inspect};
use crate::apt;
use crate::command::CommandExt as _;

/// Downloads a kernel's packages and unpacks them into `dir`. Replaces what is there.
pub fn fetch(kernel: &'static Kernel, dir: &Path) -> Result<()> {
    if !apt::exists() {
        bail!("test kernels are Debian packages, and there is no apt here: use a Debian machine");
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    // Only complete kernels get the final name.
    let unfinished = tempfile::tempdir_in(dir)
        .with_context(|| format!("cannot create a folder in {}", dir.display()))?;
    let scratch = |name| unfinished.path().join(name);
    let archive = apt::archive(kernel.archive.label())?;
    let suite = apt::Suite::open(&scratch("apt"), &archive, kernel.suite)?;
    let names = suite.names(kernel.prefix)?;
    let package = newest(&names, kernel.prefix).with_context(|| {
        format!(
            "no package {}*{SUFFIX} in {}: the suite has moved on; \
             change the table of test kernels",
            kernel.prefix, kernel.suite
        )
    })?;
    let mut packages = vec![package.to_owned()];
    packages.extend(kernel.modules_prefix.map(|modules| {
        let version = &package[kernel.prefix.len()..];
        format!("{modules}{version}")
    }));

    let root = scratch("root");
    for package in packages {
        let file = suite.download(&package, &scratch("packages"))?;
        Command::new("dpkg")
            .arg("--extract")
            .arg(&file)
            .arg(&root)
            .quiet("is there room on the disk?")?;
    }
    inspect(kernel, &root)?;
    let finished = dir.join(kernel.name);
    if finished.exists() {
        fs::remove_dir_all(&finished)
            .with_context(|| format!("cannot remove {}", finished.display()))?;
    }
    fs::rename(&root, &finished).with_context(|| format!("cannot create {}", finished.display()))
}

/// The package with the highest version of those called `prefix`, version, [`SUFFIX`].
fn newest<'names>(names: &'names [String], prefix: &str) -> Option<&'names str> {
    names
        .iter()
        .filter_map(|name| {
            let version = name.strip_prefix(prefix)?.strip_suffix(SUFFIX)?;
            // Not `unsigned-7.2.13`, for instance.
            version
                .starts_with(|first: char| first.is_ascii_digit())
                .then(|| (numbers(version), name.as_str()))
        })
        .max()
        .map(|(_version, name)| name)
}

/// The numbers in a version, in order: `117+deb12` is `[117, 12]`.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest_of(names: &[&str], prefix: &str) -> Option<String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        newest(&names, prefix).map(str::to_owned)
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let names = [
            "linux-image-6.12.99+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.113+deb12-cloud-amd64",
        ];
        assert_eq!(
            newest_of(&names, "linux-image-6.12.").as_deref(),
            Some(names[1])
        );
    }

    #[test]
    fn other_flavours_and_versions_do_not_match() {
        let names = [
            "linux-binary-unsigned-7.3.1+deb14-cloud-amd64",
            "linux-binary-7.2.13+deb14-cloud-amd64",
            "linux-binary-7.2.13+deb14-cloud-amd64-dbg",
            "linux-binary-7.3.1+deb14-cloud-arm64",
        ];
        assert_eq!(
            newest_of(&names, "linux-binary-").as_deref(),
            Some(names[1])
        );
        let names = [
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-cloud-amd64",
        ];
        assert_eq!(newest_of(&names, "linux-image-6.1."), None);
    }
}
