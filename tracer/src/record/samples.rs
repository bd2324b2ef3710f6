//! Failures to try records and sinks on: one of which everything is known, one of which
//! nothing is, one that is hostile.

use std::net::SocketAddr;

use jiff::Timestamp;
use turnaway_common::Reason;

use super::{Clock, Hook, HookState};
use crate::{
    attribute::{Container, Identity, Parent, Pod, Runtime},
    event::{Address, Failure, Key, Listener, NofileLimit, Op, Process, ProcessId, Queue, Tier},
};

/// Monotonic time of every sample, nanoseconds.
pub(crate) const AT_NS: u64 = 90_061_000_000_001;

/// 2026-11-24 03:12:04.123456789 UTC at [`AT_NS`]; no suspend since boot.
pub(crate) fn clock() -> Clock {
    let wall = Timestamp::new(1_795_489_924, 123_456_789).expect("in range");
    Clock::fixed(wall, AT_NS, AT_NS)
}

/// A failure of which everything is known. Every field is written out, so that a new one
/// must be given a value here.
pub(crate) fn rich() -> (Failure, Identity) {
    let failure = Failure {
        key: Key {
            process: ProcessId {
                pid: 812,
                start_boottime_ns: 5_000_000_000,
            },
            socket_inode: Some(31_337),
            reason: Reason::AcceptEmfile,
            errno: 24,
            op: Op::Syscall,
            tier: Tier::Trampoline,
        },
        monotonic_ns: AT_NS,
        process: Process {
            tid: 815,
            uid: 106,
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
        },
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
pub(crate) fn minimal() -> (Failure, Identity) {
    let failure = Failure {
        key: Key {
            process: ProcessId {
                pid: 1,
                start_boottime_ns: 0,
            },
            socket_inode: None,
            reason: Reason::AcceptOther,
            errno: 4_000,
            op: Op::Syscall,
            tier: Tier::Tracepoint,
        },
        monotonic_ns: AT_NS,
        process: Process {
            tid: 1,
            uid: 0,
            comm: Vec::new(),
            thread_comm: Vec::new(),
            cgroup_id: None,
            nofile: None,
            ns_pid: None,
            parent_pid: None,
            syscall: None,
            kernel_worker: false,
        },
        listener: Listener {
            fd: None,
            family: None,
            socket_type: None,
            protocol: None,
            address: None,
            netns: None,
            queue: None,
        },
    };
    (failure, Identity::default())
}

/// A failure whose every name tries to do harm: an io_uring accept on AF_UNIX.
pub(crate) fn hostile() -> (Failure, Identity) {
    let (mut failure, mut identity) = rich();
    let evil = b"\x1b]0;x\x07\n\xff\xe2\x80\xae\"\\,\0";
    failure.key.op = Op::IoUring;
    failure.process.comm = evil.to_vec();
    failure.process.thread_comm = b"\xfe".to_vec();
    failure.process.kernel_worker = true;
    failure.process.nofile = Some(NofileLimit {
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
    (failure, identity)
}

/// A hook in place and one that could not be.
pub(crate) fn hooks() -> Vec<Hook> {
    vec![
        Hook {
            name: "accept".to_owned(),
            tier: Some(Tier::Trampoline),
            target: Some("fexit/__sys_accept4".to_owned()),
            status: HookState::Attached,
            detail: None,
        },
        Hook {
            name: "io_uring_accept".to_owned(),
            tier: None,
            target: None,
            status: HookState::Unavailable,
            detail: Some("io_accept is not in this kernel's BTF".to_owned()),
        },
    ]
}
