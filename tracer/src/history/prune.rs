//! Keeps the file within its caps: what is old goes, and if it is still too large, what is oldest.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::store::nanoseconds;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Most bytes that the file's content may take.
    pub bytes: u64,
    /// How long incidents are kept: a year and a month, to see what comes once a year.
    pub incidents: Duration,
    /// How long everything else is kept.
    pub details: Duration,
    /// Most bytes that wait in memory.
    pub memory: usize,
}

const DAY: Duration = Duration::from_hours(24);

impl Default for Caps {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            incidents: DAY * 400,
            details: DAY * 100,
            memory: 16 << 20,
        }
    }
}

/// Rows that go at once where there are too many.
const BITE: i64 = 4096;

/// Takes out what is older than the caps allow, and then what is oldest until the rest fits.
pub(super) fn prune(file: &mut Connection, caps: &Caps, now: Timestamp) -> Result<()> {
    let before = |age| nanoseconds(now.checked_sub(age).unwrap_or(Timestamp::MIN));
    let old = before(caps.details);
    let step = file.transaction()?;
    step.execute("DELETE FROM minute WHERE time < ?1", [old])?;
    step.execute("DELETE FROM pressure WHERE time < ?1", [old])?;
    step.execute("DELETE FROM run WHERE started < ?1", [old])?;
    step.execute(
        "DELETE FROM watch WHERE until < ?1",
        [before(caps.incidents)],
    )?;
    step.execute("DELETE FROM sample WHERE time < ?1", [old])?;
    step.execute(
        "DELETE FROM incident WHERE started < ?1",
        [before(caps.incidents)],
    )?;
    orphans(&step)?;
    step.commit()?;
    give_back(file)?;
    let mut progress = true;
    while progress && bytes(file)? > caps.bytes {
        let step = file.transaction()?;
        let mut gone = 0;
        for oldest in [
            "DELETE FROM sample WHERE (incident, time) IN (SELECT incident, time FROM sample ORDER BY time LIMIT ?1)",
            "DELETE FROM minute WHERE (time, subject, reason) IN (SELECT time, subject, reason FROM minute ORDER BY time LIMIT ?1)",
            "DELETE FROM run WHERE (started, pid) IN (SELECT started, pid FROM run ORDER BY started LIMIT ?1)",
            "DELETE FROM pressure WHERE time IN (SELECT time FROM pressure ORDER BY time LIMIT ?1)",
        ] {
            gone += step.execute(oldest, params![BITE])?;
        }
        if gone == 0 {
            // Incidents are what all the rest is about: they go last.
            gone = step.execute(
                "DELETE FROM incident WHERE id IN (SELECT id FROM incident ORDER BY started LIMIT ?1)",
                params![BITE / 64],
            )?;
        }
        orphans(&step)?;
        step.commit()?;
        progress = gone > 0;
        give_back(file)?;
    }
    Ok(())
}

/// What belongs to incidents that are gone.
fn orphans(file: &Connection) -> Result<()> {
    for table in ["timeline", "context", "sample"] {
        file.execute(
            &format!("DELETE FROM {table} WHERE incident NOT IN (SELECT id FROM incident)"),
            [],
        )?;
    }
    Ok(())
}

/// Gives pages that hold nothing back to the file system.
fn give_back(file: &Connection) -> Result<()> {
    let mut pages = file.prepare("PRAGMA incremental_vacuum")?;
    let mut rows = pages.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Bytes of the file, without its journal.
pub(super) fn bytes(file: &Connection) -> Result<u64> {
    let number = |pragma: &str| -> Result<u64> {
        let number: i64 = file.query_row(pragma, [], |row| row.get(0))?;
        Ok(u64::try_from(number).unwrap_or(0))
    };
    Ok(number("PRAGMA page_count")? * number("PRAGMA page_size")?)
}
