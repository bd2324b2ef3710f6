//! A table of tracked connections that is full. In a network namespace of its own, but the limit
//! is the whole machine's.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};

use super::Stage;
use super::listening::Listening;
use crate::sys::{self, Errno};
use crate::truth::{self, Conntrack, Failures, Process, Tally};
use crate::wait;

/// Connections that may be tracked.
const MAX: u32 = 20;
/// Datagrams that find no room. Whoever sends one is told.
const DATAGRAMS: u64 = 30;
/// Connections that find none. Whoever begins one is not told.
const CONNECTIONS: usize = 7;

/// Connections that are dropped before any listener sees them.
pub fn full(stage: &mut Stage) -> Result<()> {
    // A namespace may not write it.
    fs::write("/proc/sys/net/netfilter/nf_conntrack_max", MAX.to_string())
        .context("cannot limit the connections that are tracked")?;
    sys::unshare(libc::CLONE_NEWNET)?;
    sys::loopback_up()?;
    track().context("cannot have connections tracked")?;
    let listening = Listening::tcp4(2 * MAX)?;
    // The kernel makes no room at the cost of what is established.
    let _established = listening.queue_up(MAX)?;
    ensure!(tracked()? == MAX, "{} connections are tracked", tracked()?);
    let process = Process::current()?;
    stage.ready()?;

    let before = dropped()?;
    for number in 0..DATAGRAMS {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let sent = socket.send_to(b"!", (Ipv4Addr::LOCALHOST, 9));
        let errno = sent.as_ref().err().and_then(std::io::Error::raw_os_error);
        ensure!(errno == Some(libc::EPERM), "datagram {number}: {sent:?}");
    }
    let told = dropped()? - before;
    ensure!(
        told == DATAGRAMS,
        "{DATAGRAMS} failed, the kernel has {told}"
    );
    let begun = listening.begin_many(CONNECTIONS)?;
    wait::until_true("SYNs that find no room", || {
        Ok(dropped()? - before >= DATAGRAMS + CONNECTIONS as u64)
    })?;
    // None of them got through, and none tries again.
    for client in &begun {
        ensure!(sys::take_error(client)? == Errno(0), "a connection failed");
    }
    drop(begun);
    let count = dropped()? - before;
    ensure!(tracked()? == MAX, "{} connections are tracked", tracked()?);
    let mut failure = Failures::of_listener(
        "net.conntrack_full",
        Process::default(),
        truth::Listener::default(),
        count,
    );
    failure.tier = Some("poll".to_owned());
    failure.shown = Some(0);
    failure.conntrack = Some(Conntrack {
        netns: truth::own_netns()?,
        used: MAX,
        limit: MAX,
    });
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![failure],
        ..Tally::default()
    })
}

/// Connections that are tracked in this namespace.
fn tracked() -> Result<u32> {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")?;
    Ok(count.trim().parse()?)
}

/// Packets that tracking dropped in this namespace.
fn dropped() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack")?;
    let mut lines = text.lines();
    let names = lines.next().context("no names")?;
    let column = names
        .split_whitespace()
        .position(|name| name == "drop")
        .context("no drops")?;
    lines
        .map(|line| {
            let value = line.split_whitespace().nth(column).context("no value")?;
            Ok(u64::from_str_radix(value, 16)?)
        })
        .sum()
}

// linux/netfilter/nfnetlink.h, nf_tables.h and linux/netlink.h
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NEW_CHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 6;
const NFPROTO_IPV4: u8 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
/// Length of a message's header.
const HEADER: usize = 16;

/// Has connections tracked in this namespace: the kernel does so as soon as any rule asks for a
/// connection's state, and be it in a chain that no packet goes through.
fn track() -> Result<()> {
    const EXPRESSIONS: u16 = 4 | NESTED;
    const ELEMENT: u16 = 1 | NESTED;
    const DATA: u16 = 2 | NESTED;
    let (table, chain) = (b"tracked\0", b"never\0");
    // Load the state (key 0) into register 1.
    let state = [
        attribute(1, &1_u32.to_be_bytes()),
        attribute(2, &0_u32.to_be_bytes()),
    ];
    let expression = [attribute(1, b"ct\0"), attribute(DATA, &state.concat())];
    let expressions = attribute(ELEMENT, &expression.concat());
    let messages = [
        message(NFNL_MSG_BATCH_BEGIN, 0, 0, &[]),
        message(
            NEW_TABLE,
            CREATE | ACK,
            NFPROTO_IPV4,
            &[attribute(1, table)],
        ),
        message(
            NEW_CHAIN,
            CREATE | ACK,
            NFPROTO_IPV4,
            &[attribute(1, table), attribute(3, chain)],
        ),
        message(
            NEW_RULE,
            CREATE | APPEND | ACK,
            NFPROTO_IPV4,
            &[
                attribute(1, table),
                attribute(2, chain),
                attribute(EXPRESSIONS, &expressions),
            ],
        ),
        message(NFNL_MSG_BATCH_END, 0, 0, &[]),
    ];
    let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)?;
    answers(&socket, &messages.concat(), 3)
}

/// Sends a batch to the kernel and reads its answers, all of which must be good.
fn answers(socket: &OwnedFd, batch: &[u8], wanted: usize) -> Result<()> {
    let mut file = File::from(socket.try_clone()?);
    file.write_all(batch)?;
    let mut buffer = vec![0; 1 << 16];
    let mut got = 0;
    while got < wanted {
        let read = file.read(&mut buffer)?;
        let mut rest = &buffer[..read];
        while rest.len() >= HEADER + 4 {
            let word = |at: usize| i32::from_ne_bytes([0, 1, 2, 3].map(|byte| rest[at + byte]));
            let length = usize::try_from(word(0))?;
            // An answer begins with an errno, negative.
            let errno = word(HEADER);
            if errno != 0 {
                return Err(Errno(-errno)).context("a message was refused");
            }
            got += 1;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(())
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![family, 0];
    body.extend(NFNL_SUBSYS_NFTABLES.to_be_bytes());
    body.extend(attributes.concat());
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    // Sequence number and sender, which nobody looks at.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
