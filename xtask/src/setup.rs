//! `cargo xtask setup`: installs what is missing and skips at once what is there.

use anyhow::Result;
use clap::Args;

use crate::steps::{self, Step};
use crate::toolchain::{self, CargoInstall, Compiler};
use crate::vm::{self, Kernel};
use crate::{apt, debian, packages, unpacked};

/// Options of `cargo xtask setup`.
#[derive(Args, Clone, Copy, Default)]
pub struct Options {
    /// Also install what tests and lints need: servers, qemu, cargo-deny, test kernels
    #[arg(long)]
    pub tests: bool,
    /// Also install what benches compare with
    #[arg(long)]
    pub bench: bool,
}

/// Installs what is missing.
pub fn run(options: Options) -> Result<()> {
    // Packages come first: what the later steps lack is only known once they are there.
    steps::run(package_steps(options)?)?;
    Compiler::detect()?;
    steps::run(tool_steps(options)?)
}

fn package_steps(options: Options) -> Result<Vec<Step>> {
    let mut wanted = packages::BUILD.to_vec();
    if options.tests {
        wanted.extend(packages::TESTS);
    }
    if options.bench {
        wanted.extend(packages::BENCH);
    }
    if !apt::exists() {
        if options.tests {
            eprintln!(
                "no apt here: guest tests will be skipped, and so will scenarios whose server \
                 is missing; the packages are called, in Debian: {}",
                packages::TESTS.join(" ")
            );
        }
        return Ok(Vec::new());
    }
    let missing = apt::missing(&wanted)?;
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let title = format!("installing {}", missing.join(" "));
    Ok(vec![Step::new(title, move || apt::install(&missing))])
}

fn tool_steps(options: Options) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    steps.extend(toolchain::missing_linker().map(compile));
    if options.tests {
        steps.extend(toolchain::missing_deny()?.map(compile));
        if apt::exists() {
            steps.extend(fetches()?);
            let unpack = |package| {
                Step::new(format!("unpacking {package}"), move || {
                    unpacked::fetch(package)
                })
            };
            steps.extend(unpacked::missing()?.into_iter().map(unpack));
            if debian::is_missing()? {
                steps.push(Step::new("fetching a Debian to install in", debian::fetch));
            }
        }
    }
    Ok(steps)
}

fn compile(tool: CargoInstall) -> Step {
    Step::new(tool.title(), move || tool.install())
}

/// A step for each test kernel that is not there yet.
pub(crate) fn fetches() -> Result<Vec<Step>> {
    let dir = vm::kernels_dir()?;
    let step = |kernel: &'static Kernel| {
        let dir = dir.clone();
        Step::new(format!("fetching test kernel {}", kernel.name), move || {
            vm::fetch(kernel, &dir)
        })
    };
    Ok(vm::kernels()
        .iter()
        .filter(|kernel| !vm::is_unpacked(&dir, kernel.name))
        .map(step)
        .collect())
}
