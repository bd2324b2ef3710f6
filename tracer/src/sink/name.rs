//! Short names of listeners and places, for people. Safe to show: see [`crate::text`].

use crate::{
    attribute::{Container, Identity, Who},
    event::{Address, Key, Listener, Target},
    record::{family_name, protocol_name, unix_name},
    text,
};

/// Bytes of an id that tell it from others, as runtimes' own tools show them.
const SHORT_ID: usize = 12;
/// Any context id (`VMADDR_CID_ANY`, man 7 vsock).
const CID_ANY: u32 = u32::MAX;

/// A listener, such as `tcp 0.0.0.0:6432`, `tcp6 [::]:80`, `unix @name`, `vsock 2:1234`;
/// `fd 7` if only the descriptor is known, `None` if not even that.
#[must_use]
pub fn listener(listener: &Listener) -> Option<String> {
    let kind = kind(listener);
    let place = match &listener.address {
        Some(Address::Inet(address)) => Some(address.to_string()),
        Some(Address::Vsock { cid, port }) => Some(match *cid {
            CID_ANY => format!("*:{port}"),
            cid => format!("{cid}:{port}"),
        }),
        Some(Address::Unix(name)) if name.is_empty() => Some("(unnamed)".to_owned()),
        Some(Address::Unix(name)) => Some(text::terminal(&unix_name(name))),
        None => listener.fd.map(|fd| format!("fd {fd}")),
    };
    match (kind, place) {
        (Some(kind), Some(place)) => Some(format!("{kind} {place}")),
        (kind, place) => place.or(kind),
    }
}

/// What a failure is about: a listener, a call, how full a table is, a network namespace, or `-> ` and
/// what was to be connected to.
#[must_use]
pub fn about(key: &Key, listener: &Listener, who: &Who) -> Option<String> {
    if let Some(Target::Netns(netns)) = key.target {
        return Some(format!("net:[{netns}]"));
    }
    if key.reason.is_of_descriptors() {
        let level = key.level.map(|level| format!("from {level} %"));
        return level.or_else(|| key.call.map(|call| format!("{call}()")));
    }
    if !key.reason.is_of_connect() {
        return self::listener(listener);
    }
    let target = key.target?;
    let path = who.far.as_ref().and_then(|far| far.path.as_deref());
    let name = self::listener(&Listener {
        fd: None,
        family: Some(target.family()),
        address: target.address(path),
        ..listener.clone()
    })?;
    Some(format!("-> {name}"))
}

/// The protocol, with a `6` for IPv6; the family for those without protocols.
fn kind(listener: &Listener) -> Option<String> {
    let family =
        listener
            .family
            .map(family_name)
            .or_else(|| match listener.address.as_ref()? {
                Address::Inet(address) if address.is_ipv4() => Some("inet".to_owned()),
                Address::Inet(_) => Some("inet6".to_owned()),
                Address::Vsock { .. } => Some("vsock".to_owned()),
                Address::Unix(_) => Some("unix".to_owned()),
            })?;
    let protocol = listener.protocol.filter(|protocol| *protocol != 0);
    Some(match (family.as_str(), protocol) {
        ("inet", Some(protocol)) => protocol_name(protocol),
        ("inet6", Some(protocol)) => protocol_name(protocol) + "6",
        ("inet" | "inet6" | "unix" | "vsock", _) => family,
        _ => format!("family {family}"),
    })
}

/// Where a process runs: its container, else its unit, else its cgroup.
#[must_use]
pub fn place(identity: &Identity) -> Option<String> {
    let place = match (&identity.container, &identity.unit, &identity.cgroup) {
        (Some(container), _, _) => container_name(container),
        (None, Some(unit), _) => unit.clone(),
        (None, None, Some(cgroup)) => return Some(text::terminal(cgroup)),
        (None, None, None) => return None,
    };
    Some(text::terminal(place.as_bytes()))
}

/// `namespace/pod/container` as far as it is known; `runtime:id` for one without a name.
fn container_name(container: &Container) -> String {
    let pod = container.pod.as_ref();
    let known = [
        pod.and_then(|pod| pod.namespace.as_deref()),
        pod.and_then(|pod| pod.name.as_deref()),
        container.name.as_deref(),
    ];
    if container.name.is_some() || pod.is_some_and(|pod| pod.name.is_some()) {
        return known.into_iter().flatten().collect::<Vec<_>>().join("/");
    }
    let id: String = container.id.chars().take(SHORT_ID).collect();
    match container.runtime {
        Some(runtime) => format!("{}:{id}", runtime.name()),
        None => format!("container:{id}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{listener, place};
    use crate::{
        attribute::{Identity, Pod},
        event::{Address, Listener},
        record::samples,
    };

    fn named(family: u16, protocol: u16, address: Option<Address>) -> String {
        let (failure, _) = samples::rich();
        listener(&Listener {
            family: Some(family),
            protocol: Some(protocol),
            address,
            ..failure.listener
        })
        .expect("something is known")
    }

    #[test]
    fn listeners() {
        let v4 = Some(Address::Inet(SocketAddr::from(([0; 4], 6_432))));
        let v6 = Some(Address::Inet(SocketAddr::from(([0; 16], 80))));
        let vsock = |cid| Some(Address::Vsock { cid, port: 1_234 });
        let unix = |name: &[u8]| Some(Address::Unix(name.to_vec()));
        for (name, expected) in [
            (named(2, 6, v4.clone()), "tcp 0.0.0.0:6432"),
            (named(10, 6, v6.clone()), "tcp6 [::]:80"),
            (named(2, 262, v4.clone()), "mptcp 0.0.0.0:6432"),
            (named(10, 132, v6), "sctp6 [::]:80"),
            (named(2, 0, v4), "inet 0.0.0.0:6432"),
            (named(1, 0, unix(b"/run/x.sock")), "unix /run/x.sock"),
            (named(1, 0, unix(b"\0name")), "unix @name"),
            (named(1, 0, unix(b"@name")), "unix ./@name"),
            (named(1, 0, unix(b"")), "unix (unnamed)"),
            (named(1, 0, unix(b"/a\x1b[2J\n")), "unix /a\\x1b[2J\\n"),
            (named(1, 0, None), "unix fd 9"),
            (named(40, 0, vsock(2)), "vsock 2:1234"),
            (named(40, 0, vsock(u32::MAX)), "vsock *:1234"),
            (named(43, 0, None), "family 43 fd 9"),
        ] {
            assert_eq!(name, expected);
        }
        let (mut failure, _) = samples::minimal();
        assert_eq!(listener(&failure.listener), None);
        failure.listener.fd = Some(7);
        assert_eq!(listener(&failure.listener).as_deref(), Some("fd 7"));
    }

    #[test]
    fn places() {
        let (_, mut identity) = samples::rich_parts();
        assert_eq!(place(&identity).as_deref(), Some("shop/pooler-0/pooler"));
        let container = identity.container.as_mut().expect("a container");
        container.pod = None;
        assert_eq!(place(&identity).as_deref(), Some("pooler"));
        let container = identity.container.as_mut().expect("a container");
        container.name = None;
        container.pod = Some(Pod {
            uid: Some("u".to_owned()),
            ..Pod::default()
        });
        assert_eq!(place(&identity).as_deref(), Some("containerd:4f5cbdb2ca0e"));
        identity.container = None;
        assert_eq!(place(&identity).as_deref(), Some("pgbouncer.service"));
        identity.unit = None;
        assert_eq!(
            place(&identity).as_deref(),
            Some("/system.slice/pgbouncer.service")
        );
        assert_eq!(place(&Identity::default()), None);
    }
}
