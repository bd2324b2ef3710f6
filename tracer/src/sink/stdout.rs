//! Standard output, written by a thread of its own.
//!
//! A reader that stops reading (a full pipe, a stalled disk, a terminal on hold) blocks
//! that thread and nothing else: lines wait in a bounded queue and, when it is full, are
//! refused to the one who offers them.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};

use crate::privileges::{self, Duty};

/// Lines that may wait to be written: some megabytes of records.
const CAPACITY: usize = 4096;

/// The writer of standard output.
#[derive(Debug)]
pub struct Stdout {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    capacity: usize,
    /// There is something to write, or nothing more will come.
    work: Condvar,
    /// There is room in the queue, or the writer has ended.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<String>,
    /// Lines that the writer has taken from the queue and not written yet.
    writing: usize,
    closed: bool,
    ended: Option<Result<(), io::Error>>,
}

impl Stdout {
    /// Starts the writer of this process's standard output.
    #[must_use]
    pub fn start() -> Self {
        // Past std's own buffer and lock, which a thread that is left behind would keep.
        let descriptor = io::stdout().as_fd().try_clone_to_owned().map(Descriptor);
        Self::over(descriptor, CAPACITY)
    }

    /// A writer with a queue of `capacity` lines. One that could not be opened has failed
    /// before the first line.
    fn over<W: Write + Send + 'static>(writer: io::Result<W>, capacity: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            capacity,
            work: Condvar::new(),
            progress: Condvar::new(),
        });
        let thread_shared = Arc::clone(&shared);
        let started = writer.and_then(|writer| {
            thread::Builder::new()
                .name("stdout".to_owned())
                .spawn(move || {
                    privileges::keep(Duty::Serve);
                    thread_shared.write(writer);
                })
        });
        if let Err(error) = started {
            shared.lock().ended = Some(Err(error));
        }
        Self { shared }
    }

    /// Hands a line over to be written, a newline after it. Returns false, at once, where
    /// the queue is full or the output has failed: the line is dropped, and the caller
    /// counts it.
    #[must_use]
    pub fn offer(&self, line: String) -> bool {
        self.hand_over(line, Duration::ZERO)
    }

    /// The same for what should not be dropped: waits up to `patience` for room.
    #[must_use]
    pub fn must(&self, line: String, patience: Duration) -> bool {
        self.hand_over(line, patience)
    }

    /// Whether the output has failed or its reader has gone: nothing more can be written.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.shared.lock().ended.is_some()
    }

    /// Writes what waits and ends, within `patience`.
    ///
    /// A reader that has gone has had what it wanted: that is success. Any other failure
    /// of the output, and lines that could not be written in time, are errors.
    pub fn finish(self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.work.notify_one();
        while state.ended.is_none() {
            let Some(left) = left(deadline) else {
                bail!(
                    "cannot write to standard output: {} lines were not taken within {patience:?}",
                    state.queue.len() + state.writing
                );
            };
            state = self.shared.wait(state, left);
        }
        match state.ended.take() {
            Some(Err(error)) if error.kind() != ErrorKind::BrokenPipe => {
                Err(anyhow!(error).context("cannot write to standard output"))
            }
            _ => Ok(()),
        }
    }

    fn hand_over(&self, line: String, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        while state.ended.is_none() {
            if state.queue.len() < self.shared.capacity {
                state.queue.push_back(line);
                self.shared.work.notify_one();
                return true;
            }
            let Some(left) = left(deadline) else {
                return false;
            };
            state = self.shared.wait(state, left);
        }
        false
    }
}

impl Drop for Stdout {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
    }
}

/// The time until `deadline`, if any.
fn left(deadline: Instant) -> Option<Duration> {
    Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole whenever the lock is given up.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for progress.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let (state, _) = self
            .progress
            .wait_timeout(state, most)
            .unwrap_or_else(PoisonError::into_inner);
        state
    }

    /// The thread: until the queue is closed and empty, or the output fails.
    fn write(&self, mut writer: impl Write) {
        let ended = self.write_lines(&mut writer);
        let mut state = self.lock();
        state.queue.clear();
        state.ended = Some(ended);
        self.progress.notify_all();
    }

    fn write_lines(&self, writer: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        // All that waits goes out in one piece: in a quiet time each line at once, in a
        // storm thousands together.
        while let Some(lines) = self.take() {
            bytes.clear();
            for line in lines {
                bytes.extend_from_slice(line.as_bytes());
                bytes.push(b'\n');
            }
            writer.write_all(&bytes)?;
            writer.flush()?;
        }
        Ok(())
    }

    /// Everything that waits; `None` when nothing does and nothing will.
    fn take(&self) -> Option<VecDeque<String>> {
        let mut state = self.lock();
        state.writing = 0;
        while state.queue.is_empty() {
            if state.closed {
                return None;
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = state.queue.len();
        let lines = std::mem::take(&mut state.queue);
        self.progress.notify_all();
        Some(lines)
    }
}

/// A descriptor that is written whole, even if someone made it non-blocking.
struct Descriptor(OwnedFd);

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                // Whoever shares the open file, such as a shell's terminal, can set
                // O_NONBLOCK on it.
                Err(rustix::io::Errno::AGAIN) => {
                    let mut ready = [PollFd::new(&self.0, PollFlags::OUT)];
                    match poll(&mut ready, None) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
