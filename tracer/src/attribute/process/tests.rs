//! Identities from a tree of files that looks like a host's.

use std::{fs, os::unix::fs::symlink, path::Path, rc::Rc, time::Duration};

use super::{Attributor, Ticks};
use crate::{
    attribute::{Adopted, Container, Identity, Parent, Pod, Runtime},
    event::{Process, ProcessId},
};

const TICK_NS: u64 = 10_000_000;
const CONTAINER: &str = "4f5cbdb2ca0e9a3e4f2d4a1c0b9e8d7c6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c";

/// A host with nothing in it.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("created");
        fs::write(path, content).expect("written");
    }

    fn run(&self, pid: u32, comm: &str, parent: u32, start_ticks: u64) {
        self.write(
            &format!("proc/{pid}/stat"),
            format!(
                "{pid} ({comm}) S {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start_ticks} 0 0"
            ),
        );
        self.write(&format!("proc/{pid}/comm"), format!("{comm}\n"));
        self.write(&format!("proc/{pid}/status"), format!("NSpid:\t{pid}\n"));
        self.write(
            &format!("proc/{pid}/cgroup"),
            format!("0::/system.slice/{comm}.service\n"),
        );
        let exe = self.root().join(format!("proc/{pid}/exe"));
        let _ = fs::remove_file(&exe);
        symlink(format!("/usr/sbin/{comm}"), exe).expect("linked");
    }

    fn kill(&self, pid: u32) {
        fs::remove_dir_all(self.root().join(format!("proc/{pid}"))).expect("removed");
    }

    fn attributor(&self) -> Attributor {
        Attributor::new(self.root())
    }
}

fn facts(comm: &str) -> Process {
    Process {
        tid: Some(813),
        uid: Some(0),
        comm: comm.into(),
        thread_comm: comm.into(),
        cgroup_id: None,
        nofile: None,
        ns_pid: None,
        parent_pid: None,
        syscall: Some("accept4"),
        kernel_worker: false,
    }
}

fn id(pid: u32, start_boottime_ns: u64) -> ProcessId {
    ProcessId {
        pid,
        start_boottime_ns,
    }
}

#[test]
fn a_living_process() {
    let host = Host::new();
    host.run(1, "systemd", 0, 1);
    host.run(812, "pgbouncer", 1, 500);
    let identity = host
        .attributor()
        // Not a whole number of ticks: procfs rounds down.
        .process(id(812, 501 * TICK_NS - 1), &facts("pgbouncer"));
    assert_eq!(
        *identity,
        Identity {
            exe: Some(b"/usr/sbin/pgbouncer".to_vec()),
            parent: Some(Parent {
                pid: 1,
                comm: Some(b"systemd".to_vec()),
            }),
            ns_pid: None,
            cgroup: Some(b"/system.slice/pgbouncer.service".to_vec()),
            unit: Some("pgbouncer.service".to_owned()),
            user_unit: false,
            container: None,
            exited: false,
        }
    );
}

#[test]
fn a_reused_pid_is_another_process() {
    let host = Host::new();
    host.run(812, "cron", 1, 501);
    let mut attributor = host.attributor();
    for start in [0..500 * TICK_NS + TICK_NS, 502 * TICK_NS..503 * TICK_NS] {
        for start in [start.start.max(1), start.end - 1] {
            let identity = attributor.process(id(812, start), &facts("nginx"));
            assert!(identity.exited, "{start}");
            assert_eq!((&identity.exe, &identity.unit), (&None, &None), "{start}");
            assert_eq!(attributor.open_descriptors(id(812, start)), None);
        }
    }
    for start in [501 * TICK_NS, 502 * TICK_NS - 1] {
        assert!(!attributor.process(id(812, start), &facts("cron")).exited);
    }
}

#[test]
fn without_a_start_the_name_must_fit_and_nothing_is_kept() {
    let host = Host::new();
    host.run(812, "nginx", 1, 500);
    let mut attributor = host.attributor();
    assert!(!attributor.process(id(812, 0), &facts("nginx")).exited);
    assert!(attributor.process(id(812, 0), &facts("haproxy")).exited);
    host.run(812, "cron", 1, 900);
    let identity = attributor.process(id(812, 0), &facts("nginx"));
    assert_eq!((identity.exited, &identity.exe), (true, &None));
}

#[test]
fn an_exited_process_keeps_what_was_read_while_it_lived() {
    let host = Host::new();
    host.run(812, "nginx", 1, 500);
    let mut attributor = host.attributor();
    attributor.believed = Duration::ZERO;
    let nginx = id(812, 500 * TICK_NS);
    let living = attributor.process(nginx, &facts("nginx"));
    host.kill(812);
    let dead = attributor.process(nginx, &facts("nginx"));
    assert_eq!(
        *dead,
        Identity {
            exited: true,
            ..(*living).clone()
        }
    );
    // And a later process of the same pid is its own.
    host.run(812, "cron", 1, 900);
    let cron = attributor.process(id(812, 900 * TICK_NS), &facts("cron"));
    assert_eq!(cron.unit.as_deref(), Some("cron.service"));
    let still = attributor.process(nginx, &facts("nginx"));
    assert_eq!(still.unit.as_deref(), Some("nginx.service"));
}

#[test]
fn a_zombie_is_gone() {
    let host = Host::new();
    host.run(812, "nginx", 1, 500);
    host.write(
        "proc/812/stat",
        "812 (nginx) Z 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0",
    );
    // What a v1 hierarchy shows of one.
    host.write("proc/812/cgroup", "2:pids:/\n1:name=systemd:/\n");
    let identity = host
        .attributor()
        .process(id(812, 500 * TICK_NS), &facts("nginx"));
    assert_eq!((identity.exited, &identity.cgroup), (true, &None));
}

#[test]
fn what_is_known_is_not_read_again_until_it_changes() {
    let host = Host::new();
    host.run(812, "sh", 1, 500);
    let mut attributor = host.attributor();
    let process = id(812, 500 * TICK_NS);
    let first = attributor.process(process, &facts("sh"));
    // It executes another program.
    host.run(812, "nginx", 1, 500);
    assert!(Rc::ptr_eq(
        &first,
        &attributor.process(process, &facts("sh"))
    ));
    let second = attributor.process(process, &facts("nginx"));
    assert_eq!(second.exe.as_deref(), Some(&b"/usr/sbin/nginx"[..]));
}

#[test]
fn a_parent_that_started_later_is_another_process() {
    let host = Host::new();
    host.run(812, "nginx", 700, 500);
    host.run(700, "cron", 1, 501);
    let process = id(812, 500 * TICK_NS);
    let nameless = Some(Parent {
        pid: 700,
        comm: None,
    });
    assert_eq!(
        host.attributor().process(process, &facts("nginx")).parent,
        nameless
    );
    // The same for a process that is gone, whose facts name the parent.
    host.kill(812);
    let dead = Process {
        parent_pid: Some(700),
        ..facts("nginx")
    };
    assert_eq!(host.attributor().process(process, &dead).parent, nameless);
    host.run(700, "master", 1, 499);
    assert_eq!(
        host.attributor().process(process, &dead).parent,
        Some(Parent {
            pid: 700,
            comm: Some(b"master".to_vec()),
        })
    );
}

#[test]
fn a_process_in_a_pod() {
    let host = Host::new();
    host.run(812, "app", 1, 500);
    let uid = "1b6b27d1-3b7e-4a86-8c8e-2f6f0d0a7c11";
    host.write(
        "proc/812/cgroup",
        format!("0::/kubepods/burstable/pod{uid}/{CONTAINER}\n"),
    );
    host.write("proc/812/status", "Name:\tapp\nNSpid:\t812\t1\n");
    host.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{CONTAINER}/config.json"),
        r#"{"annotations":{"io.kubernetes.cri.container-name":"app",
            "io.kubernetes.cri.sandbox-name":"web-0"}}"#,
    );
    let identity = host
        .attributor()
        .process(id(812, 500 * TICK_NS), &facts("app"));
    assert_eq!(identity.ns_pid, Some(1));
    assert_eq!(identity.unit, None);
    assert_eq!(
        identity.container,
        Some(Container {
            id: CONTAINER.to_owned(),
            runtime: Some(Runtime::Containerd),
            name: Some("app".to_owned()),
            image: None,
            pod: Some(Pod {
                uid: Some(uid.to_owned()),
                name: Some("web-0".to_owned()),
                namespace: None,
            }),
        })
    );
}

#[test]
fn the_kernel_side_knows_the_pid_namespace_first() {
    let host = Host::new();
    let mut attributor = host.attributor();
    let inside = |ns_pid| Process {
        ns_pid,
        ..facts("x")
    };
    let nested = attributor.process(id(5, TICK_NS), &inside(Some(1)));
    assert_eq!(nested.ns_pid, Some(1));
    let initial = attributor.process(id(6, TICK_NS), &inside(Some(6)));
    assert_eq!(initial.ns_pid, None);
}

#[test]
fn owners_of_many_sockets_are_searched_for_once() {
    let host = Host::new();
    let hold = |pid: u32, descriptor: &str, inode: u64| {
        let descriptors = host.root().join(format!("proc/{pid}/fd"));
        fs::create_dir_all(&descriptors).expect("created");
        let link = descriptors.join(descriptor);
        symlink(format!("socket:[{inode}]"), link).expect("linked");
    };
    host.run(812, "web", 1, 500);
    hold(812, "3", 70);
    hold(812, "4", 71);
    let mut attributor = host.attributor();
    attributor.look_for([70, 71, 72]);
    // What comes after the search is not seen by it, and so tells whether there was another.
    host.run(813, "late", 1, 600);
    for (descriptor, inode) in ["3", "4", "5", "6"].into_iter().zip(70..) {
        hold(813, descriptor, inode);
    }
    assert_eq!(attributor.owners(70).pids, [812]);
    assert_eq!(attributor.owners(71).pids, [812]);
    assert_eq!(attributor.owners(72).pids, Vec::<u32>::new());
    // It was not asked for.
    assert_eq!(attributor.owners(73).pids, [813]);
    attributor.believed = Duration::ZERO;
    assert_eq!(attributor.owners(70).pids, [812, 813]);
}

#[test]
fn who_has_handed_a_listener_on_does_not_accept_there() {
    let host = Host::new();
    let hold = |pid: u32, what: &str| {
        let descriptors = host.root().join(format!("proc/{pid}/fd"));
        fs::create_dir_all(&descriptors).expect("created");
        symlink(what, descriptors.join("3")).expect("linked");
    };
    host.run(812, "old", 1, 500);
    hold(812, "socket:[1]");
    host.run(813, "new", 1, 600);
    hold(813, "socket:[4242]");
    host.run(814, "other", 1, 600);
    hold(814, "socket:[4243]");
    let of = |inode, pid, start_ticks| {
        let accepted = id(pid, start_ticks * TICK_NS);
        let who = host.attributor().of_listener(inode, Some(accepted));
        who.party.map(|party| party.id.pid)
    };
    assert_eq!(of(4242, 812, 500), Some(813));
    assert_eq!(of(4242, 813, 600), Some(813));
    // A descriptor of io_uring's or a thread's own is in no list.
    assert_eq!(of(4244, 812, 500), Some(812));
}

#[test]
fn a_worker_is_adopted_where_one_process_holds_the_listener() {
    let host = Host::new();
    let hold = |pid: u32| {
        let descriptors = host.root().join(format!("proc/{pid}/fd"));
        fs::create_dir_all(&descriptors).expect("created");
        symlink("socket:[4242]", descriptors.join("3")).expect("linked");
    };
    host.run(812, "server", 1, 500);
    hold(812);
    // A worker that has borrowed the table, as seen while it works.
    hold(77);
    let worker = Process {
        tid: Some(77),
        comm: b"io_wqe_worker-0".to_vec(),
        thread_comm: b"io_wqe_worker-0".to_vec(),
        cgroup_id: Some(1),
        kernel_worker: true,
        ..facts("")
    };
    let mut attributor = host.attributor();
    let adopted = attributor.adopt(4242, &worker).expect("found");
    assert_eq!(
        adopted,
        Adopted {
            id: id(812, 500 * TICK_NS),
            facts: Process {
                comm: b"server".to_vec(),
                parent_pid: Some(1),
                cgroup_id: None,
                kernel_worker: false,
                ..worker.clone()
            },
        }
    );
    assert!(!attributor.process(adopted.id, &adopted.facts).exited);
    assert_eq!(
        attributor.adopt(4242, &adopted.facts),
        None,
        "once is enough"
    );
    assert_eq!(attributor.adopt(1, &worker), None, "nobody holds it");

    // A process already known by its exact start stays one process.
    let mut attributor = host.attributor();
    let exact = id(812, 500 * TICK_NS + 7);
    attributor.process(exact, &facts("server"));
    let adopted = attributor.adopt(4242, &worker).expect("found");
    assert_eq!(adopted.id, exact);

    // With two holders nobody can tell which of them asked.
    hold(813);
    assert_eq!(host.attributor().adopt(4242, &worker), None);
}

#[test]
fn a_shifted_clock_is_taken_into_account() {
    let host = Host::new();
    host.write("proc/self/timens_offsets", "boottime 100 0\n");
    host.run(812, "nginx", 1, 10_500);
    let identity = host
        .attributor()
        .process(id(812, 500 * TICK_NS), &facts("nginx"));
    assert!(!identity.exited);
}

#[test]
fn ticks_round_down_and_back() {
    for ahead_ns in [0, 5, -123_456_789] {
        let ticks = Ticks {
            length_ns: TICK_NS,
            ahead_ns,
        };
        for shown in [1_000, 123_456] {
            assert_eq!(ticks.of(ticks.earliest(shown)), shown);
            assert_eq!(ticks.of(ticks.earliest(shown) - 1), shown - 1);
        }
    }
}

#[test]
fn this_very_process() {
    let pid = std::process::id();
    let stat = fs::read_to_string("/proc/self/stat").expect("readable");
    let ticks: u64 = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|word| word.parse().ok())
        .expect("a number");
    let comm = fs::read_to_string("/proc/self/comm").expect("readable");
    let mut attributor = Attributor::new(Path::new("/"));
    let process = id(pid, attributor.ticks.earliest(ticks));
    let identity = attributor.process(process, &facts(comm.trim_end()));
    assert!(!identity.exited);
    assert!(identity.exe.is_some() && identity.cgroup.is_some());
    assert!(identity.parent.as_ref().is_some_and(|it| it.comm.is_some()));
    assert!(attributor.open_descriptors(process) > Some(2));
    assert!(attributor.nofile_limits(process).is_some());
    let another = id(pid, process.start_boottime_ns + TICK_NS);
    assert!(attributor.process(another, &facts(comm.trim_end())).exited);
}
