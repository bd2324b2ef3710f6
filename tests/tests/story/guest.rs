//! The same on another kernel, which tells of it by trampolines.

use std::sync::PoisonError;
use std::time::Duration;

use turnaway_tests::tracer;
use xtask::vm::{self, Guest};

/// Emulation is slow.
const PATIENCE: Duration = Duration::from_mins(8);
/// This test's program, there.
const STORY: &str = "/bin/story";
const TURNAWAY: &str = "/bin/turnaway";
/// What the story takes, and what runs it.
const PACKAGES: [&str; 10] = [
    "coreutils",
    "dash",
    "e2fsprogs",
    "gunicorn",
    "mount",
    "nginx-light",
    "pgbouncer",
    "postgresql",
    "python3-psycopg2",
    "util-linux",
];

#[test]
fn on_another_kernel() {
    let Some(kernel) = vm::for_test("6.12") else {
        return;
    };
    let _turn = super::TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let words = [
        "/usr/bin/env",
        &format!("TURNAWAY_BIN={TURNAWAY}"),
        STORY,
        "--exact",
        "the_first_tuesday_is_explained",
        "--nocapture",
    ];
    let mut guest = Guest::new(kernel, words);
    guest
        .packages(&PACKAGES)
        .unwrap()
        .file(tracer::binary().unwrap(), TURNAWAY)
        .program(&std::env::current_exe().unwrap(), STORY)
        .unwrap();
    guest.modules = ["loop"].map(str::to_owned).to_vec();
    guest.memory_mib = 4096;
    guest.timeout = PATIENCE;
    let exit = guest.run(|line| println!("{line}")).unwrap();
    assert_eq!(exit.code, 0, "{}", exit.console);
    // A name that is no test's would end well, too.
    assert!(exit.console.contains("1 passed"), "{}", exit.console);
}
