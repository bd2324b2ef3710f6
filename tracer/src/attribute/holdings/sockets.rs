//! Sockets of a process, found in the tables of its network namespace and put in groups.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    fs,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    time::Instant,
};

use rustix::{
    fs::{Mode, OFlags, getxattr, openat},
    io::Errno,
};

use super::{
    super::table::{self, ESTABLISHED, LISTEN},
    Family, Held, SocketGroup,
};

/// Most bytes of one table that are read, 16 MiB: some 100 000 sockets.
const MAX_BYTES: u64 = 16 << 20;
/// Longest line that is believed; real ones have some 300 bytes at most.
const MAX_LINE: usize = 1 << 14;
/// Bytes of a read; the kernel gives a page at most.
const CHUNK: usize = 1 << 12;

/// Where and how long to search.
pub(super) struct Search<'a> {
    /// An open `/proc/PID`.
    pub(super) process: &'a OwnedFd,
    /// Its directory of descriptors.
    pub(super) descriptors: &'a Path,
    /// When to stop reading tables.
    pub(super) tables_until: Instant,
    /// When to stop asking for names of protocols.
    pub(super) names_until: Instant,
}

/// What was found.
pub(super) struct Found {
    /// Most sockets first; all sockets are in one.
    pub(super) groups: Vec<SocketGroup>,
    /// Each table that was needed was read to its end, or until all was found.
    pub(super) complete: bool,
}

/// What one socket is; the same as a [`SocketGroup`] without counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    family: Family,
    protocol: Option<&'static str>,
    state: Option<&'static str>,
    remote: Option<SocketAddr>,
    local_port: Option<u16>,
    path: Option<Vec<u8>>,
}

impl Place {
    fn new(family: Family, protocol: Option<&'static str>, state: Option<&'static str>) -> Self {
        Self {
            family,
            protocol,
            state,
            remote: None,
            local_port: None,
            path: None,
        }
    }
}

/// A socket's place, and for an accepted connection its peer.
type Placed = (Place, Option<IpAddr>);

impl Search<'_> {
    /// All the sockets, in groups.
    pub(super) fn groups(&self, held: &HashMap<u64, Held>) -> Found {
        let mut placed: HashMap<u64, Placed> = HashMap::with_capacity(held.len());
        let mut complete = true;
        for (file, family, protocol) in [
            ("net/tcp", Family::Inet, "tcp"),
            ("net/tcp6", Family::Inet6, "tcp"),
            ("net/udp", Family::Inet, "udp"),
            ("net/udp6", Family::Inet6, "udp"),
        ] {
            if placed.len() == held.len() {
                break;
            }
            let mut sockets = InetTable::new(held);
            let wanted = held.len() - placed.len();
            complete &= self.read(file, |line| {
                sockets.line(line);
                // The kernel lists the sockets that listen first, so they are known.
                sockets.found.len() < wanted
            });
            placed.extend(sockets.places(family, protocol));
        }
        if placed.len() < held.len() {
            let mut names = HashMap::new();
            complete &= self.read("net/unix", |line| {
                unix_line(line, held, &mut names);
                // To its end: a name may hold what looks like a line of another socket.
                true
            });
            for (inode, place) in names {
                placed.entry(inode).or_insert((place, None));
            }
        }
        complete &= self.name_rest(held, &mut placed);
        Found {
            groups: group(held, placed),
            complete,
        }
    }

    /// Hands each line of a table to `line` until that has enough. False where there was
    /// more to read.
    fn read(&self, file: &str, line: impl FnMut(&[u8]) -> bool) -> bool {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match openat(self.process, file, flags, Mode::empty()) {
            Ok(file) => each_line(fs::File::from(file), self.tables_until, line).unwrap_or(false),
            // A kernel without IPv6 has no table of it.
            Err(Errno::NOENT) => file.ends_with('6'),
            Err(_) => false,
        }
    }

    /// Asks sockfs what the sockets are that no table has. False where time ran out.
    fn name_rest(&self, held: &HashMap<u64, Held>, placed: &mut HashMap<u64, Placed>) -> bool {
        for (inode, socket) in held {
            if placed.contains_key(inode) {
                continue;
            }
            if Instant::now() >= self.names_until {
                return false;
            }
            let path = self.descriptors.join(socket.descriptor.to_string());
            let mut name = [0; 64];
            // The name of the socket's `struct proto`, with a NUL (net/socket.c).
            let (family, protocol) = match getxattr(path, "system.sockprotoname", &mut name) {
                Ok(length) => proto(name[..length].strip_suffix(b"\0").unwrap_or_default()),
                Err(_) => (Family::Other, None),
            };
            placed.insert(*inode, (Place::new(family, protocol, None), None));
        }
        true
    }
}

/// `name` of a `struct proto`, as /proc/net/protocols lists them.
fn proto(name: &[u8]) -> (Family, Option<&'static str>) {
    match name {
        b"TCP" => (Family::Inet, Some("tcp")),
        b"TCPv6" => (Family::Inet6, Some("tcp")),
        b"MPTCP" => (Family::Inet, Some("mptcp")),
        b"MPTCPv6" => (Family::Inet6, Some("mptcp")),
        b"UDP" => (Family::Inet, Some("udp")),
        b"UDPv6" => (Family::Inet6, Some("udp")),
        b"SCTP" => (Family::Inet, Some("sctp")),
        b"SCTPv6" => (Family::Inet6, Some("sctp")),
        b"RAW" => (Family::Inet, Some("raw")),
        b"RAWv6" => (Family::Inet6, Some("raw")),
        b"PING" => (Family::Inet, Some("icmp")),
        b"PINGv6" => (Family::Inet6, Some("icmp")),
        b"UNIX" | b"UNIX-STREAM" => (Family::Unix, None),
        b"NETLINK" => (Family::Netlink, None),
        b"PACKET" => (Family::Packet, None),
        b"AF_VSOCK" => (Family::Vsock, None),
        _ => (Family::Other, None),
    }
}

/// What one table of the internet families says of the sockets that are held.
struct InetTable<'a> {
    held: &'a HashMap<u64, Held>,
    found: HashMap<u64, table::Inet>,
    listeners: HashSet<SocketAddr>,
}

impl<'a> InetTable<'a> {
    fn new(held: &'a HashMap<u64, Held>) -> Self {
        Self {
            held,
            found: HashMap::new(),
            listeners: HashSet::new(),
        }
    }

    fn line(&mut self, line: &[u8]) {
        let Some(socket) = table::inet(line) else {
            return;
        };
        if socket.state == LISTEN {
            self.listeners.insert(socket.local);
        }
        if self.held.contains_key(&socket.inode) {
            // A socket that moves while the table is read, or that has several
            // connections (MPTCP), is listed again.
            self.found.entry(socket.inode).or_insert(socket);
        }
    }

    fn places(
        self,
        family: Family,
        protocol: &'static str,
    ) -> impl Iterator<Item = (u64, Placed)> + use<'a> {
        let Self {
            found, listeners, ..
        } = self;
        found.into_iter().map(move |(inode, socket)| {
            let state = match (protocol, socket.state) {
                ("udp", ESTABLISHED) => Some("ESTABLISHED"),
                ("udp", _) => Some("UNCONN"),
                (_, state) => table::tcp_state(state),
            };
            let mut place = Place::new(family, Some(protocol), state);
            let remote = SocketAddr::new(socket.remote.ip().to_canonical(), socket.remote.port());
            let mut peer = None;
            if socket.state == LISTEN {
                place.local_port = Some(socket.local.port());
            } else if remote.port() != 0 {
                if was_accepted(&listeners, socket.local) {
                    place.local_port = Some(socket.local.port());
                    peer = Some(remote.ip());
                } else {
                    place.remote = Some(remote);
                }
            }
            (inode, (place, peer))
        })
    }
}

/// Whether something listens at a connection's own end: at its address, or at any.
fn was_accepted(listeners: &HashSet<SocketAddr>, local: SocketAddr) -> bool {
    let any = match local {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], local.port())),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], local.port())),
    };
    listeners.contains(&local) || listeners.contains(&any)
}

fn unix_line(line: &[u8], held: &HashMap<u64, Held>, names: &mut HashMap<u64, Place>) {
    let Some(socket) = table::unix(line) else {
        return;
    };
    if !held.contains_key(&socket.inode) {
        return;
    }
    let mut place = Place::new(Family::Unix, None, Some(socket.state));
    place.path = match socket.name.split_first() {
        None => None,
        Some((b'@', name)) => Some([b"\0", name].concat()),
        Some(_) => Some(socket.name.to_vec()),
    };
    names
        .entry(socket.inode)
        // Two lines claim it: one of them may be forged.
        .and_modify(|place| *place = Place::new(Family::Unix, None, None))
        .or_insert(place);
}

/// False where the source was not read to its end, and `line` had not enough.
fn each_line(
    source: impl Read,
    deadline: Instant,
    mut line: impl FnMut(&[u8]) -> bool,
) -> io::Result<bool> {
    let mut source = source.take(MAX_BYTES);
    let mut pending = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        let length = match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        pending.extend_from_slice(&chunk[..length]);
        let mut start = 0;
        while let Some(end) = memchr::memchr(b'\n', &pending[start..]) {
            if !line(&pending[start..start + end]) {
                return Ok(true);
            }
            start += end + 1;
        }
        pending.drain(..start);
        if pending.len() > MAX_LINE {
            return Ok(false);
        }
    }
    // A last line without an end was cut off: its inode may be too.
    Ok(pending.is_empty() && source.limit() > 0)
}

fn group(held: &HashMap<u64, Held>, mut placed: HashMap<u64, Placed>) -> Vec<SocketGroup> {
    let mut groups: HashMap<Place, (u64, HashSet<IpAddr>)> = HashMap::new();
    for (inode, socket) in held {
        let (place, peer) = placed
            .remove(inode)
            .unwrap_or_else(|| (Place::new(Family::Other, None, None), None));
        let (count, peers) = groups.entry(place).or_default();
        *count += socket.count;
        peers.extend(peer);
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .map(|(place, (count, peers))| SocketGroup {
            family: place.family,
            protocol: place.protocol,
            state: place.state,
            remote: place.remote,
            local_port: place.local_port,
            path: place.path,
            peers: peers.len() as u64,
            count,
        })
        .collect();
    groups.sort_unstable_by(|a, b| (Reverse(a.count), a).cmp(&(Reverse(b.count), b)));
    groups
}

#[cfg(test)]
mod tests;
