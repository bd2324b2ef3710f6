//! The file, as one who only reads has it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Row, params};

use super::{
    Context, Incident, Line, Minute, Pressure, Run, Sample, Watch,
    schema::{self, version_of},
    store::{beside, check, nanoseconds},
};
use crate::{filter::Filter, observation::Code};

/// Which incidents are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The one whose id begins like this.
    pub id: Option<String>,
    /// Those that lasted then or began later.
    pub since: Option<Timestamp>,
    /// Those that began before.
    pub until: Option<Timestamp>,
    /// Those that this keeps.
    pub filter: Filter,
    /// So many of them, the newest.
    pub newest: Option<usize>,
}

/// An open file.
#[derive(Debug)]
pub struct Reader {
    file: Connection,
    /// A copy to read, where the file's own folder cannot be written to.
    _copy: Option<Copy>,
}

/// A folder of its own, which goes with this.
#[derive(Debug)]
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Reader {
    /// Opens the file. The one who writes it is not disturbed.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        // What is wrong with a path is said better by the system than by SQLite.
        fs::File::open(path).with_context(|| {
            format!(
                "cannot read the history {shown}; the daemon makes it, --state says where it is"
            )
        })?;
        let (file, copy) = match open(path) {
            Ok(file) => (file, None),
            // Without the right to write there, a file with a journal cannot be read in place.
            Err(error) if is_refused(&error) => {
                let copy =
                    copy(path).with_context(|| format!("cannot copy the history {shown}"))?;
                let file = path.file_name().map(|name| copy.0.join(name));
                let file = file.with_context(|| format!("{shown} is no file"))?;
                let file =
                    open(&file).with_context(|| format!("cannot read the history {shown}"))?;
                (file, Some(copy))
            }
            Err(error) => return Err(error.context(format!("cannot read the history {shown}"))),
        };
        let version =
            version_of(&file).with_context(|| format!("cannot read the history {shown}"))?;
        if version != schema::version() {
            bail!(
                "cannot read the history {shown}: it is of version {version}, this turnaway reads {}: \
                 use the turnaway that wrote it, or start its daemon once with this one",
                schema::version()
            );
        }
        Ok(Self { file, _copy: copy })
    }

    /// Checks the file as a whole.
    pub fn check(&self) -> Result<()> {
        check(&self.file)
    }

    /// Incidents, newest first.
    pub fn incidents(&self, wanted: &Wanted) -> Result<Vec<Incident>> {
        let time = |time: Option<Timestamp>| time.map(nanoseconds);
        let mut found = self.file.prepare(
            "SELECT id, record FROM incident
             WHERE (?1 IS NULL OR substr(id, 1, length(?1)) = ?1)
               AND (?2 IS NULL OR started >= ?2 OR ended IS NULL OR ended >= ?2)
               AND (?3 IS NULL OR started < ?3)
             ORDER BY started DESC, id",
        )?;
        let found = found.query_map(
            params![wanted.id, time(wanted.since), time(wanted.until)],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
        )?;
        let mut incidents = Vec::new();
        for row in found {
            if incidents.len() >= wanted.newest.unwrap_or(usize::MAX) {
                break;
            }
            let (id, record) = row?;
            let mut incident: Incident = serde_json::from_str(&record)
                .with_context(|| format!("incident {id} cannot be understood"))?;
            if !wanted.filter.wants_incident(&incident) {
                continue;
            }
            incident.timeline = self.timeline(&id)?;
            incidents.push(incident);
        }
        Ok(incidents)
    }

    fn timeline(&self, incident: &str) -> Result<Vec<Line>> {
        self.list(
            "SELECT time, reason, text FROM timeline WHERE incident = ?1 ORDER BY line",
            params![incident],
            |row| {
                let reason: Option<String> = row.get(1)?;
                Ok(Line {
                    time: timestamp(row, 0)?,
                    reason: reason.as_deref().map(Code::new),
                    text: row.get(2)?,
                })
            },
        )
    }

    /// What was found when an incident began.
    pub fn context(&self, incident: &str) -> Result<Option<Context>> {
        let found = self.list(
            "SELECT taken, context FROM context WHERE incident = ?1",
            params![incident],
            |row| Ok((timestamp(row, 0)?, row.get::<_, String>(1)?)),
        )?;
        let Some((taken, context)) = found.into_iter().next() else {
            return Ok(None);
        };
        Ok(Some(Context {
            incident: incident.to_owned(),
            taken,
            context: serde_json::from_str(&context)
                .with_context(|| format!("the context of {incident} cannot be understood"))?,
        }))
    }

    /// How an incident stood, in order.
    pub fn samples(&self, incident: &str) -> Result<Vec<Sample>> {
        let samples = self.list(
            "SELECT sample FROM sample WHERE incident = ?1 ORDER BY time",
            params![incident],
            |row| row.get::<_, String>(0),
        )?;
        samples
            .iter()
            .map(|sample| Ok(serde_json::from_str(sample)?))
            .collect()
    }

    /// Failures of each minute in a time, in order.
    pub fn minutes(&self, from: Timestamp, until: Timestamp) -> Result<Vec<Minute>> {
        self.list(
            "SELECT time, subject, reason, count FROM minute WHERE time >= ?1 AND time < ?2
             ORDER BY time, subject, reason",
            params![nanoseconds(from), nanoseconds(until)],
            |row| {
                Ok(Minute {
                    time: timestamp(row, 0)?,
                    subject: row.get(1)?,
                    reason: row.get(2)?,
                    count: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                })
            },
        )
    }

    /// Pressure of each minute in a time, in order.
    pub fn pressures(&self, from: Timestamp, until: Timestamp) -> Result<Vec<Pressure>> {
        self.list(
            "SELECT time, cpu, io, memory FROM pressure WHERE time >= ?1 AND time < ?2 ORDER BY time",
            params![nanoseconds(from), nanoseconds(until)],
            |row| {
                Ok(Pressure {
                    time: timestamp(row, 0)?,
                    cpu: row.get(1)?,
                    io: row.get(2)?,
                    memory: row.get(3)?,
                })
            },
        )
    }

    /// Programs that began in a time, in order.
    pub fn runs(&self, from: Timestamp, until: Timestamp) -> Result<Vec<Run>> {
        self.list(
            "SELECT started, pid, ended, program, unit, exe, argv, parent FROM run
             WHERE started >= ?1 AND started < ?2 ORDER BY started, pid",
            params![nanoseconds(from), nanoseconds(until)],
            |row| {
                let ended: Option<i64> = row.get(2)?;
                Ok(Run {
                    started: timestamp(row, 0)?,
                    pid: row.get(1)?,
                    ended: ended.map(time).transpose()?,
                    program: row.get(3)?,
                    unit: row.get(4)?,
                    exe: row.get(5)?,
                    argv: row.get(6)?,
                    parent: row.get(7)?,
                })
            },
        )
    }

    /// Times in which somebody watched, in order.
    pub fn watches(&self) -> Result<Vec<Watch>> {
        self.list(
            "SELECT since, until FROM watch ORDER BY since",
            params![],
            |row| {
                Ok(Watch {
                    from: timestamp(row, 0)?,
                    until: timestamp(row, 1)?,
                })
            },
        )
    }

    fn list<T>(
        &self,
        question: &str,
        about: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut found = self.file.prepare_cached(question)?;
        let rows = found.query_map(about, read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    time(row.get(column)?)
}

fn time(nanoseconds: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_nanosecond(nanoseconds.into())
        .map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, nanoseconds))
}

fn open(path: &Path) -> Result<Connection> {
    let file = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    file.busy_timeout(std::time::Duration::from_secs(5))?;
    // Opening reads nothing yet.
    file.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(file)
}

fn copy(path: &Path) -> Result<Copy> {
    use std::os::unix::fs::DirBuilderExt as _;
    let name = path.file_name().context("it has no name")?;
    let folder = std::env::temp_dir().join(format!(
        "turnaway-report-{}-{:016x}",
        std::process::id(),
        fastrand::u64(..)
    ));
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let copy = Copy(folder);
    fs::copy(path, copy.0.join(name))?;
    let journal = beside(path, "-wal");
    if let Some(name) = journal.file_name().filter(|_| journal.exists()) {
        fs::copy(&journal, copy.0.join(name))?;
    }
    Ok(copy)
}

fn is_refused(error: &anyhow::Error) -> bool {
    use rusqlite::ErrorCode;
    error
        .downcast_ref::<rusqlite::Error>()
        .and_then(rusqlite::Error::sqlite_error_code)
        .is_some_and(|code| matches!(code, ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}
