//! `turnaway trace` on failures that are known: filters, ends, what is printed and what it costs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use turnaway_tests::records::Records;
use turnaway_tests::scenario::run::Actor;
use turnaway_tests::tracer::{self, Run, Tracer};
use turnaway_tests::truth::{Failures, Tally};
use turnaway_tests::{measure, sys, wait};

/// From the start to the first line.
const FIRST_LINE: Duration = Duration::from_secs(1);
/// Processor time while another process spins on a failing accept.
const MOST_PERCENT_OF_A_CORE: f64 = 5.0;

/// From the end of turnaway to the end of its programs.
const GONE: Duration = Duration::from_secs(5);

/// Some tests measure the machine, so they run alone; the others run together.
static MACHINE: RwLock<()> = RwLock::new(());

fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE
        .write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn actor(workload: &str) -> Actor {
    Actor::start(
        Path::new(env!("CARGO_BIN_EXE_turnaway-scenarios")),
        workload,
    )
    .unwrap()
}

fn trace(arguments: &[&str]) -> Tracer {
    Tracer::start(&tracer::binary().unwrap(), arguments).unwrap()
}

/// Traces one workload from before its first failure until it has told all of them.
fn trace_one(workload: &str, arguments: &[&str]) -> (Tally, Run) {
    let mut actor = actor(workload);
    let pid = actor.pid().to_string();
    let tracer = trace(&[&["-p", &pid, "--reason", "accept"], arguments].concat());
    let tally = actor.act().unwrap();
    let run = tracer.stop().unwrap();
    actor.finish().unwrap();
    (tally, run)
}

fn failures_of(tally: &Tally) -> u64 {
    tally.failures.iter().map(|failures| failures.count).sum()
}

/// The port that a process listens on, as /proc/net/tcp has it.
fn listening_port(pid: u32) -> u16 {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|target| {
            let inode = target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    fs::read_to_string("/proc/net/tcp")
        .unwrap()
        .lines()
        .find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields[3] == "0A" && sockets.iter().any(|inode| inode == fields[9]);
            let (_, port) = fields[1].split_once(':').filter(|_| listens)?;
            u16::from_str_radix(port, 16).ok()
        })
        .expect("it listens")
}

/// What a filter lets through of several processes, at the same time as other filters.
#[test]
fn each_filter_leaves_out_exactly_the_rest() {
    type Wanted = fn(&Failures, &[u32]) -> bool;
    let _together = shared();
    let mut actors = ["emfile", "misuse_udp", "named_thread", "cgroup_unit"].map(actor);
    let pids = actors.each_ref().map(Actor::pid);
    let words = pids.map(|pid| pid.to_string());
    let port = listening_port(pids[0]).to_string();
    let filters: [(&[&str], Wanted); 10] = [
        (&["-p", &words[0]], |f, pids| f.process.pid == pids[0]),
        (&["-p", &words[0], "-p", &words[1]], |f, pids| {
            pids[..2].contains(&f.process.pid)
        }),
        (&["--comm", "acceptor-main"], |f, pids| {
            f.process.pid == pids[2]
        }),
        // Part of a name is no name.
        (&["--comm", "acceptor-mai"], |_, _| false),
        (&["-P", &port], |f, pids| f.process.pid == pids[0]),
        (&["--errno", "EOPNOTSUPP"], |f, pids| {
            f.process.pid == pids[1]
        }),
        (&["--reason", "accept.misuse"], |f, pids| {
            f.process.pid == pids[1]
        }),
        (&["--reason", "accept"], |_, _| true),
        (&["--cgroup", "pooler.service"], |f, _| {
            f.process.unit.as_deref() == Some("pooler.service")
        }),
        (
            &["--errno", "EMFILE", "--comm", "acceptor-main"],
            |f, pids| f.process.pid == pids[2],
        ),
    ];
    let tracers: Vec<Tracer> = filters
        .iter()
        .map(|(arguments, _)| trace(&[&["--json"], *arguments].concat()))
        .collect();
    let failures: Vec<Failures> = actors
        .iter_mut()
        .flat_map(|actor| actor.act().unwrap().failures)
        .collect();
    assert_eq!(failures.len(), 4);
    for (tracer, (arguments, wanted)) in tracers.into_iter().zip(filters) {
        let records = tracer.stop().unwrap().records().unwrap();
        let totals: BTreeSet<(u32, u64)> = records
            .summary
            .totals
            .iter()
            // Nobody accepts what these leave in their queues: that is told too.
            .filter(|total| total.reason.starts_with("accept."))
            // A filter by kind of failure alone lets the rest of the machine through too.
            .filter(|total| {
                !matches!(arguments, ["--errno" | "--reason", _])
                    || failures.iter().any(|f| f.process.pid == total.process.pid)
            })
            .map(|total| (total.process.pid, total.count.unwrap()))
            .collect();
        let truth: BTreeSet<(u32, u64)> = failures
            .iter()
            .filter(|failures| wanted(failures, &pids))
            .map(|failures| (failures.process.pid, failures.count))
            .collect();
        assert_eq!(totals, truth, "{arguments:?}");
    }
    for actor in actors {
        actor.finish().unwrap();
    }
}

#[test]
fn count_ends_it_after_so_many_lines() {
    let _together = shared();
    let mut actor = actor("emfile");
    let pid = actor.pid().to_string();
    let tracer = trace(&["--json", "-p", &pid, "--reason", "accept", "--count", "3"]);
    let tally = actor.act().unwrap();
    let records = tracer.wait().unwrap().records().unwrap();
    actor.finish().unwrap();
    assert!(failures_of(&tally) > 3);
    assert_eq!(records.events.len(), 3);
}

#[test]
fn duration_ends_it() {
    let _together = shared();
    let tracer = trace(&["--json", "--duration", "1s"]);
    let run = tracer.wait().unwrap();
    run.records().unwrap();
    assert!(run.shutdown < Duration::from_secs(3), "{:?}", run.shutdown);
}

#[test]
fn sigterm_ends_it_as_sigint_does() {
    let _together = shared();
    let run = trace(&["--json"]).signal(libc::SIGTERM).unwrap();
    run.records().unwrap();
}

#[test]
fn quiet_leaves_the_summary() {
    let _together = shared();
    let (tally, run) = trace_one("emfile", &["--json", "-q"]);
    let records = run.records().unwrap();
    assert!(records.events.is_empty() && records.counts.is_empty());
    assert_eq!(records.summary.totals[0].count, Some(failures_of(&tally)));
}

#[test]
fn fewer_exemplars_are_still_counted() {
    let _together = shared();
    let (tally, run) = trace_one("emfile", &["--json", "--exemplars", "2"]);
    let records = run.records().unwrap();
    // Two for the second in which it happened, which may be followed by another.
    assert!(
        (1..=4).contains(&records.events.len()),
        "{}",
        records.events.len()
    );
    let counted: u64 = records.counts.iter().filter_map(|count| count.count).sum();
    assert_eq!(counted, failures_of(&tally));
}

#[test]
fn hostile_names_do_no_harm_in_text() {
    let _together = shared();
    for color in ["never", "always"] {
        let (tally, run) = trace_one("hostile_comm", &["--color", color]);
        assert!(run.status.success(), "{}", run.stderr);
        let text = String::from_utf8(run.output).expect("text is UTF-8");
        assert!(text.contains("\\x1b[31m"), "{text}");
        let mut plain = text.clone();
        if color == "always" {
            // turnaway's own colours are no others' doing.
            while let Some(start) = plain.find("\x1b[") {
                let end = plain[start..].find('m').expect("an escape code ends");
                let code = &plain[start + 2..start + end];
                assert!(
                    code.bytes().all(|b| b.is_ascii_digit() || b == b';'),
                    "{code:?}"
                );
                plain.replace_range(start..=start + end, "");
            }
        }
        assert!(
            !plain.chars().any(|c| c.is_control() && c != '\n'),
            "{text:?}"
        );
        assert!(failures_of(&tally) > 0);
    }
}

/// From the start of turnaway to its first line, while a process fails all the time.
fn time_to_first_line() -> Duration {
    let mut actor = actor("spin");
    let pid = actor.pid().to_string();
    let started = Instant::now();
    let mut child = Command::new(tracer::binary().unwrap())
        .args(["trace", "--json", "-p", &pid, "--count", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It fails before, while and after hooks are put in place.
    let spinning = std::thread::spawn(move || {
        actor.act().unwrap();
        actor
    });
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let first = started.elapsed();
    child.wait().unwrap();
    spinning.join().unwrap().finish().unwrap();
    assert!(line.contains("EMFILE"), "{line}");
    println!("first line after {first:?}");
    first
}

#[test]
fn the_first_line_comes_within_a_second() {
    let _alone = alone();
    // A busy machine may delay any of them, but does not speed one up.
    assert!((0..5).any(|_| time_to_first_line() < FIRST_LINE));
}

#[test]
fn a_spinning_process_costs_next_to_nothing() {
    let _alone = alone();
    let mut actor = actor("spin");
    let pid = actor.pid().to_string();
    let tracer = trace(&["--json", "-p", &pid, "--reason", "accept"]);
    let before = measure::cpu_time(tracer.pid()).unwrap();
    let started = Instant::now();
    let tally = actor.act().unwrap();
    let lasted = started.elapsed();
    let used = measure::cpu_time(tracer.pid())
        .unwrap()
        .checked_sub(before)
        .unwrap();
    let records: Records = tracer.stop().unwrap().records().unwrap();
    actor.finish().unwrap();
    let percent = 100.0 * used.as_secs_f64() / lasted.as_secs_f64();
    let count = failures_of(&tally);
    println!("{count} failures in {lasted:?}: {used:?}, {percent:.2} % of a core");
    assert_eq!(records.summary.totals[0].count, Some(count));
    assert_eq!(records.summary.lost.map, 0);
    assert!(count > 10_000, "{count} is no storm");
    assert!(used > Duration::ZERO, "the processor time is not measured");
    assert!(percent < MOST_PERCENT_OF_A_CORE, "{percent:.2} %");
}

/// A line that there is no room for is dropped, a count never: it comes with the next.
#[test]
fn a_reader_that_pauses_misses_no_count() {
    let _alone = alone();
    let mut actors = ["spin"; 3].map(actor);
    let pids = actors.each_ref().map(|actor| actor.pid().to_string());
    let mut child = Command::new(tracer::binary().unwrap())
        // Far more lines than there is room for.
        .args(["trace", "--json", "--exemplars", "1000000"])
        .args(["--reason", "accept"])
        .args(["-p", &pids[0], "-p", &pids[1], "-p", &pids[2]])
        .args(["--duration", "30s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("tracing ") {
        line.clear();
        assert_ne!(ready.read_line(&mut line).unwrap(), 0, "it ended");
    }
    // One after the other: the last one's count finds no room.
    let count: u64 = actors
        .iter_mut()
        .map(|actor| failures_of(&actor.act().unwrap()))
        .sum();
    // Only now somebody reads.
    let (mut counted, mut lines) = (0, 0_u64);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let record: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        lines += 1;
        if record["type"] == "count" {
            counted += record["count"].as_u64().unwrap();
            if counted == count {
                sys::kill(child.id(), libc::SIGINT).unwrap();
            }
        }
    }
    assert!(child.wait().unwrap().success());
    for actor in actors {
        actor.finish().unwrap();
    }
    println!("{count} failures, {lines} lines");
    assert_eq!(counted, count);
    assert!(lines < count, "the reader was not too slow");
}

/// Ids and names of the BPF programs that are loaded, as bpftool has them.
fn loaded() -> Option<BTreeSet<(u64, String)>> {
    let output = Command::new("bpftool")
        .args(["-j", "prog", "show"])
        .output()
        .ok()?;
    let programs: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).ok()?;
    let named = |program: &serde_json::Value| {
        let name = program["name"].as_str().unwrap_or_default();
        Some((program["id"].as_u64()?, name.to_owned()))
    };
    Some(programs.iter().filter_map(named).collect())
}

#[test]
fn no_program_stays_loaded() {
    let _alone = alone();
    let before = loaded().expect("no bpftool: run `cargo xtask setup --tests`");
    let tracer = trace(&["--json"]);
    let during = loaded().unwrap();
    let new: Vec<_> = during.difference(&before).collect();
    assert!(
        // One that it has in every tier.
        new.iter().any(|(_, name)| name == "socket_state"),
        "bpftool does not see turnaway's programs: {new:?}"
    );
    let run = tracer.stop().unwrap();
    assert!(run.status.success(), "{}", run.stderr);
    // The kernel frees them when nobody can be running them any more, which takes it a moment.
    let ended = Instant::now();
    wait::until_true("turnaway's programs to be gone", || {
        let after = loaded().expect("bpftool worked before");
        Ok(new.iter().all(|program| !after.contains(*program)))
    })
    .unwrap();
    let gone = ended.elapsed();
    println!("gone {gone:?} after the end");
    assert!(gone < GONE, "{gone:?}");
}

#[test]
fn without_tracefs_it_says_so_and_fails() {
    let _together = shared();
    // An empty file system hides tracefs; without CAP_SYS_ADMIN it cannot be mounted again.
    let script = "for dir in /sys/kernel/tracing /sys/kernel/debug; do
            [ -d $dir ] && mount -t tmpfs none $dir; done
        exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \"$1\" \
            trace --json --tier tracepoint --duration 1s";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(tracer::binary().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("tracefs") && !said.contains("panicked"),
        "{said}"
    );
    // Going on with io_uring alone would find nothing, and look like good news.
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn without_any_hook_it_says_so_and_fails() {
    let _together = shared();
    let output = Command::new("setpriv")
        .args([
            "--bounding-set=-sys_admin,-perfmon",
            "--inh-caps=-sys_admin,-perfmon",
        ])
        .arg(tracer::binary().unwrap())
        .args([
            "trace",
            "--json",
            "--tier",
            "tracepoint",
            "--duration",
            "1s",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("CAP_PERFMON") && !said.contains("panicked"),
        "{said}"
    );
    // Going on with what is polled alone would find little, and look like good news.
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
}
