//! The whole of it, with programs as receivers; HTTP is tested with real servers.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    Notifiers, Spool,
    config::{Notifier, Receiver, Wants},
    sample,
};
use crate::alert::{Alert, Severity, Status};

const LONG: Duration = Duration::from_mins(1);

fn program(name: &str, script: &str) -> Notifier {
    Notifier {
        name: name.to_owned(),
        wants: Wants {
            min_severity: Severity::Info,
            only: Vec::new(),
            except: Vec::new(),
        },
        queue: 1_000,
        timeout: LONG,
        receiver: Receiver::Command(["/bin/sh", "-c", script].map(str::to_owned).to_vec()),
    }
}

/// Writes what comes to a file.
fn append(path: &Path) -> String {
    format!("cat >> {}", path.display())
}

fn came(path: &Path) -> Vec<(String, Status)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str::<Alert>(line).unwrap())
        .map(|alert| (alert.id, alert.status))
        .collect()
}

#[test]
fn what_is_sent_comes_in_order_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let folder = dir.path().join("queue");
    let notifiers = Notifiers::start(&[program("one", &append(&out))], Some(&folder)).unwrap();
    let mut sent = Vec::new();
    for index in 0..5 {
        for status in [Status::Firing, Status::Resolved] {
            notifiers.send(&sample(&index.to_string(), status));
            sent.push((index.to_string(), status));
        }
    }
    let health = notifiers.stop(LONG);
    assert_eq!(came(&out), sent);
    assert_eq!((health[0].delivered, health[0].queued), (10, 0));
    assert!(health[0].last_success.is_some());
    assert!(
        Spool::new(folder.join("one"))
            .load()
            .unwrap()
            .alerts
            .is_empty()
    );
}

#[test]
fn a_receiver_that_hangs_holds_up_nobody_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (out, folder) = (dir.path().join("out"), dir.path().join("queue"));
    let both = [
        program("hangs", "exec sleep 30"),
        program("works", &append(&out)),
    ];
    let notifiers = Notifiers::start(&both, Some(&folder)).unwrap();
    for index in 0..20 {
        notifiers.send(&sample(&index.to_string(), Status::Firing));
    }
    assert!(notifiers.settle(LONG));
    let started = Instant::now();
    while notifiers.health()[1].delivered < 20 {
        assert!(started.elapsed() < LONG, "{:?}", notifiers.health());
        std::thread::sleep(Duration::from_millis(5));
    }
    let started = Instant::now();
    let health = notifiers.stop(Duration::from_millis(100));
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(health[0].queued, 20);
    assert_eq!(health[1].delivered, 20);
    assert_eq!(came(&out).len(), 20);
    // It is back, as another program under the same name.
    let late = dir.path().join("late");
    let again = Notifiers::start(&[program("hangs", &append(&late))], Some(&folder)).unwrap();
    let health = again.stop(LONG);
    assert_eq!((health[0].delivered, health[0].queued), (20, 0));
    let ids: Vec<String> = came(&late).into_iter().map(|(id, _)| id).collect();
    let all: Vec<String> = (0..20).map(|index| index.to_string()).collect();
    assert_eq!(ids, all);
}

#[test]
fn a_folder_that_cannot_be_is_said_and_costs_no_alert() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let file = dir.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    let notifiers = Notifiers::start(&[program("one", &append(&out))], Some(&file)).unwrap();
    notifiers.send(&sample("a", Status::Firing));
    let health = notifiers.stop(LONG);
    assert_eq!(health[0].delivered, 1);
    assert!(health[0].not_stored.is_some());
    assert_eq!(came(&out), [("a".to_owned(), Status::Firing)]);
}

#[test]
fn without_a_folder_it_works_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let notifiers = Notifiers::start(&[program("one", &append(&out))], None).unwrap();
    notifiers.send(&sample("a", Status::Firing));
    let health = notifiers.stop(LONG);
    assert_eq!((health[0].delivered, &health[0].not_stored), (1, &None));
}
