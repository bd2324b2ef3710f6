//! Queues of listeners: too many connections, too slow an acceptor, or none. Each in a network
//! namespace of its own, where nothing else is counted: the kernel's counters there are the truth.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::full::Full;
use super::listening::{Listening, queued_connections};
use super::{Stage, fail};
use crate::scenario::env::is_guest;
use crate::sys::{self, Call, Errno, SockAddr};
use crate::truth::{Failures, Listener, Listening as Listened, Process, Tally};
use crate::wait;

/// A counter of the calling thread's network namespace: which file of /proc it is in, in which line, and its
/// name there.
fn counter(file: &str, line: &str, wanted: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
    let mut lines = text.lines().filter(|text| text.starts_with(line));
    let (names, values) = (
        lines.next().context("no names")?,
        lines.next().context("no values")?,
    );
    names
        .split(' ')
        .zip(values.split(' '))
        .find(|(name, _)| *name == wanted)
        .and_then(|(_, value)| value.parse().ok())
        .with_context(|| format!("no {wanted}"))
}

/// One of `TcpExt`.
fn netstat(wanted: &str) -> Result<u64> {
    counter("netstat", "TcpExt:", wanted)
}

/// Counters of the calling thread's network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `ListenOverflows`.
    pub overflows: u64,
    /// `ListenDrops`.
    pub drops: u64,
    /// `TCPReqQFullDoCookies`.
    pub cookies: u64,
    /// `TCPReqQFullDrop`.
    pub request_drops: u64,
}

impl Counters {
    /// What they are now.
    pub fn read() -> Result<Self> {
        Ok(Self {
            overflows: netstat("ListenOverflows")?,
            drops: netstat("ListenDrops")?,
            cookies: netstat("TCPReqQFullDoCookies")?,
            request_drops: netstat("TCPReqQFullDrop")?,
        })
    }

    /// What was counted since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            overflows: self.overflows - before.overflows,
            drops: self.drops - before.drops,
            cookies: self.cookies - before.cookies,
            request_drops: self.request_drops - before.request_drops,
        }
    }
}

/// Goes into a network namespace where nothing happens.
pub fn quiet() -> Result<()> {
    sys::unshare(libc::CLONE_NEWNET)?;
    sys::loopback_up()?;
    Ok(())
}

fn set(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    fs::write(&path, value).with_context(|| format!("cannot write {path}"))
}

/// Addresses and ports of clients, as `address port`.
fn names(clients: &[OwnedFd], address: &str) -> Result<Vec<String>> {
    clients
        .iter()
        .map(|client| {
            let port = SockAddr::bound_to(client)?.port().context("no port")?;
            Ok(format!("{address} {port}"))
        })
        .collect()
}

/// Waits until so many packets have found a full queue.
pub fn wait_for_overflows(before: Counters, least: u64) -> Result<()> {
    wait::until_true("overflows", || {
        Ok(Counters::read()?.since(before).overflows >= least)
    })
}

/// Packets that were received in the calling thread's network namespace, and that were sent: where
/// there is only the loopback interface, the same by and by.
fn packets() -> Result<(u64, u64)> {
    // There is none without IPv6.
    let ipv6 = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap_or_default();
    let of_ipv6 = |wanted: &str| -> u64 {
        ipv6.lines()
            .filter_map(|line| line.split_once(char::is_whitespace))
            .filter(|(name, _)| *name == wanted)
            .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
            .sum()
    };
    Ok((
        counter("snmp", "Ip:", "InReceives")? + of_ipv6("Ip6InReceives"),
        counter("snmp", "Ip:", "OutRequests")? + of_ipv6("Ip6OutRequests"),
    ))
}

/// Waits until no packet is under way any more, and says what was counted by then. A SYN that was
/// sent may still wait for a processor that is busy, and one that was received for its end.
pub fn settled() -> Result<Counters> {
    wait::until("packets to arrive", || {
        let before = packets()?;
        // The kernel handles a packet within an RCU read-side section.
        sys::wait_for_readers()?;
        let counted = Counters::read()?;
        let is_quiet = before.0 == before.1 && packets()? == before;
        Ok(is_quiet.then_some(counted))
    })
}

fn one_failure(stage: &mut Stage, process: &Process, failure: Failures) -> Result<()> {
    ensure!(failure.count > 0, "nothing failed");
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![failure],
        accepted: 0,
        ..Tally::default()
    })
}

/// SYNs that find the accept queue full.
pub fn syn_overflow(stage: &mut Stage) -> Result<()> {
    quiet()?;
    syn_overflow_of(stage, &Listening::tcp4(2)?, "127.0.0.1")
}

/// The same by IPv6.
pub fn syn_overflow_ipv6(stage: &mut Stage) -> Result<()> {
    quiet()?;
    syn_overflow_of(stage, &Listening::tcp6(2)?, "::1")
}

/// The same at a listener of MPTCP, for clients that come by TCP.
pub fn syn_overflow_mptcp(stage: &mut Stage) -> Result<()> {
    quiet()?;
    syn_overflow_of(stage, &Listening::mptcp(2)?, "127.0.0.1")
}

/// The same for clients that send data with their SYN, to a listener that takes it.
pub fn syn_overflow_fast_open(stage: &mut Stage) -> Result<()> {
    quiet()?;
    // Both sides, without cookies.
    set("tcp_fastopen", "0x207")?;
    let listening = Listening::tcp4(2)?;
    sys::fast_open(listening.socket(), 16)?;
    let ask = || -> Result<OwnedFd> {
        let client = listening.client()?;
        sys::set_nonblocking(&client)?;
        match sys::send_with_syn(&client, listening.target(), b"question") {
            Ok(()) | Err(Errno(libc::EINPROGRESS)) => Ok(client),
            Err(errno) => Err(errno).context("cannot send with a SYN"),
        }
    };
    let _queued: Vec<OwnedFd> = (0..3).map(|_| ask()).collect::<Result<_>>()?;
    listening.wait_for_queue(3)?;
    ensure!(
        netstat("TCPFastOpenPassive")? == 3,
        "data with a SYN was not taken"
    );
    let process = Process::current()?;
    stage.ready()?;
    let before = Counters::read()?;
    let clients: Vec<OwnedFd> = (0..5).map(|_| ask()).collect::<Result<_>>()?;
    let peers = names(&clients, "127.0.0.1")?;
    wait_for_overflows(before, 6)?;
    drop(clients);
    let counted = settled()?.since(before);
    ensure!(counted.overflows == counted.drops, "{counted:?}");
    let mut failure = Failures::of_listener(
        "queue.syn_overflow",
        process.clone(),
        listening.truth(3),
        counted.overflows,
    )
    .held_by(&[process.pid]);
    failure.peers = peers;
    one_failure(stage, &process, failure)
}

fn syn_overflow_of(stage: &mut Stage, listening: &Listening, address: &str) -> Result<()> {
    // The kernel lets one more in than the backlog.
    let _queued = listening.queue_up(3)?;
    let process = Process::current()?;
    stage.ready()?;
    let before = Counters::read()?;
    let clients = listening.begin_many(5)?;
    let peers = names(&clients, address)?;
    // The last comes when one of them tries again: packets are counted, not clients.
    wait_for_overflows(before, 6)?;
    drop(clients);
    let counted = settled()?.since(before);
    ensure!(counted.overflows == counted.drops, "{counted:?}");
    let mut truth = listening.truth(3);
    // What listens for an MPTCP socket is a TCP socket of its own.
    truth.protocol = Some("tcp".to_owned());
    let mut failure = Failures::of_listener(
        "queue.syn_overflow",
        process.clone(),
        truth,
        counted.overflows,
    )
    .held_by(&[process.pid]);
    failure.peers = peers;
    one_failure(stage, &process, failure)
}

/// The last ACKs of handshakes that find the accept queue full.
pub fn ack_overflow(stage: &mut Stage) -> Result<()> {
    quiet()?;
    ack_overflow_of(
        stage,
        &Listening::tcp4(8)?,
        "queue.ack_overflow",
        "127.0.0.1",
    )
}

/// The same by IPv6.
pub fn ack_overflow_ipv6(stage: &mut Stage) -> Result<()> {
    quiet()?;
    ack_overflow_of(stage, &Listening::tcp6(8)?, "queue.ack_overflow", "::1")
}

/// An IPv6 listener, IPv4 clients: the kernel goes through both families' functions.
pub fn ack_overflow_dual_stack(stage: &mut Stage) -> Result<()> {
    quiet()?;
    let listening = Listening::dual_stack(8)?;
    ack_overflow_of(stage, &listening, "queue.ack_overflow", "127.0.0.1")
}

/// The same, where the kernel resets them.
pub fn rst_overflow(stage: &mut Stage) -> Result<()> {
    quiet()?;
    set("tcp_abort_on_overflow", "1")?;
    ack_overflow_of(
        stage,
        &Listening::tcp4(8)?,
        "queue.rst_overflow",
        "127.0.0.1",
    )
}

/// Handshakes end when clients send something, so that they can be begun while there is room
/// and ended when there is none.
fn ack_overflow_of(
    stage: &mut Stage,
    listening: &Listening,
    reason: &str,
    address: &str,
) -> Result<()> {
    const BACKLOG: u32 = 8;
    sys::defer_accept(listening.socket(), 60)?;
    let connect = |count| {
        (0..count)
            .map(|_| {
                let client = listening.client()?;
                listening.connect(&client)?;
                Ok(client)
            })
            .collect::<Result<Vec<_>>>()
    };
    let speak = |clients: &[OwnedFd]| clients.iter().try_for_each(sys::write_byte);
    let queued = connect(BACKLOG)?;
    speak(&queued)?;
    listening.wait_for_queue(BACKLOG)?;
    let mut clients = connect(BACKLOG)?;
    // One more fits, the others do not. A poll sees the same length all the time.
    let fits = clients.split_off(clients.len() - 1);
    speak(&fits)?;
    listening.wait_for_queue(BACKLOG + 1)?;
    let peers = names(&clients, address)?;
    let process = Process::current()?;
    stage.ready()?;
    let before = Counters::read()?;
    for client in &clients {
        // One that was reset cannot say so before.
        let _ = sys::write_byte(client);
    }
    wait_for_overflows(before, u64::from(BACKLOG) - 1)?;
    drop(clients);
    let counted = settled()?.since(before);
    ensure!(counted.overflows == counted.drops, "{counted:?}");
    let truth = listening.truth(BACKLOG + 1);
    let mut failure = Failures::of_listener(reason, process.clone(), truth, counted.overflows)
        .held_by(&[process.pid]);
    failure.peers = peers;
    one_failure(stage, &process, failure)
}

/// SYNs that find the request queue full, and no cookies.
pub fn syn_flood(stage: &mut Stage) -> Result<()> {
    quiet()?;
    set("tcp_syncookies", "0")?;
    flood(stage, 4, 4)
}

/// SYNs that the kernel drops before the request queue is full: the last quarter of what
/// `tcp_max_syn_backlog` allows is for peers that it knows.
pub fn syn_backlog(stage: &mut Stage) -> Result<()> {
    quiet()?;
    set("tcp_syncookies", "0")?;
    set("tcp_max_syn_backlog", "8")?;
    flood(stage, 64, 7)
}

fn flood(stage: &mut Stage, backlog: u32, requests: usize) -> Result<()> {
    let listening = Listening::tcp4(backlog)?;
    sys::defer_accept(listening.socket(), 60)?;
    let begun = listening.begin_many(requests)?;
    let process = Process::current()?;
    stage.ready()?;
    let before = Counters::read()?;
    let clients = listening.begin_many(5)?;
    let peers = names(&clients, "127.0.0.1")?;
    wait::until_true("drops", || Ok(Counters::read()?.since(before).drops >= 5))?;
    drop(clients);
    let counted = settled()?.since(before);
    ensure!(
        counted.overflows == 0 && counted.cookies == 0,
        "{counted:?}"
    );
    let mut failure = Failures::of_listener(
        "queue.syn_flood",
        process.clone(),
        listening.truth(0),
        counted.drops,
    )
    .held_by(&[process.pid]);
    failure.peers = peers;
    if counted.request_drops == 0 {
        // The kernel has no counter for these, so that a poll cannot tell.
        failure.polled = Some("queue.dropped".to_owned());
    } else {
        ensure!(counted.request_drops == counted.drops, "{counted:?}");
    }
    drop(begun);
    one_failure(stage, &process, failure)
}

/// Cookies are no failures.
pub fn cookies(stage: &mut Stage) -> Result<()> {
    quiet()?;
    set("tcp_syncookies", "1")?;
    let listening = Listening::tcp4(4)?;
    sys::defer_accept(listening.socket(), 60)?;
    let begun = listening.begin_many(4)?;
    let process = Process::current()?;
    stage.ready()?;
    let before = Counters::read()?;
    let mut clients = Vec::new();
    // From how many requests on the queue is full differs by one between kernels.
    while clients.len() < 4 && settled()?.since(before).cookies < 3 {
        clients.push(listening.begin()?);
    }
    // What is put off would be queued after some seconds, and find no room.
    drop((begun, clients));
    let counted = settled()?.since(before);
    ensure!(counted.drops == 0 && counted.cookies >= 3, "{counted:?}");
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: Vec::new(),
        accepted: 0,
        listening: vec![Listened {
            inode: listening.truth(0).inode.context("no inode")?,
            cookies: counted.cookies,
            ..Listened::default()
        }],
    })
}

/// Two listeners share a port; nobody accepts on one of them.
pub fn reuseport(stage: &mut Stage) -> Result<()> {
    quiet()?;
    let served = Listening::sharing(0, 64)?;
    let stuck = Listening::sharing(served.port()?, 1)?;
    let process = Process::current()?;
    stage.ready()?;
    let before = Counters::read()?;
    let mut clients = Vec::new();
    // Which of the two a client gets is by chance.
    wait::until_true("overflows of the one that is stuck", || {
        clients.push(served.begin()?);
        while sys::poll_readable(served.fd(), Duration::ZERO)? {
            drop(sys::accept4(served.fd(), 0)?);
        }
        Ok(Counters::read()?.since(before).overflows >= 5)
    })?;
    drop(clients);
    report_syns(stage, &process, stuck.truth(2), before)
}

/// Reports what was dropped since then: SYNs, all at the same listener of this process.
pub(super) fn report_syns(
    stage: &mut Stage,
    process: &Process,
    truth: Listener,
    before: Counters,
) -> Result<()> {
    let counted = settled()?.since(before);
    ensure!(counted.overflows == counted.drops, "{counted:?}");
    let (reason, count) = ("queue.syn_overflow", counted.overflows);
    let failure =
        Failures::of_listener(reason, process.clone(), truth, count).held_by(&[process.pid]);
    one_failure(stage, process, failure)
}

/// A listener that overflows and is gone, with its process and its namespace, before anybody
/// can look.
pub fn closed_at_once(stage: &mut Stage) -> Result<()> {
    let own = Process::current()?;
    stage.ready()?;
    let (reader, writer) = sys::pipe()?;
    sys::fork(|| {
        quiet()?;
        let listening = Listening::tcp4(2)?;
        let _queued = listening.queue_up(3)?;
        let before = Counters::read()?;
        let clients = listening.begin_many(5)?;
        wait_for_overflows(before, 5)?;
        drop(clients);
        let counted = settled()?.since(before);
        let truth = serde_json::to_vec(&(
            Process::current()?.pid,
            listening.truth(3),
            counted.overflows,
        ))?;
        let written = unistd_write(&writer, &truth)?;
        ensure!(written == truth.len(), "a short write");
        Ok(())
    })?
    .wait()?;
    let mut truth = vec![0; 4096];
    let read = unistd_read(&reader, &mut truth)?;
    let (pid, listener, count) = serde_json::from_slice(&truth[..read])?;
    // Whether somebody could look at it in time is by chance.
    let mut failure =
        Failures::of_listener("queue.syn_overflow", Process::default(), listener, count)
            .held_by(&[]);
    failure.process.pid = 0;
    stage.report(&Tally {
        pids: vec![own.pid, pid, 0],
        failures: vec![failure],
        accepted: 0,
        ..Tally::default()
    })
}

pub(super) fn unistd_write(fd: &OwnedFd, bytes: &[u8]) -> Result<usize> {
    use std::io::Write as _;
    Ok(fs::File::from(fd.try_clone()?).write(bytes)?)
}

pub(super) fn unistd_read(fd: &OwnedFd, bytes: &mut [u8]) -> Result<usize> {
    use std::io::Read as _;
    Ok(fs::File::from(fd.try_clone()?).read(bytes)?)
}

/// A jiffy is at most this long.
const JIFFY: Duration = Duration::from_millis(10);

/// Connections that wait before they are accepted: two for long, one not.
pub fn slow(stage: &mut Stage) -> Result<()> {
    const WAIT: Duration = Duration::from_millis(700);
    quiet()?;
    let listening = Listening::tcp4(16)?;
    let process = Process::current()?;
    stage.ready()?;
    let _swift = listening.queue_up(1)?;
    drop(sys::accept4(listening.fd(), 0)?);
    let begun = Instant::now();
    let _slow = listening.queue_up(2)?;
    let queued = Instant::now();
    // Not a wait for something: it is the time that is under test.
    std::thread::sleep(WAIT);
    let waited = queued.elapsed();
    drop(sys::accept4(listening.fd(), 0)?);
    drop(sys::accept4(listening.fd(), 0)?);
    let at_most = begun.elapsed();
    let mut truth = listening.truth_of_any_queue();
    truth.queue = None;
    let mut failure = Failures::of_listener("queue.slow", process.clone(), truth, 2);
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos());
    failure.waited = Some((
        nanos(waited.saturating_sub(2 * JIFFY))?,
        nanos(at_most + 2 * JIFFY)?,
    ));
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![failure],
        accepted: 3,
        listening: vec![Listened {
            inode: listening.truth(0).inode.context("no inode")?,
            accepted: 3,
            waited: Some((nanos(waited.saturating_sub(2 * JIFFY))?, 2, 1)),
            ..Listened::default()
        }],
    })
}

/// Connections wait, and nobody accepts for a while, then somebody does.
pub fn stalled(stage: &mut Stage) -> Result<()> {
    // Where processors are emulated, everything takes longer.
    let stall = Duration::from_millis(if is_guest() { 10_000 } else { 4_200 });
    quiet()?;
    let listening = Listening::tcp4(16)?;
    let process = Process::current()?;
    stage.ready()?;
    let begun = Instant::now();
    let clients = listening.queue_up(2)?;
    std::thread::sleep(stall);
    drop(sys::accept4(listening.fd(), 0)?);
    drop(sys::accept4(listening.fd(), 0)?);
    let ended = begun.elapsed();
    // Which of the two is the oldest, the kernel knows to a jiffy only.
    let address = names(&clients, "127.0.0.1")?;
    let mut truth = listening.truth_of_any_queue();
    truth.queue = None;
    let mut failure =
        Failures::of_listener("queue.stalled", process.clone(), truth, 1).held_by(&[process.pid]);
    failure.peers = address;
    // One when it began, one when it ended.
    failure.shown = Some(2);
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos());
    failure.waited = Some((
        nanos(Duration::from_secs(2))?,
        // The end is seen by the look that follows.
        nanos(ended + Duration::from_secs(5))?,
    ));
    one_failure(stage, &process, failure)
}

/// An accept loop that ends with its first error: the process lives, and never accepts again.
pub fn silent_after_one_error(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 64;
    let silence = Duration::from_millis(if is_guest() { 10_000 } else { 4_200 });
    quiet()?;
    let listening = Listening::tcp4(16)?;
    let process = Process::current()?;
    stage.ready()?;
    let clients = listening.queue_up(2)?;
    let full = Full::at(LIMIT)?;
    let errno = fail(Call::Accept4, listening.fd(), libc::EMFILE, 1)?;
    drop(full);
    // Nothing happens any more, which is what is under test.
    std::thread::sleep(silence);
    let failed =
        Failures::new(process.clone(), listening.truth(2), Call::Accept4, errno, 1).at_limit(LIMIT);
    let mut stalled =
        Failures::of_listener("queue.stalled", process.clone(), listening.truth(2), 1)
            .held_by(&[process.pid]);
    stalled.peers = names(&clients, "127.0.0.1")?;
    // It lasts, as long as anybody looks.
    stalled.shown = Some(1);
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos());
    stalled.waited = Some((nanos(Duration::from_secs(2))?, u64::MAX));
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![failed, stalled],
        accepted: 0,
        ..Tally::default()
    })
}

/// A listener is closed while connections wait: the kernel resets them.
pub fn abandoned(stage: &mut Stage) -> Result<()> {
    quiet()?;
    let listening = Listening::tcp4(16)?;
    let port = u32::from(listening.port()?);
    let clients = listening.queue_up(5)?;
    let truth = listening.truth(queued_connections(port)?);
    let process = Process::current()?;
    stage.ready()?;
    drop(listening);
    let mut reset = 0;
    for client in &clients {
        // A reset connection is readable, and reading tells why.
        ensure!(
            sys::poll_readable(client.as_raw_fd(), Duration::from_secs(10))?,
            "nothing happened to a client"
        );
        let mut byte = [0];
        let error = unistd_read(client, &mut byte).err();
        let error = error.and_then(|error| error.downcast::<std::io::Error>().ok());
        reset += u64::from(error.and_then(|error| error.raw_os_error()) == Some(libc::ECONNRESET));
    }
    let mut failure = Failures::of_listener("queue.abandoned", process.clone(), truth, reset);
    failure.shown = Some(1);
    one_failure(stage, &process, failure)
}

/// One of two workers that share a port goes: what waits in its queue is lost, what waits in the
/// other's is not.
pub fn worker_exit(stage: &mut Stage) -> Result<()> {
    quiet()?;
    let stays = Listening::sharing(0, 64)?;
    let goes = Listening::sharing(stays.port()?, 64)?;
    let clients = (0..40)
        .map(|_| {
            let client = stays.client()?;
            stays.connect(&client)?;
            Ok(client)
        })
        .collect::<Result<Vec<_>>>()?;
    stays.wait_for_queue(40)?;
    let process = Process::current()?;
    stage.ready()?;
    let truth = goes.truth_of_any_queue();
    drop(goes);
    let mut reset = 0;
    for client in &clients {
        if sys::poll_readable(client.as_raw_fd(), Duration::ZERO)? {
            reset += 1;
        }
    }
    ensure!(reset < 40, "all were the one's that goes");
    let mut failure = Failures::of_listener("queue.abandoned", process.clone(), truth, reset);
    failure.shown = Some(1);
    one_failure(stage, &process, failure)
}

/// The master listens, a worker accepts: the worker is the one, and both hold the listener.
pub fn prefork(stage: &mut Stage) -> Result<()> {
    quiet()?;
    let listening = Listening::tcp4(2)?;
    let master = Process::current()?;
    let (reader, writer) = sys::pipe()?;
    let (wait, end) = sys::pipe()?;
    let worker = sys::fork(|| {
        let own = serde_json::to_vec(&Process::current()?)?;
        unistd_write(&writer, &own)?;
        let accepted = sys::accept(listening.fd())?;
        unistd_write(&writer, b"!")?;
        // Busy with it until the end.
        unistd_read(&wait, &mut [0])?;
        drop(accepted);
        Ok(())
    })?;
    let mut text = vec![0; 4096];
    let read = unistd_read(&reader, &mut text)?;
    let acceptor: Process = serde_json::from_slice(&text[..read])?;
    stage.ready()?;
    let _first = listening.queue_up_any()?;
    unistd_read(&reader, &mut [0])?;
    let _queued = listening.queue_up(3)?;
    let before = Counters::read()?;
    let clients = listening.begin_many(5)?;
    wait_for_overflows(before, 5)?;
    drop(clients);
    let counted = settled()?.since(before);
    let failure = Failures::of_listener(
        "queue.syn_overflow",
        acceptor.clone(),
        listening.truth(3),
        counted.overflows,
    )
    .held_by(&[master.pid, acceptor.pid]);
    stage.report(&Tally {
        pids: vec![master.pid, acceptor.pid],
        failures: vec![failure],
        accepted: 1,
        ..Tally::default()
    })?;
    unistd_write(&end, b"!")?;
    worker.wait()
}

/// A listener that had failures is closed: that is part of what happened. One that had none is
/// closed too, which is of no matter.
pub fn listener_closed(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 40;
    quiet()?;
    let listening = Listening::tcp4(16)?;
    let quiet_one = Listening::tcp4(16)?;
    let process = Process::current()?;
    stage.ready()?;
    let errno = {
        let _full = Full::at(LIMIT)?;
        fail(Call::Accept4, listening.fd(), libc::EMFILE, 3)?
    };
    let truth = listening.truth(0);
    drop(quiet_one);
    drop(listening);
    let mut closed = Failures::of_listener("listener.closed", process.clone(), truth.clone(), 1);
    closed.listener.queue = None;
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![
            Failures::new(process, truth, Call::Accept4, errno, 3).at_limit(LIMIT),
            closed,
        ],
        accepted: 0,
        ..Tally::default()
    })
}
