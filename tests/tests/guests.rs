//! All scenarios with every tier, on every test kernel.

use std::path::Path;
use std::time::Duration;

use turnaway_tests::few::NOBODY;
use turnaway_tests::scenario::TIERS;
use turnaway_tests::tracer;
use xtask::budget::{MOST_VERIFIED, Program};
use xtask::vm::{self, Guest};

/// Emulation is slow, and slower still beside other tests.
const PATIENCE: Duration = Duration::from_mins(14);

/// A kernel and how many scenarios must pass with each tier of [`TIERS`], so that nothing is
/// left out unnoticed.
struct Expected {
    kernel: &'static str,
    passes: [usize; 3],
}

fn all_scenarios_pass(expected: &Expected) {
    let Some(kernel) = vm::for_test(expected.kernel) else {
        return;
    };
    let mut guest = Guest::new(
        kernel,
        [
            "/bin/turnaway-scenarios",
            "run",
            "--all-tiers",
            "--capabilities",
            "--turnaway",
            "/bin/turnaway",
        ],
    );
    guest
        .program(Path::new("/usr/bin/setpriv"), "/bin/setpriv")
        .unwrap()
        .file(tracer::binary().unwrap(), "/bin/turnaway")
        .file(tracer::scenarios().unwrap(), "/bin/turnaway-scenarios");
    guest.timeout = PATIENCE;
    // For the scenario of a security module written in BPF.
    guest.append.push_str("lsm=bpf");
    let exit = guest.run(|line| println!("{line}")).unwrap();

    let failed: Vec<_> = exit
        .console
        .lines()
        .filter(|line| line.starts_with("FAIL "))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(exit.code, 0, "{}", exit.console);
    assert_within_budget(&exit.console);
    assert_few_capabilities_are_enough(&exit.console);
    for (tier, least) in TIERS.into_iter().zip(expected.passes) {
        let passed = passes(&exit.console, tier);
        assert!(
            passed >= least,
            "{tier}: only {passed} of at least {least} passed\n{}",
            exit.console
        );
    }
}

/// No program takes the verifier long: another kernel's might refuse it. 5.10 keeps no count.
fn assert_within_budget(console: &str) {
    let programs: Vec<_> = console.lines().filter_map(Program::parse).collect();
    for tier in TIERS {
        let some = programs.iter().any(|program| program.tier == tier);
        assert!(some, "no programs of tier {tier}");
    }
    let long: Vec<_> = programs
        .iter()
        .filter(|program| program.verified > Some(MOST_VERIFIED))
        .collect();
    assert!(
        long.is_empty(),
        "over {MOST_VERIFIED} instructions: {long:?}"
    );
}

/// Four capabilities are enough, but for what Debian's kernels forbid to all who lack `CAP_SYS_ADMIN`: perf events, which
/// the other tiers are attached by.
fn assert_few_capabilities_are_enough(console: &str) {
    let mut refused = 0;
    for tier in TIERS {
        for id in ["0", NOBODY] {
            let more = if tier == "trampoline" {
                ""
            } else {
                " with sys_admin"
            };
            let line = format!("{tier} {id}: 17 of 17{more}\n");
            assert!(console.contains(&line), "{line}{console}");
            refused += usize::from(!more.is_empty());
        }
    }
    let why = "kernel.perf_event_paranoid is 3 and CAP_SYS_ADMIN is missing";
    assert!(console.matches(why).count() >= refused, "{console}");
}

/// How many lines say that a scenario passed with a tier.
fn passes(console: &str, tier: &str) -> usize {
    console
        .lines()
        .filter_map(|line| line.strip_prefix("PASS "))
        .filter(|words| words.split(' ').nth(1) == Some(tier))
        .count()
}

#[test]
fn kernel_5_10() {
    all_scenarios_pass(&Expected {
        kernel: "5.10",
        // io_uring's accept is not seen there by tracepoints (docs/limitations.md).
        passes: [142, 142, 132],
    });
}

#[test]
fn kernel_6_1() {
    all_scenarios_pass(&Expected {
        kernel: "6.1",
        passes: [151, 151, 150],
    });
}

#[test]
fn kernel_6_12() {
    all_scenarios_pass(&Expected {
        kernel: "6.12",
        passes: [151, 151, 150],
    });
}

#[test]
fn kernel_newest() {
    all_scenarios_pass(&Expected {
        kernel: "newest",
        passes: [151, 151, 150],
    });
}

#[test]
fn passes_are_counted_by_tier() {
    let console = "PASS spin kprobe\nPASS a tracepoint\nFAIL b kprobe: PASS\nSKIP c kprobe: no\n";
    assert_eq!(passes(console, "kprobe"), 1);
    assert_eq!(passes(console, "tracepoint"), 1);
    assert_eq!(passes(console, "trampoline"), 0);
}
