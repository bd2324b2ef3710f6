//! The kernel's limit of a cgroup's memory. Its count of those that it killed is the truth.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use turnaway_tests::cgroup::{Cgroup, memory};
use turnaway_tests::daemon::{Daemon, configure, failures};
use turnaway_tests::servers::foreground::folder;
use turnaway_tests::tracer::Tracer;
use turnaway_tests::wait;

use super::{about, acceptor, counted, programs, turnaway};

/// When an incident is over.
const RESOLVE: Duration = Duration::from_secs(8);

/// The limit comes down onto what the daemon uses, until the kernel kills it while an incident is open.
#[test]
fn killed_by_the_limit_of_its_memory_it_goes_on_at_the_next_start() {
    const BEFORE: u64 = 37;
    const AFTER: u64 = 5;
    const TARGETS: u32 = 5_000;
    let dir = folder().unwrap();
    let config = configure(dir.path(), "", RESOLVE).unwrap();
    let state = dir.path().join("state");
    let cgroup = Cgroup::make(&memory().unwrap(), "limited").unwrap();
    let before = programs();
    let mut command = cgroup.command(&turnaway());
    let mut daemon = Daemon::start_by(&mut command, &config, &state, &[]).unwrap();
    let own = &programs() - &before;
    assert!(!own.is_empty());

    let mut server = acceptor();
    // Whoever waits keeps the incident open, however long it takes.
    let clients = [server.client().unwrap(), server.client().unwrap()];
    assert_eq!(server.fail(BEFORE).unwrap(), BEFORE);
    let fired = daemon.fires(server.port).unwrap();
    let id = fired["id"].as_str().unwrap();
    wait::until_true("its failures to be kept", || {
        let kept = fs::read_to_string(state.join("incidents.json")).unwrap_or_default();
        Ok(kept_failures(&kept, id) == Some(BEFORE))
    })
    .unwrap();

    assert_eq!(cgroup.killed().unwrap(), 0);
    let mut number = 0;
    wait::within(Duration::from_mins(2), "the kernel to kill it", || {
        cgroup.limit_memory(None)?;
        for _ in 0..TARGETS {
            // Nobody listens there, and each is a failure of its own kind: there is ever more to be known.
            number += 1;
            let [_, middle, high, low] = u32::to_be_bytes(number);
            let target = SocketAddr::from((Ipv4Addr::new(127, 128 | middle, high, low), 1));
            ensure!(TcpStream::connect(target).is_err(), "{target} listens");
        }
        Ok((cgroup.killed()? > 0).then_some(()))
    })
    .unwrap();
    let status = daemon.child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
    wait::until_true("its programs to be gone", || {
        Ok(programs().is_disjoint(&own))
    })
    .unwrap();
    cgroup.remove().unwrap();

    let mut daemon = Daemon::start(&turnaway(), &config, &state).unwrap();
    assert_eq!(server.fail(AFTER).unwrap(), BEFORE + AFTER);
    daemon
        .until_counted("accept.emfile", server.port, AFTER)
        .unwrap();
    assert_eq!(server.recover().unwrap(), 2);
    let over = daemon.over(server.port).unwrap();
    assert_eq!(over["id"], fired["id"]);
    assert_eq!(over["started"], fired["started"]);
    assert_eq!(failures(&over, "accept.emfile"), Some(BEFORE + AFTER));
    // It was told before that it fires: its end is all there is to tell.
    let told = daemon.stop().unwrap().told(server.port);
    let all: Vec<_> = told
        .iter()
        .map(|one| (&one["id"], &one["status"]))
        .collect();
    assert_eq!(all, [(&fired["id"], &"resolved".into())]);
    drop(clients);
}

/// What the state has of an incident's failed accepts.
fn kept_failures(state: &str, id: &str) -> Option<u64> {
    let state: Value = serde_json::from_str(state).ok()?;
    find(&state, id)?["reasons"]["accept.emfile"]["count"].as_u64()
}

/// The object in there that has this id.
fn find<'a>(value: &'a Value, id: &str) -> Option<&'a Value> {
    if value["id"] == id && value["reasons"].is_object() {
        return Some(value);
    }
    match value {
        Value::Array(items) => items.iter().find_map(|item| find(item, id)),
        Value::Object(items) => items.values().find_map(|item| find(item, id)),
        _ => None,
    }
}

/// Maps and hooks count as memory of the cgroup: with too little it says so in one line, or is killed before it can;
/// with enough it counts right, however little that is.
#[test]
fn with_little_memory_it_counts_right_or_says_why_not() {
    const MIB: u64 = 1 << 20;
    let mut came = BTreeMap::<&str, u32>::new();
    for limit in (8..=104_u64).step_by(8) {
        let cgroup = Cgroup::make(&memory().unwrap(), &format!("little-{limit}")).unwrap();
        assert!(cgroup.limit_memory(Some(limit * MIB)).unwrap());
        let mut server = acceptor();
        let mut command = cgroup.command(&turnaway());
        let what = match Tracer::spawn(command.arg("trace").args(about(&server))) {
            Ok(tracer) => {
                let failed = server.fail(9).unwrap();
                let run = tracer.stop().unwrap();
                if cgroup.killed().unwrap() > 0 {
                    assert_eq!(run.status.signal(), Some(libc::SIGKILL), "{limit} MiB");
                    "killed"
                } else {
                    let counted = counted(&run.records().unwrap());
                    assert_eq!(counted, failed, "{limit} MiB");
                    "traced"
                }
            }
            Err(error) if cgroup.killed().unwrap() > 0 => {
                let said = format!("{error:#}");
                assert!(said.contains("signal: 9"), "{limit} MiB: {said}");
                "killed"
            }
            Err(error) => {
                let said = format!("{error:#}");
                assert!(said.contains("exit status: 1"), "{limit} MiB: {said}");
                let ours = said.lines().filter(|line| line.starts_with("turnaway: "));
                let lines: Vec<&str> = ours.collect();
                let [line] = lines[..] else {
                    panic!("{limit} MiB: not one message: {said}");
                };
                for words in ["Cannot allocate memory", "limit"] {
                    assert!(line.contains(words), "{limit} MiB: {line}");
                }
                assert!(!said.contains("panicked"), "{limit} MiB: {said}");
                "refused"
            }
        };
        *came.entry(what).or_default() += 1;
        cgroup
            .remove()
            .with_context(|| format!("{limit} MiB"))
            .unwrap();
    }
    println!("{came:?}");
    let some = |what: &str| came.get(what).is_some_and(|count| *count > 0);
    assert!(some("refused") && some("traced"), "{came:?}");
}
