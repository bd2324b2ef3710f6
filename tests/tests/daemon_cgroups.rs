//! The same program in two cgroups, and a cgroup that is removed: on this host's hierarchies, of both
//! versions where it has both, and on the unified hierarchy alone in a guest, whose clock is set back, too.

use std::time::Duration;

use turnaway_tests::checks;
use turnaway_tests::scenario::run::Programs;
use turnaway_tests::tracer;
use xtask::vm::{self, Guest};

#[test]
fn on_this_host() {
    let programs = Programs {
        turnaway: tracer::binary().unwrap(),
        scenarios: tracer::scenarios().unwrap(),
    };
    checks::run("cgroups", &programs).unwrap();
}

#[test]
fn in_a_guest() {
    let Some(kernel) = vm::for_test("6.12") else {
        return;
    };
    let mut guest = Guest::new(
        kernel,
        [
            "/bin/turnaway-scenarios",
            "check",
            "--turnaway",
            "/bin/turnaway",
            "cgroups",
            "clock",
        ],
    );
    guest
        .file(tracer::binary().unwrap(), "/bin/turnaway")
        .file(tracer::scenarios().unwrap(), "/bin/turnaway-scenarios");
    guest.timeout = Duration::from_mins(5);
    let exit = guest.run(|line| println!("{line}")).unwrap();
    assert_eq!(exit.code, 0, "{}", exit.console);
    // What was looked at, so that nothing is left out unnoticed.
    for words in ["two cgroups of the unified", "a clock that is set back"] {
        assert!(exit.console.contains(words), "{}", exit.console);
    }
    assert!(!exit.console.contains("systemd hierarchy"));
}
