//! All scenarios on this host, with the tracepoint tier: the one that every kernel offers.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that `cargo xtask test` builds.
fn program(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../target/release")
                .join(name)
        },
        PathBuf::from,
    )
}

/// Fewest scenarios that must pass, so that nothing is left out unnoticed: all but those that
/// change settings of the whole machine or need what a host may lack.
const LEAST: usize = 40;

#[test]
fn all_scenarios_pass() {
    let output = Command::new(program("TURNAWAY_SCENARIOS", "turnaway-scenarios"))
        .args(["run", "--tier", "tracepoint", "--turnaway"])
        .arg(program("TURNAWAY_BIN", "turnaway"))
        .output()
        .expect("`cargo xtask test` builds turnaway-scenarios");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let failed: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("FAIL "))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let passed = text
        .lines()
        .filter(|line| line.starts_with("PASS "))
        .count();
    assert!(passed >= LEAST, "only {passed} scenarios passed");
}
