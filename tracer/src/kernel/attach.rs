//! Tries the ways of a plan until one holds, and keeps what was attached.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
    rc::{Rc, Weak},
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Btf, Ebpf,
    maps::Array,
    programs::{Program, ProgramError},
};
use rustix::thread::CapabilitySet;

use super::{
    kretprobe::Kretprobe,
    plan::{self, Attachment, HookName, HookPlan, Target},
};
use crate::{event::Tier, privileges};

/// What became of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookStatus {
    /// Which hook.
    pub hook: HookName,
    /// What was attached, and in which tier; `None` if nothing could be.
    pub attached: Option<(Tier, Vec<Target>)>,
    /// The ways that were refused or failed before one held, and why.
    pub refused: Vec<(Tier, String)>,
}

/// Programs in place. Dropping it removes them all.
pub struct Attached {
    links: Vec<(HookName, Link)>,
    /// `/proc/self/fdinfo` entries of the programs in use that can miss something, where
    /// misses are listed, and whose they are.
    program_fdinfo: Vec<(HookName, PathBuf)>,
}

/// How many times programs should have run and did not; `None` where the kernel does not say
/// (before Linux 5.12).
pub type Missed = Option<u64>;

/// Whatever keeps a program attached; dropped to detach.
enum Link {
    Aya(#[expect(dead_code, reason = "held for its drop")] Box<dyn std::any::Any>),
    Kretprobe(Kretprobe),
    /// One that other hooks have, too.
    Shared(#[expect(dead_code, reason = "held for its drop")] Rc<Self>),
}

/// A link, and the `/proc/self/fdinfo` entry of its program if that can miss something.
type Placed = (Link, Option<PathBuf>);

/// Where programs come from and go to.
pub struct Attacher<'a> {
    /// The object's programs.
    ebpf: &'a mut Ebpf,
    /// The kernel's BTF.
    btf: &'a Btf,
    /// tracefs, for probes by name.
    tracefs: Option<PathBuf>,
    /// The program that several hooks share, once it is in its place.
    states: Weak<Link>,
}

/// Loads a program, puts it in its place and keeps the link. aya has a type for each kind of
/// program, all of which have these calls.
macro_rules! place {
    ($target:ident, $program:ident.load($($load:expr),*).attach($($attach:expr),*)) => {{
        once_loaded($program.load($($load),*)).map_err(|error| load_error($target, &error))?;
        let id = $program
            .attach($($attach),*)
            .map_err(|error| attach_error($target, &error))?;
        Link::Aya(Box::new($program.take_link(id)?))
    }};
}

impl<'a> Attacher<'a> {
    /// Nothing is attached yet.
    pub fn new(ebpf: &'a mut Ebpf, btf: &'a Btf, tracefs: Option<PathBuf>) -> Self {
        Self {
            ebpf,
            btf,
            tracefs,
            states: Weak::new(),
        }
    }

    /// Attaches every hook in the best way that works.
    pub fn attach(&mut self, plans: Vec<HookPlan>) -> (Attached, Vec<HookStatus>) {
        let mut attached = Attached {
            links: Vec::new(),
            program_fdinfo: Vec::new(),
        };
        let statuses = plans
            .into_iter()
            .map(|plan| self.attach_hook(plan, &mut attached))
            .collect();
        (attached, statuses)
    }

    fn attach_hook(&mut self, plan: HookPlan, attached: &mut Attached) -> HookStatus {
        let mut status = HookStatus {
            hook: plan.hook,
            attached: None,
            refused: plan.refused,
        };
        for way in plan.ways {
            let links = way
                .attachments
                .iter()
                // Where sockets are asked for, there is nothing to attach.
                .filter(|attachment| attachment.target != Target::SockDiag)
                .map(|attachment| {
                    let (link, fdinfo) = self.attach_one(attachment)?;
                    Ok((link, attachment.can_miss().then_some(fdinfo)))
                })
                .collect::<Result<Vec<Placed>>>();
            match links {
                Ok(links) => {
                    for (link, fdinfo) in links {
                        attached.links.push((plan.hook, link));
                        let fdinfo = fdinfo.map(|fdinfo| (plan.hook, fdinfo));
                        // A program that sits at several places is listed once.
                        if !fdinfo
                            .as_ref()
                            .is_some_and(|one| attached.program_fdinfo.contains(one))
                        {
                            attached.program_fdinfo.extend(fdinfo);
                        }
                    }
                    let targets = way.attachments.into_iter().map(|one| one.target).collect();
                    status.attached = Some((way.tier, targets));
                    break;
                }
                Err(error) => status.refused.push((way.tier, format!("{error:#}"))),
            }
        }
        status
    }

    fn attach_one(&mut self, attachment: &Attachment) -> Result<(Link, PathBuf)> {
        let name = attachment.program;
        let program = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("the eBPF object has no program {name}"))?;
        let target = &attachment.target;
        let link = match (program, target) {
            (Program::FEntry(program), Target::Fentry(function)) => {
                place!(target, program.load(function, self.btf).attach())
            }
            (Program::FExit(program), Target::Fexit(function)) => {
                place!(target, program.load(function, self.btf).attach())
            }
            (Program::BtfTracePoint(program), Target::BtfTracepoint(tracepoint)) => {
                place!(target, program.load(tracepoint, self.btf).attach())
            }
            (Program::BtfTracePoint(program), Target::SocketStates(hook)) => {
                let link = if let Some(link) = self.states.upgrade() {
                    link
                } else {
                    Rc::new(place!(
                        target,
                        program.load(plan::SOCKET_STATES, self.btf).attach()
                    ))
                };
                self.states = Rc::downgrade(&link);
                self.serve(*hook)?;
                Link::Shared(link)
            }
            (Program::TracePoint(program), Target::Tracepoint(category, event)) => {
                place!(target, program.load().attach(category, event))
            }
            (Program::KProbe(program), Target::Kretprobe(function)) => {
                once_loaded(program.load()).map_err(|error| load_error(target, &error))?;
                let fd = program.fd().map_err(|error| load_error(target, &error))?;
                let by_name = match &self.tracefs {
                    Some(tracefs) => Kretprobe::attach(tracefs, name, function, fd.as_fd()),
                    None => Err(anyhow!("no tracefs")),
                };
                match by_name {
                    Ok(probe) => Link::Kretprobe(probe),
                    // Fewer calls can be followed at once, and misses are not listed.
                    Err(why) => {
                        log::warn!("{target}: {why:#}; following few blocked calls only");
                        place!(target, program.load().attach(function, 0))
                    }
                }
            }
            (Program::KProbe(program), Target::Kprobe(function)) => {
                place!(target, program.load().attach(function, 0))
            }
            _ => return Err(anyhow!("the program {name} is not one for {target}")),
        };
        let program = self.ebpf.program(name);
        let fd = program
            .with_context(|| format!("the program {name} is gone"))?
            .fd()?;
        let fdinfo = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        Ok((link, fdinfo.into()))
    }

    /// Has the program at sockets' changes of state do the work of one more hook.
    fn serve(&mut self, hook: u32) -> Result<()> {
        let map = self.ebpf.map_mut("STATES").context("no map STATES")?;
        let mut on: Array<_, u32> = map.try_into()?;
        let before = on.get(&0, 0)?;
        Ok(on.set(0, before | hook, 0)?)
    }
}

impl Attached {
    /// How many runs of a hook's programs were left out.
    #[must_use]
    pub fn missed(&self, hook: HookName) -> Missed {
        let recursion = self
            .program_fdinfo
            .iter()
            .filter(|(of, _)| *of == hook)
            .map(|(_, path)| recursion_misses(&fs::read_to_string(path).ok()?))
            .sum::<Missed>()?;
        let returns = self
            .links
            .iter()
            .filter(|(of, _)| *of == hook)
            .map(|(_, link)| match link {
                Link::Kretprobe(probe) => probe.missed(),
                Link::Aya(_) | Link::Shared(_) => Some(0),
            })
            .sum::<Missed>()?;
        Some(recursion + returns)
    }
}

fn recursion_misses(fdinfo: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?
        .trim()
        .parse()
        .ok()
}

/// A program that goes to several places is loaded once.
fn once_loaded(result: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other,
    }
}

fn load_error(target: &Target, error: &ProgramError) -> anyhow::Error {
    let answer = match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            log::debug!("{target}: {verifier_log}");
            let last = verifier_log
                .to_string()
                .lines()
                .rev()
                .find(|line| !is_verifier_summary(line))
                .map(|line| format!(" ({})", line.trim()))
                .unwrap_or_default();
            format!("{io_error}{last}")
        }
        other => chain(other),
    };
    let hint = if answer.contains("Operation not permitted") {
        let takes = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
        privileges::lacking(takes).map_or_else(
            || "; not for want of a capability: the kernel may be locked down".to_owned(),
            |lacking| format!("; {lacking}"),
        )
    } else {
        String::new()
    };
    anyhow!("cannot load {target}: {answer}{hint}")
}

/// Lines with which the verifier ends whatever it found.
fn is_verifier_summary(line: &str) -> bool {
    let line = line.trim();
    line.is_empty()
        || ["processed ", "stack depth ", "verification time "]
            .iter()
            .any(|start| line.starts_with(start))
}

fn attach_error(target: &Target, error: &ProgramError) -> anyhow::Error {
    let answer = chain(error);
    let hint = if answer.contains("Permission denied") {
        paranoid().unwrap_or_default()
    } else {
        String::new()
    };
    anyhow!("cannot attach {target}: {answer}{hint}")
}

/// What forbids perf events although CAP_PERFMON is there: Debian's kernels, up to some version, know a third
/// level, at which only CAP_SYS_ADMIN allows them.
fn paranoid() -> Option<String> {
    let setting = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
    let level: i32 = setting.trim().parse().ok()?;
    let lacking = privileges::lacking(CapabilitySet::SYS_ADMIN)?;
    (level > 2).then(|| {
        format!("; kernel.perf_event_paranoid is {level} and {lacking}: set it to 2, or give that")
    })
}

/// An error and its causes on one line, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::recursion_misses;

    #[test]
    fn misses_come_from_fdinfo_where_it_has_them() {
        let new = "prog_type:\t26\nrun_cnt:\t0\nrecursion_misses:\t3\nverified_insns:\t9\n";
        assert_eq!(recursion_misses(new), Some(3));
        assert_eq!(recursion_misses("prog_type:\t26\nrun_cnt:\t0\n"), None);
    }
}
