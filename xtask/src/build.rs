//! `cargo xtask build-ebpf` and `cargo xtask build`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::command::CommandExt as _;
use crate::toolchain::{BPF_TARGET, Compiler, set_rustflags};
use crate::{setup, workspace};

const MEND: &str = "mend what the compiler reports above";

/// Options of `cargo xtask build`.
#[derive(Args, Clone, Copy)]
pub struct Options {
    /// Optimise
    #[arg(long)]
    pub release: bool,
}

/// Sets up, builds both sides and prints the path of the static binary.
pub fn run(options: Options) -> Result<()> {
    setup::run(setup::Options::default())?;
    println!("{}", turnaway(options)?.display());
    Ok(())
}

/// Builds both sides and returns the path of the static `turnaway`.
pub(crate) fn turnaway(options: Options) -> Result<PathBuf> {
    ebpf()?;
    let built = static_programs(&["turnaway"], &["turnaway"], options.release)?;
    Ok(built.join("turnaway"))
}

/// Builds the kernel side and returns the path of its object.
pub fn ebpf() -> Result<PathBuf> {
    Compiler::detect()?.cargo("build")?.show(MEND)?;
    let built = workspace::bpf_target()
        .join(BPF_TARGET)
        .join("release/turnaway-ebpf");
    let object = workspace::bpf_object();
    copy_if_changed(&built, &object)?;
    Ok(object)
}

/// Builds programs of the workspace's packages, linked statically, so that they run on any
/// kernel and distribution, and returns the folder they are in.
pub(crate) fn static_programs(
    packages: &[&str],
    programs: &[&str],
    release: bool,
) -> Result<PathBuf> {
    let triple = workspace::host_triple()?;
    let mut cargo = workspace::cargo();
    cargo.arg("build").args(release.then_some("--release"));
    link_statically(&mut cargo, &triple);
    cargo
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .args(programs.iter().flat_map(|program| ["--bin", program]))
        .show(MEND)?;

    let profile = if release { "release" } else { "debug" };
    let target = workspace::target();
    let folder = target.join(profile);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for program in programs {
        let built = target.join(&triple).join(profile).join(program);
        replace_with_link(&built, &folder.join(program))?;
    }
    Ok(folder)
}

/// Makes a cargo command build for the host's triple with the C library linked in.
///
/// Naming the target is what keeps the flag from build scripts and procedural macros, which
/// cannot be static.
fn link_statically(cargo: &mut Command, triple: &str) {
    cargo
        .args(["--target", triple, "--target-dir"])
        .arg(workspace::target());
    set_rustflags(cargo, triple, "-Ctarget-feature=+crt-static");
}

/// Leaves an unchanged copy's time stamp alone, so that what depends on it stays fresh.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}

/// A running program's file can be replaced but not written, hence the rename.
fn replace_with_link(from: &Path, to: &Path) -> Result<()> {
    let mut beside = to.as_os_str().to_owned();
    beside.push(OsStr::new(".new"));
    let beside = PathBuf::from(beside);
    let link = || {
        if beside.exists() {
            fs::remove_file(&beside)?;
        }
        fs::hard_link(from, &beside)?;
        fs::rename(&beside, to)?;
        // Renaming one link of a file onto another does nothing and leaves both.
        if beside.exists() {
            fs::remove_file(&beside)?;
        }
        Ok::<(), std::io::Error>(())
    };
    link().with_context(|| format!("cannot link {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_replaced_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for text in ["one", "two"] {
            fs::write(dir.path().join("fresh"), text).unwrap();
            fs::rename(dir.path().join("fresh"), &from).unwrap();
            replace_with_link(&from, &to).unwrap();
            replace_with_link(&from, &to).unwrap();
            assert_eq!(fs::read_to_string(&to).unwrap(), text);
            assert_eq!(dir.path().read_dir().unwrap().count(), 2);
        }
    }

    #[test]
    fn an_unchanged_copy_keeps_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "same").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options()
            .write(true)
            .open(&to)
            .unwrap()
            .set_modified(epoch)
            .unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), epoch);
        fs::write(&from, "other").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "other");
    }
}
