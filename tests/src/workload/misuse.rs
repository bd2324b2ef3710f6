//! Bugs of programs.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use super::listening::{Listening, identified};
use super::{Stage, fail, fail_at};
use crate::sys::{self, Call, SockAddr};
use crate::truth::{Failures, Listener, Process, Tally};

/// Misuses one descriptor in one way.
fn misuse(
    stage: &mut Stage,
    listener: Listener,
    errno: i32,
    count: u64,
    mut attempt: impl FnMut() -> Result<(), sys::Errno>,
) -> Result<()> {
    let process = Process::current()?;
    let limit = sys::nofile()?.0;
    stage.ready()?;
    let errno = fail_at(errno, count, &mut attempt)?;
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![
            Failures::new(process, listener, Call::Accept4, errno, count).at_limit(limit),
        ],
        accepted: 0,
        ..Tally::default()
    })
}

/// EBADF: a number that is not open.
pub fn not_open(stage: &mut Stage) -> Result<()> {
    const NOT_OPEN: i32 = 987;
    misuse(
        stage,
        Listener::no_socket(NOT_OPEN),
        libc::EBADF,
        21,
        || sys::accept4(NOT_OPEN, 0).map(drop),
    )
}

/// EBADF: a negative number.
pub fn negative(stage: &mut Stage) -> Result<()> {
    misuse(stage, Listener::no_socket(-1), libc::EBADF, 4, || {
        sys::accept4(-1, 0).map(drop)
    })
}

/// ENOTSOCK: a file.
pub fn file(stage: &mut Stage) -> Result<()> {
    let file = File::open("/proc/self/exe")?;
    let fd = file.as_raw_fd();
    misuse(stage, Listener::no_socket(fd), libc::ENOTSOCK, 6, || {
        sys::accept4(fd, 0).map(drop)
    })
}

/// A bound socket that does not listen.
fn bound(kind: i32, name: &str, protocol: &str) -> Result<(OwnedFd, Listener)> {
    let fd = sys::socket(libc::AF_INET, kind, 0)?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    sys::bind(&fd, &SockAddr::inet(any))?;
    let truth = Listener {
        family: Some("inet".to_owned()),
        kind: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        address: Some("127.0.0.1".to_owned()),
        port: Some(SockAddr::bound_to(&fd)?.port().context("no port")?),
        ..Listener::default()
    };
    let truth = identified(&fd, truth)?;
    Ok((fd, truth))
}

/// EINVAL: a TCP socket that does not listen.
pub fn not_listening(stage: &mut Stage) -> Result<()> {
    let (fd, truth) = bound(libc::SOCK_STREAM, "stream", "tcp")?;
    misuse(stage, truth, libc::EINVAL, 7, || {
        sys::accept4(fd.as_raw_fd(), 0).map(drop)
    })
}

/// EOPNOTSUPP: a UDP socket.
pub fn udp(stage: &mut Stage) -> Result<()> {
    let (fd, truth) = bound(libc::SOCK_DGRAM, "dgram", "udp")?;
    misuse(stage, truth, libc::EOPNOTSUPP, 8, || {
        sys::accept4(fd.as_raw_fd(), 0).map(drop)
    })
}

/// EINVAL: flags that do not exist.
pub fn flags(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(3)?;
    let _clients = listening.queue_up(1)?;
    misuse(stage, listening.truth(1), libc::EINVAL, 9, || {
        sys::accept4(listening.fd(), 1).map(drop)
    })
}

/// EINVAL: the listener is shut down, usually on purpose.
pub fn shut_down(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(3)?;
    let truth = Listener {
        // The kernel gives the port back.
        port: None,
        address: None,
        ..listening.truth_of_any_queue()
    };
    sys::shutdown_read(listening.socket())?;
    misuse(stage, truth, libc::EINVAL, 10, || {
        sys::accept4(listening.fd(), 0).map(drop)
    })
}

/// EINVAL for an accept that waits while its listener is shut down by another thread.
pub fn shut_down_while_waiting(stage: &mut Stage) -> Result<()> {
    let listening = Listening::unix_path(3)?;
    let process = Process::current()?;
    stage.ready()?;
    let tid = std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let fd = listening.fd();
        let acceptor = scope.spawn(move || {
            // The receiver waits for this very message.
            let _ = sender.send(Process::current());
            fail(Call::Accept4, fd, libc::EINVAL, 1)
        });
        let tid = receiver.recv()??.tid.context("no thread id")?;
        let task = format!("/proc/self/task/{tid}");
        crate::wait::until_true("the thread to be in accept4", || {
            super::emfile::in_syscall(task.as_ref(), libc::SYS_accept4)
        })?;
        sys::shutdown_read(listening.socket())?;
        acceptor
            .join()
            .map_err(|_| anyhow::anyhow!("the acceptor panicked"))??;
        anyhow::Ok(tid)
    })?;
    let limit = sys::nofile()?.0;
    let mut pids = vec![process.pid];
    pids.dedup();
    stage.report(&Tally {
        pids,
        failures: vec![
            Failures::new(
                Process {
                    tid: Some(tid),
                    ..process
                },
                listening.truth(0),
                Call::Accept4,
                sys::Errno(libc::EINVAL),
                1,
            )
            .at_limit(limit),
        ],
        accepted: 0,
        ..Tally::default()
    })
}

/// EFAULT: the peer's address cannot be written. The connection is taken and lost.
pub fn bad_address(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(5)?;
    let process = Process::current()?;
    let limit = sys::nofile()?.0;
    stage.ready()?;
    let errno = fail_at(libc::EFAULT, 5, || {
        sys::accept4_to_nowhere(listening.fd()).map(drop)
    })?;
    let truth = listening.truth(4);
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![
            Failures::new(process, truth, Call::Accept4, errno, 5)
                .at_limit(limit)
                .taking(),
        ],
        accepted: 0,
        ..Tally::default()
    })
}
