use std::net::SocketAddr;

use super::{
    Datagram, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, SEQUENCE, SOCK_DIAG_BY_FAMILY,
    inet_listener, inet_waiting, take, unix_listener, unix_name,
};
use crate::{event::Address, sockets::Listener};

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + payload.len()).expect("short");
    let mut bytes = [length.to_ne_bytes(), pair(kind, flags)].concat();
    bytes.extend(SEQUENCE.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn pair(a: u16, b: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (a.to_ne_bytes(), b.to_ne_bytes());
    [a, b, c, d]
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("short");
    let mut bytes = pair(length, kind).to_vec();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct inet_diag_msg` of 127.0.0.1:80 and a client at 127.0.0.2:4000.
fn inet(state: u8, inode: u32) -> Vec<u8> {
    let mut bytes = vec![2, state, 0, 0];
    bytes.extend(80_u16.to_be_bytes());
    bytes.extend(4000_u16.to_be_bytes());
    for last in [1, 2] {
        bytes.extend([127, 0, 0, last]);
        bytes.extend([0; 12]);
    }
    // Interface, cookie, timer, queues, user, inode.
    bytes.extend(words(&[0, 5, 1, 0, 4, 3, 0, inode]));
    bytes
}

/// `struct unix_diag_msg`.
fn unix() -> Vec<u8> {
    [vec![1, 5, 10, 0], words(&[77, 6, 0])].concat()
}

#[test]
fn a_listener_with_and_without_drops() {
    for (count, drops) in [(9, Some(8)), (10, Some(8)), (8, None), (0, None)] {
        let memory = words(&(0..count).collect::<Vec<_>>());
        let payload = [inet(10, 12), attribute(7, &memory)].concat();
        let listener = inet_listener(&payload).expect("read").expect("listens");
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        assert_eq!(
            listener,
            Listener {
                inode: 12,
                cookie: 1 << 32 | 5,
                family: 2,
                socket_type: 1,
                protocol: 6,
                address: Some(Address::Inet(address)),
                depth: 4,
                limit: 3,
                drops,
            }
        );
    }
    assert_eq!(inet_listener(&inet(1, 12)).expect("read"), None);
}

#[test]
fn only_what_has_no_inode_waits() {
    let info = attribute(2, &words(&(0..20).collect::<Vec<_>>()));
    for (state, closed_by_peer) in [(1, false), (8, true)] {
        let payload = [inet(state, 0), info.clone()].concat();
        let waiting = inet_waiting(&payload).expect("read").expect("waits");
        assert_eq!(waiting.peer, SocketAddr::from(([127, 0, 0, 2], 4000)));
        assert_eq!(waiting.waited.as_millis(), 11);
        assert_eq!(waiting.closed_by_peer, closed_by_peer);
    }
    assert_eq!(inet_waiting(&inet(1, 12)).expect("read"), None);
    assert_eq!(inet_waiting(&inet(4, 0)).expect("read"), None);
    assert!(inet_waiting(&inet(1, 0)).is_err());
}

#[test]
fn names() {
    for (name, kept) in [
        (&b"/run/a.sock\0"[..], &b"/run/a.sock"[..]),
        (b"/run/b", b"/run/b"),
        (b"\0a\0b\0", b"\0a\0b\0"),
        (b"", b""),
    ] {
        assert_eq!(unix_name(name), kept);
    }
    let payload = [unix(), attribute(0, b"\0x"), attribute(4, &words(&[2, 1]))].concat();
    let listener = unix_listener(&payload).expect("read").expect("listens");
    assert_eq!(listener.address, Some(Address::Unix(b"\0x".to_vec())));
    assert_eq!((listener.depth, listener.limit), (2, 1));
    assert_eq!((listener.inode, listener.socket_type), (77, 5));
    assert!(unix_listener(&unix()).is_err());
}

#[test]
fn the_end_of_a_dump() {
    let listener = message(SOCK_DIAG_BY_FAMILY, 2, &inet(10, 12));
    let interrupted = message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP_INTR, &inet(10, 13));
    let done = message(NLMSG_DONE, 2, &[0; 4]);
    let mut items = Vec::new();
    let mut look = |bytes: &[u8]| take(bytes, inet_listener, &mut items).expect("read");
    assert_eq!(look(&listener), Datagram::default());
    let datagram = look(&[listener, interrupted, done].concat());
    assert!(datagram.interrupted && datagram.last);
    assert!(look(&message(NLMSG_DONE, 2, &[])).last);
    let mut other = message(NLMSG_DONE, 2, &[]);
    other[8..12].copy_from_slice(&(SEQUENCE + 1).to_ne_bytes());
    assert_eq!(look(&other), Datagram::default());
    assert_eq!(items.len(), 3);

    for kind in [NLMSG_DONE, NLMSG_ERROR] {
        let refused = message(kind, 0, &(-libc::ENOENT).to_ne_bytes());
        let error = take(&refused, inet_listener, &mut items).expect_err("refused");
        assert!(error.to_string().starts_with("No such file"), "{error}");
        let refused = message(kind, 0, &i32::MIN.to_ne_bytes());
        assert!(take(&refused, inet_listener, &mut items).is_err());
    }
}

#[test]
fn a_malformed_answer_is_an_error() {
    let inet = [inet(10, 12), attribute(7, &words(&[0; 9]))].concat();
    let unix = [
        unix(),
        attribute(0, b"/run/a\0"),
        attribute(4, &words(&[0, 1])),
    ]
    .concat();
    let done = message(NLMSG_DONE, 0, &[0; 4]);
    for (payload, read) in [
        (inet, inet_listener as super::Read<_>),
        (unix, unix_listener),
    ] {
        let whole = [message(SOCK_DIAG_BY_FAMILY, 0, &payload), done.clone()].concat();
        take(&whole, read, &mut Vec::new()).expect("well-formed");
        let first = whole.len() - done.len();
        for length in (0..whole.len()).filter(|length| *length != first) {
            assert!(take(&whole[..length], read, &mut Vec::new()).is_err());
        }
        // Any byte may be anything: an error or not, but no panic.
        for position in 0..whole.len() {
            for value in 0..=u8::MAX {
                let mut broken = whole.clone();
                broken[position] = value;
                let _ = take(&broken, read, &mut Vec::new());
            }
        }
        // A payload that is shorter than its header, in a message of the right length.
        for length in 0..payload.len().min(16) {
            let short = message(SOCK_DIAG_BY_FAMILY, 0, &payload[..length]);
            assert!(take(&short, read, &mut Vec::new()).is_err());
        }
    }
}
