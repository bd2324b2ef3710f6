//! The tables, and how older files become new ones.

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, TransactionBehavior};

/// Tells the file from any other that is SQLite's ("trnw").
pub(super) const APPLICATION: i32 = 0x7472_6e77;

/// Each step turns a file of the version before it into one of its own version. Steps are added, never
/// changed: there are files that took them.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE incident (
        id TEXT PRIMARY KEY,
        started INTEGER NOT NULL,
        ended INTEGER,
        subject TEXT NOT NULL,
        reason TEXT NOT NULL,
        unit TEXT,
        record TEXT NOT NULL
    );
    CREATE INDEX incident_started ON incident (started);
    CREATE TABLE timeline (
        incident TEXT NOT NULL,
        line INTEGER NOT NULL,
        time INTEGER NOT NULL,
        reason TEXT,
        text TEXT NOT NULL,
        PRIMARY KEY (incident, line)
    ) WITHOUT ROWID;
    CREATE TABLE context (
        incident TEXT PRIMARY KEY,
        taken INTEGER NOT NULL,
        context TEXT NOT NULL
    );
    CREATE TABLE sample (
        incident TEXT NOT NULL,
        time INTEGER NOT NULL,
        sample TEXT NOT NULL,
        PRIMARY KEY (incident, time)
    ) WITHOUT ROWID;
    CREATE TABLE minute (
        time INTEGER NOT NULL,
        subject TEXT NOT NULL,
        reason TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (time, subject, reason)
    ) WITHOUT ROWID;
    CREATE TABLE pressure (
        time INTEGER PRIMARY KEY,
        cpu REAL,
        io REAL,
        memory REAL
    );
    CREATE TABLE run (
        started INTEGER NOT NULL,
        pid INTEGER NOT NULL,
        ended INTEGER,
        program TEXT NOT NULL,
        unit TEXT,
        exe TEXT,
        argv TEXT,
        parent TEXT,
        PRIMARY KEY (started, pid)
    ) WITHOUT ROWID;
    CREATE TABLE watch (
        since INTEGER PRIMARY KEY,
        until INTEGER NOT NULL
    );
"];

/// The version that this turnaway writes.
pub(super) fn version() -> i64 {
    number(MIGRATIONS)
}

fn number(steps: &[&str]) -> i64 {
    i64::try_from(steps.len()).unwrap_or(i64::MAX)
}

/// The version of a file; 0 is an empty one.
pub(super) fn version_of(file: &Connection) -> Result<i64> {
    let version = file
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .context("cannot read its version")?;
    Ok(version)
}

/// Refuses a file that this turnaway does not know.
pub(super) fn refuse_newer(file: &Connection) -> Result<()> {
    let found = version_of(file)?;
    if found > version() {
        bail!("a newer turnaway wrote it (version {found}): use that one, or another --state");
    }
    Ok(())
}

/// Takes the steps that a file has not taken, each wholly or not at all.
pub(super) fn migrate(file: &mut Connection, steps: &[&str]) -> Result<()> {
    let mut version = version_of(file)?;
    while let Some(step) = usize::try_from(version).ok().and_then(|at| steps.get(at)) {
        let step_taken = file.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step_taken
            .execute_batch(step)
            .with_context(|| format!("cannot go from version {version} to the next"))?;
        version += 1;
        step_taken.pragma_update(None, "user_version", version)?;
        step_taken.pragma_update(None, "application_id", APPLICATION)?;
        step_taken.commit()?;
    }
    Ok(())
}
