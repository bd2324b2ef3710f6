//! What tells that two observations are of one victim.

use serde::{Deserialize, Serialize};

use crate::observation::{Observation, Process};

/// One thing that an incident is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Key {
    /// Processes of one name in one service or container.
    Group {
        cgroup: String,
        comm: Option<String>,
    },
    /// A process; whether its start agrees is for the incident to say.
    Pid(u32),
    /// A listening socket.
    Socket { netns: Option<u32>, inode: u64 },
    /// Where something listens, as a client in the same container would reach it.
    Place {
        container: Option<String>,
        place: String,
    },
    /// A client that does not get through, and to where.
    Client { who: Box<Key>, target: String },
    /// A network namespace.
    Netns(u32),
    /// The host.
    Host,
}

/// What an observation can be joined by, surest first, and whether it is of one who suffers.
#[derive(Debug)]
pub(super) struct Keys {
    /// What names the victim.
    pub(super) victim: Vec<Key>,
    /// What the incident is known by, too.
    pub(super) client: Option<Key>,
}

/// The keys of an observation.
pub(super) fn keys(seen: &Observation) -> Keys {
    if seen.reason.is_of_client() {
        return of_client(seen);
    }
    let mut victim = Vec::new();
    if seen.reason.as_str() == "fd.table_pressure" {
        victim.push(Key::Host);
    }
    if let Some(netns) = seen.netns {
        victim.push(Key::Netns(netns));
    }
    if let Some(process) = &seen.process {
        victim.extend(group(process));
        victim.push(Key::Pid(process.pid));
    }
    if let Some(listener) = &seen.listener {
        if let Some(inode) = listener.inode {
            victim.push(Key::Socket {
                netns: listener.netns,
                inode,
            });
        }
        if let Some(place) = &listener.path {
            victim.push(Key::Place {
                container: container(seen.process.as_ref()),
                place: place.clone(),
            });
        } else if let (Some(address), Some(port)) = (&listener.address, listener.port) {
            victim.push(Key::Place {
                container: container(seen.process.as_ref()),
                place: reached(address, port),
            });
        }
    }
    if seen.process.is_none() {
        victim.extend(seen.holders.iter().map(|holder| Key::Pid(holder.pid)));
    }
    if victim.is_empty() {
        victim.push(Key::Host);
    }
    Keys {
        victim,
        client: None,
    }
}

fn of_client(seen: &Observation) -> Keys {
    let mut victim = Vec::new();
    if let Some(listener) = &seen.listener
        && let Some(inode) = listener.inode
    {
        victim.push(Key::Socket {
            netns: listener.netns,
            inode,
        });
    }
    victim.extend(seen.server.iter().map(|server| Key::Pid(server.pid)));
    let client = seen.process.as_ref();
    let mut is_local = !victim.is_empty();
    let target = seen.peer.as_ref();
    if let Some(target) = target {
        let place = match (&target.path, &target.address, target.port) {
            (Some(path), _, _) => {
                is_local = true;
                Some(path.clone())
            }
            (None, Some(address), Some(port)) => Some(reached(address, port)),
            _ => None,
        };
        is_local |= place.as_deref().is_some_and(|place| place.starts_with(':'));
        victim.extend(place.map(|place| Key::Place {
            container: container(client),
            place,
        }));
    }
    let who = client.map_or(Key::Host, |client| {
        group(client).unwrap_or(Key::Pid(client.pid))
    });
    let target = if is_local {
        target.and_then(crate::observation::Peer::place)
    } else {
        None
    };
    Keys {
        victim,
        client: Some(Key::Client {
            who: Box::new(who),
            target: target.unwrap_or_default(),
        }),
    }
}

/// Processes of a service or a container belong together; those of a session do not.
pub(super) fn group(process: &Process) -> Option<Key> {
    let is_service = process
        .unit
        .as_deref()
        .is_some_and(|unit| unit.ends_with(".service"));
    let cgroup = match (&process.cgroup, &process.container) {
        (_, Some(container)) => container.id.clone(),
        (Some(cgroup), None) if is_service => cgroup.clone(),
        (None, None) if is_service => process.unit.clone()?,
        _ => return None,
    };
    Some(Key::Group {
        cgroup,
        comm: process.comm.clone(),
    })
}

fn container(process: Option<&Process>) -> Option<String> {
    Some(process?.container.as_ref()?.id.clone())
}

/// An address as a client on the same host reaches it: `:port` where that is through loopback.
fn reached(address: &str, port: u32) -> String {
    match address.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_loopback() || ip.is_unspecified() => format!(":{port}"),
        _ => format!("{address} {port}"),
    }
}
