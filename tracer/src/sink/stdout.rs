//! stdout, written by a thread of its own: a reader that is slow or stopped must not stop
//! capture.

use std::{
    io::{self, Write},
    sync::mpsc::{self},
    sync::mpsc::{
        Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Most chunks of text that wait for the reader.
const WAITING: usize = 8192;

/// The writer's end of stdout.
#[derive(Debug)]
pub struct Stdout {
    queue: Option<SyncSender<String>>,
    outcome: Receiver<io::Result<()>>,
    /// What the writer ended with, once it has.
    ended: Option<io::Result<()>>,
}

impl Stdout {
    /// Starts the writer.
    #[must_use]
    pub fn start() -> Self {
        Self::to(io::stdout())
    }

    fn to(out: impl Write + Send + 'static) -> Self {
        let (queue, lines) = sync_channel(WAITING);
        let (done, outcome) = mpsc::channel();
        thread::spawn(move || {
            // Nobody may be waiting any more.
            let _ = done.send(write_all(out, &lines));
        });
        Self {
            queue: Some(queue),
            outcome,
            ended: None,
        }
    }

    /// Queues text, if there is room. False: there is none, or nobody reads any more.
    pub fn offer(&mut self, text: String) -> bool {
        self.queue
            .as_ref()
            .is_some_and(|queue| queue.try_send(text).is_ok())
    }

    /// Queues text, waiting for room for as long as `patience`.
    pub fn must(&mut self, text: String, patience: Duration) -> bool {
        /// `sync_channel` has no send with a timeout; a stuck reader is looked at this often.
        const PAUSE: Duration = Duration::from_millis(10);
        let deadline = Instant::now() + patience;
        let mut text = text;
        loop {
            let Some(queue) = &self.queue else {
                return false;
            };
            match queue.try_send(text) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => text = back,
                Err(_) => return false,
            }
            thread::sleep(PAUSE);
        }
    }

    /// Whether the writer has ended: the reader is gone, or writing failed.
    pub fn failed(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = match self.outcome.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Err(writer_gone())),
            };
        }
        self.ended.is_some()
    }

    /// Writes what is queued, for as long as `patience`. A reader that has gone is no
    /// error: it has seen what it wanted.
    pub fn finish(mut self, patience: Duration) -> Result<()> {
        self.queue = None;
        let outcome = match self.ended {
            Some(outcome) => outcome,
            None => match self.outcome.recv_timeout(patience) {
                Ok(outcome) => outcome,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("stdout is not being read: its last lines are lost")
                }
                Err(RecvTimeoutError::Disconnected) => Err(writer_gone()),
            },
        };
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot write to stdout"),
        }
    }
}

fn writer_gone() -> io::Error {
    io::Error::other("the writer ended without a word")
}

/// Writes until the queue is closed; flushes whenever it runs empty.
fn write_all(out: impl Write, lines: &Receiver<String>) -> io::Result<()> {
    let mut out = io::BufWriter::new(out);
    loop {
        let text = match lines.try_recv() {
            Ok(text) => text,
            Err(TryRecvError::Empty) => {
                out.flush()?;
                match lines.recv() {
                    Ok(text) => text,
                    Err(_) => return Ok(()),
                }
            }
            Err(TryRecvError::Disconnected) => return out.flush(),
        };
        out.write_all(text.as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Read as _, Write},
        sync::mpsc,
        time::Duration,
    };

    use super::{Stdout, WAITING};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Fails as told.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Blocks for as long as the other end of the channel is held.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_queued_is_written_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut stdout = Stdout::to(writer);
        for number in 0..1000 {
            assert!(stdout.must(format!("{number}\n"), PATIENCE));
        }
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        stdout.finish(PATIENCE).unwrap();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(reading.join().unwrap(), expected);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        let mut stdout = Stdout::to(Failing(io::ErrorKind::BrokenPipe));
        assert!(stdout.offer("x\n".to_owned()));
        stdout.finish(PATIENCE).unwrap();
    }

    #[test]
    fn a_full_disk_is_said_once() {
        let mut stdout = Stdout::to(Failing(io::ErrorKind::StorageFull));
        assert!(stdout.offer("x\n".to_owned()));
        let error = stdout.finish(PATIENCE).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot write to stdout: "));
    }

    #[test]
    fn a_reader_that_is_stuck_blocks_nobody() {
        let (held, receiver) = mpsc::channel();
        let mut stdout = Stdout::to(Stuck(receiver));
        let mut queued = 0;
        // The writer may have taken one out of the queue.
        while stdout.offer("x".to_owned()) {
            queued += 1;
            assert!(queued <= WAITING + 1);
        }
        assert!(!stdout.must("y".to_owned(), Duration::from_millis(20)));
        assert!(!stdout.failed());
        assert!(stdout.finish(Duration::from_millis(20)).is_err());
        drop(held);
    }
}
