//! What befalls the host, and turnaway, while it runs (docs/faults.md): what comes of it is exact, or said not to be.

#[path = "faults/memory.rs"]
mod memory;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use turnaway_tests::records::Records;
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::sys;
use turnaway_tests::tracer::{self, Tracer};

fn turnaway() -> PathBuf {
    tracer::binary().unwrap()
}

fn acceptor() -> Acceptor {
    Acceptor::run(&tracer::scenarios().unwrap()).unwrap()
}

/// Options that trace the failed accepts of one process.
fn about(acceptor: &Acceptor) -> Vec<String> {
    ["-o", "json", "--reason", "accept", "-p"]
        .map(str::to_owned)
        .into_iter()
        .chain([acceptor.pid.to_string()])
        .collect()
}

fn trace(acceptor: &Acceptor) -> Tracer {
    Tracer::start(&turnaway(), &about(acceptor)).unwrap()
}

/// The same, by a command that runs turnaway in some way.
fn trace_by(command: &[&str], acceptor: &Acceptor) -> Result<Tracer> {
    let (program, arguments) = command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).arg(turnaway()).arg("trace");
    Tracer::spawn(command.args(about(acceptor)))
}

fn counted(records: &Records) -> u64 {
    records
        .summary
        .totals
        .iter()
        .filter_map(|total| total.count)
        .sum()
}

/// It saw exactly what the acceptor says that it did, and lost nothing.
fn assert_exact(tracer: Tracer, failures: u64) {
    let records = tracer.stop().unwrap().records().unwrap();
    let lost = records.summary.lost;
    assert_eq!(counted(&records), failures, "{lost:?}");
    assert_eq!((lost.map, lost.missed.unwrap_or(0)), (0, 0), "{lost:?}");
}

#[test]
fn stopped_for_a_while_it_misses_no_count() {
    let mut acceptor = acceptor();
    let tracer = trace(&acceptor);
    sys::kill(tracer.pid(), libc::SIGSTOP).unwrap();
    acceptor.spin(Duration::from_secs(3)).unwrap();
    sys::kill(tracer.pid(), libc::SIGCONT).unwrap();
    let failures = acceptor.fail(10).unwrap();
    assert!(failures > 1000, "{failures} is no storm");
    assert_exact(tracer, failures);
}

#[test]
fn on_one_processor_with_a_storm_it_misses_no_count() {
    let scenarios = tracer::scenarios().unwrap();
    let mut pinned = Command::new("taskset");
    let mut acceptor =
        Acceptor::start(pinned.args(["-c", "0"]).arg(scenarios).arg("driven")).unwrap();
    let tracer = trace_by(&["taskset", "-c", "0"], &acceptor).unwrap();
    let failures = acceptor.spin(Duration::from_secs(2)).unwrap();
    assert!(failures > 1000, "{failures} is no storm");
    assert_exact(tracer, failures);
}

#[test]
fn two_of_them_see_the_same() {
    let mut acceptor = acceptor();
    let (one, other) = (trace(&acceptor), trace(&acceptor));
    let failures = acceptor.fail(500).unwrap();
    assert_exact(one, failures);
    // What the first leaves behind takes nothing from the other.
    let failures = acceptor.fail(500).unwrap();
    assert_exact(other, failures);
}

#[test]
fn namespaces_that_come_and_go_change_no_count() {
    let mut acceptor = acceptor();
    // Everything, so that listeners of all namespaces are asked for.
    let pid = acceptor.pid.to_string();
    let tracer = Tracer::start(&turnaway(), &["-o", "json", "-p", &pid]).unwrap();
    let mut failures = 0;
    for _ in 0..60 {
        let mut gone = Command::new("unshare")
            .args(["-n", "true"])
            .spawn()
            .unwrap();
        failures = acceptor.fail(5).unwrap();
        assert!(gone.wait().unwrap().success());
    }
    let records = tracer.stop().unwrap().records().unwrap();
    let totals = &records.summary.totals;
    let accepts: u64 = totals
        .iter()
        .filter(|total| total.reason == "accept.emfile")
        .filter_map(|total| total.count)
        .sum();
    assert_eq!(accepts, failures, "{totals:?}");
}

#[test]
fn on_a_root_that_is_read_only_it_works() {
    let mut acceptor = acceptor();
    let script = "mount --make-rprivate / && mount -o remount,bind,ro / && ! touch /turnaway-test 2>/dev/null && exec \"$@\"";
    let tracer = trace_by(&["unshare", "-m", "sh", "-c", script, "sh"], &acceptor).unwrap();
    let failures = acceptor.fail(7).unwrap();
    assert_exact(tracer, failures);
}

/// Hooks that are in place need tracefs no more.
#[test]
fn tracefs_may_go_while_it_runs() {
    let mut acceptor = acceptor();
    let script = "mount --make-rprivate / && exec \"$@\"";
    let tracer = trace_by(&["unshare", "-m", "sh", "-c", script, "sh"], &acceptor).unwrap();
    let gone = Command::new("nsenter")
        .args(["-m", "-t", &tracer.pid().to_string(), "sh", "-c"])
        .arg("for at in $(awk '$3 == \"tracefs\" { print $2 }' /proc/self/mounts); do umount -l $at; done; ! grep -q tracefs /proc/self/mounts")
        .status()
        .unwrap();
    assert!(gone.success(), "{gone}");
    let failures = acceptor.fail(7).unwrap();
    assert_exact(tracer, failures);
}

/// With too few descriptors it says so; with enough for hooks it counts right, however few.
#[test]
fn with_few_descriptors_of_its_own_it_counts_right_or_says_why_not() {
    let (mut refused, mut traced) = (0, 0);
    for limit in (4..=84_u32).step_by(8) {
        let mut acceptor = acceptor();
        match trace_by(
            &["prlimit", &format!("--nofile={limit}:{limit}")],
            &acceptor,
        ) {
            Ok(tracer) => {
                traced += 1;
                let failures = acceptor.fail(9).unwrap();
                let run = tracer.stop().unwrap();
                assert!(!run.stderr.contains("panicked"), "{limit}: {}", run.stderr);
                let records = run.records().unwrap();
                assert_true_or_said(&records, failures)
                    .with_context(|| format!("{limit} descriptors: {}", run.stderr))
                    .unwrap();
            }
            Err(error) => {
                refused += 1;
                let said = format!("{error:#}");
                assert!(
                    said.contains("Too many open files") || said.contains("EMFILE"),
                    "{limit}: {said}"
                );
                assert!(!said.contains("panicked"), "{limit}: {said}");
            }
        }
    }
    assert!(
        refused > 0 && traced > 0,
        "{refused} refused, {traced} traced"
    );
}

/// Either the hook for accept is in place and the count is right, or it is said not to be.
fn assert_true_or_said(records: &Records, failures: u64) -> Result<()> {
    let hook = records
        .summary
        .hooks
        .iter()
        .find(|hook| hook.name == "accept")
        .context("no word of the hook for accept")?;
    let lost = records.summary.lost;
    if hook.status == "attached" && lost.map == 0 {
        ensure!(
            counted(records) == failures,
            "{} of {failures}, {hook:?}, {lost:?}",
            counted(records)
        );
    } else {
        ensure!(hook.detail.is_some() || lost.map > 0, "{hook:?}, {lost:?}");
    }
    Ok(())
}

/// The kernel refuses one call of bpf(2), each time another: loading and attaching go on with what there is, or end
/// with a message.
#[test]
fn a_call_that_the_kernel_refuses_is_said_and_costs_no_more_than_it_must() {
    let all = bpf_calls();
    assert!(all > 50, "strace saw {all} calls of bpf");
    let (mut refused, mut partly) = (0, 0);
    // All places there are, at most 18 of them.
    for place in (1..=all).step_by(all.div_ceil(18)) {
        let mut acceptor = acceptor();
        let inject = format!("inject=bpf:error=ENOMEM:when={place}");
        let strace = [
            "strace",
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=bpf",
            "-e",
            &inject,
        ];
        match trace_by(&strace, &acceptor) {
            Ok(tracer) => {
                let failures = acceptor.fail(9).unwrap();
                let run = tracer.stop().unwrap();
                assert!(
                    !run.stderr.contains("panicked"),
                    "call {place}: {}",
                    run.stderr
                );
                if run.status.success() {
                    let records = run.records().unwrap();
                    partly += u32::from(
                        records
                            .summary
                            .hooks
                            .iter()
                            .any(|hook| hook.status != "attached" && hook.detail.is_some()),
                    );
                    assert_true_or_said(&records, failures)
                        .with_context(|| format!("call {place}: {}", run.stderr))
                        .unwrap();
                } else {
                    assert!(run.stderr.contains("error"), "call {place}: {}", run.stderr);
                }
            }
            Err(error) => {
                refused += 1;
                let said = format!("{error:#}");
                assert!(!said.contains("panicked"), "call {place}: {said}");
                assert!(
                    said.contains("Cannot allocate memory"),
                    "call {place}: {said}"
                );
            }
        }
    }
    println!("{all} calls: {refused} ended it, {partly} left a hook out");
    assert!(
        refused > 0 && partly > 0,
        "{refused} ended it, {partly} left a hook out"
    );
}

/// How often turnaway calls bpf(2) until it is ready.
fn bpf_calls() -> usize {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls");
    let acceptor = acceptor();
    let log_name = log.to_str().unwrap();
    let strace = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        log_name,
        "-e",
        "trace=bpf",
    ];
    let tracer = trace_by(&strace, &acceptor).unwrap();
    let calls = std::fs::read_to_string(&log)
        .unwrap()
        .lines()
        .filter(|line| line.contains("bpf("))
        .count();
    tracer.stop().unwrap();
    calls
}

/// More kinds of failures between two readings than there is room for, and more of the first ones than the ring holds:
/// what is left out is counted.
#[test]
fn what_finds_no_room_is_counted() {
    const TARGETS: u64 = 20_000;
    let own = sys::own_pid().to_string();
    let tracer = Tracer::start(
        &turnaway(),
        &["-o", "json", "--reason", "connect", "-p", &own],
    )
    .unwrap();
    sys::kill(tracer.pid(), libc::SIGSTOP).unwrap();
    let mut refused = 0;
    for number in 0..TARGETS {
        let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
        // Nobody listens there: each is a target of its own.
        let target = SocketAddr::from((Ipv4Addr::new(127, 7, high, low), 1));
        refused += u64::from(TcpStream::connect(target).is_err());
    }
    sys::kill(tracer.pid(), libc::SIGCONT).unwrap();
    let records = tracer.stop().unwrap().records().unwrap();
    assert_eq!(refused, TARGETS);
    let lost = records.summary.lost;
    let counts: u64 = records.counts.iter().filter_map(|count| count.count).sum();
    println!("{counts} counted, {lost:?}, {} shown", records.events.len());
    assert_eq!(counts + lost.map, TARGETS, "{lost:?}");
    assert_eq!(counted(&records) + records.summary.other, counts);
    assert!(lost.map > 0 && lost.ring > 0, "{lost:?}");
    // Each kind that was counted had a first one to be shown.
    assert_eq!(
        records.events.len() as u64 + lost.ring + lost.output,
        counts,
        "{lost:?}"
    );
}

/// No hook stays behind.
#[test]
fn killed_it_leaves_no_hook_behind() {
    let acceptor = acceptor();
    let before = programs();
    let tracer = trace(&acceptor);
    let during = programs();
    let own: BTreeSet<u64> = during.difference(&before).copied().collect();
    assert!(!own.is_empty());
    sys::kill(tracer.pid(), libc::SIGKILL).unwrap();
    drop(tracer);
    turnaway_tests::wait::until_true("its programs to be gone", || {
        Ok(programs().is_disjoint(&own))
    })
    .unwrap();
}

/// Ids of the BPF programs in the kernel, as bpftool has them.
fn programs() -> BTreeSet<u64> {
    let Output { stdout, status, .. } = Command::new("bpftool")
        .args(["-j", "prog", "show"])
        .stderr(Stdio::null())
        .output()
        .expect("no bpftool: run `cargo xtask setup --tests`");
    assert!(status.success());
    let all: Vec<serde_json::Value> = serde_json::from_slice(&stdout).unwrap();
    all.iter()
        .filter_map(|program| program["id"].as_u64())
        .collect()
}
