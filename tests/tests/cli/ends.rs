//! How a run ends, and what is left behind.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use turnaway_tests::tracer::{self, Tracer};

use crate::{emfile, failures};

/// It ends within this long of being told to.
const STOP: Duration = Duration::from_secs(1);
/// The time that others may take from it: of that many runs, the quickest counts.
const RUNS: usize = 3;

fn start(arguments: &[&str]) -> Tracer {
    Tracer::start(&tracer::binary().unwrap(), arguments).unwrap()
}

/// Programs whose descriptors a process has.
fn programs_of(pid: u32) -> BTreeSet<u64> {
    std::fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
        .filter_map(|info| {
            let id = info
                .lines()
                .find_map(|line| line.strip_prefix("prog_id:"))?;
            id.trim().parse().ok()
        })
        .collect()
}

/// Programs that the kernel has, by bpftool.
fn loaded() -> BTreeSet<u64> {
    let output = Command::new("bpftool")
        .args(["-j", "prog", "show"])
        .output()
        .expect("no bpftool: run `cargo xtask setup --tests`");
    let programs: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    programs
        .iter()
        .map(|program| program["id"].as_u64().unwrap())
        .collect()
}

/// It ends well and soon after that signal, and its programs are gone.
fn ends_by(signal: i32) {
    let mut quickest = Duration::MAX;
    for _ in 0..RUNS {
        let tracer = start(&["--json"]);
        let programs = programs_of(tracer.pid());
        assert!(!programs.is_empty(), "it has no programs");
        assert!(programs.is_subset(&loaded()), "bpftool does not show them");
        let startup = tracer.startup;
        let run = tracer.signal(signal).unwrap();
        println!("ready after {startup:?}, ended after {:?}", run.shutdown);
        assert_eq!(run.status.code(), Some(0), "{}", run.stderr);
        run.records().unwrap();
        gone(&programs, Instant::now() + STOP);
        quickest = quickest.min(run.shutdown);
        if quickest < STOP {
            return;
        }
    }
    panic!("ended after {quickest:?} at best");
}

/// The kernel frees programs a moment after their last user has gone.
fn gone(programs: &BTreeSet<u64>, deadline: Instant) {
    loop {
        let left: Vec<u64> = loaded().intersection(programs).copied().collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn sigint_ends_it_at_once_and_no_program_is_left() {
    ends_by(libc::SIGINT);
}

#[test]
fn sigterm_ends_it_at_once_and_no_program_is_left() {
    ends_by(libc::SIGTERM);
}

#[test]
fn after_that_time_it_ends() {
    let mut actor = emfile();
    let pid = actor.pid().to_string();
    let started = Instant::now();
    let tracer = start(&[
        "--json",
        "-p",
        &pid,
        "--reason",
        "accept",
        "--duration",
        "1s",
    ]);
    let ready = Instant::now();
    let failed = failures(&actor.act().unwrap());
    let run = tracer.wait().unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "too early");
    let took = ready.elapsed();
    assert!(took < Duration::from_secs(1) + STOP, "{took:?}");
    let totals = run.records().unwrap().summary.totals;
    let counted: Vec<_> = totals.iter().map(|total| total.count).collect();
    assert_eq!(counted, [Some(failed)]);
    actor.finish().unwrap();
}

#[test]
fn quiet_is_the_summary_only_in_text_too() {
    let mut actor = emfile();
    let pid = actor.pid().to_string();
    let tracer = start(&["-p", &pid, "--reason", "accept", "--quiet"]);
    let failed = failures(&actor.act().unwrap());
    let run = tracer.stop().unwrap();
    actor.finish().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", run.stderr);
    let text = String::from_utf8(run.output).unwrap();
    let first = text.lines().find(|line| !line.is_empty());
    let wanted = format!("{failed} failures in ");
    assert!(
        first.is_some_and(|line| line.starts_with(&wanted)),
        "{text}"
    );
    let of_it: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("EMFILE"))
        .collect();
    assert_eq!(of_it.len(), 1, "{text}");
    let count = of_it[0].split_whitespace().next();
    assert_eq!(count, Some(failed.to_string().as_str()), "{text}");
}
