//! `turnaway-scenarios`: workloads, and the runner that compares what turnaway says of them with
//! what they did.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use turnaway_tests::checks;
use turnaway_tests::cost;
use turnaway_tests::few;
use turnaway_tests::load;
use turnaway_tests::measure;
use turnaway_tests::programs;
use turnaway_tests::scenario::run::{self, Outcome, Programs};
use turnaway_tests::scenario::{self, Scenario, TIERS};
use turnaway_tests::soak;
use turnaway_tests::tracer;
use turnaway_tests::workload::{Stage, driven};

/// Workloads whose accepts fail in known ways, and what turnaway makes of them
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Name the scenarios
    List,
    /// Be the workload of a scenario
    Workload {
        /// Its name
        name: String,
        /// Act at once and end, without waiting to be told
        #[arg(long)]
        alone: bool,
    },
    /// Listen, and do as standard input says
    Driven {
        /// In a process of this id, which must be free
        #[arg(long)]
        pid: Option<u32>,
    },
    /// Check something of the daemon that holds on every machine
    Check {
        /// What
        #[arg(required = true)]
        names: Vec<String>,
        /// The program to test
        #[arg(long)]
        turnaway: PathBuf,
    },
    /// Run scenarios and print one line for each
    Run(Options),
    /// Do what succeeds as fast as it goes, and print how often a second
    Load {
        /// What
        name: String,
        /// For how long
        #[arg(long, default_value_t = 1)]
        seconds: u64,
    },
    /// A part of what is measured
    #[command(flatten)]
    Part(measure::Load),
    /// Print what turnaway takes when much fails, with much to look at, and how soon it tells: a line of JSON for each
    Measure {
        /// What
        #[arg(default_values = measure::ALL)]
        what: Vec<String>,
        /// The program to measure
        #[arg(long)]
        turnaway: PathBuf,
    },
    /// Have servers fail for hours, and print what turnaway takes meanwhile and whether it counts right: lines of JSON
    Soak(soak::Options),
    /// Print what the kernel's verifier took for each of turnaway's programs, in all tiers
    Programs {
        /// The program to look at
        #[arg(long)]
        turnaway: PathBuf,
    },
    /// Print what each of turnaway's programs takes while loads run: a line of JSON for each
    Cost {
        /// Hooks of this tier; may be given several times
        #[arg(long, required = true)]
        tier: Vec<String>,
        /// How long each load runs
        #[arg(long, default_value_t = 1)]
        seconds: u64,
        /// The program to measure
        #[arg(long)]
        turnaway: PathBuf,
    },
}

#[derive(clap::Args)]
struct Options {
    /// Hooks of this tier; may be given several times
    #[arg(long, default_values_t = [TIERS[2].to_owned()])]
    tier: Vec<String>,
    /// All tiers, one after the other
    #[arg(long, conflicts_with = "tier")]
    all_tiers: bool,
    /// Only the scenarios whose name starts with this
    #[arg(long, default_value = "")]
    only: String,
    /// A turnaway for each scenario, not one for each tier
    #[arg(long)]
    apart: bool,
    /// Also say which capabilities each tier takes
    #[arg(long)]
    capabilities: bool,
    /// The program to test
    #[arg(long)]
    turnaway: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().action {
        Action::List => {
            for scenario in scenario::ALL {
                println!("{}", scenario.name);
            }
        }
        Action::Workload { name, alone } => {
            let scenario =
                scenario::find(&name).with_context(|| format!("no scenario is called {name}"))?;
            (scenario.run)(&mut Stage::new(alone))?;
        }
        Action::Driven { pid: None } => driven::run()?,
        Action::Driven { pid: Some(pid) } => driven::run_as(pid)?,
        Action::Check { names, turnaway } => {
            let programs = Programs {
                turnaway,
                scenarios: std::env::current_exe()?,
            };
            for name in names {
                checks::run(&name, &programs)?;
            }
        }
        Action::Run(options) => return run_all(&options),
        Action::Cost {
            tier,
            seconds,
            turnaway,
        } => {
            for tier in tier {
                for name in load::ALL {
                    for cost in cost::of(&turnaway, &tier, name, Duration::from_secs(seconds))? {
                        println!("{}", serde_json::to_string(&cost)?);
                    }
                }
            }
        }
        Action::Part(load) => load.run()?,
        Action::Measure { what, turnaway } => {
            let scenarios = std::env::current_exe()?;
            for what in what {
                measure::run(&what, &turnaway, &scenarios)?;
            }
        }
        Action::Soak(options) => {
            if !soak::run(&options)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Action::Programs { turnaway } => {
            for tier in TIERS {
                // A tier may not be there.
                for verified in programs::of(&turnaway, tier).unwrap_or_default() {
                    println!("{}", verified.line(tier));
                }
            }
        }
        Action::Load { name, seconds } => {
            println!("{:.1}", load::run(&name, Duration::from_secs(seconds))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Default)]
struct Tallied {
    passed: u32,
    skipped: u32,
    failed: u32,
}

impl Tallied {
    fn tell(&mut self, name: &str, tier: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Pass => {
                self.passed += 1;
                say(&format!("PASS {name} {tier}"));
            }
            Outcome::Skip(why) => {
                self.skipped += 1;
                say(&format!("SKIP {name} {tier}: {why}"));
            }
            Outcome::Again(why) => say(&format!("AGAIN {name} {tier}: {why}")),
            Outcome::Fail(why) => {
                self.failed += 1;
                say(&format!("FAIL {name} {tier}: {why}"));
            }
        }
    }
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    // If nobody reads it, there is nobody to be told.
    let _ = writeln!(output, "{line}");
    let _ = output.flush();
}

fn run_all(options: &Options) -> Result<ExitCode> {
    let turnaway = match &options.turnaway {
        Some(path) => path.clone(),
        None => tracer::binary()?,
    };
    let programs = Programs {
        turnaway,
        scenarios: std::env::current_exe()?,
    };
    let scenarios: Vec<&'static Scenario> = scenario::ALL
        .iter()
        .filter(|scenario| scenario.name.starts_with(&options.only))
        .collect();
    ensure!(
        !scenarios.is_empty(),
        "no scenario starts with {}",
        options.only
    );
    let tiers = if options.all_tiers {
        TIERS.map(str::to_owned).to_vec()
    } else {
        options.tier.clone()
    };
    let mut tallied = Tallied::default();
    for tier in &tiers {
        let started = std::time::Instant::now();
        if options.apart {
            for scenario in &scenarios {
                let outcome = run::one(&programs, scenario, tier);
                tallied.tell(scenario.name, tier, &outcome);
            }
        } else {
            let ran = run::together(&programs, &scenarios, tier, |name, outcome| {
                tallied.tell(name, tier, outcome);
            });
            match ran {
                Ok(lines) => lines.iter().for_each(|line| say(line)),
                Err(error) => tallied.tell("(all)", tier, &Outcome::Fail(format!("{error:#}"))),
            }
        }
        say(&format!(
            "TIME {tier} {:.1} s",
            started.elapsed().as_secs_f64()
        ));
    }
    if options.capabilities {
        few::in_each_tier(&programs)?;
    }
    say(&format!(
        "{} passed, {} skipped, {} failed",
        tallied.passed, tallied.skipped, tallied.failed
    ));
    Ok(if tallied.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
