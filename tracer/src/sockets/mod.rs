//! Which sockets listen on this host, in every network namespace, and how full their
//! queues are.
//!
//! Everything is asked of the kernel through sock_diag(7), which answers for the network
//! namespace of the thread that asks: [`Poller`] goes into each of them and comes back.

mod conntrack;
mod counters;
mod dump;
mod netns;
mod settings;

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

pub use conntrack::{Conntrack, Statistics};
pub use counters::TcpExt;
#[cfg(any(test, fuzzing))]
pub(crate) use dump::read_datagram;
pub use settings::Settings;

use crate::event::Address;
use netns::{Home, Known};

/// Looks at the listening sockets of every network namespace.
///
/// To be used from one thread that has nothing else to do: it enters other network
/// namespaces with setns(2) and is back in its own whenever a method returns. Between
/// calls it keeps no namespace open, which would keep a dead container's alive.
#[derive(Debug)]
pub struct Poller {
    known: Known,
    /// Room for one datagram of the kernel.
    buffer: Vec<u8>,
    /// Settings are read, too.
    settings: bool,
}

/// One look at everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// The namespaces that were looked at: the poller's own, then by inode number.
    pub namespaces: Vec<Namespace>,
    /// Why a namespace that exists could not be entered, in words; one each.
    pub unreachable: Vec<String>,
    /// Wall time that it took.
    pub took: Duration,
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its inode number, as in `/proc/PID/ns/net`.
    pub inode: u32,
    /// Its cookie: unlike the inode number, never used again. `None` before Linux 5.14.
    ///
    /// Source: `SO_NETNS_COOKIE` of a socket of its own.
    pub cookie: Option<u64>,
    /// Its counters, read after its listeners: never behind the listeners' `drops`. `None`
    /// where the kernel does not tell.
    pub counters: Option<TcpExt>,
    /// Its connection tracking. `None` where there is none, or it may not be read.
    pub conntrack: Option<Conntrack>,
    /// Its settings, where they were asked for.
    pub settings: Option<Settings>,
    /// Its listening TCP and AF_UNIX sockets, each once.
    pub listeners: Vec<Listener>,
    /// There are no other listeners.
    pub complete: bool,
    /// Why not, in words, where it is not complete.
    pub problem: Option<String>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Socket inode number.
    pub inode: u64,
    /// Socket cookie, `SO_COOKIE`: unlike the inode number, never used again.
    pub cookie: u64,
    /// `AF_INET`, `AF_INET6` or `AF_UNIX`.
    pub family: u16,
    /// `SOCK_*`.
    pub socket_type: u16,
    /// `IPPROTO_TCP`, also for the TCP side of an MPTCP listener; 0 for AF_UNIX.
    pub protocol: u16,
    /// Where it is bound.
    pub address: Option<Address>,
    /// Connections waiting to be accepted. The kernel lets in one more than `limit`.
    pub depth: u32,
    /// The most that may wait (effective backlog).
    pub limit: u32,
    /// Packets that the kernel dropped for this socket since it exists (`sk_drops`), modulo
    /// 2^32: a client that tries again is counted again. `None` for AF_UNIX and where the
    /// kernel does not tell.
    pub drops: Option<u64>,
}

/// A TCP connection that waits to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Socket cookie, `SO_COOKIE`.
    pub cookie: u64,
    /// The client. An IPv4 client of an IPv6 listener is IPv4 here.
    pub peer: SocketAddr,
    /// What the client connected to, in the same way.
    pub local: SocketAddr,
    /// Since the handshake ended, to a tick of the kernel's clock (1 to 10 ms).
    ///
    /// Source: `tcp_info.tcpi_last_data_sent`, which starts with the socket; on a connection
    /// that was never accepted nothing was sent.
    pub waited: Duration,
    /// The client has closed its side already; accept will return the connection all the
    /// same.
    pub closed_by_peer: bool,
}

/// A TCP connection that a process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// Socket cookie, `SO_COOKIE`.
    pub cookie: u64,
    /// The other end.
    pub peer: SocketAddr,
    /// Since data went over it last; `None` if none has, or the kernel does not tell (before Linux
    /// 4.1).
    pub quiet: Option<Duration>,
}

/// A TCP connection that a process here has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Inode number of the socket.
    pub inode: u64,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

impl Poller {
    /// A poller that finds namespaces through `/proc` under `root`, which is normally `/`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            known: Known::new(root),
            buffer: Vec::with_capacity(dump::DATAGRAM),
            settings: false,
        }
    }

    /// One that reads the settings of namespaces, too.
    #[must_use]
    pub fn with_settings(mut self) -> Self {
        self.settings = true;
        self
    }

    /// Looks at every network namespace that has a process or a mount.
    ///
    /// A process that moves to another namespace later than it was first seen is followed
    /// within five seconds, and so is a new mount. Namespaces of processes that are hidden
    /// (hidepid, a pid namespace) are not found, nor are those that only an open descriptor,
    /// a socket or a thread other than a process's first keeps; that is no error.
    pub fn poll(&mut self) -> Poll {
        let started = Instant::now();
        let mut poll = Poll::default();
        match Home::open() {
            Ok(mut home) => {
                self.look_everywhere(&mut home, &mut poll);
                if let Err(error) = home.leave() {
                    poll.unreachable
                        .push(format!("net:[{}]: cannot return: {error}", home.inode));
                }
            }
            Err(error) => poll
                .unreachable
                .push(format!("this thread's own network namespace: {error}")),
        }
        poll.took = started.elapsed();
        poll
    }

    fn look_everywhere(&mut self, home: &mut Home, poll: &mut Poll) {
        poll.namespaces.push(self.look(home.inode));
        self.known.refresh(Instant::now());
        for (inode, doors) in self.known.doors() {
            if inode == home.inode {
                continue;
            }
            let entered = match self.known.open(inode, &doors) {
                Ok(Some(namespace)) => home.enter(&namespace).map_err(|error| error.to_string()),
                // It ended meanwhile.
                Ok(None) => continue,
                Err(reason) => Err(reason),
            };
            match entered {
                Ok(()) => poll.namespaces.push(self.look(inode)),
                Err(reason) => poll.unreachable.push(format!("net:[{inode}]: {reason}")),
            }
        }
    }

    /// The connections that wait to be accepted on a TCP port of the namespace with this
    /// inode number, the oldest first: sockets with an established connection and no inode
    /// yet, whichever of the port's listeners they wait for. Port 0 stands for all ports.
    ///
    /// `None` where the namespace cannot be entered or the kernel's answer is not complete.
    pub fn waiting(&mut self, netns: u32, port: u16) -> Option<Vec<Waiting>> {
        self.within(netns, |buffer| dump::waiting(port, buffer))
    }

    /// The established connections of a TCP port of the namespace with this inode number, as far as
    /// processes have them: those that wait to be accepted are not among them.
    ///
    /// `None` where the namespace cannot be entered or the kernel's answer is not complete.
    pub fn established(&mut self, netns: u32, port: u16) -> Option<Vec<Established>> {
        self.within(netns, |buffer| dump::established(port, buffer))
    }

    /// The established connections to a TCP port that processes of the namespace with this inode
    /// number have made.
    ///
    /// `None` where the namespace cannot be entered or the kernel's answer is not complete.
    pub fn made(&mut self, netns: u32, port: u16) -> Option<Vec<Made>> {
        self.within(netns, |buffer| dump::made(port, buffer))
    }

    /// The namespaces that are known of, by inode number, as [`Self::poll`] finds them.
    pub fn namespaces(&mut self) -> Vec<u32> {
        self.known.refresh(Instant::now());
        self.known.doors().into_keys().collect()
    }

    /// Asks the namespace with this inode number.
    fn within<T>(
        &mut self,
        netns: u32,
        ask: impl FnOnce(&mut Vec<u8>) -> dump::Dump<T>,
    ) -> Option<Vec<T>> {
        let mut home = Home::open().ok()?;
        if netns != home.inode {
            self.known.refresh(Instant::now());
            let doors = self.known.doors().remove(&netns)?;
            let namespace = self.known.open(netns, &doors).ok()??;
            home.enter(&namespace).ok()?;
        }
        let found = ask(&mut self.buffer);
        home.leave().ok()?;
        found.problem.is_none().then_some(found.items)
    }

    /// Looks at the namespace this thread is in.
    fn look(&mut self, inode: u32) -> Namespace {
        let listeners = dump::listeners(&mut self.buffer);
        // After the listeners: what is dropped in between is in the counters only.
        let counters = counters::read();
        Namespace {
            inode,
            cookie: netns::cookie(),
            counters,
            conntrack: conntrack::read(),
            settings: self.settings.then(settings::read),
            listeners: listeners.items,
            complete: listeners.problem.is_none(),
            problem: listeners.problem,
        }
    }
}
