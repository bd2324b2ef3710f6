//! The side of those who ask.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::{Answer, MAX_ANSWER, Request};

/// A daemon that is well answers at once; one that is not says so within ten seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks the daemon that listens there.
pub fn ask(path: &Path, request: &Request) -> Result<Answer> {
    let shown = path.display();
    let mut stream = open(path)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // Whom it does not answer it does not listen to, and says so.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.with_context(|| format!("cannot ask the daemon at {shown}"))?,
    }
    let mut answer = Vec::new();
    BufReader::new(stream)
        .take(MAX_ANSWER as u64)
        .read_until(b'\n', &mut answer)
        .with_context(|| format!("the daemon at {shown} does not answer"))?;
    if answer.is_empty() {
        bail!("the daemon at {shown} ended, or has more clients than it takes: ask again");
    }
    match serde_json::from_slice(&answer) {
        Ok(Answer::Error(why)) => bail!("the daemon at {shown} refuses: {why}"),
        Ok(answer) => Ok(answer),
        Err(error) => Err(anyhow!(
            "the daemon at {shown} says what this version does not understand: {error}; is it another version?"
        )),
    }
}

fn open(path: &Path) -> Result<UnixStream> {
    let shown = path.display();
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("cannot make a socket")?;
    // The first is for connect, too, which waits while the daemon's queue is full.
    for direction in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, direction, Some(PATIENCE)).context("cannot set up a socket")?;
    }
    let address = SocketAddrUnix::new(path)
        .with_context(|| format!("{shown} cannot be the path of a socket"))?;
    match connect(&socket, &address) {
        Ok(()) => Ok(UnixStream::from(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => bail!(
            "no turnaway daemon answers at {shown}: start one, or say with --socket where it listens"
        ),
        Err(Errno::ACCESS | Errno::PERM) => {
            bail!("only root may ask the daemon at {shown}: run this as root")
        }
        Err(Errno::AGAIN) => bail!("the daemon at {shown} does not take requests: it hangs"),
        Err(errno) => Err(errno).with_context(|| format!("cannot ask the daemon at {shown}")),
    }
}
