//! Queues of servers that are driven over, and what turnaway is to say of that.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Result, bail, ensure};

use super::{comm_of, postgres};
use crate::records::{Key, Records};
use crate::sys::{self, Errno, SockAddr};
use crate::wait;
use crate::workload::listening::queued_connections;
use crate::workload::queue::{Counters, settled, wait_for_overflows};

/// What is known of a server whose queue overflowed.
pub struct Overflowed {
    /// Who accepts.
    pub acceptor: u32,
    /// Who holds the listener.
    pub holders: Vec<u32>,
    /// What the kernel counted.
    pub drops: u64,
}

/// A port of 127.0.0.1.
#[must_use]
pub fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A client that is connected and has said something: some servers' kernels are told to wait for
/// that (TCP_DEFER_ACCEPT).
pub fn client(port: u16) -> Result<TcpStream> {
    let mut client = TcpStream::connect(address(port))?;
    client.write_all(&postgres::SSL_REQUEST)?;
    Ok(client)
}

/// Clients of a port that nobody accepts on: one that waits for each place in the queue, and five
/// for whom there is no place.
pub fn overflow(port: u16, backlog: u32) -> Result<u64> {
    let mut waiting = Vec::new();
    // The kernel lets one more in than the backlog.
    for queued in queued_connections(port.into())?..=backlog {
        waiting.push(client(port)?);
        wait::until_true("a client to be in the queue", || {
            Ok(queued_connections(port.into())? == queued + 1)
        })?;
    }
    let before = Counters::read()?;
    let refused = (0..5)
        .map(|_| {
            let client = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
            sys::set_nonblocking(&client)?;
            let got = sys::connect(&client, &SockAddr::inet(address(port)));
            ensure!(got == Err(Errno(libc::EINPROGRESS)), "{got:?}");
            Ok(client)
        })
        .collect::<Result<Vec<OwnedFd>>>()?;
    // The last comes when one of them tries again: packets are counted, not clients.
    wait_for_overflows(before, 6)?;
    drop(refused);
    let counted = settled()?.since(before);
    ensure!(counted.overflows == counted.drops, "{counted:?}");
    // They wait until here.
    drop(waiting);
    Ok(counted.drops)
}

/// The totals of these reasons.
#[must_use]
pub fn totals<'a>(records: &'a Records, reasons: &[&str]) -> Vec<&'a Key> {
    let wanted = |key: &&Key| reasons.iter().any(|reason| key.reason.starts_with(reason));
    records.summary.totals.iter().filter(wanted).collect()
}

/// How the reasons of dropped packets begin.
pub const DROPS: [&str; 6] = [
    "queue.overflow",
    "queue.dropped",
    "queue.syn_",
    "queue.ack_",
    "queue.rst_",
    "queue.syn_flood",
];

/// There is one total of packets that were dropped, and it is the server's.
pub fn compare(records: &Records, port: u16, truth: &Overflowed) -> Result<()> {
    let told = totals(records, &DROPS);
    let [total] = told[..] else {
        bail!("not one total: {told:?}");
    };
    let mut holders: Vec<u32> = total
        .holders
        .iter()
        .flatten()
        .map(|holder| holder.pid)
        .collect();
    holders.sort_unstable();
    let mut wanted = truth.holders.clone();
    wanted.sort_unstable();
    ensure!(
        // In the namespace nothing else is dropped, so a poll can tell what it was.
        ["queue.overflow", "queue.syn_overflow"].contains(&total.reason.as_str())
            && total.count == Some(truth.drops)
            && total.process.pid == truth.acceptor
            && total.process.comm == comm_of(truth.acceptor)
            && total.listener.port == Some(port.into())
            && holders == wanted,
        "{} drops of {} ({wanted:?}): {total:?}",
        truth.drops,
        truth.acceptor
    );
    let counted: u64 = records
        .counts
        .iter()
        .filter(|key| DROPS.iter().any(|reason| key.reason.starts_with(reason)))
        .filter_map(|key| key.count)
        .sum();
    ensure!(counted == truth.drops, "counts add up to {counted}");
    Ok(())
}
