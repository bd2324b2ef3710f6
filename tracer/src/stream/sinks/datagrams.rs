//! A datagram for each record. Nothing says that it arrives: it is delivered when the kernel has taken it,
//! which for a socket of this host means that it is in the receiver's queue.

use std::{
    io,
    net::{ToSocketAddrs as _, UdpSocket},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    time::Duration,
};

use rustix::io::Errno;

use super::{Outcome, Sink, encode::Encoder};
use crate::{
    notify::{datagram, receiver::Failure},
    stream::store::Numbered,
};

/// A socket of datagrams.
pub(super) struct Datagrams {
    to: To,
    timeout: Duration,
    encoder: Encoder,
    socket: Option<Socket>,
}

enum To {
    Unix(PathBuf),
    Udp(String),
}

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Datagrams {
    pub(super) fn unix(path: PathBuf, timeout: Duration, encoder: Encoder) -> Self {
        Self::new(To::Unix(path), timeout, encoder)
    }

    pub(super) fn udp(address: String, timeout: Duration, encoder: Encoder) -> Self {
        Self::new(To::Udp(address), timeout, encoder)
    }

    fn new(to: To, timeout: Duration, encoder: Encoder) -> Self {
        Self {
            to,
            timeout,
            encoder,
            socket: None,
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        match &self.to {
            To::Unix(path) => Ok(Socket::Unix(datagram::connect(path, self.timeout)?)),
            To::Udp(address) => {
                let to = address
                    .to_socket_addrs()?
                    .next()
                    .ok_or_else(|| io::Error::other("the host has no address"))?;
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                socket.set_write_timeout(Some(self.timeout))?;
                Ok(Socket::Udp(socket))
            }
        }
    }
}

impl Sink for Datagrams {
    fn deliver(&mut self, batch: &[Numbered]) -> Result<Outcome, Failure> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self
                .connect()
                .map_err(|error| Failure::later(format!("cannot connect: {error}")))?,
        };
        let (mut records, mut refused) = (0, 0);
        for (_, entry) in batch {
            let message = self.encoder.message(entry);
            let sent = match &socket {
                Socket::Unix(socket) => socket.send(message.as_bytes()),
                Socket::Udp(socket) => socket.send(message.as_bytes()),
            };
            match sent {
                Ok(_) => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => refused += 1,
                // What was sent before is not sent again; this one is tried with the next batch.
                Err(_) if records > 0 => return Ok(Outcome::Took { records, refused }),
                Err(error) => return Err(Failure::later(format!("cannot send: {error}"))),
            }
            records += 1;
        }
        self.socket = Some(socket);
        Ok(Outcome::Took { records, refused })
    }
}
