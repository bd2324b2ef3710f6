//! Hosts on which it cannot work.

use std::process::{Command, Output};

use turnaway_tests::tracer;

use crate::refuses;

/// Runs turnaway in a mount namespace of its own, after a script that prepares it.
fn prepared(script: &str, run: &str, arguments: &[&str]) -> Output {
    let empty = tempfile::tempdir().unwrap();
    Command::new("unshare")
        .args(["-m", "sh", "-ec"])
        .arg(format!("{script}\nexec {run} \"$TURNAWAY\" \"$@\""))
        .arg("sh")
        .args(arguments)
        .env("TURNAWAY", tracer::binary().unwrap())
        .env("EMPTY", empty.path())
        .output()
        .unwrap()
}

fn without_btf(arguments: &[&str]) -> Output {
    prepared("mount --bind \"$EMPTY\" /sys/kernel/btf", "", arguments)
}

/// Hides tracefs, from a process that cannot mount it.
fn without_tracefs(arguments: &[&str]) -> Output {
    let hide = "for dir in /sys/kernel/tracing /sys/kernel/debug; do
            if [ -d $dir ]; then mount --bind \"$EMPTY\" $dir; fi
        done";
    let powerless = "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin";
    prepared(hide, powerless, arguments)
}

/// There is one line of these, and it has those words in it.
fn one_line(output: &Output, words: &[&str]) {
    refuses(output, 1, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

/// The report of doctor, which must not be content.
fn unhealthy(output: &Output) -> serde_json::Value {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["healthy"], false, "{report}");
    report
}

#[test]
fn without_btf_it_says_so() {
    one_line(&without_btf(&["trace"]), &["BTF"]);
}

#[test]
fn without_btf_doctor_says_so() {
    let report = unhealthy(&without_btf(&["doctor", "--json"]));
    assert_eq!(report["btf"]["ok"], false, "{report}");
    refuses(&without_btf(&["doctor"]), 1, &[]);
}

#[test]
fn without_tracefs_doctor_says_so() {
    let report = unhealthy(&without_tracefs(&["doctor", "--json"]));
    assert_eq!(report["tracefs"]["ok"], false, "{report}");
}

/// As nobody, who must be able to run the program.
fn as_nobody(arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups"]);
    // A copy, since a folder that only root may enter would hide it.
    let dir = tempfile::tempdir().unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), everybody).unwrap();
    let copy = dir.path().join("turnaway");
    std::fs::copy(tracer::binary().unwrap(), &copy).unwrap();
    command.arg(&copy).args(arguments).output().unwrap()
}

#[test]
fn without_root_it_says_so() {
    one_line(&as_nobody(&["trace"]), &["root"]);
}

#[test]
fn without_root_doctor_says_so() {
    let report = unhealthy(&as_nobody(&["doctor", "--json"]));
    let error = report["error"].as_str().unwrap();
    assert!(error.contains("root"), "{report}");
}
