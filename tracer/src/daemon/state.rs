//! What outlives the daemon: incidents, and alerts that wait to be delivered.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::oneshot;

use crate::{
    incident::{Engine, Saved},
    notify::Notifiers,
    privileges::{self, Duty},
    rules::Rules,
};

/// An incident counts as told once that is on disk, or has been waited for so long.
const SETTLING: Duration = Duration::from_secs(2);

/// The state's folder, which only one daemon uses.
#[derive(Debug)]
pub(super) struct State {
    folder: Option<PathBuf>,
    /// Holds the lock.
    _lock: Option<File>,
}

impl State {
    /// Takes the folder for itself; makes it if it is not there.
    pub(super) fn open(folder: Option<&Path>) -> Result<Self> {
        let Some(folder) = folder else {
            return Ok(Self {
                folder: None,
                _lock: None,
            });
        };
        let shown = folder.display();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot make the state's folder {shown}"))?;
        let lock = private(&folder.join("lock"))
            .with_context(|| format!("cannot write to the state's folder {shown}"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => bail!(
                "another turnaway daemon uses {shown}: stop it, or give this one a --state of its own"
            ),
            Err(errno) => {
                return Err(errno).with_context(|| format!("cannot lock {shown}/lock"));
            }
        }
        Ok(Self {
            folder: Some(folder.to_owned()),
            _lock: Some(lock),
        })
    }

    /// Where alerts wait.
    pub(super) fn queue(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join("queue"))
    }

    /// Where records wait.
    pub(super) fn streams(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join("stream"))
    }

    fn file(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join("incidents.json"))
    }

    /// An engine that goes on where the last one was, or a new one.
    pub(super) fn restore(&self, rules: &Rules) -> Engine {
        let restored = self.file().and_then(|path| {
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                Err(error) => {
                    log::warn!("{}: {error}: incidents begin anew", path.display());
                    return None;
                }
            };
            let engine = serde_json::from_slice::<Saved>(&text)
                .ok()
                .and_then(|saved| Engine::restore(rules.clone(), saved));
            if engine.is_none() {
                log::warn!(
                    "{}: cannot be understood: incidents begin anew",
                    path.display()
                );
            }
            engine
        });
        restored.unwrap_or_else(|| Engine::new(rules.clone()))
    }

    /// The old state stays until the new one is on disk as a whole.
    fn write(&self, saved: &Saved) -> Result<()> {
        let Some(path) = self.file() else {
            return Ok(());
        };
        let new = path.with_extension("json.new");
        let mut file = private(&new)?;
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec(saved)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        Ok(())
    }
}

/// A file that only its owner may read.
fn private(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// A state to write, and who wants to know whether it was.
type Job = (Saved, Vec<oneshot::Sender<bool>>);

/// How writing goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// The folder; `None` where nothing is kept.
    pub(super) folder: Option<PathBuf>,
    /// When it was last written.
    pub(super) at: Option<Timestamp>,
    /// Why it could not be the last time.
    pub(super) error: Option<String>,
}

/// Writes the state from a thread of its own: a disk that hangs holds up nobody else.
pub(super) struct Keeper {
    queue: Option<PathBuf>,
    /// Rung for each state.
    bell: Option<SyncSender<()>>,
    shared: Arc<Shared>,
    /// The thread holds the other end.
    end: Receiver<()>,
}

/// Between the keeper and its owner.
#[derive(Default)]
struct Shared {
    /// What is to be written next. Only the newest matters: before a disk that hangs, states do not pile up.
    next: Mutex<Option<Job>>,
    /// Who delivers.
    notifiers: Mutex<Option<Arc<Notifiers>>>,
    written: Mutex<Written>,
}

impl Keeper {
    /// Starts the thread.
    pub(super) fn start(state: State, notifiers: Arc<Notifiers>) -> Result<Self> {
        let (bell, rung) = mpsc::sync_channel(1);
        let shared = Arc::new(Shared {
            written: Mutex::new(Written {
                folder: state.folder.clone(),
                ..Written::default()
            }),
            ..Shared::default()
        });
        let queue = state.queue();
        let for_thread = Arc::clone(&shared);
        let (ending, end) = mpsc::channel();
        thread::Builder::new()
            .name("turnaway-state".to_owned())
            .spawn(move || {
                privileges::keep(Duty::Serve);
                keep(&state, &rung, &for_thread);
                drop(ending);
            })
            .context("cannot start a thread to keep the state")?;
        let keeper = Self {
            queue,
            bell: Some(bell),
            shared,
            end,
        };
        keeper.resume(notifiers);
        Ok(keeper)
    }

    /// Where alerts wait.
    pub(super) fn queue(&self) -> Option<PathBuf> {
        self.queue.clone()
    }

    /// Has a state written, once all that it says is told is sure to be.
    pub(super) fn save(&self, saved: Saved) {
        self.send(saved, None);
    }

    /// The same, and tells whether it is on disk.
    pub(super) fn save_and_tell(&self, saved: Saved) -> oneshot::Receiver<bool> {
        let (tell, told) = oneshot::channel();
        self.send(saved, Some(tell));
        told
    }

    fn send(&self, saved: Saved, tell: Option<oneshot::Sender<bool>>) {
        let mut next = lock(&self.shared.next);
        let mut tells = next.take().map(|(_, tells)| tells).unwrap_or_default();
        // Those who have not waited need not be told.
        tells.retain(|tell| !tell.is_closed());
        tells.extend(tell);
        *next = Some((saved, tells));
        drop(next);
        if let Some(bell) = &self.bell {
            // It has been rung already, or the thread has ended.
            let _ = bell.try_send(());
        }
    }

    /// How writing goes.
    pub(super) fn written(&self) -> Written {
        lock(&self.shared.written).clone()
    }

    /// Lets go of who delivers.
    pub(super) fn pause(&self) {
        lock(&self.shared.notifiers).take();
    }

    /// Takes somebody else who delivers.
    pub(super) fn resume(&self, notifiers: Arc<Notifiers>) {
        *lock(&self.shared.notifiers) = Some(notifiers);
    }

    /// No more states will come: the thread writes the last and ends.
    pub(super) fn close(&mut self) {
        self.bell.take();
    }

    /// Waits for that, but not beyond the deadline.
    pub(super) fn wait(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        if self.end.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            log::warn!("the last state could not be written in time");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(state: &State, rung: &Receiver<()>, shared: &Shared) {
    while rung.recv().is_ok() {
        let Some((saved, tells)) = lock(&shared.next).take() else {
            continue;
        };
        if state.folder.is_none() {
            continue;
        }
        // Whoever is in place now is waited for, and may be replaced meanwhile.
        let notifiers = lock(&shared.notifiers).clone();
        if let Some(notifiers) = notifiers {
            let _ = notifiers.settle(SETTLING);
        }
        let outcome = state.write(&saved);
        for tell in tells {
            // Whoever asked may have gone.
            let _ = tell.send(outcome.is_ok());
        }
        let mut written = lock(&shared.written);
        match outcome {
            Ok(()) => {
                written.at = Some(Timestamp::now());
                written.error = None;
            }
            Err(error) => {
                if written.error.is_none() {
                    log::warn!("incidents are in memory only: {error:#}");
                }
                written.error = Some(format!("{error:#}"));
            }
        }
    }
}
