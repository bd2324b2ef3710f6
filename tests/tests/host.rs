//! All scenarios on this host, with the tracepoint tier: the one that every kernel offers.

use std::process::Command;

use turnaway_tests::tracer;

/// Fewest scenarios that must pass, so that nothing is left out unnoticed: all but those that
/// change settings of the whole machine or need what a host may lack.
const LEAST: usize = 135;

#[test]
fn all_scenarios_pass() {
    let output = Command::new(tracer::scenarios().unwrap())
        .args(["run", "--tier", "tracepoint", "--turnaway"])
        .arg(tracer::binary().unwrap())
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
