//! The stream of records to other programs (docs/stream.md).
//!
//! [`Streams::push`] serialises a record once, puts it into the queue of each sink that wants it and returns
//! at once. Each sink has a thread that keeps what waits on disk, delivers, tries again and keeps count; a
//! receiver that is down or slow holds up nobody but itself.

pub mod config;
pub mod entry;
pub mod format;
mod health;
mod lane;
pub mod privacy;
mod queue;
mod sinks;
mod spool;
mod store;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

pub use self::health::Health;
#[cfg(any(test, fuzzing))]
pub(crate) use self::spool::read_segment;
use self::{
    config::Stream,
    entry::{Entry, Ids, Kind, add_field},
    lane::Lane,
    store::Place,
};
use crate::{
    alert::Severity,
    privileges::{self, Duty},
};

/// All sinks, at work.
#[derive(Default)]
pub struct Streams {
    lanes: Vec<Running>,
    /// Made with the first sink.
    ids: Option<Ids>,
    folder: Option<PathBuf>,
}

struct Running {
    stream: Stream,
    lane: Arc<Lane>,
    /// The thread holds the other end.
    end: mpsc::Receiver<()>,
}

impl Streams {
    /// Takes up what waits in `folder` and begins to deliver. Each sink has a folder in there; without
    /// one, what waits is lost with the process.
    pub fn start(streams: &[Stream], folder: Option<&Path>) -> Result<Self> {
        let mut all = Self {
            lanes: Vec::new(),
            ids: None,
            folder: folder.map(Path::to_owned),
        };
        for stream in streams {
            all.add(stream)?;
        }
        Ok(all)
    }

    fn add(&mut self, stream: &Stream) -> Result<()> {
        let filter = stream.privacy.filter()?;
        let lane = Arc::new(Lane::new(stream));
        let place = self
            .folder
            .as_ref()
            .zip(stream.spool)
            .map(|(folder, room)| Place {
                folder: folder.join(&stream.name),
                room,
            });
        let (ending, end) = mpsc::channel();
        let (thread_lane, thread_stream) = (Arc::clone(&lane), stream.clone());
        let name = format!("to-{}", stream.name);
        thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                privileges::keep(Duty::Serve);
                let mut sink = sinks::sink(&thread_stream);
                thread_lane.run(&thread_stream, place, filter, &mut *sink);
                drop(ending);
            })
            .with_context(|| format!("cannot start thread {name}"))?;
        self.ids.get_or_insert_with(Ids::new);
        self.lanes.push(Running {
            stream: stream.clone(),
            lane,
            end,
        });
        Ok(())
    }

    /// Hands a record to every sink that wants it, and returns at once. `record` is a native record.
    pub fn push(
        &mut self,
        kind: Kind,
        severity: Option<Severity>,
        reason: Option<&str>,
        time: Timestamp,
        record: &impl Serialize,
    ) {
        let Some(ids) = &mut self.ids else {
            return;
        };
        let id = ids.next();
        // Records hold strings, numbers and lists only: nothing that JSON cannot say.
        let mut line = serde_json::to_string(record).unwrap_or_default();
        add_field(&mut line, "record_id", &format!("\"{id}\""));
        let entry = Arc::new(Entry {
            id,
            kind,
            severity,
            reason: reason.map(str::to_owned),
            time_ns: i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX),
            line,
        });
        let now = Instant::now();
        for running in &self.lanes {
            running.lane.push(&entry, now);
        }
    }

    /// Whether there is any sink.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// How each sink is doing, in the order of the configuration.
    #[must_use]
    pub fn health(&self) -> Vec<Health> {
        self.lanes
            .iter()
            .map(|running| running.lane.health())
            .collect()
    }

    /// Has files opened anew: somebody has moved them.
    pub fn reopen(&self) {
        for running in &self.lanes {
            running.lane.reopen();
        }
    }

    /// Goes on with another configuration. Sinks that are in both go on as they are, and open their files
    /// anew; those that are not any more get so long to deliver what waits.
    pub fn reload(&mut self, streams: &[Stream], patience: Duration) -> Result<()> {
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.lanes)
            .into_iter()
            .partition(|running| streams.contains(&running.stream));
        end(&gone, Instant::now() + patience);
        self.lanes = kept;
        self.reopen();
        for stream in streams {
            let is_there = |running: &Running| running.stream == *stream;
            if !self.lanes.iter().any(is_there) {
                self.add(stream)?;
            }
        }
        let place = |running: &Running| streams.iter().position(|one| *one == running.stream);
        self.lanes.sort_by_key(place);
        Ok(())
    }

    /// Delivers what can still be delivered until then, leaves the rest on disk, and says how it went.
    pub fn stop(&mut self, deadline: Instant) -> Vec<Health> {
        end(&self.lanes, deadline);
        self.health()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for running in &self.lanes {
            running.lane.end(Instant::now());
        }
    }
}

fn end(lanes: &[Running], deadline: Instant) {
    for running in lanes {
        running.lane.end(deadline);
    }
    // A thread that is busy with its receiver may take a moment longer to see that it is late.
    let deadline = deadline + Duration::from_millis(200);
    for running in lanes {
        let left = deadline.saturating_duration_since(Instant::now());
        if running.end.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            log::warn!("stream {}: still busy at the end", running.stream.name);
        }
    }
}
