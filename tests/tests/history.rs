//! The history against what happens to processes and disks.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use turnaway::history::{Caps, History, Incident, Reader, Wanted};
use turnaway_tests::disk::Disk;
use turnaway_tests::wait;

const PATIENCE: Duration = Duration::from_secs(30);
/// Set for the process that writes until it is killed.
const WRITER: &str = "TURNAWAY_TEST_HISTORY";

fn incident(number: u64) -> Incident {
    serde_json::from_value(serde_json::json!({
        "id": format!("{number:08}"), "host": "db1", "status": "firing", "severity": "critical",
        "statement": "pgbouncer turns clients away", "started": "2026-11-24T03:12:00Z",
        "victim": {"role": "server", "process": {"pid": 812, "comm": "pgbouncer"}},
        "reasons": [{
            "reason": "accept.emfile", "count": number,
            "first": "2026-11-24T03:12:00Z", "last": "2026-11-24T03:12:00Z",
        }],
        "timeline": [{"time": "2026-11-24T03:12:00Z", "text": "accept fails"}],
    }))
    .unwrap()
}

fn incidents(path: &Path) -> Vec<Incident> {
    Reader::open(path)
        .unwrap()
        .incidents(&Wanted::default())
        .unwrap()
}

/// The process that is killed: what it says was kept, was.
#[test]
fn writer() {
    let Some(path) = env::var_os(WRITER) else {
        return;
    };
    let path = PathBuf::from(path);
    // One that was killed early left no tables.
    let before = Reader::open(&path).and_then(|reader| reader.incidents(&Wanted::default()));
    let first = before.map_or(0, |incidents| incidents.len() as u64);
    let history = History::start(&path, Caps::default()).unwrap();
    let mut out = std::io::stdout();
    for number in first.. {
        history.incident(incident(number));
        assert!(history.settle(PATIENCE));
        writeln!(out, "kept {number}").unwrap();
        out.flush().unwrap();
    }
}

fn start_writer(path: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture", "--test-threads=1"])
        .env(WRITER, path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_that_was_kept_is_lost_to_sigkill_at_200_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    let mut random = fastrand::Rng::with_seed(3);
    let mut kept = 0;
    for round in 0..200 {
        let mut child = start_writer(&path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // After its first words now and then, somewhere in its start otherwise.
        let mut last = None;
        if round % 4 != 0 {
            last = lines.find_map(|line| number(&line.unwrap()));
            assert!(last.is_some());
        }
        std::thread::sleep(Duration::from_micros(random.u64(0..15_000)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        let last = lines
            .filter_map(|line| number(&line.unwrap()))
            .last()
            .or(last);
        kept = last.map_or(kept, |last| last + 1);
        if !path.exists() {
            continue;
        }
        let Ok(reader) = Reader::open(&path) else {
            // It was killed before there were tables.
            assert_eq!(kept, 0);
            continue;
        };
        reader.check().unwrap();
        let found = reader.incidents(&Wanted::default()).unwrap();
        assert!(
            found.len() as u64 >= kept,
            "round {round}: {} {kept}",
            found.len()
        );
        assert!(found.iter().all(|one| one.timeline.len() == 1));
    }
    assert!(kept > 200, "{kept}");
    let aside = std::fs::read_dir(folder.path()).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains("damaged"));
    assert_eq!(aside.count(), 0);
}

fn number(line: &str) -> Option<u64> {
    line.split("kept ").nth(1)?.parse().ok()
}

#[test]
fn a_disk_that_hangs_holds_up_nobody_and_is_caught_up_with() {
    let disk = Disk::ext4(32).unwrap();
    let path = disk.mounted.join("history.db");
    let history = History::start(&path, Caps::default()).unwrap();
    history.incident(incident(0));
    assert!(history.settle(PATIENCE));
    let frozen = disk.freeze().unwrap();
    let begun = Instant::now();
    for number in 1..1_000 {
        history.incident(incident(number));
    }
    // A frozen file system would hold up for ever whoever waits for it.
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    wait::until_true("the writer to hang", || {
        Ok(history
            .health()
            .writing
            .is_some_and(|time| time > Duration::from_millis(500)))
    })
    .unwrap();
    assert!(!history.settle(Duration::from_millis(50)));
    let begun = Instant::now();
    history.incident(incident(1_000));
    assert!(begun.elapsed() < Duration::from_millis(500));
    drop(frozen);
    assert!(history.settle(PATIENCE));
    assert_eq!(history.health().lost, 0);
    assert!(history.stop(PATIENCE));
    assert_eq!(incidents(&path).len(), 1_001);
}

#[test]
fn a_full_disk_costs_memory_until_there_is_room() {
    let disk = Disk::tmpfs(256).unwrap();
    let path = disk.mounted.join("history.db");
    let history = History::start(&path, Caps::default()).unwrap();
    history.incident(incident(0));
    assert!(history.settle(PATIENCE));
    for number in 1..2_000 {
        history.incident(incident(number));
    }
    wait::until_true("the disk to be full", || {
        Ok(history
            .health()
            .failing
            .is_some_and(|why| why.contains("full")))
    })
    .unwrap();
    // What is there can be read all the same.
    assert!(incidents(&path).len() < 2_000);
    disk.grow(64 << 10).unwrap();
    assert!(history.settle(PATIENCE));
    assert_eq!(history.health(), turnaway::history::Health::default());
    assert!(history.stop(PATIENCE));
    assert_eq!(incidents(&path).len(), 2_000);
}

#[test]
fn what_waits_for_a_disk_stays_within_its_bound() {
    let disk = Disk::ext4(32).unwrap();
    let path = disk.mounted.join("history.db");
    let caps = Caps {
        memory: 1 << 20,
        ..Caps::default()
    };
    let history = History::start(&path, caps).unwrap();
    assert!(history.settle(PATIENCE));
    let frozen = disk.freeze().unwrap();
    history.incident(incident(0));
    wait::until_true("the writer to hang", || {
        Ok(history.health().writing.is_some())
    })
    .unwrap();
    for number in 1..20_000 {
        history.incident(incident(number));
    }
    let lost = history.health().lost;
    assert!(lost > 0);
    drop(frozen);
    assert!(history.settle(PATIENCE));
    assert!(history.stop(PATIENCE));
    let found = incidents(&path);
    assert_eq!(found.len() as u64 + lost, 20_000, "each is kept or counted");
    assert!(found.iter().any(|one| one.id == "00019999"), "the newest");
}
