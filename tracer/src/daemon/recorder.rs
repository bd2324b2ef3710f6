//! What is seen, written to a file as `turnaway replay` reads it: from a thread of its own, and no more
//! than there is room for.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;

use crate::{
    privileges::{self, Duty},
    record::{Lost, RunRecord},
    rotating::Rotating,
};

/// Most bytes that wait for a disk that is slow.
const ROOM: usize = 16 << 20;

/// Where is recorded, and how much is kept.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The file. When it is full it becomes FILE.1, what was FILE.1 becomes FILE.2, and so on.
    pub file: PathBuf,
    /// A file is full from this size, bytes.
    pub size: u64,
    /// So many full files are kept.
    pub keep: u32,
}

/// How recording goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Records that were written.
    pub(super) written: u64,
    /// Records that were not.
    pub(super) lost: u64,
    /// Why the last could not be written, if it could not.
    pub(super) error: Option<String>,
}

/// The writer. Dropped, it ends once it has written what waits.
pub(super) struct Recorder {
    pub(super) file: PathBuf,
    host: String,
    shared: Arc<Shared>,
    /// Records from before the first reading.
    early: Vec<String>,
    /// Records of a reading, which go to the file together.
    held: Vec<String>,
    began: Option<RunRecord>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or nothing more will come.
    work: Condvar,
    /// It has ended.
    end: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    bytes: usize,
    /// The first line of the next file.
    run: Option<RunRecord>,
    closed: bool,
    ended: bool,
    progress: Progress,
}

impl Recorder {
    /// Opens the file, after what is in it. It fails where that cannot be done without privileges:
    /// the writer has none when it begins the next file.
    pub(super) fn start(recording: &Recording, host: &str) -> Result<Self> {
        ensure!(recording.size > 0, "--record-size is more than nothing");
        let shared = Arc::new(Shared::default());
        let (opened, wait) = std::sync::mpsc::channel();
        let (thread_shared, of) = (Arc::clone(&shared), recording.clone());
        thread::Builder::new()
            .name("turnaway-record".to_owned())
            .spawn(move || {
                privileges::keep(Duty::Serve);
                match Files::open(of) {
                    Ok(files) => {
                        let _ = opened.send(Ok(()));
                        thread_shared.write(files);
                    }
                    Err(error) => drop(opened.send(Err(error))),
                }
                let mut state = thread_shared.lock();
                state.ended = true;
                thread_shared.end.notify_all();
            })
            .context("cannot start a thread to record")?;
        wait.recv()
            .context("the thread that records ended")?
            .with_context(|| format!("cannot record to {}", recording.file.display()))?;
        Ok(Self {
            file: recording.file.clone(),
            host: host.to_owned(),
            shared,
            early: Vec::new(),
            held: Vec::new(),
            began: None,
        })
    }

    /// A record goes to the file now.
    pub(super) fn record(&mut self, record: &impl serde::Serialize) {
        if self.began.is_some() {
            self.shared.push([line(record)]);
        } else {
            self.early.push(line(record));
        }
    }

    /// A record goes to the file with those of its reading.
    pub(super) fn hold(&mut self, record: &impl serde::Serialize) {
        self.held.push(line(record));
    }

    /// A reading is whole. What was accepted comes first: a replay that looks at rules between two
    /// lines must not know of failures and not yet of what went well.
    pub(super) fn reading(&mut self, accepted: Vec<String>, accepts: bool) {
        if self.began.is_none() {
            let began = RunRecord::began(&self.host, Timestamp::now(), accepts);
            self.shared.push([line(&began)]);
            self.shared.push(std::mem::take(&mut self.early));
            self.shared.lock().run = Some(began.clone());
            self.began = Some(began);
        }
        self.shared.push(accepted);
        let held = std::mem::take(&mut self.held);
        self.shared.push(held);
    }

    /// How it goes.
    pub(super) fn progress(&self) -> Progress {
        self.shared.lock().progress.clone()
    }

    /// Writes what waits and ends, at the latest at the deadline.
    pub(super) fn end(&mut self, lost: Lost, deadline: Instant) {
        self.reading(Vec::new(), false);
        if let Some(began) = self.began.take() {
            let lost = Lost {
                output: self.progress().lost,
                ..lost
            };
            self.shared
                .push([line(&began.ended(Timestamp::now(), lost))]);
        }
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.work.notify_one();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let waiting = state.lines.len();
                log::warn!("recording: {waiting} records were not written in time");
                return;
            }
            let waited = self.shared.end.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
    }
}

/// A record as a line.
pub(super) fn line(record: &impl serde::Serialize) -> String {
    // Records hold strings, numbers and lists only: nothing that JSON cannot say.
    let mut line = serde_json::to_string(record).unwrap_or_default();
    line.push('\n');
    line
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole whenever the lock is given up.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands lines over, or counts them as lost. Never waits.
    fn push(&self, lines: impl IntoIterator<Item = String>) {
        let mut state = self.lock();
        for line in lines {
            if state.bytes + line.len() > ROOM {
                state.lose(1, "the disk is too slow");
                continue;
            }
            state.bytes += line.len();
            state.lines.push(line);
        }
        self.work.notify_one();
    }

    fn write(&self, mut files: Files) {
        loop {
            let mut state = self.lock();
            while state.lines.is_empty() && !state.closed {
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.lines.is_empty() {
                return;
            }
            let lines = std::mem::take(&mut state.lines);
            let run = state.run.clone();
            drop(state);
            let bytes = lines.iter().map(String::len).sum::<usize>();
            let outcome = files.write(&lines, run.as_ref());
            let mut state = self.lock();
            // What is being written takes room, too.
            state.bytes -= bytes;
            let (written, error) = outcome;
            state.progress.written += written as u64;
            match error {
                None => state.progress.error = None,
                Some(error) => {
                    let lost = (lines.len() - written) as u64;
                    state.lose(lost, &error.to_string());
                }
            }
        }
    }
}

impl State {
    fn lose(&mut self, lines: u64, why: &str) {
        if self.progress.error.is_none() {
            log::warn!("recording: records are lost: {why}");
        }
        self.progress.lost += lines;
        self.progress.error = Some(why.to_owned());
    }
}

/// The file that is written to, and those before it.
struct Files {
    of: Recording,
    file: Rotating,
}

impl Files {
    fn open(of: Recording) -> io::Result<Self> {
        let file = Rotating::open(&of.file, of.keep)?;
        Ok(Self { of, file })
    }

    /// Writes lines; returns how many, and why not more.
    fn write(&mut self, lines: &[String], run: Option<&RunRecord>) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while written < lines.len() {
            if self.file.len() >= self.of.size
                && let Err(error) = self.next(run)
            {
                return (written, Some(error));
            }
            let left = self.of.size.saturating_sub(self.file.len());
            let mut piece = Vec::new();
            let mut count = 0;
            for line in &lines[written..] {
                if count > 0 && (piece.len() + line.len()) as u64 > left {
                    break;
                }
                piece.extend_from_slice(line.as_bytes());
                count += 1;
            }
            if let Err(error) = self.file.append(&piece) {
                return (written, Some(error));
            }
            written += count;
        }
        (written, None)
    }

    /// Begins the next file.
    fn next(&mut self, run: Option<&RunRecord>) -> io::Result<()> {
        self.file.next()?;
        match run {
            Some(run) => {
                let line = line(&run.clone().continued(Timestamp::now()));
                self.file.append(line.as_bytes())
            }
            None => Ok(()),
        }
    }
}

/// As long as a test waits for the thread.
#[cfg(test)]
const LONG: std::time::Duration = std::time::Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::PermissionsExt as _,
        path::Path,
    };

    use super::*;
    use crate::rotating::numbered;

    fn recording(dir: &Path, size: u64, keep: u32) -> Recording {
        Recording {
            file: dir.join("record.ndjson"),
            size,
            keep,
        }
    }

    fn end(mut recorder: Recorder) -> Progress {
        recorder.end(Lost::default(), Instant::now() + LONG);
        recorder.progress()
    }

    #[test]
    fn full_files_make_room_and_nothing_is_lost_between_them() {
        let dir = tempfile::tempdir().unwrap();
        let of = recording(dir.path(), 1000, 50);
        let mut recorder = Recorder::start(&of, "db1").unwrap();
        recorder.reading(Vec::new(), true);
        for number in 0..200 {
            recorder.record(&format!("record {number:03}"));
        }
        let progress = end(recorder);
        assert_eq!(progress.lost, 0, "{progress:?}");
        let mut numbers = Vec::new();
        let mut files = 0;
        let mut states = Vec::new();
        let names = (1..=50).rev().map(|number| numbered(&of.file, number));
        for name in names.chain([of.file.clone()]) {
            let Ok(text) = fs::read_to_string(&name) else {
                continue;
            };
            files += 1;
            assert!(text.len() <= 1200, "{}", text.len());
            let mode = fs::metadata(&name).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                match value["state"].as_str() {
                    Some(state) => states.push(state.to_owned()),
                    None => numbers.push(value.as_str().unwrap()[7..].parse::<u32>().unwrap()),
                }
            }
        }
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
        assert!(files > 2, "{files}");
        assert_eq!(states.first().map(String::as_str), Some("began"));
        assert_eq!(states.last().map(String::as_str), Some("ended"));
        assert_eq!(states.len(), files + 1, "{states:?}");
    }

    #[test]
    fn no_more_files_are_kept_than_shall_be() {
        let dir = tempfile::tempdir().unwrap();
        for (keep, left) in [(2, 3), (0, 1)] {
            let of = recording(&dir.path().join(keep.to_string()), 100, keep);
            fs::create_dir(of.file.parent().unwrap()).unwrap();
            let mut recorder = Recorder::start(&of, "db1").unwrap();
            recorder.reading(Vec::new(), true);
            for number in 0..100 {
                recorder.record(&format!("record {number:03}"));
            }
            end(recorder);
            let files = fs::read_dir(of.file.parent().unwrap()).unwrap().count();
            assert_eq!(files, left);
        }
    }

    #[test]
    fn half_a_line_that_was_left_behind_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let of = recording(dir.path(), 10_000, 1);
        fs::write(&of.file, "{\"half\":").unwrap();
        let mut recorder = Recorder::start(&of, "db1").unwrap();
        recorder.record(&"whole");
        end(recorder);
        let text = fs::read_to_string(&of.file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "{\"half\":");
        assert_eq!(lines[2], "\"whole\"");
        assert_eq!(lines.len(), 4, "{text}");
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted() {
        // Every write to it fails for want of room.
        let full = File::options().read(true).write(true).open("/dev/full");
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files {
            of: recording(dir.path(), 1000, 1),
            file: Rotating::of(full.unwrap()),
        };
        let (written, error) = files.write(&["\"x\"\n".to_owned()], None);
        assert_eq!(written, 0);
        assert_eq!(error.unwrap().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_and_nobody_waits() {
        let shared = Shared::default();
        let line = "x".repeat(ROOM / 4);
        shared.push(vec![line; 6]);
        let state = shared.lock();
        assert_eq!(state.lines.len(), 4);
        assert_eq!(state.progress.lost, 2);
        assert!(state.progress.error.is_some());
    }

    #[test]
    fn a_place_that_will_not_do_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("none/there")] {
            let of = Recording {
                file: path,
                ..recording(dir.path(), 1000, 1)
            };
            let error = Recorder::start(&of, "db1").map(drop).unwrap_err();
            assert!(
                format!("{error:#}").contains("cannot record to"),
                "{error:#}"
            );
        }
    }
}
