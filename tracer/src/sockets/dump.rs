//! Asks the kernel for lists of sockets: sock_diag(7), in the namespace of the thread.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use netlink_packet_core::{
    DoneBuffer, Emitable as _, ErrorBuffer, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer, NetlinkHeader, NlasIterator, Parseable as _,
};
use netlink_packet_sock_diag::{
    constants::{
        AF_UNIX, AF_UNSPEC, INET_DIAG_INFO, INET_DIAG_SKMEMINFO, IPPROTO_TCP, SOCK_DIAG_BY_FAMILY,
        TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_LISTEN, UNIX_DIAG_NAME, UNIX_DIAG_RQLEN,
    },
    inet::{ExtensionFlags, InetResponseBuffer, InetResponseHeader, SocketId, StateFlags},
    unix::{self, ShowFlags, UnixRequest, UnixResponseBuffer, UnixResponseHeader},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{Established, Listener, Made, Waiting};
use crate::event::Address;

/// Room for a datagram. The kernel fills what it is given, up to 32 KiB
/// (net/netlink/af_netlink.c, `netlink_dump`).
pub(super) const DATAGRAM: usize = 32 << 10;

/// How long the kernel may take for one datagram.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a list that changed while it was read is asked for.
const TRIES: usize = 3;

/// Numbers the one request of a socket.
const SEQUENCE: u32 = 1;

/// Asks for TCP sockets of any family (include/uapi/linux/inet_diag.h); answers have this
/// type, too.
const TCPDIAG_GETSOCK: u16 = 18;

/// Index of `sk_drops` among the words of `INET_DIAG_SKMEMINFO` (`SK_MEMINFO_DROPS`,
/// include/uapi/linux/sock_diag.h).
const MEMINFO_DROPS: usize = 8;

/// What the kernel listed.
#[derive(Debug)]
pub(super) struct Dump<T> {
    pub(super) items: Vec<T>,
    /// Why that may not be all.
    pub(super) problem: Option<String>,
}

/// The listening TCP and AF_UNIX sockets.
pub(super) fn listeners(buffer: &mut Vec<u8>) -> Dump<Listener> {
    let tcp = inet_request(&StateFlags::LISTEN, &ExtensionFlags::SKMEMINFO, Ports::ANY);
    let mut found = unique(dump("TCP", &tcp, buffer, inet_listener), |it| it.cookie);
    let unix = dump("AF_UNIX", &unix_listeners(), buffer, unix_listener);
    let mut unix = unique(unix, |it| it.cookie);
    found.items.append(&mut unix.items);
    found.problem = found.problem.or(unix.problem);
    found
}

/// The TCP connections to a local port that no process has accepted, the oldest first.
pub(super) fn waiting(port: u16, buffer: &mut Vec<u8>) -> Dump<Waiting> {
    // A client that closes before it is accepted leaves its connection in the queue, in
    // CLOSE_WAIT.
    let states = StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT;
    let request = inet_request(&states, &ExtensionFlags::INFO, Ports::here(port));
    let mut found = unique(dump("TCP", &request, buffer, inet_waiting), |it| it.cookie);
    found.items.sort_by_key(|it| Reverse(it.waited));
    found
}

/// The established TCP connections of a local port that processes have.
pub(super) fn established(port: u16, buffer: &mut Vec<u8>) -> Dump<Established> {
    let request = inet_request(
        &StateFlags::ESTABLISHED,
        &ExtensionFlags::INFO,
        Ports::here(port),
    );
    unique(dump("TCP", &request, buffer, inet_established), |it| {
        it.cookie
    })
}

/// The established TCP connections to a port of another end, or of this host.
pub(super) fn made(port: u16, buffer: &mut Vec<u8>) -> Dump<Made> {
    let request = inet_request(
        &StateFlags::ESTABLISHED,
        &ExtensionFlags::empty(),
        Ports::there(port),
    );
    unique(dump("TCP", &request, buffer, inet_made), |it| it.inode)
}

/// The ports of sockets that are asked for; 0 is any.
#[derive(Clone, Copy)]
struct Ports {
    source: u16,
    destination: u16,
}

impl Ports {
    const ANY: Self = Self::here(0);

    const fn here(source: u16) -> Self {
        Self {
            source,
            destination: 0,
        }
    }

    const fn there(destination: u16) -> Self {
        Self {
            source: 0,
            destination,
        }
    }
}

/// The kernel goes on by position between two datagrams: what moved may come twice.
fn unique<T>(mut dump: Dump<T>, cookie: fn(&T) -> u64) -> Dump<T> {
    dump.items.sort_unstable_by_key(cookie);
    dump.items.dedup_by_key(|item| cookie(item));
    dump
}

/// A request for IPv4 and IPv6 sockets at once, `struct inet_diag_req` (linux/inet_diag.h).
/// The newer request takes one family, and for each dump the kernel walks the sockets of
/// every namespace of the host to find those of one.
fn inet_request(states: &StateFlags, extensions: &ExtensionFlags, ports: Ports) -> Vec<u8> {
    let id = SocketId {
        source_port: ports.source,
        destination_port: ports.destination,
        ..SocketId::new_v4()
    };
    let mut body = vec![AF_UNSPEC, 0, 0, extensions.bits()];
    let start = body.len();
    body.resize(start + id.buffer_len(), 0);
    id.emit(&mut body[start..]);
    body.extend(states.bits().to_ne_bytes());
    body.extend(0_u32.to_ne_bytes());
    request(TCPDIAG_GETSOCK, &body)
}

fn unix_listeners() -> Vec<u8> {
    let unix_request = UnixRequest {
        state_flags: unix::StateFlags::LISTEN,
        inode: 0,
        show_flags: ShowFlags::NAME | ShowFlags::RQLEN,
        cookie: [0; 8],
    };
    let mut body = vec![0; unix_request.buffer_len()];
    unix_request.emit(&mut body);
    request(SOCK_DIAG_BY_FAMILY, &body)
}

/// A message that asks for a list.
fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    let length = header.buffer_len();
    header.length = u32::try_from(length + body.len()).unwrap_or(u32::MAX);
    header.message_type = kind;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = SEQUENCE;
    let mut bytes = vec![0; length];
    header.emit(&mut bytes);
    bytes.extend(body);
    bytes
}

/// Reads one message's payload; `None` is not one that was asked for.
type Read<T> = fn(&[u8]) -> Result<Option<T>>;

fn dump<T>(what: &str, request: &[u8], buffer: &mut Vec<u8>, read: Read<T>) -> Dump<T> {
    let mut items = Vec::new();
    for _ in 0..TRIES {
        items.clear();
        match ask(request, buffer, read, &mut items) {
            Ok(Answer { interrupted: false }) => {
                return Dump {
                    items,
                    problem: None,
                };
            }
            Ok(Answer { interrupted: true }) => {}
            Err(error) => {
                return Dump {
                    items,
                    problem: Some(format!("sock_diag of {what}: {error:#}")),
                };
            }
        }
    }
    let problem = format!("sock_diag of {what}: the list changed while it was read, each time");
    Dump {
        items,
        problem: Some(problem),
    }
}

/// A dump that came to its end.
struct Answer {
    /// The list changed meanwhile.
    interrupted: bool,
}

/// Sends a request on a socket of its own, so that nothing of an earlier dump that was
/// given up is in the way, and reads the answer.
fn ask<T>(
    request: &[u8],
    buffer: &mut Vec<u8>,
    read: Read<T>,
    items: &mut Vec<T>,
) -> Result<Answer> {
    let socket = Socket::new(NETLINK_SOCK_DIAG).context("cannot open a netlink socket")?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))
        .context("cannot set a timeout on a netlink socket")?;
    socket
        .send_to(request, &NetlinkAddr::new(0, 0), 0)
        .context("cannot send the request")?;
    let mut interrupted = false;
    loop {
        receive(&socket, buffer)?;
        let datagram = take(buffer, read, items)?;
        interrupted |= datagram.interrupted;
        if datagram.last {
            return Ok(Answer { interrupted });
        }
    }
}

/// Fills the buffer with the next datagram that the kernel sent.
fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> Result<()> {
    loop {
        buffer.clear();
        match socket.recv_from(buffer, libc::MSG_TRUNC) {
            Ok((length, _)) if length > buffer.len() => {
                bail!("a datagram of {length} bytes is too long")
            }
            // Port 0 is the kernel's; others may send to this socket, too.
            Ok((_, sender)) if sender.port_number() == 0 => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                bail!("no answer within {PATIENCE:?}")
            }
            Err(error) => return Err(error).context("cannot receive the answer"),
        }
    }
}

/// What a datagram says of the dump it is part of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Datagram {
    interrupted: bool,
    last: bool,
}

/// Reads the messages of one datagram, each only after its length was checked.
fn take<T>(mut rest: &[u8], read: Read<T>, items: &mut Vec<T>) -> Result<Datagram> {
    let mut datagram = Datagram::default();
    if rest.is_empty() {
        bail!("an empty datagram");
    }
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest)?;
        let length = message.length() as usize;
        if message.sequence_number() == SEQUENCE {
            datagram.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            let payload = message.payload();
            match message.message_type() {
                SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => items.extend(read(payload)?),
                NLMSG_NOOP => {}
                NLMSG_DONE => {
                    // Old kernels send no code.
                    if !payload.is_empty() {
                        check(DoneBuffer::new_checked(payload)?.code())?;
                    }
                    datagram.last = true;
                }
                NLMSG_ERROR => {
                    check(
                        ErrorBuffer::new_checked(payload)?
                            .code()
                            .map_or(0, i32::from),
                    )?;
                }
                other => bail!("an answer of unknown type {other}"),
            }
        }
        // Messages start at multiples of four; the last may end before its padding.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(datagram)
}

/// Reads a datagram as the answer to each request.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_datagram(bytes: &[u8]) {
    let _ = take(bytes, inet_listener, &mut Vec::new());
    let _ = take(bytes, unix_listener, &mut Vec::new());
    let _ = take(bytes, inet_waiting, &mut Vec::new());
    let _ = take(bytes, inet_established, &mut Vec::new());
    let _ = take(bytes, inet_made, &mut Vec::new());
}

/// An errno, negative as the kernel sends it.
fn check(code: i32) -> Result<()> {
    if code < 0 {
        return Err(io::Error::from_raw_os_error(code.saturating_neg()).into());
    }
    Ok(())
}

fn inet_listener(payload: &[u8]) -> Result<Option<Listener>> {
    let header = InetResponseHeader::parse(payload)?;
    if header.state != TCP_LISTEN {
        return Ok(None);
    }
    let mut drops = None;
    for_each_attribute::<InetResponseBuffer>(payload, |kind, value| {
        if kind == INET_DIAG_SKMEMINFO {
            drops = word(value, MEMINFO_DROPS).map(u64::from);
        }
    })?;
    let id = header.socket_id;
    Ok(Some(Listener {
        inode: header.inode.into(),
        cookie: cookie(id.cookie),
        family: header.family.into(),
        socket_type: STREAM,
        protocol: IPPROTO_TCP.into(),
        address: Some(Address::Inet(SocketAddr::new(
            id.source_address,
            id.source_port,
        ))),
        depth: header.recv_queue,
        limit: header.send_queue,
        drops,
    }))
}

/// `SOCK_STREAM`, in the width that sockets report it in.
#[expect(clippy::cast_possible_truncation, reason = "it is 1, on MIPS 2")]
const STREAM: u16 = libc::SOCK_STREAM as u16;

fn inet_waiting(payload: &[u8]) -> Result<Option<Waiting>> {
    /// Index of the word in `struct tcp_info`.
    const LAST_DATA_SENT: usize = std::mem::offset_of!(libc::tcp_info, tcpi_last_data_sent) / 4;
    let header = InetResponseHeader::parse(payload)?;
    if header.inode != 0 || ![TCP_ESTABLISHED, TCP_CLOSE_WAIT].contains(&header.state) {
        return Ok(None);
    }
    let mut waited = None;
    for_each_attribute::<InetResponseBuffer>(payload, |kind, value| {
        if kind == INET_DIAG_INFO {
            waited = word(value, LAST_DATA_SENT);
        }
    })?;
    let waited = waited.ok_or_else(|| anyhow!("a connection without tcp_info"))?;
    let id = header.socket_id;
    let address = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
    Ok(Some(Waiting {
        cookie: cookie(id.cookie),
        peer: address(id.destination_address, id.destination_port),
        local: address(id.source_address, id.source_port),
        waited: Duration::from_millis(waited.into()),
        closed_by_peer: header.state == TCP_CLOSE_WAIT,
    }))
}

fn inet_established(payload: &[u8]) -> Result<Option<Established>> {
    /// Indexes of words in `struct tcp_info`; the last two begin numbers of two words.
    const LAST_DATA_SENT: usize = std::mem::offset_of!(libc::tcp_info, tcpi_last_data_sent) / 4;
    const LAST_DATA_RECEIVED: usize = std::mem::offset_of!(libc::tcp_info, tcpi_last_data_recv) / 4;
    const BYTES_ACKED: usize = 30;
    const BYTES_RECEIVED: usize = 32;
    let header = InetResponseHeader::parse(payload)?;
    if header.inode == 0 || header.state != TCP_ESTABLISHED {
        return Ok(None);
    }
    let mut quiet = None;
    for_each_attribute::<InetResponseBuffer>(payload, |kind, value| {
        if kind != INET_DIAG_INFO {
            return;
        }
        let long =
            |index| Some(u64::from(word(value, index)?) | u64::from(word(value, index + 1)?) << 32);
        // Both clocks start with the connection: without data they say nothing.
        let received = long(BYTES_RECEIVED).filter(|bytes| *bytes > 0);
        let sent = long(BYTES_ACKED).filter(|bytes| *bytes > 1);
        let received = received.and(word(value, LAST_DATA_RECEIVED));
        let sent = sent.and(word(value, LAST_DATA_SENT));
        quiet = received.into_iter().chain(sent).min();
    })?;
    let id = header.socket_id;
    Ok(Some(Established {
        cookie: cookie(id.cookie),
        peer: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
        quiet: quiet.map(|quiet| Duration::from_millis(quiet.into())),
    }))
}

fn inet_made(payload: &[u8]) -> Result<Option<Made>> {
    let header = InetResponseHeader::parse(payload)?;
    if header.inode == 0 || header.state != TCP_ESTABLISHED {
        return Ok(None);
    }
    let id = header.socket_id;
    let address = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
    Ok(Some(Made {
        inode: header.inode.into(),
        local: address(id.source_address, id.source_port),
        peer: address(id.destination_address, id.destination_port),
    }))
}

fn unix_listener(payload: &[u8]) -> Result<Option<Listener>> {
    let header = UnixResponseHeader::parse(payload)?;
    if header.state != TCP_LISTEN {
        return Ok(None);
    }
    let (mut address, mut queue) = (None, None);
    for_each_attribute::<UnixResponseBuffer>(payload, |kind, value| match kind {
        UNIX_DIAG_NAME => address = Some(Address::Unix(unix_name(value).to_vec())),
        UNIX_DIAG_RQLEN => queue = word(value, 0).zip(word(value, 1)),
        _ => {}
    })?;
    let (depth, limit) = queue.ok_or_else(|| anyhow!("a listener without its queue's length"))?;
    Ok(Some(Listener {
        inode: header.inode.into(),
        cookie: cookie(header.cookie),
        family: AF_UNIX.into(),
        socket_type: header.kind.into(),
        protocol: 0,
        address,
        depth,
        limit,
        drops: None,
    }))
}

/// A path ends at its NUL; an abstract name starts with one and may hold others.
fn unix_name(name: &[u8]) -> &[u8] {
    match name.iter().position(|byte| *byte == 0) {
        Some(end) if end > 0 => &name[..end],
        _ => name,
    }
}

/// The attributes that follow a header of type `H`. Not read by the crate's own types:
/// they refuse a whole message for an attribute that is shorter than they know it.
fn for_each_attribute<H>(payload: &[u8], mut each: impl FnMut(u16, &[u8])) -> Result<()> {
    let attributes = payload.get(size_of::<H>()..).unwrap_or_default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        each(attribute.kind(), attribute.value());
    }
    Ok(())
}

/// A 32-bit word of an attribute, if the attribute is that long.
fn word(value: &[u8], index: usize) -> Option<u32> {
    value
        .chunks_exact(4)
        .nth(index)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_ne_bytes)
}

/// Sent as two words, the lower one first.
fn cookie(raw: [u8; 8]) -> u64 {
    let half = |index| word(&raw, index).map_or(0, u64::from);
    half(1) << 32 | half(0)
}
