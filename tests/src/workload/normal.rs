//! Normal life, which is no failure.

use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Stage;
use super::listening::Listening;
use crate::sys::{self, Errno};
use crate::truth::{Process, Tally};

const ALARM: Duration = Duration::from_millis(1);
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

fn no_failures(stage: &mut Stage, process: &Process, accepted: u64) -> Result<()> {
    sys::stop_alarm()?;
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: Vec::new(),
        accepted,
        ..Tally::default()
    })
}

/// A busy event loop: ten thousand connections, an accept until EAGAIN for each, and a signal
/// every millisecond.
pub fn busy_loop(stage: &mut Stage) -> Result<()> {
    const CONNECTIONS: u64 = 10_000;
    let listening = Listening::tcp4(128)?;
    sys::set_nonblocking(listening.socket())?;
    let process = Process::current()?;
    stage.ready()?;
    let clients = sys::fork(|| {
        for _ in 0..CONNECTIONS {
            let client = listening.client()?;
            listening.connect(&client)?;
            // The server closes at once. A client that did not wait for it could fill the queue,
            // and then each lost SYN would cost a second.
            ensure!(
                sys::poll_readable(client.as_raw_fd(), PATIENCE)?,
                "a connection was not accepted"
            );
        }
        Ok(())
    })?;
    sys::alarm_every(ALARM, false)?;
    let (mut accepted, mut empty) = (0, 0_u64);
    while accepted < CONNECTIONS {
        match sys::poll_readable(listening.fd(), PATIENCE) {
            Ok(true) | Err(Errno(libc::EINTR)) => {}
            Ok(false) => anyhow::bail!("{accepted} connections came, then none for {PATIENCE:?}"),
            Err(other) => return Err(other.into()),
        }
        loop {
            match sys::accept4(listening.fd(), libc::SOCK_NONBLOCK) {
                Ok(_) => accepted += 1,
                Err(Errno(libc::EAGAIN)) => break empty += 1,
                Err(other) => anyhow::bail!("accept4 returned {other:?}"),
            }
        }
    }
    clients.wait()?;
    ensure!(empty > 0, "EAGAIN never came");
    no_failures(stage, &process, accepted)
}

/// Accepts that wait and are interrupted.
pub fn interrupted(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    let process = Process::current()?;
    stage.ready()?;
    sys::alarm_every(ALARM, false)?;
    for number in 0..500 {
        let got = sys::accept4(listening.fd(), 0);
        ensure!(
            got.as_ref()
                .is_err_and(|errno| *errno == Errno(libc::EINTR)),
            "attempt {number} returned {got:?}"
        );
    }
    no_failures(stage, &process, 0)
}

/// Accepts that wait, are interrupted and restarted by the kernel.
pub fn restarted(stage: &mut Stage) -> Result<()> {
    const CONNECTIONS: u64 = 10;
    let listening = Listening::tcp4(16)?;
    let process = Process::current()?;
    stage.ready()?;
    let clients = sys::fork(|| {
        for _ in 0..CONNECTIONS {
            // Time for some signals to come meanwhile.
            std::thread::sleep(20 * ALARM);
            listening.connect(&listening.client()?)?;
        }
        Ok(())
    })?;
    sys::alarm_every(ALARM, true)?;
    for _ in 0..CONNECTIONS {
        sys::accept4(listening.fd(), 0)?;
    }
    clients.wait()?;
    ensure!(sys::alarms() > 0, "no signal came");
    no_failures(stage, &process, CONNECTIONS)
}

/// Clients that reset their connection while it waits: on Linux, accept succeeds.
pub fn reset_in_queue(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    let process = Process::current()?;
    stage.ready()?;
    drop(listening.queue_up(9)?);
    for _ in 0..9 {
        sys::accept4(listening.fd(), 0)?;
    }
    no_failures(stage, &process, 9)
}
