//! What is kept comes back, whatever happens to the file.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rusqlite::Connection;

use super::{
    Caps, Context, History, Incident, Line, Minute, Pressure, Reader, Run, Sample, Wanted, Watch,
    pending::{Item, Pending},
    schema,
    store::Store,
};
use crate::incident::tests::{samples, wall};

const PATIENCE: Duration = Duration::from_secs(20);

/// An incident as the engine writes it, with an id and a start of its own.
pub(crate) fn incident(id: &str, started: Timestamp) -> Incident {
    let record = samples().swap_remove(0);
    let mut incident = Incident::of(&record).unwrap();
    incident.id = id.to_owned();
    incident.started = started;
    incident.victim.process.as_mut().unwrap().container = None;
    incident
}

fn run(pid: u32, ms: u64) -> Run {
    Run {
        pid,
        started: wall(ms),
        ended: None,
        program: "pg_dump".to_owned(),
        unit: Some("backup.service".to_owned()),
        exe: Some("/usr/bin/pg_dump".to_owned()),
        argv: Some("pg_dump -Fc shop".to_owned()),
        parent: Some("systemd".to_owned()),
    }
}

fn sample(ms: u64) -> Sample {
    Sample {
        time: wall(ms),
        failures: 7,
        fd_used: Some(1024),
        fd_limit: Some(1024),
        io: Some(81.5),
        ..Sample::default()
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn file(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join(super::FILE)
}

fn store(path: &Path) -> Store {
    let opened = Store::open(path, wall(0)).unwrap();
    assert_eq!(opened.aside, None);
    opened.store
}

fn everything() -> Vec<Item> {
    vec![
        Item::Incident(Box::new(incident("a", wall(0)))),
        Item::Context(Context {
            incident: "a".to_owned(),
            taken: wall(20),
            context: serde_json::json!({"pressure": {"io": 81.5}}),
        }),
        Item::Sample("a".to_owned(), sample(1_000)),
        Item::Minute(Minute {
            time: wall(0),
            subject: "pgbouncer".to_owned(),
            reason: "accept.emfile".to_owned(),
            count: 40,
        }),
        Item::Pressure(Pressure {
            time: wall(0),
            cpu: Some(1.5),
            io: Some(80.0),
            memory: None,
        }),
        Item::Run(run(77, 0)),
        Item::Watch(Watch {
            from: wall(0),
            until: wall(60_000),
        }),
    ]
}

#[test]
fn what_is_kept_comes_back() {
    let folder = folder();
    let path = file(&folder);
    let mut store = store(&path);
    store.write(&everything()).unwrap();
    let reader = Reader::open(&path).unwrap();
    reader.check().unwrap();
    let wanted = incident("a", wall(0));
    assert!(!wanted.timeline.is_empty());
    assert_eq!(reader.incidents(&Wanted::default()).unwrap(), [wanted]);
    let context = reader.context("a").unwrap().unwrap();
    assert_eq!(context.taken, wall(20));
    assert_eq!(context.context["pressure"]["io"], 81.5);
    assert_eq!(reader.context("b").unwrap(), None);
    assert_eq!(reader.samples("a").unwrap(), [sample(1_000)]);
    assert_eq!(reader.runs(wall(0), wall(1)).unwrap(), [run(77, 0)]);
    assert_eq!(reader.runs(wall(1), wall(2)).unwrap(), []);
    let ever = reader.runs(Timestamp::MIN, Timestamp::MAX).unwrap();
    assert_eq!(ever, [run(77, 0)]);
    let pressures = reader.pressures(wall(0), wall(1)).unwrap();
    assert_eq!((pressures[0].io, pressures[0].memory), (Some(80.0), None));
    assert_eq!(reader.watches().unwrap()[0].until, wall(60_000));
    assert_eq!(reader.minutes(wall(0), wall(1)).unwrap()[0].count, 40);
}

#[test]
fn what_is_written_again_replaces_and_minutes_add_up() {
    let folder = folder();
    let path = file(&folder);
    let mut store = store(&path);
    store.write(&everything()).unwrap();
    let mut later = incident("a", wall(0));
    later.ended = Some(wall(90_000));
    later.timeline.truncate(1);
    let mut ended = run(77, 0);
    ended.ended = Some(wall(5_000));
    let again = [
        Item::Incident(Box::new(later.clone())),
        Item::Run(ended.clone()),
        everything().swap_remove(3),
        Item::Watch(Watch {
            from: wall(0),
            until: wall(120_000),
        }),
    ];
    store.write(&again).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.incidents(&Wanted::default()).unwrap(), [later]);
    assert_eq!(reader.runs(wall(0), wall(1)).unwrap(), [ended]);
    assert_eq!(reader.minutes(wall(0), wall(1)).unwrap()[0].count, 80);
    assert_eq!(reader.watches().unwrap().len(), 1);
    assert_eq!(reader.watches().unwrap()[0].until, wall(120_000));
}

#[test]
fn incidents_are_found_by_id_time_and_unit() {
    let folder = folder();
    let path = file(&folder);
    let mut store = store(&path);
    let mut other = incident("other", wall(2_000_000));
    other.victim.process.as_mut().unwrap().unit = Some("web.service".to_owned());
    let mut first = incident("first", wall(0));
    first.ended = Some(wall(10_000));
    store
        .write(&[
            Item::Incident(Box::new(first)),
            Item::Incident(Box::new(incident("second", wall(1_000_000)))),
            Item::Incident(Box::new(other)),
        ])
        .unwrap();
    let reader = Reader::open(&path).unwrap();
    let ids = |wanted: Wanted| -> Vec<String> {
        let found = reader.incidents(&wanted).unwrap();
        found.into_iter().map(|incident| incident.id).collect()
    };
    let all = Wanted::default;
    assert_eq!(ids(all()), ["other", "second", "first"]);
    let newest = Some(1);
    assert_eq!(ids(Wanted { newest, ..all() }), ["other"]);
    let filter = crate::filter::Filter {
        units: vec!["web".to_owned()],
        ..Default::default()
    };
    assert_eq!(
        ids(Wanted {
            filter: filter.clone(),
            ..all()
        }),
        ["other"]
    );
    let id = Some("first".to_owned());
    assert!(
        ids(Wanted {
            id,
            filter,
            ..all()
        })
        .is_empty()
    );
    let id = Some("fi".to_owned());
    assert_eq!(ids(Wanted { id, ..all() }), ["first"]);
    let since = Some(wall(5_000));
    assert_eq!(ids(Wanted { since, ..all() }), ["other", "second", "first"]);
    let since = Some(wall(11_000));
    let ids_since = ids(Wanted { since, ..all() });
    assert!(!ids_since.contains(&"first".to_owned()), "it was over");
    let until = Some(wall(1_000));
    assert_eq!(ids(Wanted { until, ..all() }), ["first"]);
}

#[test]
fn only_its_owner_may_read_it() {
    let folder = folder();
    let path = file(&folder);
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut store = store(&path);
    store.write(&everything()).unwrap();
    let mut files = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
        files += 1;
    }
    assert_eq!(files, 3, "the file, its journal and the index of that");
}

/// What is in the file when the one who writes it has ended.
fn left_behind(path: &Path, incidents: usize) -> Vec<u8> {
    let mut store = store(path);
    for number in 0..incidents {
        let one = incident(&format!("{number}"), wall(number as u64));
        store.write(&[Item::Incident(Box::new(one))]).unwrap();
    }
    drop(store);
    fs::read(path).unwrap()
}

#[test]
fn a_damaged_file_is_set_aside_whole_and_a_new_one_begun() {
    let folder = folder();
    let path = file(&folder);
    let mut bytes = left_behind(&path, 50);
    // Some page in the middle, of a file that still looks like one.
    let page = bytes.len() / 2 / 4096 * 4096;
    bytes[page..page + 4096].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let opened = Store::open(&path, wall(0)).unwrap();
    let (aside, what) = opened.aside.unwrap();
    assert!(!what.is_empty());
    assert!(fs::read(aside).unwrap() == bytes);
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.incidents(&Wanted::default()).unwrap(), []);
}

#[test]
fn what_is_no_history_is_set_aside() {
    let folder = folder();
    let path = file(&folder);
    fs::write(
        &path,
        "some text, longer than the header of a file that is SQLite's".repeat(99),
    )
    .unwrap();
    assert!(Store::open(&path, wall(0)).unwrap().aside.is_some());
    drop(fs::remove_file(&path));
    let foreign = Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (a)").unwrap();
    foreign.pragma_update(None, "user_version", 3).unwrap();
    drop(foreign);
    let aside = Store::open(&path, wall(1_000)).unwrap().aside.unwrap();
    assert!(aside.1.contains("another program's"), "{}", aside.1);
    let theirs = Connection::open(aside.0).unwrap();
    theirs.execute("INSERT INTO theirs VALUES (1)", []).unwrap();
}

#[test]
fn few_files_are_set_aside() {
    let folder = folder();
    let path = file(&folder);
    for second in 0..5 {
        fs::write(&path, "rubbish".repeat(1_000)).unwrap();
        let opened = Store::open(&path, wall(second * 1_000)).unwrap();
        assert!(opened.aside.is_some());
        drop(opened);
    }
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    let aside = names
        .iter()
        .filter(|entry| entry.file_name().to_string_lossy().contains("damaged"));
    assert_eq!(aside.count(), 2, "{names:?}");
}

#[test]
fn a_newer_file_is_left_alone() {
    let folder = folder();
    let path = file(&folder);
    drop(store(&path));
    let newer = Connection::open(&path).unwrap();
    newer
        .pragma_update(None, "user_version", schema::version() + 1)
        .unwrap();
    drop(newer);
    let before = fs::read(&path).unwrap();
    let error = format!("{:#}", Store::open(&path, wall(0)).unwrap_err());
    assert!(error.contains("a newer turnaway wrote it"), "{error}");
    let error = format!("{:#}", Reader::open(&path).unwrap_err());
    assert!(error.contains("version"), "{error}");
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn a_step_to_a_new_version_is_taken_wholly_or_not_at_all() {
    let mut file = Connection::open_in_memory().unwrap();
    let steps = [
        "CREATE TABLE a (x)",
        "ALTER TABLE a ADD y; INSERT INTO a VALUES (1, 2)",
    ];
    schema::migrate(&mut file, &steps[..1]).unwrap();
    let broken = [
        steps[0],
        "ALTER TABLE a ADD y; INSERT INTO nothing VALUES (1)",
    ];
    schema::migrate(&mut file, &broken).unwrap_err();
    assert_eq!(schema::version_of(&file).unwrap(), 1);
    schema::migrate(&mut file, &steps).unwrap();
    schema::migrate(&mut file, &steps).unwrap();
    let sum: i64 = file
        .query_row("SELECT x + y FROM a", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sum, 3);
    assert_eq!(schema::version_of(&file).unwrap(), 2);
}

#[test]
fn what_is_old_goes_and_incidents_stay_longest() {
    let folder = folder();
    let path = file(&folder);
    let mut store = store(&path);
    store.write(&everything()).unwrap();
    let caps = Caps::default();
    let after = |time: Duration| wall(0).checked_add(time + Duration::from_hours(1)).unwrap();
    store.prune(&caps, after(caps.details)).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.incidents(&Wanted::default()).unwrap().len(), 1);
    assert!(reader.context("a").unwrap().is_some());
    assert_eq!(reader.samples("a").unwrap(), []);
    assert_eq!(reader.runs(wall(0), wall(1)).unwrap(), []);
    assert_eq!(reader.minutes(wall(0), wall(1)).unwrap(), []);
    assert_eq!(reader.watches().unwrap().len(), 1);
    store.prune(&caps, after(caps.incidents)).unwrap();
    assert_eq!(reader.incidents(&Wanted::default()).unwrap(), []);
    assert_eq!(reader.context("a").unwrap(), None);
    assert_eq!(reader.watches().unwrap(), []);
}

#[test]
fn a_file_that_grows_too_large_loses_what_is_oldest() {
    let folder = folder();
    let path = file(&folder);
    let mut store = store(&path);
    let mut items = everything();
    for pid in 0..40_000 {
        items.push(Item::Run(run(pid, u64::from(pid))));
    }
    store.write(&items).unwrap();
    let caps = Caps {
        bytes: 1 << 20,
        ..Caps::default()
    };
    store.prune(&caps, wall(0)).unwrap();
    drop(store);
    let size = fs::metadata(&path).unwrap().len();
    assert!(size <= caps.bytes, "{size}");
    let reader = Reader::open(&path).unwrap();
    let runs = reader.runs(wall(0), wall(1_000_000)).unwrap();
    assert_eq!(runs.last().unwrap().pid, 39_999);
    assert!(runs.len() > 1_000, "{}", runs.len());
    assert_eq!(reader.incidents(&Wanted::default()).unwrap().len(), 1);
}

#[test]
fn a_folder_that_is_not_there_costs_memory_and_what_waits_is_written_later() {
    let folder = folder();
    let missing = folder.path().join("later");
    let path = missing.join(super::FILE);
    let history = History::start(&path, Caps::default()).unwrap();
    history.incident(incident("a", wall(1)));
    history.incident(incident("b", wall(0)));
    let until_failing = || {
        for _ in 0..2_000 {
            if history.health().failing.is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not say so");
    };
    until_failing();
    assert!(!history.settle(Duration::from_millis(10)));
    let mut later = incident("a", wall(1));
    later.statement = "it got worse".to_owned();
    history.incident(later.clone());
    fs::create_dir(&missing).unwrap();
    assert!(history.settle(PATIENCE));
    assert_eq!(history.health().failing, None);
    assert_eq!(history.health().lost, 0);
    assert!(history.stop(PATIENCE));
    let reader = Reader::open(&path).unwrap();
    let wanted = [later, incident("b", wall(0))];
    assert_eq!(reader.incidents(&Wanted::default()).unwrap(), wanted);
}

#[test]
fn a_file_that_is_removed_is_made_anew() {
    let folder = folder();
    let path = file(&folder);
    let history = History::start(&path, Caps::default()).unwrap();
    history.incident(incident("a", wall(0)));
    assert!(history.settle(PATIENCE));
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(super::store::beside(&path, suffix));
    }
    history.incident(incident("b", wall(0)));
    assert!(history.stop(PATIENCE));
    let reader = Reader::open(&path).unwrap();
    let found = reader.incidents(&Wanted::default()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, "b");
}

#[test]
fn a_reader_and_the_writer_do_not_disturb_each_other() {
    let folder = folder();
    let path = file(&folder);
    let history = History::start(&path, Caps::default()).unwrap();
    history.incident(incident("0", wall(0)));
    assert!(history.settle(PATIENCE));
    let reader = Reader::open(&path).unwrap();
    let mut seen = 0;
    for number in 1..100_u64 {
        history.incident(incident(&number.to_string(), wall(number)));
        let now = reader.incidents(&Wanted::default()).unwrap().len();
        assert!(now >= seen);
        seen = now;
    }
    assert!(history.stop(PATIENCE));
    assert_eq!(reader.incidents(&Wanted::default()).unwrap().len(), 100);
}

#[test]
fn what_waits_is_bounded_and_incidents_wait_longest() {
    let most = 200_000;
    let mut pending = Pending::default();
    pending.push(Item::Incident(Box::new(incident("first", wall(0)))), most);
    for pid in 0..10_000 {
        pending.push(Item::Run(run(pid, 0)), most);
        assert!(pending.bytes() <= most);
    }
    let lost = pending.lost();
    let left = pending.take();
    assert_eq!(left.len() as u64 + lost, 10_001, "each is kept or counted");
    assert!(matches!(&left[0], Item::Incident(one) if one.id == "first"));
    assert!(matches!(left.last(), Some(Item::Run(run)) if run.pid == 9_999));
    assert_eq!(pending.bytes(), 0);
    for number in 0..10_000 {
        let id = number.to_string();
        pending.push(Item::Incident(Box::new(incident(&id, wall(0)))), most);
        assert!(pending.bytes() <= most);
    }
    let left = pending.take();
    assert!(matches!(left.last(), Some(Item::Incident(one)) if one.id == "9999"));
}

#[test]
fn what_is_put_back_is_older_than_what_came_since() {
    let mut pending = Pending::default();
    let most = 1 << 20;
    pending.push(Item::Incident(Box::new(incident("a", wall(0)))), most);
    pending.push(Item::Run(run(1, 0)), most);
    let batch = pending.take();
    assert!(pending.is_empty());
    let mut newer = incident("a", wall(0));
    newer.timeline = vec![Line {
        time: wall(1),
        reason: None,
        text: "newer".to_owned(),
    }];
    pending.push(Item::Incident(Box::new(newer)), most);
    pending.push(Item::Run(run(2, 0)), most);
    pending.put_back(batch, most);
    let all = pending.take();
    assert_eq!(all.len(), 3);
    assert!(matches!(&all[0], Item::Incident(one) if one.timeline[0].text == "newer"));
    assert!(matches!(&all[1], Item::Run(run) if run.pid == 1));
    assert!(matches!(&all[2], Item::Run(run) if run.pid == 2));
}

proptest! {
    #[test]
    fn any_incident_comes_back(
        id in "[a-z0-9-]{1,20}",
        statement in any::<String>(),
        comm in any::<String>(),
        seconds in -1_000_000_000_i64..4_000_000_000,
    ) {
        let folder = folder();
        let path = file(&folder);
        let mut store = store(&path);
        let started = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        let mut one = incident(&id, started);
        one.statement = statement;
        one.victim.process.as_mut().unwrap().comm = Some(comm);
        store.write(&[Item::Incident(Box::new(one.clone()))]).unwrap();
        let reader = Reader::open(&path).unwrap();
        prop_assert_eq!(reader.incidents(&Wanted::default()).unwrap(), [one]);
    }
}
