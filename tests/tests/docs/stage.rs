//! A folder in which examples of documents run: what they name is there, what they would do to the host they
//! do in it, and none goes on for ever.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use turnaway_tests::daemon::Daemon;
use turnaway_tests::tracer;

use super::blocks::root;

/// What may stand beside turnaway in an example, and is run.
const BESIDE: [&str; 5] = ["jq", "cat", "head", "grep", "sh"];
/// Folders of the host that examples name. They are folders of the stage instead.
const FOLDERS: [&str; 5] = [
    "/etc/turnaway",
    "/var/log/turnaway",
    "/var/lib/turnaway",
    "/run/turnaway",
    "/tmp/turnaway",
];
/// Files of those that examples name.
const FILES: [&str; 8] = [
    "webhook.token",
    "slack.url",
    "pagerduty.key",
    "elastic.token",
    "splunk.token",
    "logs.pem",
    "client.pem",
    "client.key",
];

/// What is expected of what is recorded.
const EXPECTED: &str = r#"
records = "tuesday.ndjson"
after = "1h"
[[expect]]
at = "0s"
within = "10s"
status = "firing"
labels = { comm = "pgbouncer" }
[[expect]]
at = "31s"
status = "firing"
[[expect]]
at = "149s"
status = "resolved"
"#;

/// Notes how it was called, and does nothing.
const NOTE: &str = r#"#!/bin/sh
{ for word; do printf '%s\0' "$word"; done; printf '\1\0'; } > "$NOTES/$$"
"#;

/// Runs turnaway as an example says, but bounded, and away from what the host has.
const RUN: &str = r#"#!/bin/sh
command=$1; shift
dir=$(mktemp -d)
count=$#; before=; bounded=; is_to=
while [ "$count" -gt 0 ]; do
    word=$1; shift; count=$((count - 1))
    case $before in -d | --duration | --audit) word=1s; bounded=1 ;; --metrics) word=unix:$dir/metrics ;; esac
    case $word in --socket | --state | --no-state | --from | --metrics | --no-metrics) is_to="$is_to $word" ;; esac
    before=$word
    set -- "$@" "$word"
done
case $command in
    trace) [ "$bounded" ] || set -- "$@" -d 1s; exec "$REAL" trace "$@" ;;
    status | incidents | silence) exec "$REAL" "$command" "$@" --socket "$SOCKET" ;;
    report) case $is_to in *--from* | *--state*) ;; *) set -- "$@" --state "$STATE" ;; esac
        exec "$REAL" report "$@" ;;
    daemon) case $is_to in *state*) ;; *) set -- "$@" --state "$dir/state" ;; esac
        case $is_to in *metrics*) ;; *) set -- "$@" --metrics "unix:$dir/metrics" ;; esac
        "$REAL" daemon "$@" --socket "$dir/socket" 2> "$dir/said" & pid=$!
        while kill -0 $pid && ! grep -q '^tracing' "$dir/said"; do sleep 0.1; done 2> /dev/null
        kill -INT $pid; wait $pid; code=$?
        cat "$dir/said" >&2; exit $code ;;
    *) exec "$REAL" "$command" "$@" ;;
esac
"#;

/// Where examples run.
pub(super) struct Stage {
    dir: TempDir,
}

impl Stage {
    /// One on which nothing is run; what would be is noted.
    pub(super) fn of_notes() -> Self {
        let stage = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        stage.programs(NOTE, &[]);
        stage
    }

    /// One with a daemon that can be asked.
    pub(super) fn of_runs() -> (Self, Daemon) {
        let dir = tempfile::tempdir().unwrap();
        furnish(dir.path());
        let daemon = Daemon::start(
            &tracer::binary().unwrap(),
            &dir.path().join("turnaway.toml"),
            &dir.path().join("state"),
        );
        let stage = Self { dir };
        stage.programs(RUN, &["mktemp", "sleep"]);
        (stage, daemon.unwrap())
    }

    /// A folder with this for turnaway, what may stand beside it, what it needs itself, and nothing else.
    fn programs(&self, turnaway: &str, needs: &[&str]) {
        let programs = self.dir.path().join("bin");
        fs::create_dir(&programs).unwrap();
        let path = programs.join("turnaway");
        fs::write(&path, turnaway).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        for name in BESIDE.iter().chain(needs) {
            let real = std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .map(|dir| dir.join(name))
                .find(|path| path.exists());
            let real = real.unwrap_or_else(|| panic!("{name} is not installed"));
            std::os::unix::fs::symlink(real, programs.join(name)).unwrap();
        }
    }

    /// Runs a line as a shell does.
    pub(super) fn line(&self, line: &str) -> Output {
        let dir = self.dir.path();
        let place = tempfile::tempdir_in(dir).unwrap();
        furnish(place.path());
        Command::new("/bin/sh")
            .arg("-c")
            .arg(moved(line, dir))
            .current_dir(place.path())
            .env("PATH", dir.join("bin"))
            .env("TMPDIR", place.path())
            .env("NOTES", dir.join("notes"))
            .env("REAL", tracer::binary().unwrap())
            .env("SOCKET", dir.join("state/control.sock"))
            .env("STATE", dir.join("state"))
            .output()
            .unwrap()
    }

    /// How turnaway was called in a line: the words of each call.
    pub(super) fn calls(&self, line: &str) -> Vec<Vec<String>> {
        // A file for each call: those of a pipe run at the same time.
        let notes = self.dir.path().join("notes");
        fs::create_dir(&notes).unwrap();
        self.line(line);
        let files = fs::read_dir(&notes).unwrap();
        let noted: String = files
            .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        fs::remove_dir_all(&notes).unwrap();
        let mut calls = vec![Vec::new()];
        for word in noted.split_terminator('\0') {
            if word == "\u{1}" {
                calls.push(Vec::new());
            } else if let Some(call) = calls.last_mut() {
                call.push(word.to_owned());
            }
        }
        calls.pop();
        calls
    }
}

/// Puts what examples name into a folder.
pub(super) fn furnish(dir: &Path) {
    let recorded = root().join("tests/tests/replay/pooler.ndjson");
    for name in ["tuesday.ndjson", "FILE", "FILE.1", "FILE.2"] {
        fs::copy(&recorded, dir.join(name)).unwrap();
    }
    fs::write(dir.join("turnaway.toml"), "").unwrap();
    fs::write(dir.join("rules.toml"), "").unwrap();
    fs::write(dir.join("tuesday.toml"), EXPECTED).unwrap();
    for folder in FOLDERS {
        fs::create_dir_all(place(folder, dir)).unwrap();
    }
    for file in FILES {
        let path = place("/etc/turnaway", dir).join(file);
        fs::write(path, "https://example.com/secret\n").unwrap();
    }
}

fn place(folder: &str, dir: &Path) -> PathBuf {
    dir.join(folder.trim_start_matches('/'))
}

/// The same, with folders of the stage in place of the host's.
pub(super) fn moved(text: &str, dir: &Path) -> String {
    let mut text = text.to_owned();
    for folder in FOLDERS {
        text = text.replace(folder, &place(folder, dir).display().to_string());
    }
    text
}
