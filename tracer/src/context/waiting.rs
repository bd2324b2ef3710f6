//! Who waits in a queue: the processes of this host at the other ends of connections that nobody has
//! accepted yet, or the addresses these come from.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use jiff::Timestamp;

use super::{Client, Peer, Waiting, host};
use crate::{
    attribute::survey::survey,
    sockets::{self, Made, Poller},
    text,
};

/// Most time that looking for whose connections they are takes, while somebody waits to be told.
pub(super) const BUDGET: Duration = Duration::from_millis(100);
/// Most network namespaces that are asked for the other ends.
const NAMESPACES: usize = 32;
/// Most processes, and most addresses, that are told.
const MOST: usize = 10;

/// Looks at what waits on a TCP port of a namespace. `None` where that cannot be asked.
pub(super) fn look(
    poller: &mut Poller,
    root: &Path,
    netns: u32,
    port: u16,
    listener: String,
    budget: Duration,
) -> Option<Waiting> {
    let waiting = poller.waiting(netns, port)?;
    let read = Timestamp::now();
    let made = ends(poller, netns, port, &waiting);
    let inodes: BTreeSet<u64> = made.values().copied().collect();
    let mut holders: HashMap<u64, (u32, String)> = HashMap::new();
    if !inodes.is_empty() {
        // Of several processes that hold a connection, which uses it is not known: the first.
        for process in survey(root, &inodes, budget).processes {
            let comm = text::json(process.comm.as_deref().unwrap_or_default());
            for inode in process.holds {
                holders
                    .entry(inode)
                    .or_insert_with(|| (process.pid, comm.clone()));
            }
        }
    }
    let mut found = count(&waiting, |peer| holders.get(made.get(&peer)?).cloned());
    for client in &mut found.clients {
        client.unit = host::unit(root, client.pid).and_then(|(unit, _)| unit);
    }
    Some(Waiting {
        read,
        listener,
        count: waiting.len() as u64,
        longest_s: waiting.first().map(|first| first.waited.as_secs_f64()),
        clients: found.clients,
        of_others: found.of_others,
        peers: found.peers,
    })
}

/// The inode numbers of the other ends, by their address.
fn ends(
    poller: &mut Poller,
    netns: u32,
    port: u16,
    waiting: &[sockets::Waiting],
) -> HashMap<SocketAddr, u64> {
    let mut wanted: HashSet<(SocketAddr, SocketAddr)> =
        waiting.iter().map(|one| (one.peer, one.local)).collect();
    let mut found = HashMap::new();
    let mut take = |made: Vec<Made>| {
        for one in made {
            if wanted.remove(&(one.local, one.peer)) {
                found.insert(one.local, one.inode);
            }
        }
        wanted.is_empty()
    };
    // Most clients of a host's own are in the same namespace.
    if take(poller.made(netns, port).unwrap_or_default()) {
        return found;
    }
    let others = poller.namespaces();
    let others = others.into_iter().filter(|other| *other != netns);
    for other in others.take(NAMESPACES) {
        if take(poller.made(other, port).unwrap_or_default()) {
            break;
        }
    }
    found
}

#[derive(Debug, Default, PartialEq)]
struct Counted {
    clients: Vec<Client>,
    of_others: u64,
    peers: Vec<Peer>,
}

/// Counts by process, and by address where no process is known (pure).
fn count(
    waiting: &[sockets::Waiting],
    whose: impl Fn(SocketAddr) -> Option<(u32, String)>,
) -> Counted {
    let mut clients: HashMap<u32, Client> = HashMap::new();
    let mut peers: HashMap<IpAddr, u64> = HashMap::new();
    let mut of_others = 0;
    for one in waiting {
        if let Some((pid, comm)) = whose(one.peer) {
            clients
                .entry(pid)
                .or_insert_with(|| Client {
                    pid,
                    comm,
                    unit: None,
                    count: 0,
                })
                .count += 1;
        } else {
            of_others += 1;
            *peers.entry(one.peer.ip()).or_default() += 1;
        }
    }
    let mut clients: Vec<Client> = clients.into_values().collect();
    clients.sort_by_key(|client| (std::cmp::Reverse(client.count), client.pid));
    clients.truncate(MOST);
    Counted {
        clients,
        of_others,
        peers: most(peers),
    }
}

/// Addresses with their numbers, most first, as many as are told.
pub(super) fn most(peers: HashMap<IpAddr, u64>) -> Vec<Peer> {
    let mut peers: Vec<(IpAddr, u64)> = peers.into_iter().collect();
    peers.sort_by_key(|(address, count)| (std::cmp::Reverse(*count), *address));
    peers.truncate(MOST);
    let peer = |(address, count): (IpAddr, u64)| Peer {
        address: address.to_string(),
        count,
    };
    peers.into_iter().map(peer).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::sockets::Poller;

    #[test]
    fn this_process_waits_for_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let clients: Vec<_> = (0..5)
            .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
            .collect();
        // One that is served does not wait.
        let served = listener.accept().unwrap();
        let root = Path::new("/");
        let netns = rustix::fs::stat("/proc/self/ns/net").unwrap().st_ino;
        let netns = u32::try_from(netns).unwrap();
        let mut poller = Poller::new(root);
        let found = look(
            &mut poller,
            root,
            netns,
            port,
            "here".to_owned(),
            Duration::from_mins(1),
        )
        .unwrap();
        assert_eq!(found.count, 4);
        assert_eq!(found.of_others, 0, "{found:?}");
        let [client] = &found.clients[..] else {
            panic!("{found:?}");
        };
        assert_eq!((client.pid, client.count), (std::process::id(), 4));
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(client.comm, comm.trim_end());
        drop((served, clients));
    }

    #[test]
    fn who_is_not_found_is_told_by_address() {
        let waiting = |peer: &str| sockets::Waiting {
            cookie: 0,
            peer: peer.parse().unwrap(),
            local: "10.0.0.1:80".parse().unwrap(),
            waited: Duration::from_secs(1),
            closed_by_peer: false,
        };
        let all: Vec<_> = [
            "10.0.0.2:1",
            "10.0.0.2:2",
            "10.0.0.3:1",
            "10.0.0.1:9",
            "10.0.0.1:8",
        ]
        .map(waiting)
        .into();
        let own = "10.0.0.1:9".parse().unwrap();
        let found = count(&all, |peer| (peer == own).then(|| (7, "curl".to_owned())));
        assert_eq!(found.of_others, 4);
        assert_eq!((found.clients[0].pid, found.clients[0].count), (7, 1));
        let told: Vec<_> = found
            .peers
            .iter()
            .map(|peer| (peer.address.as_str(), peer.count))
            .collect();
        assert_eq!(told, [("10.0.0.2", 2), ("10.0.0.1", 1), ("10.0.0.3", 1)]);
    }
}
