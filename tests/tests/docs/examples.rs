//! Commands in documents and in `--help`: all are understood, and run where they can be.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;

use clap::error::ErrorKind;
use turnaway_tests::tracer;

use super::blocks::{Document, documents, root};
use super::commands;
use super::stage::Stage;

/// Commands that are understood here and not run.
const NOT_RUN: [(&str, &str); 3] = [
    (
        "top",
        "it needs a terminal, and has tests of its own that have one",
    ),
    ("convert", "it reads records that only its own tests have"),
    ("help", "it is what --help is"),
];
/// First words of lines in documents that are not run.
const NOT_OURS: [(&str, &str); 11] = [
    ("apt", "it changes the host"),
    ("apt-get", "it changes the host"),
    ("dpkg", "it changes the host"),
    (
        "systemctl",
        "it changes the host; the unit has tests of its own",
    ),
    ("journalctl", "it needs a journal"),
    (
        "podman",
        "it needs an image; containers have tests of their own",
    ),
    ("docker", "it needs a daemon"),
    ("kubectl", "it needs a cluster"),
    ("git", "it needs a network"),
    ("cd", "it is about where the reader is"),
    (".ci/run", "it is what runs this"),
];
/// Examples whose exit code is another than 0, and why.
const EXIT_CODES: [(&str, &[i32], &str); 4] = [
    (
        "turnaway doctor",
        &[0, 1],
        "1 says that something cannot be seen on this host",
    ),
    (
        "turnaway silence remove",
        &[1],
        "there is no silence of that id",
    ),
    (
        "turnaway report 5c1f0a",
        &[1],
        "there is no incident of that id",
    ),
    (
        "turnaway report 2026",
        &[1],
        "there is no incident of that id",
    ),
];
/// What stands for something in documents, and what it could be.
const PLACEHOLDERS: [(&str, &str); 6] = [
    ("CODE", "accept.emfile"),
    ("COMMAND", "trace"),
    ("PID", "1"),
    ("REASON", "accept.emfile"),
    ("X", "trace"),
    ("…", "--help"),
];

/// A command and where it is shown.
type Examples = BTreeMap<String, String>;

/// Lines of code in blocks of documents, without prompts and remarks.
fn lines(document: &Document) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for block in &document.blocks {
        let is_shell = matches!(block.language.as_str(), "sh" | "console" | "bash");
        // A reason's page has a program to try, which its own test runs whole.
        if !is_shell && !block.language.is_empty() || document.name.starts_with("docs/reasons/") {
            continue;
        }
        let code = block.code.replace("\\\n", " ");
        for (number, line) in code.lines().enumerate() {
            let at = format!("{}:{}", document.name, block.line + number + 1);
            let command = match block.language.as_str() {
                "console" => line.strip_prefix("# ").or_else(|| line.strip_prefix("$ ")),
                _ => Some(line),
            };
            let Some(command) = command.map(str::trim) else {
                continue;
            };
            // Of blocks without a language, only those that are commands.
            let is_command = is_shell && !command.is_empty() && !command.starts_with('#');
            if is_command || is_ours(command) {
                found.push((at, command.to_owned()));
            }
        }
    }
    found
}

fn is_ours(line: &str) -> bool {
    line.split(['|', ';', '&'])
        .any(|part| part.split_whitespace().next() == Some("turnaway"))
        || line.starts_with("cargo xtask")
}

/// All examples of `--help`, as the program itself prints it.
fn of_help() -> Examples {
    let mut found = Examples::new();
    for (path, command) in commands::all() {
        let output = Command::new(tracer::binary().unwrap())
            .args(&path)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{path:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        let name = format!("turnaway {} --help", path.join(" "));
        let (_, examples) = help.split_once("\nExamples:\n").unwrap_or_default();
        let examples = examples.split("\n\n").next().unwrap_or_default();
        for line in examples.lines() {
            // A remark stands in a column of its own.
            let command = line.trim().split("   ").next().unwrap_or_default();
            found.insert(command.to_owned(), name.clone());
        }
        // Those that do something by themselves, and the commands that hold others.
        assert!(
            !examples.is_empty() || path.is_empty() || path.len() > 1 || command.has_subcommands(),
            "{name} has no examples"
        );
    }
    assert!(found.len() > 30, "{found:?}");
    found
}

/// All examples of documents.
fn of_documents() -> Examples {
    let mut found = Examples::new();
    for document in documents() {
        for (at, line) in lines(&document) {
            let first = line.split_whitespace().next().unwrap_or_default();
            let known = NOT_OURS.iter().any(|(word, _why)| *word == first);
            assert!(
                known || is_ours(&line),
                "{at}: {line:?} is neither run nor said why not"
            );
            if is_ours(&line) {
                found.insert(line, at);
            }
        }
    }
    assert!(found.len() > 40, "{found:?}");
    found
}

#[test]
fn every_command_that_is_shown_is_understood() {
    let stage = Stage::of_notes();
    let mut all = of_help();
    all.extend(of_documents());
    for document in documents() {
        for (line, code) in &document.spans {
            if is_ours(code) {
                all.insert(code.clone(), format!("{}:{line}", document.name));
            }
        }
    }
    let mut understood = 0;
    for (line, at) in all
        .iter()
        .filter(|(line, _)| !line.starts_with("cargo xtask"))
    {
        let calls = stage.calls(line);
        assert!(!calls.is_empty(), "{at}: {line:?} does not call turnaway");
        for call in calls {
            let words = call.iter().map(|word| {
                let known = PLACEHOLDERS.iter().find(|(name, _)| name == word);
                known.map_or(word.as_str(), |(_, example)| example)
            });
            let parsed = turnaway::cli::command()
                .try_get_matches_from(std::iter::once("turnaway").chain(words));
            if let Err(error) = parsed {
                let asked = matches!(
                    error.kind(),
                    ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
                );
                // A command that is named, not called.
                let named = call.len() <= 2
                    && matches!(
                        error.kind(),
                        ErrorKind::MissingRequiredArgument
                            | ErrorKind::MissingSubcommand
                            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    );
                // An option that is named without its value.
                let named = named
                    || error.to_string().contains("but none was supplied")
                        && call.last().is_some_and(|word| word.starts_with('-'));
                assert!(asked || named, "{at}: {line}\n{error}");
            }
            understood += 1;
        }
    }
    assert!(understood > 90, "only {understood}");
}

#[test]
fn every_example_that_can_be_run_runs() {
    let mut all = of_help();
    all.extend(of_documents());
    let (stage, daemon) = Stage::of_runs();
    let left: Mutex<Vec<(String, String)>> = Mutex::new(
        all.into_iter()
            .filter(|(line, _)| !line.starts_with("cargo xtask"))
            .filter(|(line, _)| {
                let is_not_run =
                    |(command, _why): &(&str, &str)| line.contains(&format!("turnaway {command}"));
                !NOT_RUN.iter().any(is_not_run)
            })
            .collect(),
    );
    let failed = Mutex::new(Vec::new());
    // Most of their time they wait.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().pop();
                    let Some((line, at)) = next else {
                        return;
                    };
                    let output = stage.line(&line);
                    let said = String::from_utf8_lossy(&output.stderr);
                    let wanted = EXIT_CODES
                        .iter()
                        .find(|(start, ..)| line.starts_with(start))
                        .map_or(&[0][..], |(_, codes, _why)| codes);
                    let code = output.status.code().unwrap_or(-1);
                    if !wanted.contains(&code) || said.contains("panicked") {
                        let failure = format!("{at}: {line}: exit code {code}\n{said}");
                        failed.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    daemon.stop().unwrap();
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_chore_that_is_shown_is_understood() {
    let xtask = root().join("target/debug/xtask");
    assert!(xtask.exists(), "run any `cargo xtask` first");
    let mut found = 0;
    for (line, at) in of_documents() {
        let Some(words) = line.strip_prefix("cargo xtask ") else {
            continue;
        };
        let words = words.split(" #").next().unwrap_or_default();
        // What comes behind is not the chore's own.
        let words = words.split(" -- ").next().unwrap_or_default();
        let output = Command::new(&xtask)
            .args(words.split_whitespace())
            .arg("--help")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{at}: {line}\n{said}");
        found += 1;
    }
    assert!(found >= 4, "only {found}");
}
