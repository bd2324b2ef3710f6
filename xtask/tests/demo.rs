//! `cargo xtask demo` as its readers run it, but for the build.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, getrlimit};

fn turnaway() -> PathBuf {
    std::env::var_os("TURNAWAY_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/turnaway"),
        PathBuf::from,
    )
}

/// It ends by itself within half a minute.
fn demo() -> Child {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["demo", "--turnaway"])
        .arg(turnaway())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What stands between two texts, the first time.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let found = text
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after));
    found
        .unwrap_or_else(|| panic!("no {before:?} … {after:?} in {text}"))
        .0
}

fn ended(demo: Child) -> (String, String) {
    let output = demo.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

#[test]
fn the_culprit_is_named_and_its_failures_are_counted() {
    let (shown, said) = ended(demo());
    let pid = between(&said, "demo-server, pid ", ",");
    let port = between(&said, "listens on port ", " ");
    let failed = between(&said, "the server itself counted ", " ");
    assert_eq!(failed, "20", "{said}");
    let total = shown
        .lines()
        .find(|line| line.contains(&format!("demo-server[{pid}]")))
        .unwrap_or_else(|| panic!("no total of {pid} in {shown}"));
    let words: Vec<&str> = total.split_whitespace().collect();
    let listener = format!("127.0.0.1:{port}");
    assert_eq!(
        words[..6],
        [
            failed,
            "accept.emfile",
            "EMFILE",
            words[3],
            "tcp",
            &listener
        ]
    );
}

#[test]
fn what_is_advised_mends_it() {
    let mut demo = demo();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let advice = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.trim().strip_prefix("now:").map(str::to_owned))
        .expect("no advice");
    // Root without CAP_SYS_RESOURCE may not raise the hard limit.
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let advice = advice.replace("65535", &hard.min(65535).to_string());
    let typed = Command::new("sh").args(["-c", &advice]).output().unwrap();
    assert!(typed.status.success(), "{advice}: {typed:?}");
    // Until it ends: who does not read would have it stopped.
    lines.for_each(drop);
    let mut said = String::new();
    let mut stderr = demo.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(demo.wait().unwrap().success(), "{said}");
    assert!(said.contains("served 32 of 32 clients"), "{said}");
}

#[test]
fn the_readme_says_how_to_run_it() {
    let readme = include_str!("../../README.md");
    assert!(readme.lines().any(|line| line == "cargo xtask demo"));
}
