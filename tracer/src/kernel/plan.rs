//! Decides what to attach: a pure function from what the kernel offers to the ways each
//! hook can be put in place, best first, each refused way with its reason in words.
//!
//! Nothing is chosen by version number: BTF says which functions exist with which
//! parameters, and a way that looks possible is believed only once its program is loaded
//! and attached.

use std::path::PathBuf;

use crate::event::Tier;

/// What a kernel offers, as far as it can be known without loading a program.
#[derive(Clone, Debug)]
pub struct Features {
    /// Parameter types of `__sys_accept4`, if it is a function in BTF.
    pub sys_accept4: Option<Vec<String>>,
    /// Parameter types of `io_accept`.
    pub io_accept: Option<Vec<String>>,
    /// Parameter types of `__sys_accept4_file`.
    pub sys_accept4_file: Option<Vec<String>>,
    /// io_uring's accept can put the connection into its own table of files: since then it
    /// calls `do_accept` itself, and no longer comes through `__sys_accept4_file`.
    pub io_accept_has_slots: bool,
    /// Parameter types of `io_issue_sqe`.
    pub io_issue_sqe: Option<Vec<String>>,
    /// Parameter types of `do_accept`.
    pub do_accept: Option<Vec<String>>,
    /// Parameter types of the tracepoint `io_uring_complete`.
    pub io_uring_complete: Option<Vec<String>>,
    /// The kernel has kprobes.
    pub kprobes: bool,
    /// Where tracefs is mounted, or why it could not be had.
    pub tracefs: Result<PathBuf, String>,
    /// Which of `sys_exit_accept` and `sys_exit_accept4` tracefs has.
    pub syscall_exits: Vec<&'static str>,
}

/// What a hook watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookName {
    /// accept(2) and accept4(2).
    Accept,
    /// io_uring's accept.
    IoUringAccept,
}

impl HookName {
    /// Every hook.
    pub const ALL: &'static [Self] = &[Self::Accept, Self::IoUringAccept];

    /// Its name in text and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::IoUringAccept => "io_uring_accept",
        }
    }

    /// What is not seen without it.
    #[must_use]
    pub const fn unseen(self) -> &'static str {
        match self {
            Self::Accept => "failed accept and accept4 calls",
            Self::IoUringAccept => "failed accepts of programs that use io_uring",
        }
    }
}

/// One program and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the program in the eBPF object.
    pub program: &'static str,
    /// Where.
    pub target: Target,
}

/// A place that a program can be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Entry of a kernel function, through a BPF trampoline.
    Fentry(&'static str),
    /// Exit of a kernel function, through a BPF trampoline.
    Fexit(&'static str),
    /// Entry of a kernel function.
    Kprobe(&'static str),
    /// Return of a kernel function.
    Kretprobe(&'static str),
    /// A tracepoint of tracefs: category and name.
    Tracepoint(&'static str, &'static str),
    /// A tracepoint, through BTF.
    BtfTracepoint(&'static str),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fentry(function) => write!(f, "fentry/{function}"),
            Self::Fexit(function) => write!(f, "fexit/{function}"),
            Self::Kprobe(function) => write!(f, "kprobe/{function}"),
            Self::Kretprobe(function) => write!(f, "kretprobe/{function}"),
            Self::Tracepoint(category, name) => write!(f, "tracepoint/{category}/{name}"),
            Self::BtfTracepoint(name) => write!(f, "tp_btf/{name}"),
        }
    }
}

/// One way to put a hook in place: all of its attachments or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its tier.
    pub tier: Tier,
    /// What to attach, in this order.
    pub attachments: Vec<Attachment>,
}

/// How a hook can be put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookPlan {
    /// Which hook.
    pub hook: HookName,
    /// The ways to try, best first.
    pub ways: Vec<Way>,
    /// The ways that are out of the question, and why.
    pub refused: Vec<(Tier, String)>,
}

/// Plans every hook; `only` keeps the ways of one tier.
#[must_use]
pub fn plan(features: &Features, only: Option<Tier>) -> Vec<HookPlan> {
    HookName::ALL
        .iter()
        .map(|hook| {
            let mut plan = HookPlan {
                hook: *hook,
                ways: Vec::new(),
                refused: Vec::new(),
            };
            for tier in [Tier::Trampoline, Tier::Kprobe, Tier::Tracepoint] {
                if only.is_some_and(|only| only != tier) {
                    continue;
                }
                match way(features, *hook, tier) {
                    Ok(attachments) => plan.ways.push(Way { tier, attachments }),
                    Err(why) => plan.refused.push((tier, why)),
                }
            }
            plan
        })
        .collect()
}

fn way(features: &Features, hook: HookName, tier: Tier) -> Result<Vec<Attachment>, String> {
    if tier == Tier::Kprobe && !features.kprobes {
        return Err("this kernel has no kprobes (CONFIG_KPROBES)".to_owned());
    }
    match (hook, tier) {
        (HookName::Accept, Tier::Trampoline) => {
            sys_accept4(features)?;
            Ok(one("accept_fexit", Target::Fexit("__sys_accept4")))
        }
        (HookName::Accept, Tier::Kprobe) => {
            sys_accept4(features)?;
            Ok(one("accept_kretprobe", Target::Kretprobe("__sys_accept4")))
        }
        (HookName::Accept, Tier::Tracepoint) => syscall_exits(features),
        (HookName::IoUringAccept, Tier::Trampoline) => Ok(match uring_function(features)? {
            UringFunction::Request => one("uring_fexit", Target::Fexit("io_accept")),
            UringFunction::Issue => issue_trampolines(),
            UringFunction::File => one("uring_file_fexit", Target::Fexit("__sys_accept4_file")),
        }),
        (HookName::IoUringAccept, Tier::Kprobe) => Ok(match uring_function(features)? {
            UringFunction::Request => pair("uring_kprobe", "uring_kretprobe", "io_accept"),
            UringFunction::Issue => issue_probes(),
            UringFunction::File => pair(
                "uring_file_kprobe",
                "uring_file_kretprobe",
                "__sys_accept4_file",
            ),
        }),
        (HookName::IoUringAccept, Tier::Tracepoint) => uring_complete(features),
    }
}

fn one(program: &'static str, target: Target) -> Vec<Attachment> {
    vec![Attachment { program, target }]
}

/// The return probe first: a call that is entered between the two then finds no entry
/// and is left out, instead of leaving one behind.
fn pair(entry: &'static str, exit: &'static str, function: &'static str) -> Vec<Attachment> {
    vec![
        Attachment {
            program: exit,
            target: Target::Kretprobe(function),
        },
        Attachment {
            program: entry,
            target: Target::Kprobe(function),
        },
    ]
}

/// The exits first, as in [`pair`].
fn issue_trampolines() -> Vec<Attachment> {
    vec![
        Attachment {
            program: "uring_do_accept_fexit",
            target: Target::Fexit("do_accept"),
        },
        Attachment {
            program: "uring_issue_fexit",
            target: Target::Fexit("io_issue_sqe"),
        },
        Attachment {
            program: "uring_issue_fentry",
            target: Target::Fentry("io_issue_sqe"),
        },
    ]
}

fn issue_probes() -> Vec<Attachment> {
    let mut attachments = one("uring_do_accept_kretprobe", Target::Kretprobe("do_accept"));
    attachments.extend(pair(
        "uring_issue_kprobe",
        "uring_issue_kretprobe",
        "io_issue_sqe",
    ));
    attachments
}

/// Refuses a function whose parameters are not those a program was written for.
fn expect(name: &str, found: Option<&Vec<String>>, wanted: &[&str]) -> Result<(), String> {
    match found {
        None => Err(format!("the kernel's BTF has no function {name}")),
        Some(found) if found.len() == wanted.len() && found.iter().zip(wanted).all(matches) => {
            Ok(())
        }
        Some(found) => Err(format!(
            "{name} takes ({}) here, not ({})",
            found.join(", "),
            wanted.join(", ")
        )),
    }
}

/// A pointer whose type moves between versions is wanted as `*`.
fn matches((found, wanted): (&String, &&str)) -> bool {
    if *wanted == "*" {
        found.ends_with('*')
    } else {
        found == wanted
    }
}

fn sys_accept4(features: &Features) -> Result<(), String> {
    expect(
        "__sys_accept4",
        features.sys_accept4.as_ref(),
        &["int", "*", "*", "int"],
    )
}

fn syscall_exits(features: &Features) -> Result<Vec<Attachment>, String> {
    features.tracefs.as_ref().map_err(Clone::clone)?;
    if features.syscall_exits.is_empty() {
        return Err("tracefs has no syscall tracepoints (CONFIG_FTRACE_SYSCALLS)".to_owned());
    }
    Ok(features
        .syscall_exits
        .iter()
        .map(|name| Attachment {
            program: "accept_tracepoint",
            target: Target::Tracepoint("syscalls", name),
        })
        .collect())
}

enum UringFunction {
    /// `io_accept`, which is handed the request.
    Request,
    /// `io_issue_sqe`, into which `io_accept` is inlined, and `do_accept` within it.
    Issue,
    /// `__sys_accept4_file`, which is handed the file and the copied limit.
    File,
}

fn uring_function(features: &Features) -> Result<UringFunction, String> {
    let request = expect(
        "io_accept",
        features.io_accept.as_ref(),
        &["struct io_kiocb *", "unsigned int"],
    );
    let Err(why_not_request) = request else {
        return Ok(UringFunction::Request);
    };
    if features.io_accept_has_slots {
        let issue = expect(
            "io_issue_sqe",
            features.io_issue_sqe.as_ref(),
            &["struct io_kiocb *", "unsigned int"],
        );
        let accept = expect(
            "do_accept",
            features.do_accept.as_ref(),
            &["struct file *", "unsigned int", "*", "*", "int"],
        );
        return issue
            .and(accept)
            .map(|()| UringFunction::Issue)
            .map_err(|why| format!("{why_not_request}; {why}"));
    }
    expect(
        "__sys_accept4_file",
        features.sys_accept4_file.as_ref(),
        &[
            "struct file *",
            "unsigned int",
            "*",
            "*",
            "int",
            "long unsigned int",
        ],
    )
    .map(|()| UringFunction::File)
    .map_err(|why_not_file| format!("{why_not_request}; {why_not_file}"))
}

fn uring_complete(features: &Features) -> Result<Vec<Attachment>, String> {
    let target = Target::BtfTracepoint("io_uring_complete");
    let Some(parameters) = &features.io_uring_complete else {
        return Err("the kernel's BTF has no tracepoint io_uring_complete".to_owned());
    };
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    match parameters[..] {
        [_, "void *", "struct io_uring_cqe *"] => Ok(one("uring_complete_cqe", target)),
        [_, "void *", "u64", "int", ..] => Ok(one("uring_complete_res", target)),
        _ => Err(format!(
            "io_uring_complete says nothing of the request here: it carries ({})",
            parameters.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(parameters: &[&str]) -> Vec<String> {
        parameters.iter().map(ToString::to_string).collect()
    }

    /// As BTF of Debian's 6.12 says.
    fn recent() -> Features {
        Features {
            sys_accept4: Some(strings(&["int", "struct sockaddr *", "int *", "int"])),
            io_accept: Some(strings(&["struct io_kiocb *", "unsigned int"])),
            sys_accept4_file: None,
            io_accept_has_slots: true,
            io_issue_sqe: Some(strings(&["struct io_kiocb *", "unsigned int"])),
            do_accept: Some(strings(&[
                "struct file *",
                "struct proto_accept_arg *",
                "struct sockaddr *",
                "int *",
                "int",
            ])),
            io_uring_complete: Some(strings(&[
                "void *",
                "void *",
                "u64",
                "int",
                "unsigned int",
                "u64",
                "u64",
            ])),
            kprobes: true,
            tracefs: Ok("/sys/kernel/tracing".into()),
            syscall_exits: vec!["sys_exit_accept", "sys_exit_accept4"],
        }
    }

    /// As BTF of 5.10 says, before it was given the io_uring of 5.15.
    fn old() -> Features {
        Features {
            io_accept: None,
            io_accept_has_slots: false,
            sys_accept4_file: Some(strings(&[
                "struct file *",
                "unsigned int",
                "struct sockaddr *",
                "int *",
                "int",
                "long unsigned int",
            ])),
            io_uring_complete: Some(strings(&["void *", "u64", "long int"])),
            ..recent()
        }
    }

    fn tiers(plan: &HookPlan) -> Vec<Tier> {
        plan.ways.iter().map(|way| way.tier).collect()
    }

    #[test]
    fn the_cheapest_tier_comes_first() {
        for hook in plan(&recent(), None) {
            assert_eq!(
                tiers(&hook),
                [Tier::Trampoline, Tier::Kprobe, Tier::Tracepoint],
                "{hook:?}"
            );
            assert!(hook.refused.is_empty());
        }
    }

    #[test]
    fn io_uring_falls_back_to_the_function_that_old_kernels_have() {
        let plans = plan(&old(), None);
        let uring = &plans[1];
        assert_eq!(tiers(uring), [Tier::Trampoline, Tier::Kprobe]);
        assert_eq!(
            uring.ways[0].attachments[0].target,
            Target::Fexit("__sys_accept4_file")
        );
        let (tier, why) = &uring.refused[0];
        assert_eq!(*tier, Tier::Tracepoint);
        assert!(why.contains("says nothing of the request"), "{why}");
    }

    #[test]
    fn io_uring_that_inlines_its_accept_is_hooked_around_it() {
        // As BTF of Debian's 5.10.223 says.
        let mut features = Features {
            io_accept_has_slots: true,
            do_accept: Some(strings(&[
                "struct file *",
                "unsigned int",
                "struct sockaddr *",
                "int *",
                "int",
            ])),
            ..old()
        };
        let uring = &plan(&features, None)[1];
        assert_eq!(tiers(uring), [Tier::Trampoline, Tier::Kprobe]);
        for way in &uring.ways {
            assert_eq!(way.attachments.len(), 3, "{way:?}");
        }

        // Never through `__sys_accept4_file`, which such a kernel has and io_uring does
        // not come through.
        features.io_issue_sqe = None;
        let uring = &plan(&features, None)[1];
        assert!(uring.ways.is_empty(), "{uring:?}");
        assert!(uring.refused[0].1.contains("io_issue_sqe"), "{uring:?}");
    }

    #[test]
    fn a_prototype_that_changed_is_refused_in_words() {
        let features = Features {
            sys_accept4: Some(strings(&["int", "struct accept_args *"])),
            ..recent()
        };
        let plans = plan(&features, Some(Tier::Trampoline));
        assert!(plans[0].ways.is_empty());
        assert!(plans[0].refused[0].1.contains("struct accept_args *"));
    }

    #[test]
    fn a_kernel_without_anything_gives_reasons_only() {
        let features = Features {
            tracefs: Err("tracefs is not mounted".to_owned()),
            ..Features::default_for_tests()
        };
        for hook in plan(&features, None) {
            assert!(hook.ways.is_empty());
            assert_eq!(hook.refused.len(), 3);
        }
    }

    impl Features {
        fn default_for_tests() -> Self {
            Self {
                sys_accept4: None,
                io_accept: None,
                sys_accept4_file: None,
                io_accept_has_slots: false,
                io_issue_sqe: None,
                do_accept: None,
                io_uring_complete: None,
                kprobes: false,
                tracefs: Err(String::new()),
                syscall_exits: Vec::new(),
            }
        }
    }
}
