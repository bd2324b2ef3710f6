//! Listening sockets, and clients that wait in their queues.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::sys::{self, Errno, SockAddr};
use crate::truth::{self, Listener, json_text};
use crate::wait;

/// The context id of a machine's own vsock (include/uapi/linux/vm_sockets.h).
const CID_LOCAL: u32 = 1;
/// Any free vsock port.
const ANY_PORT: u32 = u32::MAX;

/// What to make a listener from.
struct Recipe {
    family: i32,
    kind: i32,
    protocol: i32,
    backlog: u32,
}

/// A listening socket.
pub struct Listening {
    fd: OwnedFd,
    family: i32,
    kind: i32,
    /// Where clients connect to.
    target: SockAddr,
    truth: Listener,
    /// Holds the path of a pathname socket.
    _dir: Option<TempDir>,
}

impl Listening {
    /// TCP on 127.0.0.1.
    pub fn tcp4(backlog: u32) -> Result<Self> {
        Self::inet(Ipv4Addr::LOCALHOST.into(), None, 0, backlog)
    }

    /// TCP on ::1.
    pub fn tcp6(backlog: u32) -> Result<Self> {
        Self::inet(Ipv6Addr::LOCALHOST.into(), None, 0, backlog)
    }

    /// TCP on all addresses of both families, for clients that come by IPv4.
    pub fn dual_stack(backlog: u32) -> Result<Self> {
        let client = Ipv4Addr::LOCALHOST.into();
        Self::inet(Ipv6Addr::UNSPECIFIED.into(), Some(client), 0, backlog)
    }

    /// MPTCP on 127.0.0.1, for clients that come by TCP.
    pub fn mptcp(backlog: u32) -> Result<Self> {
        let protocol = libc::IPPROTO_MPTCP;
        Self::inet(Ipv4Addr::LOCALHOST.into(), None, protocol, backlog)
    }

    fn inet(ip: IpAddr, client: Option<IpAddr>, protocol: i32, backlog: u32) -> Result<Self> {
        Self::inet_at(ip, 0, client, protocol, backlog, false)
    }

    fn inet_at(
        ip: IpAddr,
        port: u16,
        client: Option<IpAddr>,
        protocol: i32,
        backlog: u32,
        shared: bool,
    ) -> Result<Self> {
        let (family, name) = match ip {
            IpAddr::V4(_) => (libc::AF_INET, "inet"),
            IpAddr::V6(_) => (libc::AF_INET6, "inet6"),
        };
        let recipe = Recipe {
            family,
            kind: libc::SOCK_STREAM,
            protocol,
            backlog,
        };
        let fd = sys::socket(recipe.family, recipe.kind, recipe.protocol)?;
        if ip.is_ipv6() {
            sys::set_v6_only(&fd, client.is_none())?;
        }
        if shared {
            sys::share_port(&fd)?;
        }
        sys::bind(&fd, &SockAddr::inet(SocketAddr::new(ip, port)))?;
        let port = SockAddr::bound_to(&fd)?.port().context("no port")?;
        let target = SocketAddr::new(client.unwrap_or(ip), u16::try_from(port)?);
        let truth = Listener {
            family: Some(name.to_owned()),
            protocol: Some(
                if protocol == libc::IPPROTO_MPTCP {
                    "mptcp"
                } else {
                    "tcp"
                }
                .to_owned(),
            ),
            address: Some(ip.to_string()),
            port: Some(port),
            ..Listener::default()
        };
        let mut listening = Self::start(fd, &recipe, SockAddr::inet(target), truth, None)?;
        // A v4 client of a v6 listener needs a socket of its own family.
        if client.is_some() {
            listening.family = libc::AF_INET;
        }
        Ok(listening)
    }

    /// TCP on 127.0.0.1, on a port that others may share; any port for 0.
    pub fn sharing(port: u16, backlog: u32) -> Result<Self> {
        Self::inet_at(Ipv4Addr::LOCALHOST.into(), port, None, 0, backlog, true)
    }

    /// AF_UNIX with a path.
    pub fn unix_path(backlog: u32) -> Result<Self> {
        Self::unix_in_dir(libc::SOCK_STREAM, backlog)
    }

    /// AF_UNIX with a path, of type SOCK_SEQPACKET.
    pub fn unix_seqpacket(backlog: u32) -> Result<Self> {
        Self::unix_in_dir(libc::SOCK_SEQPACKET, backlog)
    }

    /// The same for clients only: this process has it no more.
    pub fn given_away(self) -> Result<Self> {
        let fd = sys::socket(self.family, self.kind, 0)?;
        Ok(Self { fd, ..self })
    }

    /// A TCP listener on 127.0.0.1 that somebody else has made. `truth` is what is true of it.
    pub fn handed(fd: OwnedFd, truth: Listener) -> Result<Self> {
        let port = u16::try_from(truth.port.context("no port")?)?;
        Ok(Self {
            fd,
            family: libc::AF_INET,
            kind: libc::SOCK_STREAM,
            target: SockAddr::inet((Ipv4Addr::LOCALHOST, port).into()),
            truth,
            _dir: None,
        })
    }

    fn unix_in_dir(kind: i32, backlog: u32) -> Result<Self> {
        let dir = tempfile::tempdir().context("cannot create a temporary folder")?;
        let path = dir.path().join("listener");
        Self::unix(kind, path.as_os_str().as_bytes(), backlog, Some(dir))
    }

    /// AF_UNIX with an abstract name.
    pub fn unix_abstract(backlog: u32) -> Result<Self> {
        let name = format!("\0turnaway-test-{}", sys::own_pid());
        Self::unix(libc::SOCK_STREAM, name.as_bytes(), backlog, None)
    }

    fn unix(kind: i32, name: &[u8], backlog: u32, dir: Option<TempDir>) -> Result<Self> {
        let recipe = Recipe {
            family: libc::AF_UNIX,
            kind,
            protocol: 0,
            backlog,
        };
        let fd = sys::socket(recipe.family, recipe.kind, 0)?;
        sys::bind(&fd, &SockAddr::unix(name))?;
        let shown = match name.split_first() {
            Some((0, rest)) => format!("@{}", json_text(rest)),
            _ => json_text(name),
        };
        let truth = Listener {
            family: Some("unix".to_owned()),
            path: Some(shown),
            ..Listener::default()
        };
        Self::start(fd, &recipe, SockAddr::unix(name), truth, dir)
    }

    /// AF_VSOCK within this machine.
    pub fn vsock(backlog: u32) -> Result<Self> {
        let recipe = Recipe {
            family: libc::AF_VSOCK,
            kind: libc::SOCK_STREAM,
            protocol: 0,
            backlog,
        };
        let fd = sys::socket(recipe.family, recipe.kind, 0)?;
        sys::bind(&fd, &SockAddr::vsock(CID_LOCAL, ANY_PORT))?;
        let port = SockAddr::bound_to(&fd)?.port().context("no port")?;
        // Where vsock is a module without type information, its address cannot be read.
        let typed = std::path::Path::new("/sys/kernel/btf/vsock").exists()
            || !std::path::Path::new("/sys/module/vsock").exists();
        let truth = Listener {
            family: Some("vsock".to_owned()),
            address: typed.then(|| CID_LOCAL.to_string()),
            port: typed.then_some(port),
            ..Listener::default()
        };
        Self::start(fd, &recipe, SockAddr::vsock(CID_LOCAL, port), truth, None)
    }

    fn start(
        fd: OwnedFd,
        recipe: &Recipe,
        target: SockAddr,
        truth: Listener,
        dir: Option<TempDir>,
    ) -> Result<Self> {
        sys::listen(&fd, recipe.backlog)?;
        let truth = Listener {
            kind: Some(
                if recipe.kind == libc::SOCK_SEQPACKET {
                    "seqpacket"
                } else {
                    "stream"
                }
                .to_owned(),
            ),
            backlog: Some(recipe.backlog),
            ..identified(&fd, truth)?
        };
        Ok(Self {
            fd,
            family: recipe.family,
            kind: recipe.kind,
            target,
            truth,
            _dir: dir,
        })
    }

    /// Its descriptor.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &OwnedFd {
        &self.fd
    }

    /// What is true of it while `queue` connections wait.
    #[must_use]
    pub fn truth(&self, queue: u32) -> Listener {
        Listener {
            queue: Some(queue),
            ..self.truth.clone()
        }
    }

    /// What is true of it, whoever may wait.
    #[must_use]
    pub fn truth_of_any_queue(&self) -> Listener {
        self.truth.clone()
    }

    /// A socket for a client, not connected yet.
    pub fn client(&self) -> Result<OwnedFd> {
        let fd = sys::socket(self.family, self.kind, 0)?;
        if self.family == libc::AF_INET || self.family == libc::AF_INET6 {
            sys::reset_on_close(&fd)?;
        }
        Ok(fd)
    }

    /// Where clients connect to.
    #[must_use]
    pub fn target(&self) -> &SockAddr {
        &self.target
    }

    /// Connects a client.
    pub fn connect(&self, client: &OwnedFd) -> Result<()> {
        sys::connect(client, &self.target).context("cannot connect")
    }

    /// Sends a SYN for a client and does not wait for an answer.
    pub fn begin(&self) -> Result<OwnedFd> {
        let client = self.client()?;
        sys::set_nonblocking(&client)?;
        match sys::connect(&client, &self.target) {
            Ok(()) | Err(Errno(libc::EINPROGRESS)) => Ok(client),
            Err(errno) => Err(errno).context("cannot begin to connect"),
        }
    }

    /// The same for several clients.
    pub fn begin_many(&self, count: usize) -> Result<Vec<OwnedFd>> {
        (0..count).map(|_| self.begin()).collect()
    }

    /// Connects a client that may be accepted at once.
    pub fn queue_up_any(&self) -> Result<OwnedFd> {
        let client = self.client()?;
        self.connect(&client)?;
        Ok(client)
    }

    /// Its port.
    pub fn port(&self) -> Result<u16> {
        let port = self.truth.port.context("no port")?;
        Ok(u16::try_from(port)?)
    }

    /// Connects `count` clients and waits until all of them are in the queue.
    pub fn queue_up(&self, count: u32) -> Result<Vec<OwnedFd>> {
        let clients = (0..count)
            .map(|_| {
                let client = self.client()?;
                self.connect(&client)?;
                Ok(client)
            })
            .collect::<Result<_>>()?;
        self.wait_for_queue(count)?;
        Ok(clients)
    }

    /// Waits until `count` connections are in the queue, as far as the kernel can be asked: for
    /// AF_UNIX and AF_VSOCK, connect does not return before.
    pub fn wait_for_queue(&self, count: u32) -> Result<()> {
        if !self
            .truth
            .family
            .as_deref()
            .is_some_and(|f| f.starts_with("inet"))
        {
            return Ok(());
        }
        let port = self.truth.port.context("no port")?;
        wait::until_true("connections to be queued", || {
            Ok(queued_connections(port)? == count)
        })
    }
}

/// Adds what identifies a socket to what is known of it.
pub fn identified(fd: &OwnedFd, truth: Listener) -> Result<Listener> {
    Ok(Listener {
        inode: Some(fs::metadata(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()))?.ino()),
        fd: Some(fd.as_raw_fd()),
        netns: Some(truth::own_netns()?),
        ..truth
    })
}

/// Connections that wait at the listeners on a TCP port, as /proc/net/tcp has it.
pub fn queued_connections(port: u32) -> Result<u32> {
    const LISTEN: &str = "0A";
    let mut total = 0;
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            // sl, local address, remote address, state, tx_queue:rx_queue, …
            let fields: Vec<&str> = line.split_whitespace().take(5).collect();
            let &[_, local, _, LISTEN, queues] = fields.as_slice() else {
                continue;
            };
            if hex_after_colon(local)? == port {
                total += hex_after_colon(queues)?;
            }
        }
    }
    Ok(total)
}

fn hex_after_colon(field: &str) -> Result<u32> {
    field
        .split_once(':')
        .and_then(|(_, hex)| u32::from_str_radix(hex, 16).ok())
        .with_context(|| format!("{field:?} is not of the form HEX:HEX"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_asked_how_many_wait() {
        let listening = Listening::tcp4(5).unwrap();
        let port = listening.truth.port.unwrap();
        assert_eq!(queued_connections(port).unwrap(), 0);
        let clients = listening.queue_up(3).unwrap();
        assert_eq!(clients.len(), 3);
        assert_eq!(queued_connections(port).unwrap(), 3);
        drop(sys::accept(listening.fd()).unwrap());
        assert_eq!(queued_connections(port).unwrap(), 2);
    }
}
