//! `cargo xtask`: everything this repository needs done that cargo alone does not do.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{
    bench, budget, build, demo, fuzz, lint, man, package, plot, run, schema, setup, soak, test, vm,
};

/// turnaway's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building needs and this machine lacks
    Setup(setup::Options),
    /// Build the kernel side into target/bpf/turnaway.bpf.o
    BuildEbpf,
    /// Build turnaway, linked statically, and print its path
    Build(build::Options),
    /// Build turnaway and run `turnaway trace` as root
    Run(run::Options),
    /// Show turnaway with a server that is out of descriptors, for some seconds
    Demo(demo::Options),
    /// Be the demo's server
    #[command(hide = true)]
    DemoServer,
    /// Write man pages and completions of shells to a folder
    Man(man::Options),
    /// Write the JSON Schema of records, made from their types, to docs/schema
    Schema,
    /// Make a Debian package and print its path
    Package(package::Options),
    /// Run every test: unit, scenario and guest tests
    Test(test::Options),
    /// Measure what turnaway costs programs whose calls succeed
    Bench(bench::Options),
    /// Draw what turnaway takes the more there is, for docs/performance.md
    Plot(plot::Options),
    /// Have servers fail for hours: what turnaway takes must not grow, and its counts must be theirs
    Soak(soak::Options),
    /// Print what verifying each program takes on every test kernel, and how deep its stack gets
    Budget,
    /// Have libFuzzer think up what comes from outside
    Fuzz(fuzz::Options),
    /// Test kernels in virtual machines
    Vm(vm::cli::Options),
    /// Check format, lints, documentation, licences and sources
    Lint(lint::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup(options) => setup::run(options).map(|()| ExitCode::SUCCESS),
        Task::BuildEbpf => build::ebpf().map(|_object| ExitCode::SUCCESS),
        Task::Build(options) => build::run(options).map(|()| ExitCode::SUCCESS),
        Task::Run(options) => run::run(&options).map(|never| match never {}),
        Task::Demo(options) => demo::run(&options).map(|()| ExitCode::SUCCESS),
        Task::DemoServer => demo::server::run().map(|()| ExitCode::SUCCESS),
        Task::Man(options) => man::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Schema => schema::run().map(|()| ExitCode::SUCCESS),
        Task::Package(options) => package::run(options).map(|()| ExitCode::SUCCESS),
        Task::Test(options) => test::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Bench(options) => bench::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Plot(options) => plot::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Soak(options) => soak::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Budget => budget::run().map(|()| ExitCode::SUCCESS),
        Task::Fuzz(options) => fuzz::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Vm(options) => vm::cli::run(options),
        Task::Lint(options) => lint::run(options).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
