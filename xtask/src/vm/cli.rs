//! `cargo xtask vm`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use super::guest::INIT;
use super::{Guest, is_unpacked, kernels, kernels_dir, locate};
use crate::{build, setup, steps};

/// Options of `cargo xtask vm`.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Download and unpack the test kernels that are missing
    Fetch,
    /// List the test kernels
    List,
    /// Run a command in a guest; its exit code becomes this command's
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Which test kernel
    #[arg(long, default_value = "newest")]
    kernel: String,
    /// Add to the kernel's command line
    #[arg(long, default_value = "")]
    append: String,
    /// Pack a file or folder: its path here, and its absolute path in the guest
    #[arg(long = "file", value_name = "HOST:GUEST", value_parser = parse_file)]
    files: Vec<(PathBuf, PathBuf)>,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds until the guest is stopped
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// A program of this machine, packed with its libraries, or a path in the guest
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Does it. The exit code is that of the guest's command.
pub fn run(options: Options) -> Result<ExitCode> {
    match options.action {
        Action::Fetch => steps::run(setup::fetches()?)?,
        Action::List => list()?,
        Action::Run(options) => return boot(options),
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> Result<()> {
    let dir = kernels_dir()?;
    for kernel in kernels() {
        let state = if is_unpacked(&dir, kernel.name) {
            locate(&dir, kernel.name)?.release
        } else {
            "not fetched: cargo xtask vm fetch".to_owned()
        };
        println!("{:8} {state}", kernel.name);
    }
    Ok(())
}

fn boot(options: Run) -> Result<ExitCode> {
    let kernel = locate(&kernels_dir()?, &options.kernel)?;
    build::static_programs(&["xtask"], &[INIT], true)?;

    let mut guest = Guest::new(kernel, options.command);
    guest.append = options.append;
    guest.files = options.files;
    guest.memory_mib = options.memory;
    guest.cpus = options.cpus;
    guest.timeout = Duration::from_secs(options.timeout);
    let program = PathBuf::from(&guest.command[0]);
    if !guest.files.iter().any(|(_, packed)| *packed == program) && program.is_file() {
        let name = program.file_name().context("the command has no name")?;
        let packed = Path::new("/bin").join(name);
        guest.command[0] = packed.to_string_lossy().into_owned();
        guest.program(&program, packed)?;
    }
    let exit = guest.run(|line| println!("{line}"))?;
    // An exit code has eight bits, in the guest as here.
    Ok(u8::try_from(exit.code).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn parse_file(argument: &str) -> Result<(PathBuf, PathBuf)> {
    match argument.split_once(':') {
        Some((host, guest)) if guest.starts_with('/') && !host.is_empty() => {
            Ok((host.into(), guest.into()))
        }
        _ => bail!("write HOST:GUEST, with an absolute guest path"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_a_host_path_and_an_absolute_guest_path() {
        assert_eq!(
            parse_file("a/b:/c").unwrap(),
            (PathBuf::from("a/b"), PathBuf::from("/c"))
        );
        for wrong in ["a", "a:b", ":/b"] {
            assert!(parse_file(wrong).is_err(), "{wrong} was accepted");
        }
    }
}
