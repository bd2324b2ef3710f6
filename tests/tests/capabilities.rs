//! turnaway as another user than root, with a few capabilities: what it does with them, and what it says without.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use turnaway_tests::apart::{mount, with_mounts};
use turnaway_tests::few::{ENOUGH, NOBODY, user, with};
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::tracer::{self, Tracer};

/// Whose servers it is to look at.
const SOMEBODY: &str = "61234";

/// The programs, where everybody may run them.
struct Programs {
    _dir: tempfile::TempDir,
    turnaway: PathBuf,
    scenarios: PathBuf,
}

impl Programs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let copy = |from: &Path, name| {
            let to = dir.path().join(name);
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
            to
        };
        Self {
            turnaway: copy(&tracer::binary().unwrap(), "turnaway"),
            scenarios: copy(&tracer::scenarios().unwrap(), "scenarios"),
            _dir: dir,
        }
    }

    /// turnaway, as a user with these capabilities and no other.
    fn with(&self, capabilities: &[&str]) -> Command {
        with(&self.turnaway, NOBODY, capabilities)
    }

    /// A server of somebody else's.
    fn acceptor(&self) -> Acceptor {
        let mut command = user(SOMEBODY);
        command.arg(&self.scenarios).arg("driven");
        Acceptor::start(&mut command).unwrap()
    }
}

/// Runs `body` where tracefs is mounted, as most systems have it from their start.
fn with_tracefs(body: impl FnOnce() + Send) {
    with_mounts(|| {
        let place = "/sys/kernel/tracing";
        if !Path::new(place).join("events").exists() {
            mount(&["-t", "tracefs", "tracefs", place])?;
        }
        body();
        Ok(())
    })
    .unwrap();
}

fn without<'a>(taken: &str) -> Vec<&'a str> {
    let left = ENOUGH.into_iter().filter(|one| *one != taken);
    left.collect()
}

/// What it said of the failures of a server: how many, and its program.
struct Seen {
    count: u64,
    exe: Option<String>,
    fds: Option<u64>,
    said: String,
}

fn failures(programs: &Programs, capabilities: &[&str]) -> Seen {
    let mut acceptor = programs.acceptor();
    let port = acceptor.port.to_string();
    let mut command = programs.with(capabilities);
    command.args(["trace", "--json", "--reason", "accept", "-P", &port]);
    let tracer = Tracer::spawn(&mut command).unwrap();
    let _client = acceptor.client().unwrap();
    assert_eq!(acceptor.fail(17).unwrap(), 17);
    let run = tracer.stop().unwrap();
    let records = run.records().unwrap();
    let ours: Vec<_> = records
        .summary
        .totals
        .iter()
        .filter(|total| total.reason == "accept.emfile" && total.process.pid == acceptor.pid)
        .collect();
    let [total] = ours[..] else {
        panic!("not one total of {}: {ours:?}", acceptor.pid);
    };
    let fds = records.events.iter().find_map(|event| event.fd.used);
    let seen = Seen {
        count: total.count.unwrap(),
        exe: total.process.exe.clone(),
        fds,
        said: run.stderr,
    };
    acceptor.recover().unwrap();
    acceptor.finish().unwrap();
    seen
}

/// A run that is to end at once, as one that cannot see does.
fn refused(mut command: Command) -> String {
    let output: Output = command.args(["trace", "-d", "1s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn only_names(name: &str, said: &str) {
    assert!(said.contains(&format!("{name} is missing")), "{said}");
    for (other, _) in said.match_indices(" is missing") {
        assert!(said[..other].ends_with(name), "{said}");
    }
}

fn doctor(mut command: Command) -> String {
    let output = command.arg("doctor").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn four_are_enough() {
    let programs = Programs::new();
    with_tracefs(|| {
        let seen = failures(&programs, &ENOUGH);
        assert_eq!(seen.count, 17);
        assert_eq!(seen.exe.as_deref(), programs.scenarios.to_str());
        assert!(seen.fds.is_some());
        for missing in ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC"] {
            assert!(!seen.said.contains(missing), "{}", seen.said);
        }
        // What is lost without what root has.
        let lost = "not seen: queues in other network namespaces";
        assert!(seen.said.contains(lost), "{}", seen.said);
        assert!(
            seen.said.contains("CAP_SYS_ADMIN is missing"),
            "{}",
            seen.said
        );
        let said = doctor(programs.with(&ENOUGH));
        assert!(said.contains("[ok]   accept  "), "{said}");
        assert!(said.contains("[ok]   tracefs "), "{said}");
        assert!(said.contains("[--]   CAP_SYS_ADMIN "), "{said}");
    });
}

#[test]
fn without_one_that_loading_takes_it_is_named() {
    let programs = Programs::new();
    with_tracefs(|| {
        for (taken, name) in [
            ("bpf", "CAP_BPF"),
            ("perfmon", "CAP_PERFMON"),
            ("dac_read_search", "CAP_DAC_READ_SEARCH"),
        ] {
            // Where trampolines work, it does not take tracefs, which that is for.
            if taken != "dac_read_search" {
                only_names(name, &refused(programs.with(&without(taken))));
            }
            let said = doctor(programs.with(&without(taken)));
            let line = format!("[--]   {name} ");
            assert!(said.contains(&line), "{said}");
            assert!(said.contains("Not everything can be seen here"), "{said}");
            only_names(name, &said);
        }
    });
}

#[test]
fn without_one_that_looking_takes_counts_are_exact_all_the_same() {
    let programs = Programs::new();
    with_tracefs(|| {
        let seen = failures(&programs, &without("sys_ptrace"));
        assert_eq!(seen.count, 17);
        assert_eq!(seen.exe, None);
        let said = &seen.said;
        assert!(said.contains("CAP_SYS_PTRACE is missing"), "{said}");
        assert!(said.contains("not seen: programs, descriptors"), "{said}");
        let said = doctor(programs.with(&without("sys_ptrace")));
        assert!(said.contains("[--]   CAP_SYS_PTRACE "), "{said}");
    });
}

#[test]
fn where_tracefs_is_not_mounted_it_takes_one_more_to_mount_it() {
    let programs = Programs::new();
    with_mounts(|| {
        let place = "/sys/kernel/tracing";
        if Path::new(place).join("events").exists() {
            // What is there is hidden, as far as this thread is concerned.
            mount(&["-t", "tmpfs", "nothing", place])?;
        }
        let said = refused(programs.with(&ENOUGH));
        assert!(said.contains("CAP_SYS_ADMIN is missing"), "{said}");
        assert!(said.contains("mount -t tracefs tracefs"), "{said}");
        Ok(())
    })
    .unwrap();
}
