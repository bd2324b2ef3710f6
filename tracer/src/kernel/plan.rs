//! Decides what to attach: a pure function from what the kernel offers to the ways each
//! hook can be put in place, best first, each refused way with its reason in words.
//!
//! Nothing is chosen by version number: BTF says which functions exist with which
//! parameters, and a way that looks possible is believed only once its program is loaded
//! and attached.

use std::{collections::HashMap, path::PathBuf};

use turnaway_common::{
    Reason,
    layout::{Counters, states},
};

use crate::event::Tier;

/// What a kernel offers, as far as it can be known without loading a program.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Parameter types of those of [`FUNCTIONS`] that are functions in BTF.
    pub functions: HashMap<&'static str, Vec<String>>,
    /// Parameter types of those of [`TRACEPOINTS`] that are tracepoints in BTF.
    pub tracepoints: HashMap<&'static str, Vec<String>>,
    /// io_uring's accept can put the connection into its own table of files: since then it
    /// calls `do_accept` itself, and no longer comes through `__sys_accept4_file`.
    pub io_accept_has_slots: bool,
    /// Where each processor counts what listeners drop, or why that is not known.
    pub counters: Option<Result<Counters, String>>,
    /// The kernel has kprobes.
    pub kprobes: bool,
    /// Where tracefs is mounted, or why it could not be had.
    pub tracefs: Option<Result<PathBuf, String>>,
    /// Which of [`SYSCALL_EXITS`] tracefs has.
    pub syscall_exits: Vec<&'static str>,
}

/// Functions that hooks may sit at.
pub const FUNCTIONS: &[&str] = &[
    "__sys_accept4",
    "__sys_accept4_file",
    "__sys_connect",
    "alloc_empty_file",
    "alloc_fd",
    "do_accept",
    "do_inotify_init",
    "inet_csk_accept",
    "inet_csk_listen_stop",
    "io_accept",
    "io_issue_sqe",
    "io_openat",
    "io_openat2",
    "io_pipe",
    "io_socket",
    "tcp_conn_request",
    "tcp_v4_syn_recv_sock",
    "tcp_v6_syn_recv_sock",
    "unix_accept",
    "unix_wait_for_peer",
];

/// The tracepoint of TCP sockets that change their state.
pub const SOCKET_STATES: &str = "inet_sock_set_state";
/// Tracepoints that hooks may sit at, through BTF.
pub const TRACEPOINTS: &[&str] = &[
    SOCKET_STATES,
    "io_uring_complete",
    "sched_process_exec",
    "sched_process_exit",
    "sys_exit",
];

/// Tracepoints of system calls that hooks may sit at: few, since the kernel takes tens of milliseconds to
/// remove each.
pub const SYSCALL_EXITS: &[&str] = &["sys_exit_accept", "sys_exit_accept4", "sys_exit_connect"];
/// Those of accept.
const ACCEPT_EXITS: &[&str] = &["sys_exit_accept", "sys_exit_accept4"];
/// That of connect.
const CONNECT_EXITS: &[&str] = &["sys_exit_connect"];

/// What a hook watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookName {
    /// accept(2) and accept4(2).
    Accept,
    /// io_uring's accept.
    IoUringAccept,
    /// What listeners drop.
    ListenQueue,
    /// Connections that were accepted.
    Accepted,
    /// Listeners that are closed.
    ListenClose,
    /// connect(2).
    Connect,
    /// TCP connections that fail after connect has returned, or while it waits.
    ConnectAsync,
    /// Connections that their program closes first, unused.
    Shed,
    /// connect(2) that waits for room in the queue of an AF_UNIX listener.
    UnixWait,
    /// Calls that want a descriptor.
    Descriptors,
    /// io_uring's operations that want a descriptor, but for accept.
    IoUringDescriptors,
    /// Programs that begin and end: no failures, but what goes on around them.
    Programs,
}

impl HookName {
    /// Every hook.
    pub const ALL: &'static [Self] = &[
        Self::Accept,
        Self::IoUringAccept,
        Self::ListenQueue,
        Self::Accepted,
        Self::ListenClose,
        Self::Connect,
        Self::ConnectAsync,
        Self::Shed,
        Self::UnixWait,
        Self::Descriptors,
        Self::IoUringDescriptors,
        Self::Programs,
    ];

    /// Its name in text and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::IoUringAccept => "io_uring_accept",
            Self::ListenQueue => "listen_queue",
            Self::Accepted => "accepted",
            Self::ListenClose => "listen_close",
            Self::Connect => "connect",
            Self::ConnectAsync => "connect_async",
            Self::Shed => "shed",
            Self::UnixWait => "unix_wait",
            Self::Descriptors => "descriptors",
            Self::IoUringDescriptors => "io_uring_descriptors",
            Self::Programs => "programs",
        }
    }

    /// What is not seen without it.
    #[must_use]
    pub const fn unseen(self) -> &'static str {
        match self {
            Self::Accept => "failed accept and accept4 calls",
            Self::IoUringAccept => "failed accepts of programs that use io_uring",
            Self::ListenQueue => "connections that listeners drop",
            Self::Accepted => "how long connections wait before they are accepted",
            Self::ListenClose => "connections that are lost when a listener is closed",
            Self::Connect => "failed connect calls",
            Self::ConnectAsync => "TCP connections that fail after connect has returned",
            Self::Shed => "connections that are accepted and thrown away",
            Self::UnixWait => "connect calls that wait for room in a queue",
            Self::Descriptors => "calls that cannot have a descriptor, and limits that are near",
            Self::IoUringDescriptors => {
                "descriptors that io_uring cannot open for the programs that use it"
            }
            Self::Programs => "which programs began before an incident",
        }
    }

    /// Whether nearly all of its runs are of calls that succeed, of whatever program: of those that
    /// the kernel leaves out, hardly one was to be counted.
    #[must_use]
    pub const fn is_mostly_of_others(self) -> bool {
        matches!(self, Self::Descriptors | Self::IoUringDescriptors)
    }

    /// The reasons that cannot be told without it.
    #[must_use]
    pub const fn reasons(self) -> &'static [Reason] {
        use Reason as R;
        match self {
            Self::Accept | Self::IoUringAccept => &[
                R::AcceptEmfile,
                R::AcceptEnfile,
                R::AcceptNomem,
                R::AcceptAborted,
                R::AcceptDenied,
                R::AcceptMisuse,
                R::AcceptOther,
            ],
            Self::ListenQueue => &[
                R::QueueSynOverflow,
                R::QueueAckOverflow,
                R::QueueRstOverflow,
                R::QueueOverflow,
                R::QueueSynFlood,
                R::QueueDropped,
            ],
            // Also what tells which listener a connection came by.
            Self::Accepted => &[R::QueueSlow, R::QueueStalled, R::AcceptShed],
            Self::Shed => &[R::AcceptShed],
            Self::UnixWait => &[R::QueueUnixFull],
            Self::Descriptors => &[R::FdExhausted, R::FdPressure],
            Self::IoUringDescriptors => &[R::FdExhausted],
            Self::Programs => &[],
            Self::Connect => &[
                R::ConnectRefused,
                R::ConnectTimeout,
                R::ConnectUnreachable,
                R::ConnectReset,
                R::ConnectDenied,
                R::ConnectNoPort,
                R::ConnectOther,
                R::QueueUnixFull,
            ],
            // What TCP sets as a socket's error; and what tells a connection that it was
            // counted for from one that the call must count.
            Self::ConnectAsync => &[
                R::ConnectRefused,
                R::ConnectTimeout,
                R::ConnectUnreachable,
                R::ConnectReset,
                R::ConnectDenied,
                R::ConnectOther,
            ],
            // Also what keeps the books of the two before it.
            Self::ListenClose => &[
                R::QueueAbandoned,
                R::ListenerClosed,
                R::QueueOverflow,
                R::QueueSynFlood,
                R::QueueDropped,
                R::QueueSlow,
                R::QueueStalled,
                R::AcceptShed,
            ],
        }
    }
}

/// One program and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the program in the eBPF object; empty for [`Target::SockDiag`].
    pub program: &'static str,
    /// Where.
    pub target: Target,
}

impl Attachment {
    /// Whether a run that the kernel leaves out may be a failure that nobody sees. It leaves
    /// out what would interrupt the same program, and these have nothing to do in interrupts, or
    /// have a second program that sees what the first does not.
    #[must_use]
    pub fn can_miss(&self) -> bool {
        !matches!(
            self.program,
            "socket_state" | "socket_state_again" | "program_began" | "program_ended"
        )
    }
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
    /// The tracepoint of TCP sockets' changes of state, where one program serves several hooks: which, as a
    /// bit of [`states`].
    SocketStates(u32),
    /// No program: listening sockets are asked for once a second.
    SockDiag,
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
            Self::SocketStates(_) => write!(f, "tp_btf/{SOCKET_STATES}"),
            Self::SockDiag => write!(f, "sock_diag"),
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

/// Plans the hooks that wanted reasons need; `only` keeps the ways of one tier.
#[must_use]
pub fn plan(
    features: &Features,
    only: Option<Tier>,
    wanted: impl Fn(Reason) -> bool,
) -> Vec<HookPlan> {
    HookName::ALL
        .iter()
        .filter(|hook| hook.reasons().iter().any(|reason| wanted(*reason)))
        .map(|hook| {
            let mut plan = HookPlan {
                hook: *hook,
                ways: Vec::new(),
                refused: Vec::new(),
            };
            for tier in [Tier::Trampoline, Tier::Kprobe, Tier::Tracepoint] {
                // There is one way, whatever the tier of the others.
                let only =
                    only.filter(|_| !matches!(hook, HookName::ConnectAsync | HookName::Shed));
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

/// Plans the hook at programs that begin and end, which no reason needs.
#[must_use]
pub fn programs(features: &Features) -> HookPlan {
    let mut plan = HookPlan {
        hook: HookName::Programs,
        ways: Vec::new(),
        refused: Vec::new(),
    };
    match way(features, HookName::Programs, Tier::Tracepoint) {
        Ok(attachments) => plan.ways.push(Way {
            tier: Tier::Tracepoint,
            attachments,
        }),
        Err(why) => plan.refused.push((Tier::Tracepoint, why)),
    }
    plan
}

fn program_tracepoints(features: &Features) -> Result<Vec<Attachment>, String> {
    // The end first: what was begun before it is attached is not waited for.
    [
        ("sched_process_exit", "program_ended"),
        ("sched_process_exec", "program_began"),
    ]
    .into_iter()
    .map(|(tracepoint, program)| {
        let parameters = features
            .tracepoints
            .get(tracepoint)
            .ok_or_else(|| format!("the kernel's BTF has no tracepoint {tracepoint}"))?;
        expect_first(tracepoint, parameters, &["struct task_struct *"])?;
        Ok(Attachment {
            program,
            target: Target::BtfTracepoint(tracepoint),
        })
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
        (HookName::Accept, Tier::Tracepoint) => {
            syscall_exits(features, ACCEPT_EXITS, "accept_tracepoint")
        }
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
        (HookName::IoUringAccept, Tier::Tracepoint) => {
            uring_complete(features, "uring_complete_cqe", "uring_complete_res")
        }
        (HookName::ListenQueue, tier) => listen_queue(features, tier),
        (HookName::Accepted, tier) => accepted(features, tier),
        (HookName::ListenClose, tier) => listen_close(features, tier),
        (HookName::Connect, Tier::Trampoline) => {
            sys_connect(features)?;
            Ok(one("connect_fexit", Target::Fexit("__sys_connect")))
        }
        (HookName::Connect, Tier::Kprobe) => {
            sys_connect(features)?;
            Ok(one("connect_kretprobe", Target::Kretprobe("__sys_connect")))
        }
        (HookName::Connect, Tier::Tracepoint) => {
            syscall_exits(features, CONNECT_EXITS, "connect_tracepoint")
        }
        (HookName::ConnectAsync, Tier::Tracepoint) => {
            let states = socket_states(features, states::CONNECT)?;
            // The end first, as in [`pair`].
            let mut attachments = one("socket_state_again", Target::BtfTracepoint(SOCKET_STATES));
            attachments.extend(states);
            Ok(attachments)
        }
        (HookName::Shed, Tier::Tracepoint) => socket_states(features, states::SHED),
        // Functions that change a socket's state may be inlined, the tracepoint in them never.
        (HookName::ConnectAsync | HookName::Shed, _) => {
            Err("a tracepoint sees it at the least cost".to_owned())
        }
        (HookName::UnixWait, Tier::Trampoline) => {
            unix_wait(features)?;
            // The end first, as in [`pair`].
            Ok(vec![
                Attachment {
                    program: "unix_wait_fexit",
                    target: Target::Fexit("unix_wait_for_peer"),
                },
                Attachment {
                    program: "unix_wait_fentry",
                    target: Target::Fentry("unix_wait_for_peer"),
                },
            ])
        }
        (HookName::UnixWait, Tier::Kprobe) => {
            unix_wait(features)?;
            Ok(pair(
                "unix_wait_kprobe",
                "unix_wait_kretprobe",
                "unix_wait_for_peer",
            ))
        }
        (HookName::UnixWait, Tier::Tracepoint) => {
            Err("no tracepoint says that a connect waits".to_owned())
        }
        (HookName::Descriptors, Tier::Trampoline | Tier::Kprobe) => descriptors(features, tier),
        (HookName::Descriptors, Tier::Tracepoint) => expect(
            "the tracepoint sys_exit",
            features.tracepoints.get("sys_exit"),
            &["struct pt_regs *", "long int"],
        )
        .map(|()| one("syscall_exit", Target::BtfTracepoint("sys_exit"))),
        (HookName::IoUringDescriptors, Tier::Trampoline | Tier::Kprobe) => {
            uring_descriptors(features, tier)
        }
        (HookName::IoUringDescriptors, Tier::Tracepoint) => {
            uring_complete(features, "uring_descriptors_cqe", "uring_descriptors_res")
        }
        (HookName::Programs, Tier::Tracepoint) => program_tracepoints(features),
        (HookName::Programs, _) => Err("a tracepoint sees it at the least cost".to_owned()),
        (_, Tier::Poll) => Err("no way to see it without a hook".to_owned()),
    }
}

fn descriptors(features: &Features, tier: Tier) -> Result<Vec<Attachment>, String> {
    let found = |name| features.functions.get(name);
    let number = "unsigned int";
    expect("alloc_fd", found("alloc_fd"), &[number, number, number])?;
    expect("alloc_empty_file", found("alloc_empty_file"), &["int", "*"])?;
    let at = |fexit, kretprobe, function| match tier {
        Tier::Trampoline => Attachment {
            program: fexit,
            target: Target::Fexit(function),
        },
        _ => Attachment {
            program: kretprobe,
            target: Target::Kretprobe(function),
        },
    };
    let mut attachments = vec![
        at("descriptors_fexit", "descriptors_kretprobe", "alloc_fd"),
        at("files_fexit", "files_kretprobe", "alloc_empty_file"),
    ];
    if sees_inotify(features) {
        attachments.push(at("inotify_fexit", "inotify_kretprobe", "do_inotify_init"));
    }
    Ok(attachments)
}

/// Whether what inotify_init returns has a hook of its own: it has a limit of its own.
#[must_use]
pub fn sees_inotify(features: &Features) -> bool {
    let found = features.functions.get("do_inotify_init");
    expect("do_inotify_init", found, &["int"]).is_ok()
}

/// io_uring's operations that give a descriptor, and the programs at their exits.
const URING_DESCRIPTORS: [(&str, &str); 4] = [
    ("io_openat", "uring_openat_fexit"),
    ("io_openat2", "uring_openat2_fexit"),
    ("io_socket", "uring_socket_fexit"),
    ("io_pipe", "uring_pipe_fexit"),
];

fn uring_descriptors(features: &Features, tier: Tier) -> Result<Vec<Attachment>, String> {
    let parameters = ["struct io_kiocb *", "unsigned int"];
    let mut attachments = Vec::new();
    for (function, fexit) in URING_DESCRIPTORS {
        let found = features.functions.get(function);
        match expect(function, found, &parameters) {
            Ok(()) if tier == Tier::Trampoline => {
                attachments.extend(one(fexit, Target::Fexit(function)));
            }
            Ok(()) => attachments.extend(pair(
                "uring_descriptors_kprobe",
                "uring_descriptors_kretprobe",
                function,
            )),
            // Those that every io_uring has; before Linux 6.0 they are inlined.
            Err(why) if function.starts_with("io_openat") => return Err(why),
            Err(_) => {}
        }
    }
    Ok(attachments)
}

/// The functions that packets of listeners go through, and the programs at their entries and
/// exits in both tiers.
const ARRIVALS: [(&str, [&str; 4]); 3] = [
    (
        "tcp_conn_request",
        ["syn_fentry", "syn_fexit", "syn_kprobe", "syn_kretprobe"],
    ),
    (
        "tcp_v4_syn_recv_sock",
        [
            "ack_v4_fentry",
            "ack_v4_fexit",
            "ack_v4_kprobe",
            "ack_v4_kretprobe",
        ],
    ),
    (
        "tcp_v6_syn_recv_sock",
        [
            "ack_v6_fentry",
            "ack_v6_fexit",
            "ack_v6_kprobe",
            "ack_v6_kretprobe",
        ],
    ),
];

fn listen_queue(features: &Features, tier: Tier) -> Result<Vec<Attachment>, String> {
    if matches!(tier, Tier::Tracepoint | Tier::Poll) {
        return Ok(one("", Target::SockDiag));
    }
    match &features.counters {
        Some(Ok(_)) => {}
        Some(Err(why)) => return Err(why.clone()),
        None => return Err("where the kernel counts drops is not known".to_owned()),
    }
    let found = |name| features.functions.get(name);
    expect(
        "tcp_conn_request",
        found("tcp_conn_request"),
        &["*", "*", "struct sock *", "struct sk_buff *"],
    )?;
    let mut attachments = Vec::new();
    for (function, [fentry, fexit, kprobe, kretprobe]) in ARRIVALS {
        if function != "tcp_conn_request" {
            match found(function) {
                Some(found) => {
                    expect_first(function, found, &["struct sock *", "struct sk_buff *"])?;
                }
                // A kernel without IPv6.
                None if function == "tcp_v6_syn_recv_sock" => continue,
                None => return Err(absent(function)),
            }
        }
        if tier == Tier::Trampoline {
            attachments.push(Attachment {
                program: fexit,
                target: Target::Fexit(function),
            });
            attachments.push(Attachment {
                program: fentry,
                target: Target::Fentry(function),
            });
        } else {
            attachments.extend(pair(kprobe, kretprobe, function));
        }
    }
    Ok(attachments)
}

fn accepted(features: &Features, tier: Tier) -> Result<Vec<Attachment>, String> {
    if tier == Tier::Tracepoint {
        return syscall_exits(features, ACCEPT_EXITS, "accepted_tracepoint");
    }
    let found = |name: &str| features.functions.get(name);
    let tcp = found("inet_csk_accept").ok_or_else(|| absent("inet_csk_accept"))?;
    expect_first("inet_csk_accept", tcp, &["struct sock *"])?;
    let unix = found("unix_accept").ok_or_else(|| absent("unix_accept"))?;
    expect_first("unix_accept", unix, &["struct socket *", "struct socket *"])?;
    if tier == Tier::Kprobe {
        let mut attachments = pair("accepted_kprobe", "accepted_kretprobe", "inet_csk_accept");
        attachments.extend(pair(
            "unix_accepted_kprobe",
            "unix_accepted_kretprobe",
            "unix_accept",
        ));
        return Ok(attachments);
    }
    // Where the return value is depends on how many parameters come before it.
    let tcp = match tcp.len() {
        4 => "accepted_fexit_4",
        2 => "accepted_fexit_2",
        other => return Err(format!("inet_csk_accept takes {other} parameters here")),
    };
    let unix = match unix.len() {
        4 => "unix_accepted_fexit_4",
        3 => "unix_accepted_fexit_3",
        other => return Err(format!("unix_accept takes {other} parameters here")),
    };
    Ok(vec![
        Attachment {
            program: tcp,
            target: Target::Fexit("inet_csk_accept"),
        },
        Attachment {
            program: unix,
            target: Target::Fexit("unix_accept"),
        },
    ])
}

fn listen_close(features: &Features, tier: Tier) -> Result<Vec<Attachment>, String> {
    let stop = || {
        expect(
            "inet_csk_listen_stop",
            features.functions.get("inet_csk_listen_stop"),
            &["struct sock *"],
        )
    };
    match tier {
        Tier::Trampoline => {
            stop().map(|()| one("closed_fentry", Target::Fentry("inet_csk_listen_stop")))
        }
        Tier::Kprobe => {
            stop().map(|()| one("closed_kprobe", Target::Kprobe("inet_csk_listen_stop")))
        }
        Tier::Tracepoint | Tier::Poll => socket_states(features, states::LISTEN_CLOSE),
    }
}

fn socket_states(features: &Features, hook: u32) -> Result<Vec<Attachment>, String> {
    expect(
        "the tracepoint inet_sock_set_state",
        features.tracepoints.get(SOCKET_STATES),
        &["struct sock *", "int", "int"],
    )
    .map(|()| one("socket_state", Target::SocketStates(hook)))
}

fn unix_wait(features: &Features) -> Result<(), String> {
    expect(
        "unix_wait_for_peer",
        features.functions.get("unix_wait_for_peer"),
        &["struct sock *", "long int"],
    )
}

fn absent(function: &str) -> String {
    format!("the kernel's BTF has no function {function}")
}

/// Refuses a function whose first parameters are others than a program was written for.
fn expect_first(name: &str, found: &[String], wanted: &[&str]) -> Result<(), String> {
    let first = found.iter().take(wanted.len()).cloned().collect();
    expect(name, Some(&first), wanted)
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
        None => Err(absent(name)),
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
        features.functions.get("__sys_accept4"),
        &["int", "*", "*", "int"],
    )
}

fn sys_connect(features: &Features) -> Result<(), String> {
    expect(
        "__sys_connect",
        features.functions.get("__sys_connect"),
        &["int", "*", "int"],
    )
}

fn syscall_exits(
    features: &Features,
    wanted: &[&str],
    program: &'static str,
) -> Result<Vec<Attachment>, String> {
    match &features.tracefs {
        Some(Ok(_)) => {}
        Some(Err(why)) => return Err(why.clone()),
        None => return Err("tracefs was not looked for".to_owned()),
    }
    let found: Vec<&'static str> = features
        .syscall_exits
        .iter()
        .copied()
        .filter(|name| wanted.contains(name))
        .collect();
    if found.is_empty() {
        return Err("tracefs has no syscall tracepoints (CONFIG_FTRACE_SYSCALLS)".to_owned());
    }
    Ok(found
        .into_iter()
        .map(|name| Attachment {
            program,
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
        features.functions.get("io_accept"),
        &["struct io_kiocb *", "unsigned int"],
    );
    let Err(why_not_request) = request else {
        return Ok(UringFunction::Request);
    };
    if features.io_accept_has_slots {
        let issue = expect(
            "io_issue_sqe",
            features.functions.get("io_issue_sqe"),
            &["struct io_kiocb *", "unsigned int"],
        );
        let accept = expect(
            "do_accept",
            features.functions.get("do_accept"),
            &["struct file *", "unsigned int", "*", "*", "int"],
        );
        return issue
            .and(accept)
            .map(|()| UringFunction::Issue)
            .map_err(|why| format!("{why_not_request}; {why}"));
    }
    expect(
        "__sys_accept4_file",
        features.functions.get("__sys_accept4_file"),
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

/// `cqe` and `res` are the programs for either way of carrying the result.
fn uring_complete(
    features: &Features,
    cqe: &'static str,
    res: &'static str,
) -> Result<Vec<Attachment>, String> {
    let target = Target::BtfTracepoint("io_uring_complete");
    let Some(parameters) = features.tracepoints.get("io_uring_complete") else {
        return Err("the kernel's BTF has no tracepoint io_uring_complete".to_owned());
    };
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    match parameters[..] {
        [_, "void *", "struct io_uring_cqe *"] => Ok(one(cqe, target)),
        [_, "void *", "u64", "int", ..] => Ok(one(res, target)),
        _ => Err(format!(
            "io_uring_complete says nothing of the request here: it carries ({})",
            parameters.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Prototypes = &'static [(&'static str, &'static [&'static str])];

    fn prototypes(list: Prototypes) -> HashMap<&'static str, Vec<String>> {
        list.iter()
            .map(|(name, types)| (*name, types.iter().map(ToString::to_string).collect()))
            .collect()
    }

    /// As BTF of Debian's 6.12 says.
    fn recent() -> Features {
        Features {
            functions: prototypes(&[
                (
                    "__sys_accept4",
                    &["int", "struct sockaddr *", "int *", "int"],
                ),
                ("__sys_connect", &["int", "struct sockaddr *", "int"]),
                ("io_accept", &["struct io_kiocb *", "unsigned int"]),
                ("io_issue_sqe", &["struct io_kiocb *", "unsigned int"]),
                (
                    "do_accept",
                    &[
                        "struct file *",
                        "struct proto_accept_arg *",
                        "struct sockaddr *",
                        "int *",
                        "int",
                    ],
                ),
                (
                    "tcp_conn_request",
                    &[
                        "struct request_sock_ops *",
                        "struct tcp_request_sock_ops *",
                        "struct sock *",
                        "struct sk_buff *",
                    ],
                ),
                (
                    "tcp_v4_syn_recv_sock",
                    &[
                        "struct sock *",
                        "struct sk_buff *",
                        "struct request_sock *",
                        "struct dst_entry *",
                        "struct request_sock *",
                        "bool *",
                    ],
                ),
                (
                    "inet_csk_accept",
                    &["struct sock *", "struct proto_accept_arg *"],
                ),
                (
                    "unix_accept",
                    &[
                        "struct socket *",
                        "struct socket *",
                        "struct proto_accept_arg *",
                    ],
                ),
                ("inet_csk_listen_stop", &["struct sock *"]),
                (
                    "alloc_fd",
                    &["unsigned int", "unsigned int", "unsigned int"],
                ),
                ("alloc_empty_file", &["int", "const struct cred *"]),
                ("do_inotify_init", &["int"]),
                ("io_openat", &["struct io_kiocb *", "unsigned int"]),
                ("io_openat2", &["struct io_kiocb *", "unsigned int"]),
                ("io_socket", &["struct io_kiocb *", "unsigned int"]),
            ]),
            tracepoints: prototypes(&[
                (
                    "io_uring_complete",
                    &[
                        "void *",
                        "void *",
                        "u64",
                        "int",
                        "unsigned int",
                        "u64",
                        "u64",
                    ],
                ),
                ("inet_sock_set_state", &["struct sock *", "int", "int"]),
                ("sys_exit", &["struct pt_regs *", "long int"]),
            ]),
            io_accept_has_slots: true,
            counters: Some(Ok(Counters::NONE)),
            kprobes: true,
            tracefs: Some(Ok("/sys/kernel/tracing".into())),
            syscall_exits: SYSCALL_EXITS.to_vec(),
        }
    }

    /// As BTF of 5.10 says, before it was given the io_uring of 5.15.
    fn old() -> Features {
        let mut features = recent();
        features.functions.remove("io_accept");
        features.functions.extend(prototypes(&[(
            "__sys_accept4_file",
            &[
                "struct file *",
                "unsigned int",
                "struct sockaddr *",
                "int *",
                "int",
                "long unsigned int",
            ],
        )]));
        features.tracepoints.extend(prototypes(&[(
            "io_uring_complete",
            &["void *", "u64", "long int"],
        )]));
        features.io_accept_has_slots = false;
        features
    }

    fn plan(features: &Features, only: Option<Tier>) -> Vec<HookPlan> {
        super::plan(features, only, |_| true)
    }

    fn tiers(plan: &HookPlan) -> Vec<Tier> {
        plan.ways.iter().map(|way| way.tier).collect()
    }

    #[test]
    fn the_cheapest_tier_comes_first() {
        for hook in plan(&recent(), None) {
            if matches!(
                hook.hook,
                HookName::ConnectAsync | HookName::Shed | HookName::UnixWait
            ) {
                continue;
            }
            assert_eq!(
                tiers(&hook),
                [Tier::Trampoline, Tier::Kprobe, Tier::Tracepoint],
                "{hook:?}"
            );
            assert!(hook.refused.is_empty());
        }
    }

    #[test]
    fn connections_change_their_state_whatever_the_tier() {
        for only in [None, Some(Tier::Trampoline), Some(Tier::Tracepoint)] {
            let plans = plan(&recent(), only);
            let hook = plans
                .iter()
                .find(|plan| plan.hook == HookName::ConnectAsync)
                .expect("planned");
            assert_eq!(tiers(hook), [Tier::Tracepoint]);
        }
        let refused = Features {
            tracepoints: HashMap::new(),
            ..recent()
        };
        let plans = plan(&refused, None);
        assert!(plans[6].ways.is_empty(), "{:?}", plans[6]);
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
            ..old()
        };
        features.functions.extend(prototypes(&[(
            "do_accept",
            &[
                "struct file *",
                "unsigned int",
                "struct sockaddr *",
                "int *",
                "int",
            ],
        )]));
        let uring = &plan(&features, None)[1];
        assert_eq!(tiers(uring), [Tier::Trampoline, Tier::Kprobe]);
        for way in &uring.ways {
            assert_eq!(way.attachments.len(), 3, "{way:?}");
        }

        // Never through `__sys_accept4_file`, which such a kernel has and io_uring does
        // not come through.
        features.functions.remove("io_issue_sqe");
        let uring = &plan(&features, None)[1];
        assert!(uring.ways.is_empty(), "{uring:?}");
        assert!(uring.refused[0].1.contains("io_issue_sqe"), "{uring:?}");
    }

    #[test]
    fn a_prototype_that_changed_is_refused_in_words() {
        let mut features = recent();
        features.functions.extend(prototypes(&[(
            "__sys_accept4",
            &["int", "struct accept_args *"],
        )]));
        let plans = plan(&features, Some(Tier::Trampoline));
        assert!(plans[0].ways.is_empty());
        assert!(plans[0].refused[0].1.contains("struct accept_args *"));
    }

    #[test]
    fn without_the_processors_counters_queues_are_polled() {
        let features = Features {
            counters: Some(Err("kptr_restrict".to_owned())),
            ..recent()
        };
        let plans = plan(&features, None);
        assert_eq!(tiers(&plans[2]), [Tier::Tracepoint]);
        assert_eq!(plans[2].ways[0].attachments[0].target, Target::SockDiag);
        assert!(
            plans[2]
                .refused
                .iter()
                .all(|(_, why)| why == "kptr_restrict")
        );
    }

    #[test]
    fn only_what_is_wanted_is_hooked() {
        let names = |wanted: fn(Reason) -> bool| -> Vec<_> {
            super::plan(&recent(), None, wanted)
                .into_iter()
                .map(|plan| plan.hook)
                .collect()
        };
        assert_eq!(
            names(|reason| reason == Reason::AcceptEmfile),
            [HookName::Accept, HookName::IoUringAccept]
        );
        assert_eq!(
            names(|reason| reason == Reason::QueueAbandoned),
            [HookName::ListenClose]
        );
        assert_eq!(
            names(|reason| reason == Reason::QueueUnixFull),
            [HookName::Connect, HookName::UnixWait]
        );
        assert_eq!(
            names(|reason| reason == Reason::ConnectReset),
            [HookName::Connect, HookName::ConnectAsync]
        );
    }

    fn hook(features: &Features, name: HookName) -> HookPlan {
        let mut plans = plan(features, None);
        let at = plans.iter().position(|plan| plan.hook == name);
        plans.swap_remove(at.expect("planned"))
    }

    #[test]
    fn descriptors_are_seen_where_numbers_are_given() {
        let all = hook(&recent(), HookName::Descriptors);
        let functions: Vec<&Target> = all.ways[0]
            .attachments
            .iter()
            .map(|one| &one.target)
            .collect();
        assert_eq!(
            functions,
            [
                &Target::Fexit("alloc_fd"),
                &Target::Fexit("alloc_empty_file"),
                &Target::Fexit("do_inotify_init")
            ]
        );
        let exits = [Attachment {
            program: "syscall_exit",
            target: Target::BtfTracepoint("sys_exit"),
        }];
        assert_eq!(all.ways[2].attachments, exits);

        // inotify's own limit is left out where it has no function of its own.
        let mut features = recent();
        features.functions.remove("do_inotify_init");
        assert!(!sees_inotify(&features));
        let some = hook(&features, HookName::Descriptors);
        assert_eq!(some.ways[0].attachments.len(), 2);

        // Of 5.9 and before.
        features.functions.extend(prototypes(&[(
            "alloc_fd",
            &["unsigned int", "unsigned int"],
        )]));
        let none = hook(&features, HookName::Descriptors);
        assert_eq!(tiers(&none), [Tier::Tracepoint]);
        assert!(none.refused[0].1.contains("alloc_fd"), "{none:?}");
    }

    #[test]
    fn operations_of_io_uring_are_hooked_one_by_one() {
        let uring = hook(&recent(), HookName::IoUringDescriptors);
        assert_eq!(uring.ways[0].attachments.len(), 3, "{uring:?}");
        assert_eq!(uring.ways[1].attachments.len(), 6, "{uring:?}");
        let mut features = recent();
        features.functions.remove("io_openat");
        let uring = hook(&features, HookName::IoUringDescriptors);
        assert_eq!(tiers(&uring), [Tier::Tracepoint]);
    }

    #[test]
    fn a_kernel_without_anything_gives_reasons_only() {
        let features = Features {
            tracefs: Some(Err("tracefs is not mounted".to_owned())),
            ..Features::default()
        };
        for hook in plan(&features, None) {
            // Sockets can always be asked for.
            let polled = usize::from(hook.hook == HookName::ListenQueue);
            assert_eq!(hook.ways.len(), polled);
            assert_eq!(hook.refused.len(), 3 - polled);
        }
    }
}
