//! Writes from a thread of its own: a disk that hangs holds up nobody else.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use crate::privileges::{self, Duty};

use super::{
    Caps, Context, Incident, Minute, Pressure, Run, Sample, Watch,
    pending::{Item, Pending},
    store::Store,
};

/// A write that takes longer is said.
const SLOW: Duration = Duration::from_secs(5);
/// How long after a failure it is tried again; it doubles up to [`LATEST`].
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_mins(1);
/// How often what is too old or too much is looked for.
const PRUNING: Duration = Duration::from_hours(1);

/// Keeps what it is given. Dropping it leaves what was not written yet; see [`History::stop`].
#[derive(Debug)]
pub struct History {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why nothing can be written, if so.
    pub failing: Option<String>,
    /// How long the write that is under way has taken.
    pub writing: Option<Duration>,
    /// Something waits to be written.
    pub waiting: bool,
    /// Items that there was no room for.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is more to do.
    more: Condvar,
    /// There is less to do.
    less: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Pending,
    /// Most bytes of that.
    most: usize,
    writing: Option<Instant>,
    failing: Option<String>,
    said_slow: bool,
    ending: bool,
}

impl History {
    /// Starts the thread, which opens the file. A file that cannot be opened is no error here: it is
    /// said, tried again, and meanwhile memory has to do.
    pub fn start(path: &Path, caps: Caps) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        {
            let mut state = shared.lock();
            state.most = caps.memory;
            // It opens the file first, so that one that is damaged is said at once.
            state.writing = Some(Instant::now());
        }
        let writer = Writer {
            shared: Arc::clone(&shared),
            path: path.to_owned(),
            caps,
            store: None,
            pruned: None,
        };
        let thread = thread::Builder::new()
            .name("turnaway-history".to_owned())
            .spawn(move || {
                privileges::keep(Duty::Serve);
                writer.run();
            })
            .context("cannot start a thread to keep the history")?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// An incident began, changed or ended.
    pub fn incident(&self, incident: Incident) {
        self.push(Item::Incident(Box::new(incident)));
    }

    /// What was found when it began.
    pub fn context(&self, context: Context) {
        self.push(Item::Context(context));
    }

    /// How an incident stands.
    pub fn sample(&self, incident: &str, sample: Sample) {
        self.push(Item::Sample(incident.to_owned(), sample));
    }

    /// Failures of a minute; more of the same minute add up.
    pub fn minute(&self, minute: Minute) {
        self.push(Item::Minute(minute));
    }

    /// Pressure of a minute.
    pub fn pressure(&self, pressure: Pressure) {
        self.push(Item::Pressure(pressure));
    }

    /// A program that ran, or runs.
    pub fn run(&self, run: Run) {
        self.push(Item::Run(run));
    }

    /// Somebody watches until then.
    pub fn watch(&self, watch: Watch) {
        self.push(Item::Watch(watch));
    }

    /// How it goes. Said once in the log, too, when it goes badly and when it goes well again.
    #[must_use]
    pub fn health(&self) -> Health {
        let mut state = self.shared.lock();
        let writing = state.writing.map(|since| since.elapsed());
        if writing.is_some_and(|time| time >= SLOW) && !state.said_slow {
            state.said_slow = true;
            log::warn!(
                "the history's disk does not answer: it is kept in memory, up to {} MiB",
                state.most >> 20
            );
        }
        Health {
            failing: state.failing.clone(),
            writing,
            waiting: !state.pending.is_empty(),
            lost: state.pending.lost(),
        }
    }

    /// Waits until all is written; `false` if that takes longer than `patience`.
    #[must_use]
    pub fn settle(&self, patience: Duration) -> bool {
        let state = self.shared.lock();
        let busy = |state: &mut State| !state.pending.is_empty() || state.writing.is_some();
        let (state, _) = self
            .shared
            .less
            .wait_timeout_while(state, patience, busy)
            .unwrap_or_else(PoisonError::into_inner);
        state.pending.is_empty() && state.writing.is_none()
    }

    /// Writes what is left and ends; `false` if that takes longer than `patience`, and then the disk
    /// may do with the rest what it likes.
    #[must_use]
    pub fn stop(mut self, patience: Duration) -> bool {
        let settled = self.settle(patience);
        self.shared.lock().ending = true;
        self.shared.more.notify_all();
        if settled && let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        settled
    }

    fn push(&self, item: Item) {
        let mut state = self.shared.lock();
        let most = state.most;
        state.pending.push(item, most);
        drop(state);
        self.shared.more.notify_one();
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.more.notify_all();
    }
}

impl Shared {
    /// Held for moments only, never while anything is written.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    caps: Caps,
    store: Option<Store>,
    pruned: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        let mut result = self.write(&[]);
        let mut wait = SOONEST;
        loop {
            wait = match &result {
                Ok(()) => SOONEST,
                Err(_) => (wait * 2).min(LATEST),
            };
            self.say(result);
            let Some(batch) = self.next(wait) else { return };
            result = self.write(&batch);
            if result.is_err() {
                let mut state = self.shared.lock();
                let most = state.most;
                state.pending.put_back(batch, most);
            }
        }
    }

    /// The next batch; `None` at the end. After a failure not before `wait` is over.
    fn next(&self, wait: Duration) -> Option<Vec<Item>> {
        let mut state = self.shared.lock();
        if state.failing.is_some() {
            (state, _) = self
                .shared
                .more
                .wait_timeout_while(state, wait, |state| !state.ending)
                .unwrap_or_else(PoisonError::into_inner);
            if state.ending {
                return None;
            }
        }
        let idle = |state: &mut State| state.pending.is_empty() && !state.ending;
        state = self
            .shared
            .more
            .wait_while(state, idle)
            .unwrap_or_else(PoisonError::into_inner);
        if state.pending.is_empty() {
            return None;
        }
        state.writing = Some(Instant::now());
        Some(state.pending.take())
    }

    fn write(&mut self, batch: &[Item]) -> Result<()> {
        // One that was removed meanwhile would be written to for ever, unseen.
        if self.store.is_none() || !self.path.exists() {
            self.store = None;
            let opened = Store::open(&self.path, Timestamp::now())?;
            if let Some((aside, what)) = opened.aside {
                log::error!(
                    "the history began anew: {what}; the old one is {}",
                    aside.display()
                );
            }
            self.store = Some(opened.store);
            self.pruned = None;
        }
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let written = store.write(batch).and_then(|()| {
            if self.pruned.is_none_or(|then| then.elapsed() >= PRUNING) {
                store.prune(&self.caps, Timestamp::now())?;
                self.pruned = Some(Instant::now());
            }
            Ok(())
        });
        if let Err(error) = &written
            && is_damage(error)
        {
            // The next attempt finds it when it opens the file, and moves it aside.
            self.store = None;
        }
        written
    }

    fn say(&self, result: Result<()>) {
        let mut state = self.shared.lock();
        state.writing = None;
        let was_slow = std::mem::take(&mut state.said_slow);
        match result {
            Ok(()) => {
                if state.failing.take().is_some() || was_slow {
                    let lost = state.pending.lost();
                    log::warn!("the history is written again; {lost} entries were lost");
                }
            }
            Err(error) => {
                let what = format!("{error:#}");
                if state.failing.is_none() {
                    log::warn!(
                        "the history is in memory only, up to {} MiB: {}: {what}",
                        state.most >> 20,
                        self.path.display()
                    );
                }
                state.failing = Some(what);
            }
        }
        drop(state);
        self.shared.less.notify_all();
    }
}

fn is_damage(error: &anyhow::Error) -> bool {
    use rusqlite::ErrorCode;
    error
        .downcast_ref::<rusqlite::Error>()
        .and_then(rusqlite::Error::sqlite_error_code)
        .is_some_and(|code| matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
