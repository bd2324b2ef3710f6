use std::net::{TcpListener, TcpStream};

use super::*;

fn network(tcp: &[&str], addresses: &[&str]) -> Network {
    Network {
        tcp: tcp
            .iter()
            .enumerate()
            .map(|(at, address)| (address.parse().expect("an address"), at as u64))
            .collect(),
        addresses: addresses
            .iter()
            .map(|address| address.parse().expect("an address"))
            .collect(),
        ..Network::default()
    }
}

fn inode(network: &Network, target: &str) -> Option<u64> {
    let target = Target::Inet(target.parse().expect("an address"));
    network.find(target, None).map(|(inode, _)| inode)
}

#[test]
fn the_listener_that_the_kernel_would_find() {
    let network = network(
        &[
            "0.0.0.0:80",
            "127.0.0.1:80",
            "[::]:80",
            "[::]:443",
            "10.0.0.5:81",
        ],
        &["10.0.0.5", "fd00::1"],
    );
    for (target, found) in [
        ("127.0.0.1:80", Some(1)),
        ("127.0.0.2:80", Some(0)),
        ("10.0.0.5:80", Some(0)),
        ("[fd00::1]:80", Some(2)),
        ("[::1]:80", Some(2)),
        ("10.0.0.5:443", Some(3)),
        ("10.0.0.5:81", Some(4)),
        ("127.0.0.1:81", None),
        // Another host's port of the same number.
        ("10.0.0.6:80", None),
        ("[fd00::2]:443", None),
        ("127.0.0.1:8080", None),
    ] {
        assert_eq!(inode(&network, target), found, "{target}");
    }
}

#[test]
fn own_addresses_are_those_with_a_local_route() {
    let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
        Local:\n     +-- 10.0.0.0/24 2 0 2\n        |-- 10.0.0.5\n           /32 host LOCAL\n\
                |-- 10.0.0.255\n           /32 link BROADCAST\n";
    assert_eq!(local_routes(trie), [IpAddr::from([10, 0, 0, 5])]);
    assert!(local_routes("").is_empty());
}

#[test]
fn a_listener_of_this_process() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    // Connections come after those that listen.
    let _client = TcpStream::connect(address).expect("connected");
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&listener);
    let expected = fs::metadata(format!("/proc/self/fd/{descriptor}"))
        .expect("open")
        .ino();
    let mut ends = FarEnds::new(Path::new("/"));
    let client = Client {
        pid: std::process::id(),
        netns: u32::try_from(ends.own_netns.expect("a namespace")).expect("32 bits"),
    };
    let found = ends
        .listener(client, Target::Inet(address), None, monotonic_ns())
        .expect("found");
    assert_eq!(found.inode, expected);
    assert_eq!(found.listener.address, Some(Address::Inet(address)));
    // What was found is believed for a while.
    drop(listener);
    assert!(
        ends.listener(client, Target::Inet(address), None, monotonic_ns())
            .is_some()
    );
}
