//! "Try it" of each reason's page: what it shows happens.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use turnaway_common::Reason;
use turnaway_tests::live::Live;
use turnaway_tests::tracer;

use super::blocks::documents;

/// Pages without anything to try, which say why.
const NOTHING_TO_TRY: [&str; 8] = [
    "accept.aborted",
    "accept.denied",
    "accept.enfile",
    "accept.nomem",
    "accept.other",
    "connect.reset",
    "fd.table_pressure",
    "net.conntrack_full",
];
/// Told together where queues are polled (docs/limitations.md).
const POLLED: [&str; 3] = [
    "queue.syn_overflow",
    "queue.ack_overflow",
    "queue.rst_overflow",
];
/// How long a page's commands may take.
const PATIENCE: Duration = Duration::from_mins(2);

#[test]
fn what_the_pages_say_to_try_shows_their_reason() {
    let mut to_try = BTreeMap::new();
    for document in documents() {
        let Some(code) = document.name.strip_prefix("docs/reasons/") else {
            continue;
        };
        let code = code.strip_suffix(".md").unwrap().to_owned();
        let blocks: Vec<&str> = document
            .blocks
            .iter()
            .filter(|block| block.language == "sh")
            .map(|block| block.code.as_str())
            .collect();
        match blocks.as_slice() {
            [] => assert!(NOTHING_TO_TRY.contains(&code.as_str()), "{code}"),
            [one] => {
                to_try.insert(code, (*one).to_owned());
            }
            several => panic!("{code}: {several:?}"),
        }
    }
    assert_eq!(to_try.len() + NOTHING_TO_TRY.len(), Reason::ALL.len());

    let live = Live::start(&tracer::binary().unwrap(), &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut running = Vec::new();
    for (number, (code, script)) in to_try.iter().enumerate() {
        let name = format!("try-{number}");
        let mut command = Command::new("timeout");
        command
            .arg(PATIENCE.as_secs().to_string())
            .args(["sh", "-c", script])
            .env("PATH", python_called(&name, dir.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        running.push((code, name, command.spawn().unwrap()));
    }
    for (code, _, child) in &mut running {
        let status = child.wait().unwrap();
        assert!(status.success(), "{code}: {status}");
    }
    let records = live.stop().unwrap();
    let mut missing = Vec::new();
    for (code, name, _) in running {
        let of_it: Vec<&str> = records
            .counts
            .iter()
            .filter(|count| count.process.comm.as_ref() == Some(&name))
            .map(|count| count.reason.as_str())
            .collect();
        let is_it = |reason: &&str| {
            *reason == code || *reason == "queue.overflow" && POLLED.contains(&code.as_str())
        };
        if !of_it.iter().any(is_it) {
            missing.push(format!("{code}: {of_it:?}"));
        }
    }
    assert!(missing.is_empty(), "not seen: {missing:#?}");
}

/// A PATH in which python3 is a process of that name: what it does is told apart from all else by it.
fn python_called(name: &str, dir: &Path) -> OsString {
    let place = dir.join(name);
    fs::create_dir(&place).unwrap();
    let real = place.join(name);
    symlink("/usr/bin/python3", &real).unwrap();
    let script = place.join("python3");
    fs::write(
        &script,
        format!("#!/bin/sh\nexec {} \"$@\"\n", real.display()),
    )
    .unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    std::env::join_paths([place].into_iter().chain(std::env::split_paths(&path))).unwrap()
}
