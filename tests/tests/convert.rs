//! Records in the words of others, by the command line: recorded, without root, and as failures happen.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use turnaway_tests::scenario::run::Actor;
use turnaway_tests::tracer;

// The same check as that of the product's own samples.
#[path = "../../tracer/src/stream/format/tests/published.rs"]
mod published;

const RECORDS: &str = "tests/replay/pooler.ndjson";

fn convert(format: &str, lines: &[u8]) -> Output {
    let mut child = Command::new(tracer::binary().unwrap())
        .args(["convert", "--format", format, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines = lines.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&lines));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

fn records(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What a tracer tells of a process that fails, in a format, from its start to its end.
fn live(format: &str, act: impl FnOnce(&mut Actor)) -> Vec<Value> {
    let program = Path::new(env!("CARGO_BIN_EXE_turnaway-scenarios"));
    let mut actor = Actor::start(program, "emfile").unwrap();
    let mut child = Command::new(tracer::binary().unwrap())
        .args(["trace", "-o", format, "--reason", "accept", "-p"])
        .arg(actor.pid().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = turnaway_tests::lines::of(child.stderr.take().unwrap());
    let mut said = said.iter();
    assert!(said.any(|line| line.starts_with("tracing ")));
    act(&mut actor);
    turnaway_tests::sys::kill(child.id(), libc::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said: Vec<String> = said.collect();
    assert!(output.status.success(), "{said:?}");
    records(&output)
}

#[test]
fn failures_are_told_in_each_format_as_they_happen() {
    let facts = published::Ocsf::read();
    for format in ["ecs", "ocsf"] {
        let mut tally = 0;
        let told = live(format, |actor| {
            let own = actor.act().unwrap();
            tally = own.failures.iter().map(|failures| failures.count).sum();
        });
        assert!(tally > 0);
        let mut counted = 0;
        let mut kinds = BTreeSet::new();
        for record in &told {
            let (wrong, kind, count) = match format {
                "ecs" => (
                    published::ecs(record),
                    &record["event"]["dataset"],
                    &record["turnaway"]["count"],
                ),
                _ => (
                    facts.wrong(record),
                    &record["metadata"]["log_name"],
                    &record["count"],
                ),
            };
            assert_eq!(wrong, Vec::<String>::new(), "{record:#}");
            let kind = kind.as_str().unwrap();
            if kind == "turnaway.count" {
                counted += count.as_u64().unwrap();
            }
            kinds.insert(kind.to_owned());
        }
        assert_eq!(counted, tally, "{format}");
        let all = ["turnaway.count", "turnaway.event", "turnaway.summary"];
        assert_eq!(kinds, BTreeSet::from(all.map(str::to_owned)));
    }
}

#[test]
fn a_recording_is_told_in_each_format() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDS);
    let native = std::fs::read_to_string(path).unwrap();
    let facts = published::Ocsf::read();
    for format in ["native", "ecs", "ocsf"] {
        let output = convert(format, native.as_bytes());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(said, "");
        let told = records(&output);
        assert_eq!(told.len(), native.lines().count());
        for (native, record) in native.lines().zip(&told) {
            let native: Value = serde_json::from_str(native).unwrap();
            let (wrong, code, pid) = match format {
                "native" => (Vec::new(), &record["reason"], &record["process"]["pid"]),
                "ecs" => (
                    published::ecs(record),
                    &record["event"]["code"],
                    &record["process"]["pid"],
                ),
                _ => (
                    facts.wrong(record),
                    &record["metadata"]["event_code"],
                    &record["actor"]["process"]["pid"],
                ),
            };
            assert_eq!(wrong, Vec::<String>::new(), "{record:#}");
            assert_eq!((code, pid), (&native["reason"], &native["process"]["pid"]));
        }
    }
}

#[test]
fn lines_that_are_no_records_are_told_and_cost_no_other() {
    let good = r#"{"schema":"turnaway/1","type":"event","time":"2026-11-24T03:12:04.000000000Z",
        "host":"db1","reason":"accept.emfile","process":{"pid":1,"comm":"\u001b[2J\u0000\\xff\u202e"},
        "listener":{"path":"@\n\u0007"},"tier":"kprobe"}"#
        .replace('\n', "");
    let mut lines = Vec::new();
    for odd in [
        &b"\xff\xfe{}"[..],
        b"nonsense \x1b[2J",
        b"[1,2]",
        br#"{"schema":"turnaway/2"}"#,
        "x".repeat(3 << 20).as_bytes(),
        b"{\"schema\":\"turnaway/1\"",
        b"",
    ] {
        lines.extend(odd);
        lines.push(b'\n');
        lines.extend(good.as_bytes());
        lines.push(b'\n');
    }
    // The last has no end.
    lines.extend(good.as_bytes());
    for format in ["ecs", "ocsf"] {
        let output = convert(format, &lines);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("6 lines were no records"), "{said}");
        assert!(
            !said.contains('\u{1b}') && !said.contains("panicked"),
            "{said}"
        );
        assert!(
            !output
                .stdout
                .iter()
                .any(|byte| byte.is_ascii_control() && *byte != b'\n')
        );
        let told = records(&output);
        assert_eq!(told.len(), 8);
        for record in told {
            let name = match format {
                "ecs" => &record["process"]["name"],
                _ => &record["actor"]["process"]["name"],
            };
            assert_eq!(name, "\u{1b}[2J\0\\xff\u{202e}");
        }
    }
}

#[test]
fn what_cannot_be_read_or_is_not_known_is_refused() {
    let run = |arguments: &[&str]| {
        let output = Command::new(tracer::binary().unwrap())
            .arg("convert")
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = run(&["--format", "ecs", "/nowhere/at/all"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("/nowhere/at/all"), "{said}");
    let (code, said) = run(&["--format", "cef", "-"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("ecs") && said.contains("ocsf"), "{said}");
}
