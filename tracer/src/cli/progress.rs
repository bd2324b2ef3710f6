//! What takes longer than a second says so, to people.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Between two words of it, and before the first.
const EVERY: Duration = Duration::from_secs(1);

/// Says on stderr what is going on until it is dropped, and takes it away then. Silent where stderr is no
/// terminal.
#[derive(Debug)]
pub(super) struct Progress {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Begins; `what` is going on.
    pub(super) fn start(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self { running: None };
        }
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let mut is_shown = false;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                let seconds = started.elapsed().as_secs();
                show(&format!("\r{what} … {seconds} s"));
                is_shown = true;
            }
            if is_shown {
                // To the line's beginning, and the rest of it away.
                show("\r\x1b[K");
            }
        });
        Self {
            running: Some((stop, thread)),
        }
    }

    /// Ends it: something else is shown from now on.
    pub(super) fn hide(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // It cannot have panicked, and nothing hangs on it.
            let _ = thread.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.hide();
    }
}

fn show(text: &str) {
    let mut stderr = io::stderr();
    // A terminal that has gone away sees nothing.
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}
