//! Each filter: what it names is counted exactly, and nothing else is. And what a storm costs.

use std::process::Command;
use std::time::Duration;

use turnaway_tests::tracer::{self, Tracer};
use turnaway_tests::wait;

mod failing;

use failing::{Counted, Failing, tallies, totals};

/// Two processes that fail; the name of one is the beginning of the other's.
struct Two {
    one: Failing,
    other: Failing,
}

/// Starts both and traces them with the filters that are made for them.
fn traced(test: &str, filters: impl FnOnce(&Two) -> Vec<String>) -> (Two, Counted) {
    let mut two = Two {
        one: Failing::named(test.as_bytes()),
        other: Failing::named(format!("{test}x").as_bytes()),
    };
    let mut arguments = vec!["--json".to_owned()];
    arguments.extend(filters(&two));
    let tracer = Tracer::start(&tracer::binary().unwrap(), &arguments).unwrap();
    two.one.emfile(17);
    two.other.emfile(23);
    two.one.badf(5);
    two.other.badf(3);
    let records = tracer.stop().unwrap().records().unwrap();
    (two, totals(&records))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn by_process() {
    let (two, counted) = traced("f-pid", |two| words(&["-p", &two.one.pid.to_string()]));
    assert_eq!(counted, tallies(&[&two.one], &[&two.one]));
}

#[test]
fn by_whole_name() {
    let (two, counted) = traced("f-comm", |_| words(&["--comm", "f-comm"]));
    assert_eq!(counted, tallies(&[&two.one], &[&two.one]));
}

#[test]
fn by_port() {
    let (two, counted) = traced("f-port", |two| words(&["-P", &two.other.port.to_string()]));
    assert_eq!(counted, tallies(&[&two.other], &[]), "EBADF has no port");
}

#[test]
fn by_errno() {
    let (two, counted) = traced("f-errno", |two| {
        let (one, other) = (two.one.pid.to_string(), two.other.pid.to_string());
        words(&["--errno", "EBADF", "-p", &one, "-p", &other])
    });
    assert_eq!(counted, tallies(&[], &[&two.one, &two.other]));
}

#[test]
fn by_reason() {
    let (two, counted) = traced("f-reason", |two| {
        let (one, other) = (two.one.pid.to_string(), two.other.pid.to_string());
        words(&["--reason", "accept.emfile", "-p", &one, "-p", &other])
    });
    assert_eq!(counted, tallies(&[&two.one, &two.other], &[]));
}

#[test]
fn a_storm_is_counted_exactly_and_costs_little() {
    const STORM: Duration = Duration::from_secs(2);
    let mut failing = Failing::named(b"storm");
    let pid = failing.pid.to_string();
    let tracer = Tracer::start(&tracer::binary().unwrap(), &["--json", "-p", &pid]).unwrap();
    let before = tracer.cpu_time().unwrap();
    failing.spin(STORM);
    let used = tracer.cpu_time().unwrap().saturating_sub(before);
    let records = tracer.stop().unwrap().records().unwrap();
    assert_eq!(totals(&records), tallies(&[&failing], &[]));
    println!("{} failures, {used:?} of processor time", failing.emfile);
    assert!(used < STORM / 20, "{used:?} is more than 5 % of a core");
}

#[test]
fn nothing_is_left_in_the_kernel() {
    let loaded = || {
        let output = Command::new("bpftool").args(["prog", "show"]).output();
        let output = output.expect("no bpftool: run `cargo xtask setup --tests`");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Other tests have programs of the same names loaded: the ids tell this run's apart.
    let tracer = Tracer::start(&tracer::binary().unwrap(), &["--json"]).unwrap();
    let holders = format!("/proc/{}/fdinfo", tracer.pid());
    let ids: Vec<String> = std::fs::read_dir(holders)
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|info| {
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix("prog_id:"))?;
            Some(format!("{}: ", line.trim()))
        })
        .collect();
    assert!(!ids.is_empty(), "no program is loaded");
    let is_loaded = |text: &str, id: &str| text.lines().any(|line| line.starts_with(id));
    let during = loaded();
    assert!(ids.iter().all(|id| is_loaded(&during, id)), "{during}");
    tracer.stop().unwrap();
    // The kernel frees a program when nobody can be running it any more.
    wait::until_true("the programs are still loaded", || {
        let after = loaded();
        Ok(!ids.iter().any(|id| is_loaded(&after, id)))
    })
    .unwrap();
}
