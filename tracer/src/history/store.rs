//! The file, as the one who writes it has it.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior, params};

use super::{Caps, Incident, pending::Item, prune, schema};
use crate::observation::Code;

/// Most pages of the journal before it is written into the file, and most bytes that it keeps.
const JOURNAL: i64 = 8 << 20;
/// Most files that were set aside and are kept.
const ASIDE: usize = 2;

/// The file, open.
#[derive(Debug)]
pub(super) struct Store {
    file: Connection,
}

/// A file that was opened, and what is to be said of that.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) store: Store,
    /// A file that could not be used, where it is now, and what is wrong with it.
    pub(super) aside: Option<(PathBuf, String)>,
}

impl Store {
    /// Opens or makes the file. One that is broken is moved aside, and a new one is begun.
    pub(super) fn open(path: &Path, now: Timestamp) -> Result<Opened> {
        private(path).with_context(|| format!("cannot write to {}", path.display()))?;
        match Self::sound(path) {
            Ok(store) => Ok(Opened { store, aside: None }),
            Err(Broken::Elsewhere(error)) => Err(error),
            Err(Broken::File(what)) => {
                let aside = move_aside(path, now)
                    .with_context(|| format!("{}: {what}; cannot move it", path.display()))?;
                private(path).with_context(|| format!("cannot write to {}", path.display()))?;
                let store = Self::sound(path).map_err(|broken| match broken {
                    Broken::File(what) => anyhow!("{}: {what}", path.display()),
                    Broken::Elsewhere(error) => error,
                })?;
                Ok(Opened {
                    store,
                    aside: Some((aside, what)),
                })
            }
        }
    }

    fn sound(path: &Path) -> Result<Self, Broken> {
        let mut file = Connection::open(path).map_err(|error| broken(error.into()))?;
        // Nothing is written before it is known what the file is.
        check(&file).map_err(broken)?;
        schema::refuse_newer(&file).map_err(broken)?;
        settle_in(&file).map_err(broken)?;
        schema::migrate(&mut file, schema::MIGRATIONS).map_err(broken)?;
        Ok(Self { file })
    }

    /// Writes all of it, or nothing.
    pub(super) fn write(&mut self, batch: &[Item]) -> Result<()> {
        let step = self
            .file
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for item in batch {
            write(&step, item)?;
        }
        step.commit()?;
        Ok(())
    }

    /// Keeps the file within its caps.
    pub(super) fn prune(&mut self, caps: &Caps, now: Timestamp) -> Result<()> {
        prune::prune(&mut self.file, caps, now)
    }
}

/// Why a file cannot be used.
enum Broken {
    /// What is in it.
    File(String),
    /// Something else: the file may be good.
    Elsewhere(anyhow::Error),
}

fn broken(error: anyhow::Error) -> Broken {
    use rusqlite::ErrorCode;
    let is_of_file = error.chain().any(|cause| {
        cause
            .downcast_ref::<rusqlite::Error>()
            .and_then(rusqlite::Error::sqlite_error_code)
            .is_some_and(|code| {
                matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            })
            || cause.downcast_ref::<NotSound>().is_some()
    });
    if is_of_file {
        Broken::File(format!("{error:#}"))
    } else {
        Broken::Elsewhere(error)
    }
}

/// What the check of a file found.
#[derive(Debug)]
pub(super) struct NotSound(String);

impl std::fmt::Display for NotSound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it is damaged: {}", self.0)
    }
}

impl std::error::Error for NotSound {}

fn settle_in(file: &Connection) -> Result<()> {
    if schema::version_of(file)? == 0 {
        // Only a file without tables takes this one.
        file.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    file.pragma_update(None, "journal_mode", "WAL")?;
    // What is committed outlives a power cut.
    file.pragma_update(None, "synchronous", "FULL")?;
    file.pragma_update(None, "journal_size_limit", JOURNAL)?;
    // A reader holds nobody up for longer, and a writer of another turnaway is kept away by the lock.
    file.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(())
}

/// Whether the file is what it should be.
pub(super) fn check(file: &Connection) -> Result<()> {
    let application: i32 = file.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let is_empty = schema::version_of(file)? == 0;
    if application != schema::APPLICATION && !(application == 0 && is_empty) {
        return Err(NotSound("it is another program's".to_owned()).into());
    }
    let found: String = file.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(NotSound(found).into());
    }
    Ok(())
}

/// Makes the file, if it is not there, so that only its owner may read it.
fn private(path: &Path) -> io::Result<()> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Where a file's journal and the index of that are.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn move_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let aside = beside(path, &format!(".damaged-{stamp}"));
    fs::rename(path, &aside)?;
    // The journal is part of what was damaged, and would be taken for the new file's.
    for suffix in ["-wal", "-shm"] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    forget_aside(path);
    Ok(aside)
}

/// Removes all but the newest files that were set aside: none may fill the disk.
fn forget_aside(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let prefix = format!("{}.damaged-", name.to_string_lossy());
    let is_aside = |name: &str| name.starts_with(&prefix) && name.ends_with('Z');
    let mut aside: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_aside(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    // Their names end in when that was.
    aside.sort();
    let old = aside.len().saturating_sub(ASIDE);
    for path in aside.drain(..old) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(beside(&path, suffix));
        }
    }
}

/// A time as the file has it.
pub(super) fn nanoseconds(time: Timestamp) -> i64 {
    // Beyond the years 1677 and 2262 there is nothing to tell apart.
    let end = if time.as_nanosecond() < 0 {
        i64::MIN
    } else {
        i64::MAX
    };
    i64::try_from(time.as_nanosecond()).unwrap_or(end)
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn write(file: &Connection, item: &Item) -> Result<()> {
    match item {
        Item::Incident(incident) => write_incident(file, incident)?,
        Item::Context(context) => {
            file.prepare_cached("INSERT OR REPLACE INTO context VALUES (?1, ?2, ?3)")?
                .execute(params![
                    context.incident,
                    nanoseconds(context.taken),
                    serde_json::to_string(&context.context)?,
                ])?;
        }
        Item::Sample(incident, sample) => {
            file.prepare_cached("INSERT OR REPLACE INTO sample VALUES (?1, ?2, ?3)")?
                .execute(params![
                    incident,
                    nanoseconds(sample.time),
                    serde_json::to_string(sample)?,
                ])?;
        }
        Item::Minute(minute) => {
            file.prepare_cached(
                "INSERT INTO minute VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET count = count + excluded.count",
            )?
            .execute(params![
                nanoseconds(minute.time),
                minute.subject,
                minute.reason,
                number(minute.count),
            ])?;
        }
        Item::Pressure(pressure) => {
            file.prepare_cached("INSERT OR REPLACE INTO pressure VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![
                    nanoseconds(pressure.time),
                    pressure.cpu,
                    pressure.io,
                    pressure.memory,
                ])?;
        }
        Item::Run(run) => {
            file.prepare_cached(
                "INSERT OR REPLACE INTO run VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                nanoseconds(run.started),
                run.pid,
                run.ended.map(nanoseconds),
                run.program,
                run.unit,
                run.exe,
                run.argv,
                run.parent,
            ])?;
        }
        Item::Watch(watch) => {
            file.prepare_cached("INSERT OR REPLACE INTO watch VALUES (?1, ?2)")?
                .execute(params![nanoseconds(watch.from), nanoseconds(watch.until)])?;
        }
    }
    Ok(())
}

fn write_incident(file: &Connection, incident: &Incident) -> Result<()> {
    // The timeline has a table of its own.
    let record = Incident {
        timeline: Vec::new(),
        ..incident.clone()
    };
    let process = incident.victim.process.as_ref();
    file.prepare_cached("INSERT OR REPLACE INTO incident VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            incident.id,
            nanoseconds(incident.started),
            incident.ended.map(nanoseconds),
            incident.subject(),
            incident.reason().map_or("", Code::as_str),
            process.and_then(|process| process.unit.as_ref()),
            serde_json::to_string(&record)?,
        ])?;
    file.prepare_cached("DELETE FROM timeline WHERE incident = ?1")?
        .execute([&incident.id])?;
    let mut add = file.prepare_cached("INSERT INTO timeline VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (number, line) in (0_i64..).zip(&incident.timeline) {
        add.execute(params![
            incident.id,
            number,
            nanoseconds(line.time),
            line.reason.as_ref().map(Code::as_str),
            line.text,
        ])?;
    }
    Ok(())
}
