//! What outlives the daemon: incidents, and alerts that wait to be delivered.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::{
    incident::{Engine, Saved},
    notify::Notifiers,
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

/// Writes the state from a thread of its own: a disk that hangs holds up nobody else.
pub(super) struct Keeper {
    queue: Option<PathBuf>,
    states: Option<Sender<Saved>>,
    notifiers: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Who delivers, between the keeper and the one who changes it.
#[derive(Default)]
struct Shared {
    notifiers: Mutex<Option<Arc<Notifiers>>>,
}

impl Keeper {
    /// Starts the thread.
    pub(super) fn start(state: State, notifiers: Arc<Notifiers>) -> Result<Self> {
        let (states, received) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let queue = state.queue();
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("turnaway-state".to_owned())
            .spawn(move || keep(&state, &received, &for_thread))
            .context("cannot start a thread to keep the state")?;
        let keeper = Self {
            queue,
            states: Some(states),
            notifiers: shared,
            thread: Some(thread),
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
        if let Some(states) = &self.states {
            // It fails only if the thread has ended.
            let _ = states.send(saved);
        }
    }

    /// Lets go of who delivers.
    pub(super) fn pause(&self) {
        lock(&self.notifiers.notifiers).take();
    }

    /// Takes somebody else who delivers.
    pub(super) fn resume(&self, notifiers: Arc<Notifiers>) {
        *lock(&self.notifiers.notifiers) = Some(notifiers);
    }

    /// Writes what is left, and ends.
    pub(super) fn stop(&mut self) {
        self.states.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.pause();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(state: &State, received: &Receiver<Saved>, shared: &Shared) {
    let mut failed = false;
    while let Ok(mut saved) = received.recv() {
        // Only the newest matters.
        while let Ok(newer) = received.try_recv() {
            saved = newer;
        }
        // Held meanwhile, so that nobody ends who delivers.
        let notifiers = lock(&shared.notifiers);
        if let Some(notifiers) = &*notifiers {
            let _ = notifiers.settle(SETTLING);
        }
        drop(notifiers);
        match state.write(&saved) {
            Ok(()) => failed = false,
            Err(error) => {
                if !failed {
                    log::warn!("incidents are in memory only: {error:#}");
                }
                failed = true;
            }
        }
    }
}
