//! The command line as a black box: exit codes, messages, what is left behind.

#[path = "cli/ends.rs"]
mod ends;
#[path = "cli/output.rs"]
mod output;
#[path = "cli/refused.rs"]
mod refused;

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use turnaway_tests::scenario::run::Actor;
use turnaway_tests::tracer;
use turnaway_tests::truth::Tally;

fn turnaway(arguments: &[&str]) -> Output {
    Command::new(tracer::binary().unwrap())
        .args(arguments)
        .output()
        .unwrap()
}

/// A process that fails with EMFILE when it is told to act, and counts that itself.
fn emfile() -> Actor {
    let program = Path::new(env!("CARGO_BIN_EXE_turnaway-scenarios"));
    Actor::start(program, "emfile").unwrap()
}

/// How often it failed, as it says.
fn failures(tally: &Tally) -> u64 {
    tally.failures.iter().map(|failures| failures.count).sum()
}

/// The command ends with that code and one message that has these words in it.
fn refuses(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

#[test]
fn wrong_usage_is_2_and_says_what_would_do() {
    refuses(
        &turnaway(&["trace", "--errno", "EFOO"]),
        2,
        &["EFOO", "EMFILE"],
    );
    refuses(
        &turnaway(&["trace", "--reason", "foo"]),
        2,
        &["foo", "accept.emfile"],
    );
    refuses(&turnaway(&["trace", "--duration", "soon"]), 2, &["30s"]);
    refuses(&turnaway(&["trace", "--nonsense"]), 2, &["--nonsense"]);
    refuses(&turnaway(&["trace", "-P", "0"]), 2, &["port 0"]);
    refuses(
        &turnaway(&["trace", "-o", "ecs", "--fields", "reason"]),
        2,
        &["--fields", "-o ecs"],
    );
    refuses(&turnaway(&[]), 2, &["trace", "doctor"]);
}

#[test]
fn a_dead_process_cannot_be_traced() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id().to_string();
    child.wait().unwrap();
    refuses(
        &turnaway(&["trace", "-p", &pid]),
        1,
        &[&pid, "no such process"],
    );
}

#[test]
fn a_full_disk_is_one_message() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = Command::new(tracer::binary().unwrap())
        .args(["trace", "--duration", "1s"])
        .stdout(full)
        .output()
        .unwrap();
    refuses(&output, 1, &["No space left on device"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches("No space left").count(), 1, "{said}");
}

#[test]
fn a_closed_pipe_is_success() {
    let mut child = Command::new(tracer::binary().unwrap())
        .args(["trace", "--duration", "1s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn doctor_speaks_json_and_its_exit_code_is_its_verdict() {
    let output = turnaway(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let unavailable = report["hooks"]
        .as_array()
        .unwrap()
        .iter()
        .any(|hook| hook["status"] != "attached");
    assert_eq!(output.status.code(), Some(i32::from(unavailable)));
    let release = Command::new("uname").arg("-r").output().unwrap();
    assert_eq!(
        report["kernel"]["release"].as_str().unwrap(),
        String::from_utf8_lossy(&release.stdout).trim()
    );
}

#[test]
fn what_no_hook_sees_can_be_traced_alone() {
    let output = turnaway(&[
        "trace",
        "--json",
        "--reason",
        "net.conntrack_full",
        "--duration",
        "1s",
    ]);
    refuses(&output, 0, &["tracing with conntrack (poll)"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "summary");
    assert_eq!(last["hooks"], serde_json::json!([]));
}
