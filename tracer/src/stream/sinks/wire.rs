//! A connection that never blocks: plain or TLS, and how much of what was written is with the other side.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};

use crate::{
    notify::http::{identity, roots},
    stream::config::{Tls, To},
};

/// A host that is gone is noticed after so long without an answer.
const SILENCE: Duration = Duration::from_mins(1);

/// A connection.
pub(super) struct Wire {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    /// What the socket did not take yet, and from where on.
    out: Vec<u8>,
    at: usize,
    /// Bytes that the socket took.
    written: u64,
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        }
    }
}

impl io::Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(buffer),
            Self::Tcp(socket) => socket.read(buffer),
        }
    }
}

impl io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(bytes),
            Self::Tcp(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire {
    /// Connects; TLS is agreed upon, too.
    pub(super) fn connect(to: &To, timeout: Duration) -> Result<Self> {
        let deadline = Instant::now() + timeout;
        let (socket, tls) = match to {
            To::Unix(path) => {
                let socket = UnixStream::connect(path).context("cannot connect")?;
                socket.set_nonblocking(true)?;
                (Socket::Unix(socket), None)
            }
            To::Tcp(address) => (Socket::Tcp(tcp(address, timeout)?), None),
            To::Tls(address, tls) => {
                let session = session(tls)?;
                (Socket::Tcp(tcp(address, timeout)?), Some(Box::new(session)))
            }
        };
        let mut wire = Self {
            socket,
            tls,
            out: Vec::new(),
            at: 0,
            written: 0,
        };
        while wire.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            wire.flush(deadline).context("TLS")?;
            if Instant::now() >= deadline {
                anyhow::bail!("TLS: no answer within {} s", timeout.as_secs_f32());
            }
        }
        Ok(wire)
    }

    /// Hands bytes over, which must be the first or come after all before them are [`flushed`](Self::flush).
    pub(super) fn write(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.set_buffer_limit(None);
            return tls.writer().write_all(&bytes);
        }
        self.out = bytes;
        self.at = 0;
        Ok(())
    }

    /// Whether the socket took everything.
    pub(super) fn is_flushed(&self) -> bool {
        self.at >= self.out.len() && self.tls.as_ref().is_none_or(|tls| !tls.wants_write())
    }

    /// Has the socket take what it can until a time. It fails when the other side has gone.
    pub(super) fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        loop {
            self.hear()?;
            self.push()?;
            let handshakes = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
            let writes = !self.is_flushed();
            let left = deadline.saturating_duration_since(Instant::now());
            if !writes && !handshakes || left.is_zero() {
                return Ok(());
            }
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, writes);
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(
                &mut [PollFd::from_borrowed_fd(self.socket.fd(), flags)],
                Some(&left),
            ) {
                Err(rustix::io::Errno::INTR) | Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn push(&mut self) -> io::Result<()> {
        loop {
            let pushed = match &mut self.tls {
                Some(tls) if tls.wants_write() => tls.write_tls(&mut self.socket),
                None if self.at < self.out.len() => self.socket.write(&self.out[self.at..]),
                _ => return Ok(()),
            };
            match pushed {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count as u64;
                    self.at += count;
                    if self.at >= self.out.len() {
                        self.out = Vec::new();
                        self.at = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what the other side says, which is of no account, or learns that it has gone.
    pub(super) fn hear(&mut self) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::ConnectionReset, "the receiver hung up");
        loop {
            let heard = match &mut self.tls {
                Some(tls) => {
                    let read = tls.read_tls(&mut self.socket);
                    if let Ok(1..) = read {
                        let state = tls.process_new_packets().map_err(io::Error::other)?;
                        let mut said = vec![0; state.plaintext_bytes_to_read()];
                        tls.reader().read_exact(&mut said)?;
                        if state.peer_has_closed() {
                            return Err(gone());
                        }
                    }
                    read
                }
                None => self.socket.read(&mut [0; 1024]),
            };
            match heard {
                Ok(0) => return Err(gone()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes that the socket took.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that the other side's kernel has; of a socket of this host, that the receiver itself has read.
    pub(super) fn received(&self) -> io::Result<u64> {
        let mut queued: libc::c_int = 0;
        // SAFETY: TIOCOUTQ (SIOCOUTQ of sockets) writes one int, to which the pointer leads; the
        // descriptor is open for as long as `self` is borrowed.
        let status = unsafe {
            libc::ioctl(
                self.socket.fd().as_raw_fd(),
                libc::TIOCOUTQ,
                &raw mut queued,
            )
        };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(self
            .written
            .saturating_sub(u64::try_from(queued).unwrap_or(0)))
    }
}

fn tcp(address: &str, timeout: Duration) -> Result<TcpStream> {
    let mut why = None;
    let addresses = address.to_socket_addrs();
    for one in addresses.with_context(|| format!("cannot look {address} up"))? {
        match TcpStream::connect_timeout(&one, timeout) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                socket.set_nodelay(true)?;
                sockopt::set_socket_keepalive(&socket, true)?;
                let silence = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
                sockopt::set_tcp_user_timeout(&socket, silence)?;
                return Ok(socket);
            }
            Err(error) => why = Some(error),
        }
    }
    Err(why.unwrap_or_else(|| io::Error::other("the host has no address")))
        .context("cannot connect")
}

/// Certificates are read for each connection: they are renewed.
fn session(of: &Tls) -> Result<ClientConnection> {
    let mut trusted = RootCertStore::empty();
    let found = roots(of.access.ca_file.as_deref())?;
    trusted.add_parsable_certificates(
        found
            .iter()
            .map(|certificate| CertificateDer::from(certificate.der().to_vec())),
    );
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("TLS")?
            .with_root_certificates(trusted);
    let config = match &of.access.client {
        None => config.with_no_client_auth(),
        Some((certificates, key)) => {
            let (certificates, key) = identity(certificates, key)?;
            let certificates = certificates
                .iter()
                .map(|certificate| CertificateDer::from(certificate.der().to_vec()))
                .collect();
            let key = PrivateKeyDer::try_from(key.der().to_vec())
                .map_err(|why| anyhow::anyhow!("the client's key: {why}"))?;
            config
                .with_client_auth_cert(certificates, key)
                .context("the client's certificate")?
        }
    };
    let name = ServerName::try_from(of.server_name.clone()).context("TLS: the server's name")?;
    ClientConnection::new(Arc::new(config), name).context("TLS")
}
