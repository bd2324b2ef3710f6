//! The process is at its limit of descriptors.

use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::full::Full;
use super::listening::Listening;
use super::{Stage, fail};
use crate::sys::{self, Call, Errno};
use crate::truth::{Failures, Process, Tally};
use crate::wait;

/// How long [`spin`] spins.
pub const SPIN: Duration = Duration::from_secs(2);

/// Fails `count` times with `clients` connections waiting.
pub fn at_limit(
    stage: &mut Stage,
    listening: &Listening,
    clients: u32,
    call: Call,
    limit: u64,
    count: u64,
) -> Result<()> {
    let _clients = listening.queue_up(clients)?;
    let process = Process::current()?;
    stage.ready()?;
    let full = Full::at(limit)?;
    let errno = fail(call, listening.fd(), libc::EMFILE, count)?;
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![Failures {
            used: Some(full.used()),
            ..Failures::new(process, listening.truth(clients), call, errno, count).at_limit(limit)
        }],
        accepted: 0,
        ..Tally::default()
    })
}

/// accept4(2) on IPv4.
pub fn accept4(stage: &mut Stage) -> Result<()> {
    at_limit(stage, &Listening::tcp4(16)?, 3, Call::Accept4, 64, 137)
}

/// accept(2) on IPv4.
pub fn accept(stage: &mut Stage) -> Result<()> {
    at_limit(stage, &Listening::tcp4(7)?, 2, Call::Accept, 51, 23)
}

/// Nobody waits, and the socket would not block: EMFILE comes before EAGAIN.
pub fn empty_queue(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(11)?;
    sys::set_nonblocking(listening.socket())?;
    ensure!(
        sys::accept4(listening.fd(), 0).is_err_and(|errno| errno == Errno(libc::EAGAIN)),
        "an empty queue did not give EAGAIN"
    );
    at_limit(stage, &listening, 0, Call::Accept4, 33, 5)
}

/// What counts is the lowest free number, not how many are open.
pub fn lowest_free_number(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 5;
    const FREE: i32 = 4;
    let listening = Listening::tcp4(16)?;
    ensure!(listening.fd() < FREE, "the listener is not among the first");
    let _clients = listening.queue_up(2)?;
    let process = Process::current()?;
    stage.ready()?;

    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(sys::dup(0)?);
    }
    let before = sys::nofile()?;
    // A number that one of the clients or of the copies has: its owner must forget it.
    let at = open.iter().position(|fd| fd.as_raw_fd() == FREE);
    match at {
        Some(at) => drop(open.swap_remove(at)),
        None => sys::close_number(FREE),
    }
    sys::set_nofile(LIMIT, before.1)?;
    let accepted = sys::accept4(listening.fd(), 0)?;
    ensure!(accepted.as_raw_fd() == FREE, "accepted as {accepted:?}");
    // Now there is none below the limit.
    let errno = fail(Call::Accept4, listening.fd(), libc::EMFILE, 1)?;
    sys::set_nofile(before.0, before.1)?;
    // If it was a client's, closing it twice would close somebody else's.
    if at.is_none() {
        std::mem::forget(accepted);
    }
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![
            Failures::new(process, listening.truth(1), Call::Accept4, errno, 1).at_limit(LIMIT),
        ],
        accepted: 1,
        ..Tally::default()
    })
}

/// An accept that waits already has its number: lowering the limit does not fail it.
pub fn blocked(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    let client = listening.client()?;
    let process = Process::current()?;
    stage.ready()?;
    let before = sys::nofile()?;
    let accepted = std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let fd = listening.fd();
        let acceptor = scope.spawn(move || {
            // The receiver waits for this very message.
            let _ = sender.send(std::fs::read_link("/proc/thread-self"));
            sys::accept4(fd, 0)
        });
        let task = receiver.recv()??;
        let task = std::path::Path::new("/proc").join(task);
        wait::until_true("the thread to be in accept4", || {
            in_syscall(&task, libc::SYS_accept4)
        })?;
        sys::set_nofile(3, before.1)?;
        listening.connect(&client)?;
        let accepted = acceptor
            .join()
            .map_err(|_| anyhow::anyhow!("the acceptor panicked"))?;
        sys::set_nofile(before.0, before.1)?;
        anyhow::Ok(accepted?)
    })?;
    ensure!(accepted.as_raw_fd() >= 3, "accepted as {accepted:?}");
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: Vec::new(),
        accepted: 1,
        ..Tally::default()
    })
}

/// Whether a task sleeps in a system call.
pub fn in_syscall(task: &std::path::Path, number: i64) -> Result<bool> {
    let text = std::fs::read_to_string(task.join("syscall"))?;
    Ok(text.split_whitespace().next() == Some(number.to_string().as_str()))
}

/// As fast as it can, as event loops do that ask again at once.
pub fn spin(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 40;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(1)?;
    let process = Process::current()?;
    stage.ready()?;
    let _full = Full::at(LIMIT)?;
    let end = Instant::now() + SPIN;
    let mut count = 0;
    while Instant::now() < end {
        // Looking at the clock costs more than a failure.
        count += 64;
        fail(Call::Accept4, listening.fd(), libc::EMFILE, 64)?;
    }
    report(stage, process, &listening, LIMIT, count)
}

/// Reports accepts that failed at the limit of this process, on one listener that a client waits at.
pub(super) fn report(
    stage: &mut Stage,
    process: Process,
    listening: &Listening,
    limit: u64,
    count: u64,
) -> Result<()> {
    let errno = Errno(libc::EMFILE);
    let truth = listening.truth(1);
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![Failures::new(process, truth, Call::Accept4, errno, count).at_limit(limit)],
        accepted: 0,
        ..Tally::default()
    })
}

/// Many listeners of one process, each with failures of its own.
pub fn many_listeners(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 80;
    let listeners = (1..=40).map(Listening::tcp4).collect::<Result<Vec<_>>>()?;
    let process = Process::current()?;
    stage.ready()?;
    let _full = Full::at(LIMIT)?;
    let mut failures = Vec::new();
    for (count, listening) in (1..).zip(&listeners) {
        let errno = fail(Call::Accept4, listening.fd(), libc::EMFILE, count)?;
        let truth = listening.truth(0);
        failures.push(
            Failures::new(process.clone(), truth, Call::Accept4, errno, count).at_limit(LIMIT),
        );
    }
    stage.report(&Tally {
        pids: vec![process.pid],
        failures,
        accepted: 0,
        ..Tally::default()
    })
}
