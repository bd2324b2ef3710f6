//! Man pages as man shows them, completions as the shells themselves make them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;
use turnaway_tests::tracer;

use super::commands;

/// What `turnaway generate` writes.
fn generated() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(tracer::binary().unwrap())
        .arg("generate")
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    dir
}

/// What `turnaway generate schema` prints.
fn schema(of: &[&str]) -> String {
    let mut command = Command::new(tracer::binary().unwrap());
    let output = command.args(["generate", "schema"]).args(of).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_schema_is_the_committed_one_and_is_had_in_parts() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/turnaway-1.json");
    let all = schema(&[]);
    assert_eq!(all, fs::read_to_string(file).unwrap());
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    for one in all["oneOf"].as_array().unwrap() {
        let name = one["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let part: serde_json::Value = serde_json::from_str(&schema(&[name])).unwrap();
        assert_eq!(part["oneOf"], serde_json::json!([one]));
        assert_eq!(part["$defs"][name], all["$defs"][name]);
    }
}

/// What a shell prints for a script, which must end well and say nothing on stderr.
fn shell(program: &str, arguments: &[&str], script: &str, dir: &Path) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program)
        .args(arguments)
        .arg(script)
        .current_dir(dir)
        .env("HOME", dir)
        .env("XDG_CONFIG_HOME", dir)
        .env("XDG_DATA_HOME", dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success() && said.is_empty(), "{program}: {said}");
    String::from_utf8(stdout).unwrap()
}

/// The names of the commands below a command.
fn below(path: &[&str]) -> Vec<String> {
    let all = commands::all();
    let (_, command) = all.iter().find(|(at, _)| at == path).unwrap();
    let names = command.get_subcommands().map(clap::Command::get_name);
    names.map(str::to_owned).collect()
}

#[test]
fn man_shows_a_page_for_every_command_and_warns_of_nothing() {
    let dir = generated();
    let pages = dir.path().join("man1");
    let all = commands::all();
    assert_eq!(fs::read_dir(&pages).unwrap().count(), all.len());
    for (path, command) in all {
        let name = [vec!["turnaway".to_owned()], path].concat();
        let page = pages.join(name.join("-") + ".1");
        let output = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l"])
            .arg(&page)
            .env("MANWIDTH", "200")
            .env("MANPAGER", "cat")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{page:?}: {said}"
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let heading = format!("{}(1)", name.join("-").to_uppercase());
        assert!(text.starts_with(&heading), "{text}");
        for option in command.get_arguments().filter(|one| !one.is_hide_set()) {
            if let Some(long) = option.get_long() {
                assert!(text.contains(&format!("--{long}")), "{page:?}: no --{long}");
            }
        }
        // Each line of the examples is there as it is in --help.
        let help = command.get_after_help().map(ToString::to_string);
        let (_, examples) = help
            .as_deref()
            .unwrap_or("")
            .split_once("Examples:\n")
            .unwrap_or_default();
        let examples = examples.split("\n\n").next().unwrap_or_default();
        for line in examples.lines() {
            assert!(
                text.contains(line.trim()),
                "{page:?}: no {line:?} in\n{text}"
            );
        }
    }
}

#[test]
fn bash_completes_every_command() {
    let dir = generated();
    let complete = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let (last, all, position) = (words[words.len() - 1], words.join(" "), words.len());
        let script = format!(
            "source completions/turnaway.bash || exit; complete -p turnaway || exit
             COMP_WORDS=({all} ''); COMP_CWORD={position}; _turnaway turnaway '' {last}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        shell(
            "bash",
            &["--norc", "--noprofile", "-c"],
            &script,
            dir.path(),
        )
    };
    let shown = complete("turnaway");
    assert!(shown.contains("-F _turnaway turnaway\n"), "{shown}");
    for command in below(&[]) {
        assert!(
            shown.lines().any(|line| line == command),
            "{command}: {shown}"
        );
    }
    let shown = complete("turnaway silence");
    for command in below(&["silence"]) {
        assert!(
            shown.lines().any(|line| line == command),
            "{command}: {shown}"
        );
    }
    let shown = complete("turnaway trace --tier");
    assert!(shown.lines().any(|line| line == "tracepoint"), "{shown}");
}

#[test]
fn fish_completes_every_command() {
    let dir = generated();
    let complete = |line: &str| {
        let script = format!("source completions/turnaway.fish; complete -C '{line}'");
        let shown = shell("fish", &["--no-config", "-c"], &script, dir.path());
        shown
            .lines()
            .map(|line| line.split('\t').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let shown = complete("turnaway ");
    for command in below(&[]) {
        assert!(shown.contains(&command), "{command}: {shown:?}");
    }
    let shown = complete("turnaway silence ");
    for command in below(&["silence"]) {
        assert!(shown.contains(&command), "{command}: {shown:?}");
    }
    let shown = complete("turnaway trace --tier ");
    assert!(shown.iter().any(|word| word == "tracepoint"), "{shown:?}");
}

#[test]
fn zsh_completes_every_command() {
    let dir = generated();
    // Only its line editor may complete: what would list words for it prints them instead.
    let script = r#"
        fpath=(completions $fpath); autoload -U compinit; compinit -u -D || exit
        _describe() { print -rl -- "${(@P)4}" }
        _arguments() { print -rl -- "$@"; return 1 }
        print -r -- "for turnaway: $_comps[turnaway]"
        _turnaway; _turnaway_commands; _turnaway__subcmd__silence_commands
    "#;
    let shown = shell("zsh", &["-f", "-c"], script, dir.path());
    assert!(shown.starts_with("for turnaway: _turnaway\n"), "{shown}");
    for command in [below(&[]), below(&["silence"])].concat() {
        let word = format!("{command}:");
        assert!(
            shown.lines().any(|line| line.starts_with(&word)),
            "{command}: {shown}"
        );
    }
    assert!(
        shown.lines().any(|line| line.starts_with("--log=")),
        "{shown}"
    );
}
