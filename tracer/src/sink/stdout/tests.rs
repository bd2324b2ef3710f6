//! Readers that read, stall, leave and fail.

use std::{
    io::{self, ErrorKind, Read as _, Write},
    os::fd::OwnedFd,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use super::{Descriptor, Stdout};

/// More than any test takes.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

/// Waits for the test's leave before each write, and tells what was written.
struct Gate {
    open: Receiver<io::Result<()>>,
    written: Sender<String>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open
            .recv()
            .unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))?;
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let _ = self.written.send(text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gated(capacity: usize) -> (Stdout, Sender<io::Result<()>>, Receiver<String>) {
    let (leave, open) = channel();
    let (written, writes) = channel();
    let stdout = Stdout::over(Ok(Gate { open, written }), capacity);
    (stdout, leave, writes)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Offers a line and waits until the writer has taken it and hangs.
fn hang(stdout: &Stdout) {
    assert!(stdout.offer("first".to_owned()));
    eventually("the writer takes it", || stdout.shared.lock().writing == 1);
}

#[test]
fn lines_are_written_in_order_and_a_storm_in_one_piece() {
    let (stdout, leave, writes) = gated(10);
    hang(&stdout);
    for line in ["second", "third"] {
        assert!(stdout.offer(line.to_owned()));
    }
    for _ in 0..2 {
        leave.send(Ok(())).expect("written");
    }
    stdout.finish(LONG).expect("success");
    assert_eq!(
        writes.iter().collect::<Vec<_>>(),
        ["first\n", "second\nthird\n"]
    );
}

#[test]
fn a_stalled_reader_stalls_nobody() {
    let (stdout, leave, writes) = gated(2);
    hang(&stdout);
    assert!(stdout.offer("second".to_owned()));
    assert!(stdout.offer("third".to_owned()));
    assert!(!stdout.offer("dropped".to_owned()));
    assert!(!stdout.must("dropped too".to_owned(), SHORT));
    assert!(!stdout.failed());
    leave.send(Ok(())).expect("written");
    assert!(stdout.must("fourth".to_owned(), LONG), "room came in time");
    for _ in 0..2 {
        let _ = leave.send(Ok(()));
    }
    stdout.finish(LONG).expect("success");
    assert_eq!(
        writes.iter().collect::<String>(),
        "first\nsecond\nthird\nfourth\n"
    );
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let (stdout, _leave, _writes) = gated(10);
    hang(&stdout);
    assert!(stdout.offer("second".to_owned()));
    let error = stdout.finish(SHORT).expect_err("nobody reads");
    assert!(
        error.to_string().contains("2 lines were not taken"),
        "{error}"
    );
}

#[test]
fn a_reader_that_leaves_is_success() {
    let (stdout, leave, _writes) = gated(10);
    leave
        .send(Err(ErrorKind::BrokenPipe.into()))
        .expect("the writer waits");
    assert!(stdout.offer("line".to_owned()));
    eventually("it ends", || stdout.failed());
    assert!(!stdout.offer("late".to_owned()));
    assert!(!stdout.must("late".to_owned(), LONG), "refused at once");
    stdout.finish(LONG).expect("success");
}

#[test]
fn a_full_disk_is_an_error() {
    let (stdout, leave, _writes) = gated(10);
    leave
        .send(Err(io::Error::from_raw_os_error(libc::ENOSPC)))
        .expect("the writer waits");
    assert!(stdout.offer("line".to_owned()));
    let error = stdout.finish(LONG).expect_err("no space");
    assert!(
        format!("{error:#}").starts_with("cannot write to standard output: No space left"),
        "{error:#}"
    );
}

#[test]
fn an_output_that_cannot_be_opened_has_failed() {
    let stdout = Stdout::over::<Gate>(Err(io::Error::from_raw_os_error(libc::EBADF)), 1);
    assert!(stdout.failed());
    assert!(!stdout.offer("line".to_owned()));
    assert!(stdout.finish(LONG).is_err());
}

#[test]
fn a_pipe_that_was_made_non_blocking_gets_every_byte() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let writer = OwnedFd::from(writer);
    rustix::io::ioctl_fionbio(&writer, true).expect("set");
    let stdout = Stdout::over(Ok(Descriptor(writer)), 1_000);
    // More than a pipe holds.
    let line = "x".repeat(1_023);
    for _ in 0..200 {
        assert!(stdout.must(line.clone(), LONG));
    }
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    stdout.finish(LONG).expect("success");
    let bytes = reading.join().expect("no panic").expect("read");
    assert_eq!(bytes.len(), 200 * 1_024);
}
