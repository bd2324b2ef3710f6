//! Datagrams to a socket of this host.

use std::{
    fs::File,
    io::{self, IoSlice, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    path::Path,
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

/// Connects, so that a restarted receiver is found each time.
pub(crate) fn connect(path: &Path, timeout: Duration) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    // A receiver that does not read would keep us for ever.
    socket.set_write_timeout(Some(timeout))?;
    Ok(socket)
}

/// Sends a stream of one message, for receivers that want no datagrams.
pub(super) fn stream(path: &Path, timeout: Duration, message: &[u8]) -> io::Result<()> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_write_timeout(Some(timeout))?;
    socket.write_all(message)?;
    socket.write_all(b"\n")
}

/// Sends what is too large for a datagram as a sealed file, which is how journald takes it.
pub(super) fn send_as_file(socket: &UnixDatagram, message: &[u8]) -> io::Result<()> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("alert", flags)?);
    file.write_all(message)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    let fds: [BorrowedFd<'_>; 1] = [file.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        socket,
        &[IoSlice::new(&[])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}
