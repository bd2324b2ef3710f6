//! What compiles and links for the BPF target.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{CommandExt as _, find_program, has_version};
use crate::{cache, workspace};

/// Debian's rustc, as opposed to rustup's.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// The clippy of the same version.
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";

/// The LLVM that Debian's rustc-web is built with: bpf-linker's must not be older.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

const BPF_LINKER_VERSION: &str = "0.13.0";
const CARGO_DENY_VERSION: &str = "0.20.2";

/// The target of the kernel side on little-endian machines.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";

const MEND_LINKER: &str = "check this machine's network; where there is no llvm-22-dev to build it \
     on, put a bpf-linker built on another LLVM into PATH";

/// A compiler that has, or can build, `core` for the BPF target.
#[derive(Clone, Copy)]
pub(crate) enum Compiler {
    /// Debian's rustc with its compiled `core`.
    Debian,
    /// rustup's nightly, which compiles `core` from `rust-src`.
    Nightly,
}

impl Compiler {
    /// The one this machine has.
    pub(crate) fn detect() -> Result<Self> {
        if debian_has_core() {
            Ok(Self::Debian)
        } else if nightly_has_source() {
            Ok(Self::Nightly)
        } else {
            bail!(
                "no compiler for the target {BPF_TARGET} here: run `cargo xtask setup` where \
                 there is apt, else `rustup toolchain install nightly --component rust-src`"
            )
        }
    }

    /// A cargo subcommand (`build`, `clippy`) on the kernel side, for its target.
    pub(crate) fn cargo(self, subcommand: &str) -> Result<Command> {
        let linker = linker()?;
        let mut cargo = match (self, subcommand) {
            (Self::Debian, "clippy") => {
                let mut cargo = Command::new(DEBIAN_CLIPPY);
                cargo.current_dir(workspace::root()).arg("clippy");
                cargo
            }
            (Self::Debian, _) => {
                let mut cargo = workspace::cargo();
                cargo.arg(subcommand);
                cargo
            }
            (Self::Nightly, _) => {
                let mut cargo = Command::new("rustup");
                cargo.current_dir(workspace::root());
                cargo.args(["run", "nightly", "cargo", subcommand, "-Zbuild-std=core"]);
                cargo
            }
        };
        if matches!(self, Self::Debian) {
            // aya-ebpf needs `asm_experimental_arch`, which a stable compiler has to be talked
            // into.
            cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        }
        cargo
            .args(["--release", "--package", "turnaway-ebpf"])
            .args(["--bin", "turnaway-ebpf", "--target", BPF_TARGET])
            .arg("--target-dir")
            .arg(workspace::bpf_target())
            .env(target_variable(BPF_TARGET, "LINKER"), linker);
        // The loader and the verifier's messages need BTF, which is made from debug info.
        set_rustflags(&mut cargo, BPF_TARGET, "-Cdebuginfo=2 -Clink-arg=--btf");
        Ok(cargo)
    }
}

/// Sets a target's compiler flags, which cargo ignores where the general ones are set.
pub(crate) fn set_rustflags(cargo: &mut Command, triple: &str, flags: &str) {
    cargo
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env(target_variable(triple, "RUSTFLAGS"), flags);
}

/// cargo's environment variable for a setting of a target.
pub(crate) fn target_variable(triple: &str, setting: &str) -> String {
    let triple = triple.to_uppercase().replace('-', "_");
    format!("CARGO_TARGET_{triple}_{setting}")
}

fn debian_has_core() -> bool {
    let libraries = Command::new(DEBIAN_RUSTC)
        .args(["--print", "target-libdir", "--target", BPF_TARGET])
        .read("");
    let Ok(libraries) = libraries else {
        return false;
    };
    Path::new(libraries.trim())
        .read_dir()
        .is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
            })
        })
}

fn nightly_has_source() -> bool {
    Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .read("")
        .is_ok_and(|sysroot| {
            Path::new(sysroot.trim())
                .join("lib/rustlib/src/rust/library/core/src/lib.rs")
                .exists()
        })
}

/// bpf-linker: setup's own, or the one in `PATH`.
pub(crate) fn linker() -> Result<PathBuf> {
    let ours = cache::tool("bpf-linker")?;
    if has_version(&ours, BPF_LINKER_VERSION) {
        return Ok(ours);
    }
    find_program("bpf-linker").context("no bpf-linker here: run `cargo xtask setup`")
}

/// bpf-linker, where it is missing.
pub(crate) fn missing_linker() -> Option<CargoInstall> {
    if linker().is_ok() {
        return None;
    }
    Some(CargoInstall {
        name: "bpf-linker",
        version: BPF_LINKER_VERSION,
        // Its default is a newer LLVM than the compiler's.
        features: &["--no-default-features", "--features", "llvm-22"],
        mend: MEND_LINKER,
    })
}

/// cargo-deny, where it is missing.
pub(crate) fn missing_deny() -> Result<Option<CargoInstall>> {
    if has_version(&cache::tool("cargo-deny")?, CARGO_DENY_VERSION) {
        return Ok(None);
    }
    Ok(Some(CargoInstall {
        name: "cargo-deny",
        version: CARGO_DENY_VERSION,
        features: &[],
        mend: "check this machine's network, then try again",
    }))
}

/// A tool to compile into the cache.
pub(crate) struct CargoInstall {
    name: &'static str,
    version: &'static str,
    features: &'static [&'static str],
    mend: &'static str,
}

impl CargoInstall {
    /// What it does, for a progress line.
    pub(crate) fn title(&self) -> String {
        format!("compiling {} {}", self.name, self.version)
    }

    /// Compiles and installs it.
    pub(crate) fn install(&self) -> Result<()> {
        let root = cache::dir()?;
        let mut cargo = workspace::cargo();
        cargo
            .args(["install", self.name, "--version", self.version])
            .args(["--locked", "--force", "--root"])
            .arg(&root)
            .args(self.features)
            // Half a minute of work for a tool is not worth a minute of optimising it.
            .arg("--debug")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false")
            .env("CARGO_PROFILE_DEV_OVERFLOW_CHECKS", "false")
            // cargo's own temporary folder: nothing of it is wanted afterwards.
            .env_remove("CARGO_TARGET_DIR");
        if Path::new(LLVM_PREFIX).exists() {
            cargo.env("LLVM_PREFIX", LLVM_PREFIX);
        }
        cargo.quiet(self.mend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_spelled_as_cargo_spells_them() {
        assert_eq!(
            target_variable("x86_64-unknown-linux-gnu", "RUNNER"),
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"
        );
    }
}
