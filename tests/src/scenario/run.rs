//! Running scenarios.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::check::{self, Scope};
use super::{Scenario, env};
use crate::lines;
use crate::records::Records;
use crate::sys::clock_ns;
use crate::tracer::{Tracer, wait_for};
use crate::truth::{Failures, Tally};

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// turnaway saw it exactly.
    Pass,
    /// It cannot be run here.
    Skip(String),
    /// turnaway was wrong, or something is broken.
    Fail(String),
    /// The same where the kernel left probes out; it is run once more, by itself.
    Again(String),
}

/// The programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// What is tested.
    pub turnaway: PathBuf,
    /// This crate's binary, which runs workloads.
    pub scenarios: PathBuf,
}

/// How long a workload may take to say the next line.
const PATIENCE: Duration = Duration::from_mins(3);

/// A running workload. It is killed when this is dropped.
pub struct Actor {
    child: Child,
    /// Closed when it is to end.
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    pid: u32,
}

impl Actor {
    /// Starts a workload and waits until it has prepared.
    pub fn start(program: &Path, workload: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["workload", workload])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let input = child.stdin.take();
        let lines = lines::of(child.stdout.take().context("no output")?);
        let mut actor = Self {
            child,
            input,
            lines,
            pid: 0,
        };
        let line = actor.line()?;
        let pid = line.strip_prefix("ready ").and_then(|pid| pid.parse().ok());
        actor.pid = pid.with_context(|| format!("{workload} said {line:?}"))?;
        Ok(actor)
    }

    fn line(&mut self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).map_err(|_| {
            let status = self.child.try_wait();
            anyhow::anyhow!("the workload says nothing (its status: {status:?})")
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it act, and waits until it has.
    pub fn act(&mut self) -> Result<Tally> {
        writeln!(self.input.as_ref().context("no input")?, "go")?;
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("no tally: {line:?}"))
    }

    /// Lets it end.
    pub fn finish(mut self) -> Result<()> {
        drop(self.input.take());
        let status = wait_for(&mut self.child, PATIENCE)?;
        ensure!(status.success(), "the workload ended badly: {status}");
        Ok(())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a scenario came to before turnaway's records are read.
struct Acted {
    actor: Actor,
    tally: Tally,
    between: (i128, i128),
}

fn act(mut actor: Actor) -> Result<Acted> {
    let from = clock_ns(libc::CLOCK_REALTIME);
    let tally = actor.act()?;
    let to = clock_ns(libc::CLOCK_REALTIME);
    Ok(Acted {
        actor,
        tally,
        between: (from, to),
    })
}

/// Runs a scenario with a turnaway of its own.
#[must_use]
pub fn one(programs: &Programs, scenario: &Scenario, tier: &str) -> Outcome {
    if let Some(why) = (scenario.needs)() {
        return Outcome::Skip(why);
    }
    match one_alone(programs, scenario, tier) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Fail(format!("{error:#}")),
    }
}

fn one_alone(programs: &Programs, scenario: &Scenario, tier: &str) -> Result<Outcome> {
    let actor = Actor::start(&programs.scenarios, scenario.name)?;
    let pid = actor.pid().to_string();
    let mut arguments = vec!["-o", "json", "--tier", tier];
    if scenario.one_process {
        arguments.extend(["-p", &pid]);
    }
    let tracer = match Tracer::start(&programs.turnaway, &arguments) {
        Ok(tracer) => tracer,
        Err(error) => return Ok(without_tier(scenario, tier, &format!("{error:#}"))),
    };
    let acted = act(actor)?;
    let records = tracer.stop()?.records()?;
    let outcome = judge(scenario, tier, &acted, &records, scenario.one_process);
    acted.actor.finish()?;
    Ok(match (outcome, check::losses(&records, tier)) {
        (Outcome::Pass, Some(lost)) => Outcome::Fail(format!("lost: {lost}")),
        (outcome, _) => outcome,
    })
}

/// Runs scenarios one after the other under one turnaway, which sees the whole machine. This is
/// for machines where nothing else accepts, and where starting is slow. Returns lines that say what became
/// of each hook, and what the kernel made of each program.
pub fn together(
    programs: &Programs,
    scenarios: &[&'static Scenario],
    tier: &str,
    mut tell: impl FnMut(&str, &Outcome),
) -> Result<Vec<String>> {
    let before = crate::programs::ids()?;
    let tracer = match Tracer::start(&programs.turnaway, &["-o", "json", "--tier", tier]) {
        Ok(tracer) => tracer,
        Err(error) => {
            for scenario in scenarios {
                tell(
                    scenario.name,
                    &without_tier(scenario, tier, &format!("{error:#}")),
                );
            }
            return Ok(Vec::new());
        }
    };
    let verified = crate::programs::since(&before)?;
    let mut all = Vec::new();
    let (apart, with_others): (Vec<_>, Vec<_>) =
        scenarios.iter().copied().partition(|one| one.apart);
    for scenario in with_others {
        if let Some(why) = (scenario.needs)() {
            tell(scenario.name, &Outcome::Skip(why));
            continue;
        }
        match Actor::start(&programs.scenarios, scenario.name).and_then(act) {
            // They stay until turnaway has had time to look at them.
            Ok(acted) => all.push((scenario, acted)),
            Err(error) => tell(scenario.name, &Outcome::Fail(format!("{error:#}"))),
        }
    }
    // This process tries out what the machine can do; and turnaway, too, has no files while there are none.
    let mut known = vec![std::process::id(), tracer.pid()];
    let records = tracer.stop()?.records()?;
    for (scenario, acted) in all {
        let mut outcome = judge(scenario, tier, &acted, &records, false);
        known.extend(acted.tally.pids);
        // Where it is a parent, its listener's queue may be stalled by the end.
        known.push(acted.actor.pid());
        if let Err(error) = acted.actor.finish() {
            outcome = Outcome::Fail(format!("{error:#}"));
        }
        if let Outcome::Fail(why) = &outcome {
            // Probes are left out where they would interrupt others, which is said and by chance.
            if check::left_out(&records, tier) {
                tell(scenario.name, &Outcome::Again(why.clone()));
                outcome = one(programs, scenario, tier);
            }
        }
        tell(scenario.name, &outcome);
    }
    for scenario in apart {
        tell(scenario.name, &one(programs, scenario, tier));
    }
    let stray: Vec<_> = records
        .summary
        .totals
        .iter()
        .filter(|total| total.process.pid != 0 && !known.contains(&total.process.pid))
        .collect();
    // Other programs of the machine are theirs only in a guest.
    ensure!(
        stray.is_empty() || !env::is_guest(),
        "failures of processes that do not exist here: {stray:?}"
    );
    if let Some(lost) = check::losses(&records, tier) {
        bail!("lost: {lost}");
    }
    Ok(records
        .summary
        .hooks
        .iter()
        .map(|hook| format!("HOOK {tier} {} {}", hook.name, hook.status))
        .chain(verified.iter().map(|program| program.line(tier)))
        .collect())
}

fn judge(
    scenario: &Scenario,
    tier: &str,
    acted: &Acted,
    records: &Records,
    alone: bool,
) -> Outcome {
    let hook = records
        .summary
        .hooks
        .iter()
        .find(|hook| hook.name == scenario.hook);
    match hook {
        Some(hook) if hook.status == "attached" => {
            if hook.tier.as_deref() != Some(tier) {
                return Outcome::Fail(format!("asked for {tier}, got {:?}", hook.tier));
            }
        }
        Some(hook) => {
            let said = hook.detail.as_deref().unwrap_or("no reason given");
            return without_tier(scenario, tier, said);
        }
        None => return Outcome::Fail(format!("no word of the hook {}", scenario.hook)),
    }
    let nothing = Tally {
        failures: Vec::new(),
        ..acted.tally.clone()
    };
    let polled = Tally {
        failures: acted
            .tally
            .failures
            .iter()
            .cloned()
            .map(Failures::as_polled)
            .collect(),
        ..acted.tally.clone()
    };
    let mut hooked = acted.tally.clone();
    hooked.failures.retain(|failures| !failures.guessed);
    let truth = match tier {
        _ if scenario.blind.contains(&tier) => &nothing,
        "tracepoint" => &polled,
        _ => &hooked,
    };
    let scope = Scope {
        tier,
        alone,
        about: scenario.about,
        between: acted.between,
    };
    let differences = check::differences(truth, records, &scope);
    if differences.is_empty() {
        return Outcome::Pass;
    }
    // What was lost may be why.
    let differences = differences
        .into_iter()
        .chain(check::losses(records, tier).map(|lost| format!("lost: {lost}")));
    let shown = 8;
    let mut differences: Vec<_> = differences.collect();
    let more = differences.len().saturating_sub(shown);
    // The last ones say what else there was.
    differences.drain(..more);
    Outcome::Fail(format!("{} ({more} more)", differences.join("; ")))
}

/// turnaway says that it has no such tier: the machine must say so too.
fn without_tier(scenario: &Scenario, tier: &str, said: &str) -> Outcome {
    match env::why_no_tier(tier, scenario.hook) {
        Some(why) => Outcome::Skip(format!("{why}; turnaway: {}", said.replace('\n', " "))),
        None => Outcome::Fail(format!(
            "no reason to be without {tier}, but turnaway: {said}"
        )),
    }
}
