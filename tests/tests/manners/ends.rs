//! How commands end: exit codes, readers that go away, names that are wrong.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use turnaway_tests::tracer;

use super::commands;

/// Something that each command does in a moment, in a folder that has a recording and a configuration, and its
/// exit code. What is not here is asked for `--help`.
const CALLS: [(&[&str], &[i32]); 12] = [
    (&["trace", "-d", "1s"], &[0]),
    (&["doctor"], &[0, 1]),
    (&["daemon", "--config", "missing.toml"], &[1]),
    (&["status", "--socket", "missing"], &[1]),
    (&["incidents", "--socket", "missing"], &[1]),
    (&["silence", "list", "--socket", "missing"], &[1]),
    (&["replay", "seen.ndjson"], &[0]),
    (&["report", "--from", "seen.ndjson"], &[0]),
    (&["check-config", "empty.toml"], &[0]),
    (&["rules", "test", "missing.toml"], &[1]),
    (&["explain"], &[0]),
    (&["generate", "made"], &[0]),
];

/// Runs it in a folder, with a reader of its standard output and of its standard error, or with such as have
/// gone already.
fn run(words: &[&str], dir: &Path, output_is_read: bool, errors_are_read: bool) -> Output {
    let mut child = Command::new(tracer::binary().unwrap())
        .args(words)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if !output_is_read {
        drop(child.stdout.take());
    }
    if !errors_are_read {
        drop(child.stderr.take());
    }
    child.wait_with_output().unwrap()
}

/// One call of every command there is.
fn calls() -> Vec<(Vec<String>, Vec<i32>)> {
    let mut calls = Vec::new();
    for (path, _) in commands::all() {
        let [command] = path.as_slice() else {
            continue;
        };
        match CALLS.iter().find(|(words, _)| words[0] == command) {
            Some((words, codes)) => calls.push((
                words.iter().map(|&word| word.to_owned()).collect(),
                codes.to_vec(),
            )),
            None => calls.push((vec![command.clone(), "--help".to_owned()], vec![0])),
        }
    }
    assert!(calls.len() >= CALLS.len());
    calls
}

#[test]
fn a_reader_that_has_gone_is_no_failure_of_any_command() {
    let dir = tempfile::tempdir().unwrap();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replay/pooler.ndjson");
    // More than a pipe holds.
    fs::write(
        dir.path().join("seen.ndjson"),
        fs::read_to_string(recorded).unwrap().repeat(50),
    )
    .unwrap();
    fs::write(dir.path().join("empty.toml"), "").unwrap();
    for (words, codes) in calls() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for (output_is_read, errors_are_read) in [(true, true), (false, true), (true, false)] {
            let output = run(&words, dir.path(), output_is_read, errors_are_read);
            let said = String::from_utf8_lossy(&output.stderr);
            let how = format!("{words:?}, {output_is_read}, {errors_are_read}: {output:?}");
            assert!(codes.contains(&output.status.code().unwrap_or(-1)), "{how}");
            assert!(!said.contains("panicked"), "{how}");
            assert!(!said.contains("Broken pipe"), "{how}");
        }
    }
}

#[test]
fn wrong_usage_of_every_command_is_2() {
    for (path, _) in commands::all() {
        let mut words: Vec<&str> = path.iter().map(String::as_str).collect();
        words.push("--no-such-option");
        let output = run(&words, Path::new("/"), true, true);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_name_alone_says_what_most_people_need() {
    let output = run(&[], Path::new("/"), true, true);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    let named: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("  turnaway "))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    assert_eq!(named, ["trace", "doctor", "daemon"], "{said}");
}

#[test]
fn every_command_says_what_its_exit_codes_mean() {
    for (path, command) in commands::all() {
        if command.has_subcommands() && path.len() == 1 || path.len() > 1 {
            continue;
        }
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        assert!(help.contains("Exit codes:"), "{path:?}: {help}");
    }
}
