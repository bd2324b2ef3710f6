//! The other end of a connection that could not be made, where it is on this host: which
//! socket listens there.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    cache::Cache,
    owners,
    table::{self, LISTEN},
    timens::monotonic_ns,
    who::FarListener,
};
use crate::event::{Address, Listener, Target};

/// Most targets that are remembered.
const TARGETS: usize = 1024;
/// Most network namespaces whose listeners are remembered.
const NAMESPACES: usize = 64;
/// How long what was found, or not found, is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// Most bytes of a namespace's addresses that are read: those of a router with all the
/// world's routes are more.
const MAX_ADDRESSES: u64 = 4 << 20;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const SOCK_STREAM: u16 = 1;

/// Whose network it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// A process in it.
    pub(super) pid: u32,
    /// Inode number of its namespace.
    pub(super) netns: u32,
}

/// Finds listeners by what was to be connected to.
#[derive(Debug)]
pub(super) struct FarEnds {
    root: PathBuf,
    own_netns: Option<u64>,
    found: Cache<(u32, Target), Found>,
    networks: Cache<u32, Rc<Network>>,
}

#[derive(Clone, Debug)]
struct Found {
    listener: Option<FarListener>,
    read: Instant,
}

/// What listens in a network namespace.
#[derive(Debug, Default)]
struct Network {
    /// Listening TCP sockets.
    tcp: Vec<(SocketAddr, u64)>,
    /// Its IPv4 and IPv6 addresses, but for the loopback ones.
    addresses: Vec<IpAddr>,
    /// Its AF_UNIX sockets, as procfs lists them.
    unix: Vec<u8>,
    /// When it was read, nanoseconds of `CLOCK_MONOTONIC`.
    read_ns: u64,
}

impl FarEnds {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            own_netns: fs::metadata(root.join("proc/self/ns/net"))
                .ok()
                .map(|netns| netns.ino()),
            found: Cache::new(TARGETS),
            networks: Cache::new(NAMESPACES),
        }
    }

    /// What listens at a target, as seen after `at_ns` where the target is new. `path` is the
    /// name of an AF_UNIX target.
    pub(super) fn listener(
        &mut self,
        client: Client,
        target: Target,
        path: Option<&[u8]>,
        at_ns: u64,
    ) -> Option<FarListener> {
        let key = (client.netns, target);
        if let Some(found) = self.found.get(&key)
            && found.read.elapsed() < BELIEVED
        {
            return found.listener.clone();
        }
        let network = self.network(client, at_ns)?;
        let listener = network
            .find(target, path)
            .map(|(inode, address)| far_listener(inode, address, client.netns));
        let found = Found {
            listener: listener.clone(),
            read: Instant::now(),
        };
        self.found.insert(key, found);
        listener
    }

    /// One reading serves all failures that came before it.
    fn network(&mut self, client: Client, at_ns: u64) -> Option<Rc<Network>> {
        if let Some(network) = self.networks.get(&client.netns)
            && network.read_ns >= at_ns
        {
            return Some(Rc::clone(network));
        }
        // Any process of the namespace will do, and one is always there.
        let pid = if self.own_netns == Some(u64::from(client.netns)) {
            "self".to_owned()
        } else {
            client.pid.to_string()
        };
        let network = Rc::new(Network::read(&self.root, &pid)?);
        self.networks.insert(client.netns, Rc::clone(&network));
        Some(network)
    }
}

fn far_listener(inode: u64, address: Address, netns: u32) -> FarListener {
    let (family, protocol) = match &address {
        Address::Inet(SocketAddr::V4(_)) => (AF_INET, IPPROTO_TCP),
        Address::Inet(SocketAddr::V6(_)) => (AF_INET6, IPPROTO_TCP),
        _ => (crate::event::AF_UNIX, 0),
    };
    FarListener {
        inode,
        listener: Listener {
            fd: None,
            family: Some(family),
            // AF_UNIX has others that listen too.
            socket_type: (protocol != 0).then_some(SOCK_STREAM),
            protocol: (protocol != 0).then_some(protocol),
            address: Some(address),
            netns: Some(netns),
            queue: None,
        },
    }
}

impl Network {
    /// `None` where the process is gone.
    fn read(root: &Path, pid: &str) -> Option<Self> {
        let read_ns = monotonic_ns();
        let net = root.join("proc").join(pid).join("net");
        let mut tcp = Vec::new();
        let tables = [net.join("tcp"), net.join("tcp6")];
        let read = tables.iter().filter(|table| listeners(table, &mut tcp));
        // Without IPv6 there is one.
        if read.count() == 0 {
            return None;
        }
        Some(Self {
            tcp,
            addresses: addresses(&net),
            unix: owners::unix_table(root, pid).unwrap_or_default(),
            read_ns,
        })
    }

    fn find(&self, target: Target, path: Option<&[u8]>) -> Option<(u64, Address)> {
        match target {
            Target::Inet(wanted) => {
                let (address, inode) = self.tcp_listener(wanted)?;
                Some((inode, Address::Inet(address)))
            }
            Target::Unix(_) => {
                let path = path?;
                let inode = owners::unix_listener(&self.unix, path)?;
                Some((inode, Address::Unix(path.to_vec())))
            }
            Target::Vsock { .. } | Target::Netns(_) => None,
        }
    }

    fn tcp_listener(&self, wanted: SocketAddr) -> Option<(SocketAddr, u64)> {
        let at_port = || {
            self.tcp
                .iter()
                .filter(|(address, _)| address.port() == wanted.port())
        };
        if let Some(found) =
            at_port().find(|(address, _)| address.ip().to_canonical() == wanted.ip())
        {
            return Some(*found);
        }
        if !self.is_local(wanted.ip()) {
            return None;
        }
        // An IPv6 one takes IPv4 too, unless it asked not to.
        at_port()
            .filter(|(address, _)| address.ip().is_unspecified())
            .filter(|(address, _)| address.is_ipv6() || wanted.is_ipv4())
            .max_by_key(|(address, _)| address.is_ipv4() == wanted.is_ipv4())
            .copied()
    }

    fn is_local(&self, ip: IpAddr) -> bool {
        // Connecting to no address in particular is connecting to the own host.
        ip.is_loopback() || ip.is_unspecified() || self.addresses.contains(&ip)
    }
}

/// Adds the listening sockets of a `/proc/PID/net/tcp` or `tcp6`; says whether it could be
/// read.
fn listeners(table: &Path, into: &mut Vec<(SocketAddr, u64)>) -> bool {
    let Ok(file) = File::open(table) else {
        return false;
    };
    // The first line has the columns' names.
    for line in BufReader::new(file)
        .split(b'\n')
        .map_while(Result::ok)
        .skip(1)
    {
        // Those that listen come first (tcp_get_idx, net/ipv4/tcp_ipv4.c): what may be a
        // million others is not read.
        match table::inet(&line) {
            Some(socket) if socket.state == LISTEN => into.push((socket.local, socket.inode)),
            _ => break,
        }
    }
    true
}

/// The addresses of a network namespace.
fn addresses(net: &Path) -> Vec<IpAddr> {
    let read = |file| {
        let mut text = String::new();
        // What was read before an error is good.
        let _ = File::open(net.join(file)).map(|file| {
            let _ = file.take(MAX_ADDRESSES).read_to_string(&mut text);
        });
        text
    };
    let mut addresses = local_routes(&read("fib_trie"));
    addresses.extend(read("if_inet6").lines().filter_map(|line| {
        let digits = line.split(' ').next()?;
        let number = u128::from_str_radix(digits, 16).ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(number)))
    }));
    addresses
}

/// Addresses that `/proc/PID/net/fib_trie` says are the host's own: a leaf `|-- ADDRESS`, and
/// below it `/32 host LOCAL`.
fn local_routes(trie: &str) -> Vec<IpAddr> {
    let mut leaf = None;
    let mut found = Vec::new();
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = leaf.take()
            && !found.contains(&IpAddr::V4(address))
        {
            found.push(IpAddr::V4(address));
        }
    }
    found
}

#[cfg(test)]
mod tests;
