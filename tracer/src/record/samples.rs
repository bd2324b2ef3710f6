//! Failures to try records and sinks on: one of which everything is known, one of which
//! nothing is, one that is hostile.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use jiff::Timestamp;
use turnaway_common::Reason;

use super::{Clock, Hook, HookState, Listening, Waits};
use crate::{
    attribute::{
        Container, Far, FarListener, Holder, Holders, Identity, Parent, Pod, Runtime, Who,
    },
    event::{
        Address, Descriptors, Failure, Key, Listener, NofileLimit, Op, Process, ProcessId, Queue,
        Target, Tier,
    },
};

/// Monotonic time of every sample, nanoseconds.
pub(crate) const AT_NS: u64 = 90_061_000_000_001;

/// 2026-11-24 03:12:04.123456789 UTC at [`AT_NS`]; no suspend since boot.
pub(crate) fn clock() -> Clock {
    let wall = Timestamp::new(1_795_489_924, 123_456_789).expect("in range");
    Clock::fixed(wall, AT_NS, AT_NS)
}

/// The process of [`rich`].
pub(crate) const PROCESS: ProcessId = ProcessId {
    pid: 812,
    start_boottime_ns: 5_000_000_000,
};

/// A process of this name, in this cgroup, of which nothing else is known.
pub(crate) fn who(comm: &[u8], cgroup: Option<&[u8]>) -> Who {
    let (failure, _) = minimal();
    let facts = Process {
        comm: comm.to_vec(),
        ..failure.process.expect("it has one")
    };
    let identity = Identity {
        cgroup: cgroup.map(<[u8]>::to_vec),
        ..Identity::default()
    };
    Who::process(PROCESS, facts, Rc::new(identity))
}

/// Whose a failure is, if it is its process's.
pub(crate) fn whose(failure: &Failure, identity: Identity) -> Who {
    match (failure.key.process, &failure.process) {
        (Some(id), Some(facts)) => Who::process(id, facts.clone(), Rc::new(identity)),
        _ => Who::default(),
    }
}

/// The same, changed.
pub(crate) fn changed(mut who: Who, change: impl FnOnce(&mut Process, &mut Identity)) -> Who {
    if let Some(party) = &mut who.party {
        change(&mut party.facts, Rc::make_mut(&mut party.identity));
    }
    who
}

/// A failure of which everything is known. Every field is written out, so that a new one
/// must be given a value here.
pub(crate) fn rich() -> (Failure, Who) {
    let (failure, identity) = rich_parts();
    let who = whose(&failure, identity);
    (failure, who)
}

/// The same, with its identity apart.
pub(crate) fn rich_parts() -> (Failure, Identity) {
    let failure = Failure {
        target_path: None,
        key: Key {
            call: None,
            level: None,
            target: None,
            process: Some(PROCESS),
            socket_inode: Some(31_337),
            reason: Reason::AcceptEmfile,
            errno: Some(24),
            op: Op::Syscall,
            tier: Tier::Trampoline,
        },
        monotonic_ns: AT_NS,
        process: Some(Process {
            tid: Some(815),
            uid: Some(106),
            comm: b"pgbouncer".to_vec(),
            thread_comm: b"acceptor".to_vec(),
            cgroup_id: Some(4_711),
            nofile: Some(NofileLimit {
                soft: Some(1_024),
                copied: false,
            }),
            ns_pid: Some(7),
            parent_pid: Some(1),
            syscall: Some("accept4"),
            kernel_worker: false,
        }),
        listener: Listener {
            fd: Some(9),
            family: Some(2),
            socket_type: Some(1),
            protocol: Some(6),
            address: Some(Address::Inet(SocketAddr::from(([0, 0, 0, 0], 6_432)))),
            netns: Some(4_026_531_840),
            queue: Some(Queue {
                depth: 129,
                backlog: 128,
            }),
        },
        peer: Some(SocketAddr::from(([10, 1, 2, 3], 40_000))),
        waited_ns: Some(612_000_000),
        descriptors: None,
        ended: false,
    };
    let identity = Identity {
        exe: Some(b"/usr/sbin/pgbouncer".to_vec()),
        parent: Some(Parent {
            pid: 1,
            comm: Some(b"systemd".to_vec()),
        }),
        ns_pid: Some(7),
        cgroup: Some(b"/system.slice/pgbouncer.service".to_vec()),
        unit: Some("pgbouncer.service".to_owned()),
        user_unit: false,
        container: Some(Container {
            id: "4f5cbdb2ca0e9a3e4f2d4a1c0b9e8d7c6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c".to_owned(),
            runtime: Some(Runtime::Containerd),
            name: Some("pooler".to_owned()),
            image: Some("registry.example/pgbouncer:1.23".to_owned()),
            pod: Some(Pod {
                uid: Some("1b6b27d1-3b7e-4a86-8c8e-2f6f0d0a7c11".to_owned()),
                name: Some("pooler-0".to_owned()),
                namespace: Some("shop".to_owned()),
            }),
        }),
        exited: false,
    };
    (failure, identity)
}

/// A failure of which nothing is known but the key.
pub(crate) fn minimal() -> (Failure, Who) {
    let failure = Failure {
        target_path: None,
        key: Key {
            call: None,
            level: None,
            target: None,
            process: Some(ProcessId {
                pid: 1,
                start_boottime_ns: 0,
            }),
            socket_inode: None,
            reason: Reason::AcceptOther,
            errno: Some(4_000),
            op: Op::Syscall,
            tier: Tier::Tracepoint,
        },
        monotonic_ns: AT_NS,
        process: Some(Process {
            tid: Some(1),
            uid: Some(0),
            comm: Vec::new(),
            thread_comm: Vec::new(),
            cgroup_id: None,
            nofile: None,
            ns_pid: None,
            parent_pid: None,
            syscall: None,
            kernel_worker: false,
        }),
        listener: Listener {
            fd: None,
            family: None,
            socket_type: None,
            protocol: None,
            address: None,
            netns: None,
            queue: None,
        },
        peer: None,
        waited_ns: None,
        descriptors: None,
        ended: false,
    };
    let who = whose(&failure, Identity::default());
    (failure, who)
}

/// A failure whose every name tries to do harm: an io_uring accept on AF_UNIX.
pub(crate) fn hostile() -> (Failure, Who) {
    let (mut failure, mut identity) = rich_parts();
    let evil = b"\x1b]0;x\x07\n\xff\xe2\x80\xae\"\\,\0";
    failure.key.op = Op::IoUring;
    let process = failure.process.as_mut().expect("it has one");
    process.comm = evil.to_vec();
    process.thread_comm = b"\xfe".to_vec();
    process.kernel_worker = true;
    process.nofile = Some(NofileLimit {
        soft: None,
        copied: true,
    });
    failure.listener = Listener {
        fd: Some(-1),
        family: Some(1),
        socket_type: Some(5),
        protocol: Some(0),
        address: Some(Address::Unix([b"\0", &evil[..]].concat())),
        ..failure.listener
    };
    identity.exe = Some(evil.to_vec());
    identity.cgroup = Some(evil.to_vec());
    identity.parent = Some(Parent {
        pid: 2,
        comm: Some(evil.to_vec()),
    });
    identity.unit = None;
    if let Some(container) = &mut identity.container {
        container.name = Some("\u{1b}[2J\n\u{202e}".to_owned());
        container.runtime = None;
    }
    let who = whose(&failure, identity);
    (failure, who)
}

/// A connect that failed: to another host, or to an AF_UNIX listener of this one.
pub(crate) fn of_connect(reason: Reason) -> (Failure, Who) {
    let (mut failure, mut who) = rich();
    let is_unix = reason == Reason::QueueUnixFull;
    failure.key = Key {
        socket_inode: None,
        target: Some(if is_unix {
            Target::Unix([7; 16])
        } else {
            Target::Inet(SocketAddr::from(([10, 1, 2, 3], 5_432)))
        }),
        reason,
        errno: Some(if is_unix { 11 } else { 111 }),
        ..failure.key
    };
    let listener = Listener {
        fd: None,
        family: Some(1),
        socket_type: None,
        protocol: None,
        address: Some(Address::Unix(b"/run/fpm.sock".to_vec())),
        queue: None,
        ..failure.listener.clone()
    };
    failure.listener = Listener {
        fd: None,
        family: Some(if is_unix { 1 } else { 2 }),
        protocol: Some(if is_unix { 0 } else { 6 }),
        address: None,
        queue: None,
        ..failure.listener
    };
    failure.peer = None;
    failure.waited_ns = None;
    if let Some(party) = &mut who.party {
        party.facts.syscall = Some("connect");
    }
    who.far = Some(if is_unix {
        failure.target_path = Some(b"/run/fpm.sock".to_vec());
        Far {
            path: Some(b"/run/fpm.sock".to_vec()),
            listener: Some(FarListener {
                inode: 40_112,
                listener,
            }),
            server: Some(Holder {
                pid: 871,
                comm: Some(b"php-fpm8.2".to_vec()),
            }),
        }
    } else {
        Far::default()
    });
    (failure, who)
}

/// Descriptors that a call could not have, or a table that fills up.
pub(crate) fn of_descriptors(reason: Reason) -> (Failure, Who) {
    let (mut failure, mut who) = rich();
    let exhausted = reason == Reason::FdExhausted;
    failure.key = Key {
        socket_inode: None,
        reason,
        errno: exhausted.then_some(24),
        op: if exhausted { Op::Syscall } else { Op::Network },
        tier: if exhausted {
            Tier::Trampoline
        } else {
            Tier::Poll
        },
        call: exhausted.then_some("openat"),
        level: (!exhausted).then_some(90),
        ..failure.key
    };
    failure.listener = Listener::default();
    failure.peer = None;
    failure.waited_ns = None;
    failure.descriptors = (!exhausted).then_some(Descriptors {
        used: 930,
        limit: Some(1_024),
    });
    if let Some(party) = &mut who.party {
        party.facts.syscall = failure.key.call;
    }
    if reason == Reason::FdTablePressure {
        failure.key.process = None;
        failure.process = None;
        who = Who::default();
    }
    (failure, who)
}

/// A hook in place and one that could not be.
pub(crate) fn hooks() -> Vec<Hook> {
    vec![
        Hook {
            name: "accept".to_owned(),
            tier: Some(Tier::Trampoline),
            target: Some("fexit/__sys_accept4".to_owned()),
            status: HookState::Attached,
            missed: Some(0),
            detail: None,
        },
        Hook {
            name: "io_uring_accept".to_owned(),
            tier: None,
            target: None,
            status: HookState::Unavailable,
            missed: None,
            detail: Some("io_accept is not in this kernel's BTF".to_owned()),
        },
    ]
}

/// A listener at which something went well.
pub(crate) fn listening() -> Listening {
    let (failure, who) = rich();
    Listening {
        inode: 31_337,
        listener: failure.listener,
        acceptor: Some(PROCESS),
        who,
        accepted: Some(12_000),
        shed: Some(12),
        cookies: Some(3),
        waited: Some(Waits {
            slots: vec![
                (Duration::from_millis(4), 11_000),
                (Duration::from_millis(1_024), 1_000),
            ],
            longest: Duration::from_millis(612),
        }),
    }
}

/// What befell a listener, and was nobody's call: `reason` at a listener that two processes
/// hold.
pub(crate) fn of_listener(reason: Reason) -> (Failure, Who) {
    let (mut failure, mut who) = rich();
    failure.key = Key {
        process: None,
        reason,
        errno: None,
        op: Op::Network,
        tier: Tier::Poll,
        ..failure.key
    };
    failure.process = None;
    if let Some(party) = &mut who.party {
        party.facts.tid = None;
        party.facts.syscall = None;
    }
    let holder = |pid| Holder {
        pid,
        comm: Some(b"pgbouncer".to_vec()),
    };
    who.holders = Some(Holders {
        processes: vec![holder(812), holder(813)],
        complete: false,
    });
    (failure, who)
}

/// A table of tracked connections that is full.
pub(crate) fn of_conntrack() -> (Failure, Who) {
    let (mut failure, _) = of_listener(Reason::NetConntrackFull);
    failure.key.socket_inode = None;
    failure.key.target = Some(Target::Netns(4_026_531_840));
    failure.listener = Listener {
        fd: None,
        family: None,
        socket_type: None,
        protocol: None,
        address: None,
        ..failure.listener
    };
    failure.peer = None;
    failure.waited_ns = None;
    (failure, Who::default())
}
