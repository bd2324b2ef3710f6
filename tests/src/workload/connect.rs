//! Programs that cannot connect, and programs that can.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail, ensure};

use super::denied::{SecurityModule, btf_function};
use super::listening::Listening;
use super::processes::{Family, PATIENCE};
use super::{Stage, fail_at};
use crate::sys::{self, Call, Errno, SockAddr};
use crate::truth::{Failures, Process, Tally};
use crate::wait;

/// A SYN is sent twice, and given up after three seconds.
const SYN_RETRIES: i32 = 1;

/// A port where nobody listens, kept by a socket that is bound to it.
struct Closed {
    _socket: OwnedFd,
    address: SocketAddr,
}

impl Closed {
    fn new(address: SocketAddr) -> Result<Self> {
        let family = if address.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let socket = sys::socket(family, libc::SOCK_STREAM, 0)?;
        sys::bind(&socket, &SockAddr::inet(address))?;
        let port = SockAddr::bound_to(&socket)?.port().context("no port")?;
        Ok(Self {
            _socket: socket,
            address: SocketAddr::new(address.ip(), u16::try_from(port)?),
        })
    }

    fn v4() -> Result<Self> {
        Self::new((Ipv4Addr::LOCALHOST, 0).into())
    }

    fn sock(&self) -> SockAddr {
        SockAddr::inet(self.address)
    }

    fn name(&self) -> String {
        name(self.address)
    }
}

/// As records have it.
fn name(address: SocketAddr) -> String {
    format!("{} {}", address.ip(), address.port())
}

/// A new socket for an address of the Internet.
fn tcp(address: SocketAddr) -> Result<OwnedFd> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    Ok(sys::socket(family, libc::SOCK_STREAM, 0)?)
}

fn wait_for_error(socket: &OwnedFd) -> Result<Errno> {
    ensure!(
        sys::poll_writable(socket.as_raw_fd(), PATIENCE)?,
        "the connection neither came nor failed"
    );
    Ok(sys::take_error(socket)?)
}

/// Begins to connect and learns of the result from `SO_ERROR`.
fn connect_later(socket: &OwnedFd, target: &SockAddr) -> Result<Errno> {
    sys::set_nonblocking(socket)?;
    match sys::connect(socket, target) {
        Err(Errno(libc::EINPROGRESS)) => wait_for_error(socket),
        Err(errno) => Ok(errno),
        Ok(()) => Ok(Errno(0)),
    }
}

fn expect(got: Errno, wanted: i32) -> Result<Errno> {
    ensure!(
        got == Errno(wanted),
        "{got:?} instead of {:?}",
        Errno(wanted)
    );
    Ok(got)
}

fn tally(process: &Process, failures: Vec<Failures>) -> Tally {
    Tally {
        pids: vec![process.pid],
        failures,
        accepted: 0,
        ..Tally::default()
    }
}

fn nothing(stage: &mut Stage, process: &Process) -> Result<()> {
    stage.report(&tally(process, Vec::new()))
}

/// Connects to ports where nobody listens, waiting or not.
fn refused_at(stage: &mut Stage, closed: &Closed, count: u64) -> Result<()> {
    let process = Process::current()?;
    let limit = sys::nofile()?.0;
    stage.ready()?;
    let errno = fail_at(libc::ECONNREFUSED, count, || {
        let socket = tcp(closed.address).map_err(|_| Errno(0))?;
        sys::connect(&socket, &closed.sock())
    })?;
    for _ in 0..count {
        let got = connect_later(&tcp(closed.address)?, &closed.sock())?;
        expect(got, libc::ECONNREFUSED)?;
    }
    let failures =
        Failures::connect(process.clone(), &closed.name(), errno, 2 * count).at_limit(limit);
    stage.report(&tally(&process, vec![failures.begun()]))
}

/// By IPv4.
pub fn refused(stage: &mut Stage) -> Result<()> {
    refused_at(stage, &Closed::v4()?, 25)
}

/// By IPv6.
pub fn refused_ipv6(stage: &mut Stage) -> Result<()> {
    refused_at(stage, &Closed::new((Ipv6Addr::LOCALHOST, 0).into())?, 17)
}

/// A program that tries again and again.
pub fn spin(stage: &mut Stage) -> Result<()> {
    refused_at(stage, &Closed::v4()?, 5_000)
}

/// IPv4 through an IPv6 socket is IPv4.
pub fn mapped(stage: &mut Stage) -> Result<()> {
    let closed = Closed::v4()?;
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let target = SocketAddr::new(mapped.into(), closed.address.port());
    let process = Process::current()?;
    stage.ready()?;
    let errno = fail_at(libc::ECONNREFUSED, 8, || {
        let socket = tcp(target).map_err(|_| Errno(0))?;
        sys::connect(&socket, &SockAddr::inet(target))
    })?;
    let failures = Failures::connect(process.clone(), &closed.name(), errno, 8).begun();
    stage.report(&tally(&process, vec![failures]))
}

/// MPTCP's connections are TCP's too, and are counted once.
pub fn mptcp(stage: &mut Stage) -> Result<()> {
    let closed = Closed::v4()?;
    let process = Process::current()?;
    let socket = || sys::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP);
    stage.ready()?;
    let errno = fail_at(libc::ECONNREFUSED, 9, || {
        sys::connect(&socket()?, &closed.sock())
    })?;
    for _ in 0..9 {
        let got = connect_later(&socket()?, &closed.sock())?;
        expect(got, libc::ECONNREFUSED)?;
    }
    let failures = Failures::connect(process.clone(), &closed.name(), errno, 18).begun();
    stage.report(&tally(&process, vec![failures]))
}

/// Every second connection is made.
pub fn mixed(stage: &mut Stage) -> Result<()> {
    const EACH: u64 = 50;
    let closed = Closed::v4()?;
    let listening = Listening::tcp4(16)?;
    let process = Process::current()?;
    stage.ready()?;
    let mut refused = 0;
    for number in 0..EACH {
        let client = listening.client()?;
        if number % 2 == 0 {
            listening.connect(&client)?;
        } else {
            expect(connect_later(&client, listening.target())?, 0)?;
        }
        drop(sys::accept(listening.fd())?);
        let got = sys::connect(&tcp(closed.address)?, &closed.sock());
        refused += u64::from(got == Err(Errno(libc::ECONNREFUSED)));
    }
    ensure!(refused == EACH, "{refused} of {EACH} were refused");
    let errno = Errno(libc::ECONNREFUSED);
    let failures = Failures::connect(process.clone(), &closed.name(), errno, refused).begun();
    stage.report(&Tally {
        accepted: EACH,
        ..tally(&process, vec![failures])
    })
}

/// Many targets, each of which is a key of its own.
pub fn many_targets(stage: &mut Stage) -> Result<()> {
    const EACH: u64 = 3;
    let closed = (0..40)
        .map(|_| Closed::v4())
        .collect::<Result<Vec<Closed>>>()?;
    let process = Process::current()?;
    stage.ready()?;
    let mut failures = Vec::new();
    for closed in &closed {
        let errno = fail_at(libc::ECONNREFUSED, EACH, || {
            let socket = tcp(closed.address).map_err(|_| Errno(0))?;
            sys::connect(&socket, &closed.sock())
        })?;
        failures.push(Failures::connect(process.clone(), &closed.name(), errno, EACH).begun());
    }
    stage.report(&tally(&process, failures))
}

/// A network of its own with a listener whose queue is full: it answers no SYN.
struct Silent {
    listening: Listening,
    _clients: Vec<OwnedFd>,
}

impl Silent {
    fn new() -> Result<Self> {
        sys::unshare(libc::CLONE_NEWNET)?;
        sys::loopback_up()?;
        let listening = Listening::tcp4(1)?;
        // One more than the backlog fits.
        let clients = listening.queue_up(2)?;
        Ok(Self {
            listening,
            _clients: clients,
        })
    }

    /// A client that gives up soon.
    fn client(&self) -> Result<OwnedFd> {
        let socket = self.listening.client()?;
        sys::set_syn_retries(&socket, SYN_RETRIES)?;
        Ok(socket)
    }

    fn name(&self) -> Result<String> {
        Ok(format!("127.0.0.1 {}", self.listening.port()?))
    }

    /// Connections that time out, where `server` listens.
    fn timeouts(&self, process: &Process, server: u32, count: u64) -> Result<Failures> {
        let errno = Errno(libc::ETIMEDOUT);
        let far = self.listening.truth(0).from_afar();
        Ok(
            Failures::connect(process.clone(), &self.name()?, errno, count)
                .begun()
                .at(far, server),
        )
    }
}

/// Connections that nobody answers, waiting and not: both ends are named.
pub fn timeout(stage: &mut Stage) -> Result<()> {
    const LATER: u64 = 6;
    let silent = Silent::new()?;
    let process = Process::current()?;
    stage.ready()?;
    let waiting = (0..LATER)
        .map(|_| {
            let client = silent.client()?;
            sys::set_nonblocking(&client)?;
            let got = sys::connect(&client, silent.listening.target());
            ensure!(got == Err(Errno(libc::EINPROGRESS)), "{got:?}");
            Ok(client)
        })
        .collect::<Result<Vec<OwnedFd>>>()?;
    fail_at(libc::ETIMEDOUT, 1, || {
        let client = silent.client().map_err(|_| Errno(0))?;
        sys::connect(&client, silent.listening.target())
    })?;
    for client in &waiting {
        expect(wait_for_error(client)?, libc::ETIMEDOUT)?;
    }
    let failures = silent.timeouts(&process, process.pid, LATER + 1)?;
    stage.report(&tally(&process, vec![failures]))
}

/// connect is interrupted, called again, times out on its own, is called again, and at last
/// hands out the error: one failure each.
pub fn called_again(stage: &mut Stage) -> Result<()> {
    let silent = Silent::new()?;
    let process = Process::current()?;
    stage.ready()?;
    let target = silent.listening.target();

    let polling = silent.client()?;
    sys::set_nonblocking(&polling)?;
    let mut already = 0;
    let got = loop {
        match sys::connect(&polling, target) {
            Err(Errno(libc::EINPROGRESS)) => {}
            Err(Errno(libc::EALREADY)) => already += 1,
            other => break other,
        }
        thread::sleep(Duration::from_millis(5));
    };
    ensure!(got == Err(Errno(libc::ETIMEDOUT)) && already > 0, "{got:?}");

    let patient = silent.client()?;
    sys::set_send_timeout(&patient, Duration::from_millis(100))?;
    let mut timeouts = 0;
    let got = loop {
        match sys::connect(&patient, target) {
            Err(Errno(libc::EINPROGRESS | libc::EALREADY)) => timeouts += 1,
            other => break other,
        }
    };
    ensure!(
        got == Err(Errno(libc::ETIMEDOUT)) && timeouts > 0,
        "{got:?}"
    );

    let interrupted = silent.client()?;
    sys::alarm_every(Duration::from_millis(20), false)?;
    let mut signals = 0;
    let got = loop {
        match sys::connect(&interrupted, target) {
            Err(Errno(libc::EINTR | libc::EALREADY)) => signals += 1,
            other => break other,
        }
    };
    sys::stop_alarm()?;
    ensure!(got == Err(Errno(libc::ETIMEDOUT)) && signals > 0, "{got:?}");

    let failures = silent.timeouts(&process, process.pid, 3)?;
    stage.report(&tally(&process, vec![failures]))
}

/// The error is taken from `SO_ERROR` or by a second connect, or by both.
pub fn told_twice(stage: &mut Stage) -> Result<()> {
    const EACH: u64 = 12;
    let closed = Closed::v4()?;
    let process = Process::current()?;
    let begin = || -> Result<OwnedFd> {
        let socket = tcp(closed.address)?;
        sys::set_nonblocking(&socket)?;
        let got = sys::connect(&socket, &closed.sock());
        ensure!(got == Err(Errno(libc::EINPROGRESS)), "{got:?}");
        ensure!(
            sys::poll_writable(socket.as_raw_fd(), PATIENCE)?,
            "nothing came"
        );
        Ok(socket)
    };
    stage.ready()?;
    for _ in 0..EACH {
        // The second connect says it.
        let socket = begin()?;
        let got = sys::connect(&socket, &closed.sock());
        ensure!(got == Err(Errno(libc::ECONNREFUSED)), "{got:?}");
        // SO_ERROR says it, and the second connect that there was something.
        let socket = begin()?;
        expect(sys::take_error(&socket)?, libc::ECONNREFUSED)?;
        let got = sys::connect(&socket, &closed.sock());
        ensure!(got == Err(Errno(libc::ECONNABORTED)), "{got:?}");
        // The same socket is used for another attempt.
        expect(connect_later(&socket, &closed.sock())?, libc::ECONNREFUSED)?;
        // Nobody asks.
        drop(begin()?);
    }
    let errno = Errno(libc::ECONNREFUSED);
    let failures = Failures::connect(process.clone(), &closed.name(), errno, 4 * EACH).begun();
    stage.report(&tally(&process, vec![failures]))
}

/// Connections that are closed while they are being made: nothing failed.
pub fn given_up(stage: &mut Stage) -> Result<()> {
    let silent = Silent::new()?;
    let process = Process::current()?;
    stage.ready()?;
    for number in 0..200 {
        let client = if number % 2 == 0 {
            silent.client()?
        } else {
            // One that does not reset.
            sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?
        };
        sys::set_nonblocking(&client)?;
        let got = sys::connect(&client, silent.listening.target());
        ensure!(got == Err(Errno(libc::EINPROGRESS)), "{got:?}");
    }
    nothing(stage, &process)
}

/// Ten thousand connections that are made without waiting and closed at once.
pub fn good(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(64)?;
    sys::set_nonblocking(listening.socket())?;
    let process = Process::current()?;
    stage.ready()?;
    let mut accepted = 0;
    for _ in 0..10_000 {
        let client = listening.client()?;
        sys::set_nonblocking(&client)?;
        match sys::connect(&client, listening.target()) {
            Ok(()) | Err(Errno(libc::EINPROGRESS)) => {}
            Err(errno) => bail!("connect returned {errno:?}"),
        }
        drop(client);
        while sys::accept4(listening.fd(), 0).is_ok() {
            accepted += 1;
        }
    }
    stage.report(&Tally {
        accepted,
        ..tally(&process, Vec::new())
    })
}

/// A network without routes, for TCP; and resolvers, which look for routes with UDP sockets.
pub fn unreachable(stage: &mut Stage) -> Result<()> {
    sys::unshare(libc::CLONE_NEWNET)?;
    let process = Process::current()?;
    let (near, far) = (
        SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
        SocketAddr::from(([10, 1, 2, 3], 5432)),
    );
    stage.ready()?;
    let mut failures = Vec::new();
    for (target, count) in [(near, 9), (far, 14)] {
        let errno = fail_at(libc::ENETUNREACH, count, || {
            let socket = tcp(target).map_err(|_| Errno(0))?;
            sys::set_nonblocking(&socket)?;
            sys::connect(&socket, &SockAddr::inet(target))
        })?;
        failures.push(Failures::connect(
            process.clone(),
            &name(target),
            errno,
            count,
        ));
        fail_at(libc::ENETUNREACH, 30, || {
            let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
            sys::connect(&socket, &SockAddr::inet(target))
        })?;
    }
    stage.report(&tally(&process, failures))
}

/// Every local port is in use towards one target.
pub fn no_port(stage: &mut Stage) -> Result<()> {
    sys::unshare(libc::CLONE_NEWNET)?;
    sys::loopback_up()?;
    let listening = Listening::tcp4(16)?;
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20003")
        .context("cannot narrow the range of ports")?;
    let process = Process::current()?;
    stage.ready()?;
    let mut clients = Vec::new();
    let first = loop {
        let client = listening.client()?;
        match sys::connect(&client, listening.target()) {
            Ok(()) => clients.push(client),
            Err(errno) => break errno,
        }
        ensure!(clients.len() <= 4, "there are more ports than there may be");
    };
    let errno = expect(first, libc::EADDRNOTAVAIL)?;
    fail_at(libc::EADDRNOTAVAIL, 6, || {
        let client = listening.client().map_err(|_| Errno(0))?;
        sys::connect(&client, listening.target())
    })?;
    let target = format!("127.0.0.1 {}", listening.port()?);
    let failures = Failures::connect(process.clone(), &target, errno, 7)
        .at(listening.truth(0).from_afar(), process.pid);
    stage.report(&tally(&process, vec![failures]))
}

/// AF_UNIX paths and names where nobody listens, or that do not exist.
pub fn unix_refused(stage: &mut Stage) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let left = dir.path().join("left behind");
    let absent = dir.path().join("never made");
    // Bound, and listening no more.
    let socket = sys::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
    sys::bind(&socket, &SockAddr::unix(left.as_os_str().as_bytes()))?;
    let hidden = format!("turnaway-nobody-{}", sys::own_pid());
    let process = Process::current()?;
    stage.ready()?;
    let mut failures = Vec::new();
    for (bytes, shown, errno, count) in [
        (
            left.as_os_str().as_bytes().to_vec(),
            left.display().to_string(),
            libc::ECONNREFUSED,
            11,
        ),
        (
            absent.as_os_str().as_bytes().to_vec(),
            absent.display().to_string(),
            libc::ENOENT,
            12,
        ),
        (
            [b"\0", hidden.as_bytes()].concat(),
            format!("@{hidden}"),
            libc::ECONNREFUSED,
            13,
        ),
    ] {
        let errno = fail_at(errno, count, || {
            let client = sys::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
            sys::connect(&client, &SockAddr::unix(&bytes))
        })?;
        failures.push(Failures::connect(process.clone(), &shown, errno, count));
    }
    // A datagram socket cannot be connected to a listener.
    let datagram = sys::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
    let listening = Listening::unix_path(1)?;
    let errno = fail_at(libc::EPROTOTYPE, 5, || {
        sys::connect(&datagram, listening.target())
    })?;
    let truth = listening.truth(0).from_afar();
    let path = truth.path.clone().context("no path")?;
    failures.push(Failures::connect(process.clone(), &path, errno, 5).at(truth, process.pid));
    stage.report(&tally(&process, failures))
}

/// A server that does not accept, and the clients of another process that find its queue full.
fn unix_full(stage: &mut Stage, listening: &Listening) -> Result<()> {
    const AT_ONCE: u64 = 33;
    const LATER: u64 = 2;
    let server = Process::current()?.pid;
    // One more than the backlog fits.
    let _clients = listening.queue_up(2)?;
    stage.ready()?;
    let mut family = Family::new()?;
    let (hold, release) = sys::pipe()?;
    let pid = family.fork(|report| {
        sys::set_thread_name(c"unix-client")?;
        sys::close_number(listening.fd());
        fail_at(libc::EAGAIN, AT_ONCE, || {
            let client = listening.client().map_err(|_| Errno(0))?;
            sys::set_nonblocking(&client)?;
            sys::connect(&client, listening.target())
        })?;
        fail_at(libc::EAGAIN, LATER, || {
            let client = listening.client().map_err(|_| Errno(0))?;
            sys::set_send_timeout(&client, Duration::from_millis(50))?;
            sys::connect(&client, listening.target())
        })?;
        report()?;
        sys::poll_readable(hold.as_raw_fd(), PATIENCE)?;
        Ok(())
    })?;
    let client = family.report_of(pid)?.short_lived();
    let truth = listening.truth(0).from_afar();
    let path = truth.path.clone().context("no path")?;
    let errno = Errno(libc::EAGAIN);
    let failures = Failures::connect(client.clone(), &path, errno, AT_ONCE + LATER);
    stage.report(&Tally {
        pids: vec![server, client.pid],
        ..tally(&client, vec![failures.at(truth, server)])
    })?;
    sys::write_byte(&release)?;
    family.wait_for_all()
}

/// With a path.
pub fn unix_full_path(stage: &mut Stage) -> Result<()> {
    unix_full(stage, &Listening::unix_path(1)?)
}

/// With an abstract name.
pub fn unix_full_abstract(stage: &mut Stage) -> Result<()> {
    unix_full(stage, &Listening::unix_abstract(1)?)
}

/// Of type SOCK_SEQPACKET.
pub fn unix_full_seqpacket(stage: &mut Stage) -> Result<()> {
    unix_full(stage, &Listening::unix_seqpacket(1)?)
}

/// A server that is late, and clients of another process that wait for it: one for long.
pub fn unix_waited(stage: &mut Stage) -> Result<()> {
    const WAIT: Duration = Duration::from_millis(900);
    let listening = Listening::unix_path(1)?;
    let server = Process::current()?.pid;
    let _clients = listening.queue_up(2)?;
    stage.ready()?;
    let mut family = Family::new()?;
    let (hold, release) = sys::pipe()?;
    let begun = Instant::now();
    let pid = family.fork(|report| {
        sys::set_thread_name(c"unix-client")?;
        let client = listening.client()?;
        listening.connect(&client)?;
        // There is room for one more by now.
        let swift = listening.client()?;
        listening.connect(&swift)?;
        report()?;
        sys::poll_readable(hold.as_raw_fd(), PATIENCE)?;
        Ok(())
    })?;
    wait::until_true("the client to wait", || {
        // The number of the call that it is blocked in.
        let call = fs::read_to_string(format!("/proc/{pid}/syscall"))?;
        Ok(call.starts_with(&format!("{} ", libc::SYS_connect)))
    })?;
    let waits = Instant::now();
    // Not a wait for something: it is the time that is under test.
    thread::sleep(WAIT);
    let least = waits.elapsed();
    for _ in 0..2 {
        drop(sys::accept4(listening.fd(), 0)?);
    }
    let client = family.report_of(pid)?.short_lived();
    let most = begun.elapsed();
    let truth = listening.truth(0).from_afar();
    let path = truth.path.clone().context("no path")?;
    let mut failures = Failures::connect(client.clone(), &path, Errno(libc::EAGAIN), 1);
    failures.errno.clear();
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos());
    failures.waited = Some((nanos(least)?, nanos(most)?));
    stage.report(&Tally {
        pids: vec![server, client.pid],
        ..tally(&client, vec![failures.at(truth, server)])
    })?;
    sys::write_byte(&release)?;
    family.wait_for_all()
}

/// Nobody may write to the socket's file.
pub fn denied(stage: &mut Stage) -> Result<()> {
    let listening = Listening::unix_path(1)?;
    let truth = listening.truth(0).from_afar();
    let path = truth.path.clone().context("no path")?;
    let dir = std::path::Path::new(&path).parent().context("no folder")?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    stage.ready()?;
    let mut family = Family::new()?;
    let (hold, release) = sys::pipe()?;
    let pid = family.fork(|report| {
        sys::close_number(listening.fd());
        sys::set_uid(65534)?;
        fail_at(libc::EACCES, 6, || {
            let client = listening.client().map_err(|_| Errno(0))?;
            sys::connect(&client, listening.target())
        })?;
        report()?;
        sys::poll_readable(hold.as_raw_fd(), PATIENCE)?;
        Ok(())
    })?;
    let client = family.report_of(pid)?.short_lived();
    let own = sys::own_pid();
    let errno = Errno(libc::EACCES);
    let failures = Failures::connect(client.clone(), &path, errno, 6).at(truth, own);
    stage.report(&Tally {
        pids: vec![own, client.pid],
        ..tally(&client, vec![failures])
    })?;
    sys::write_byte(&release)?;
    family.wait_for_all()
}

/// What a security module may answer, and how often it does here.
const ANSWERS: [(i32, u64); 6] = [
    (libc::EPERM, 3),
    (libc::EACCES, 4),
    (libc::ECONNRESET, 5),
    (libc::ECONNABORTED, 6),
    (libc::EHOSTUNREACH, 7),
    // None that turnaway has a reason code for.
    (libc::ENOLINK, 8),
];

/// A security module, written in BPF, refuses.
pub fn denied_by_security_module(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    let process = Process::current()?;
    let hook = btf_function(
        &fs::read("/sys/kernel/btf/vmlinux")?,
        "bpf_lsm_socket_connect",
    )?;
    // Before Linux 5.11, BPF programs are locked memory of their user, who runs turnaway too.
    sys::lock_any_memory()?;
    let target = format!("127.0.0.1 {}", listening.port()?);
    stage.ready()?;
    let mut failures = Vec::new();
    for (errno, count) in ANSWERS {
        let _module = SecurityModule::refuse(hook, process.pid, errno)?;
        let errno = fail_at(errno, count, || {
            let client = listening.client().map_err(|_| Errno(0))?;
            sys::connect(&client, listening.target())
        })?;
        failures.push(
            Failures::connect(process.clone(), &target, errno, count)
                .at(listening.truth(0).from_afar(), process.pid),
        );
    }
    listening.connect(&listening.client()?)?;
    stage.report(&tally(&process, failures))
}

/// Bugs of programs.
pub fn misuse(stage: &mut Stage) -> Result<()> {
    const NOT_OPEN: i32 = 987;
    let closed = Closed::v4()?;
    let file = fs::File::open("/proc/self/exe")?;
    let socket = tcp(closed.address)?;
    let process = Process::current()?;
    stage.ready()?;
    let sock = closed.sock();
    let not_open = fail_at(libc::EBADF, 5, || sys::connect_number(NOT_OPEN, &sock))?;
    let no_socket = fail_at(libc::ENOTSOCK, 6, || {
        sys::connect_number(file.as_raw_fd(), &sock)
    })?;
    let nowhere = fail_at(libc::EFAULT, 7, || {
        sys::connect_to_nowhere(socket.as_raw_fd())
    })?;
    let failures = vec![
        Failures::connect(process.clone(), &closed.name(), not_open, 5),
        Failures::connect(process.clone(), &closed.name(), no_socket, 6),
        Failures {
            target: None,
            ..Failures::connect(process.clone(), "", nowhere, 7)
        },
    ];
    stage.report(&tally(&process, failures))
}

/// Connections that io_uring makes.
pub fn uring(stage: &mut Stage) -> Result<()> {
    const COUNT: u64 = 10;
    let closed = Closed::v4()?;
    let target = closed.sock();
    let mut ring = io_uring::IoUring::new(4).context("io_uring_setup")?;
    let process = Process::current()?;
    stage.ready()?;
    for _ in 0..COUNT {
        let socket = tcp(closed.address)?;
        let (address, length) = target.parts();
        let fd = io_uring::types::Fd(socket.as_raw_fd());
        let entry = io_uring::opcode::Connect::new(fd, address, length).build();
        // SAFETY: the address outlives the request, which is waited for.
        unsafe { ring.submission().push(&entry) }.context("the submission queue is full")?;
        ring.submit_and_wait(1).context("io_uring_enter")?;
        let result = ring.completion().next().context("no completion came")?;
        expect(Errno(-result.result()), libc::ECONNREFUSED)?;
    }
    let errno = Errno(libc::ECONNREFUSED);
    let failures = Failures {
        call: Call::IoUringConnect.name().to_owned(),
        ..Failures::connect(process.clone(), &closed.name(), errno, COUNT).begun()
    };
    stage.report(&tally(&process, vec![failures]))
}

/// A vsock port where nobody listens answers with a reset.
pub fn vsock(stage: &mut Stage) -> Result<()> {
    const CID_LOCAL: u32 = 1;
    const PORT: u32 = 0x7fff_1234;
    let process = Process::current()?;
    stage.ready()?;
    let errno = fail_at(libc::ECONNRESET, 4, || {
        let client = sys::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)?;
        sys::connect(&client, &SockAddr::vsock(CID_LOCAL, PORT))
    })?;
    let target = format!("{CID_LOCAL} {PORT}");
    let failures = Failures::connect(process.clone(), &target, errno, 4);
    stage.report(&tally(&process, vec![failures]))
}

/// A thread with a name of its own connects: the process's name is shown, the thread's beside
/// it.
pub fn named_thread(stage: &mut Stage) -> Result<()> {
    let closed = Closed::v4()?;
    sys::set_thread_name(c"client-main")?;
    stage.ready()?;
    let process = thread::scope(|scope| {
        scope
            .spawn(|| {
                sys::set_thread_name(c"worker-9")?;
                let process = Process::current()?;
                for _ in 0..7 {
                    let got = connect_later(&tcp(closed.address)?, &closed.sock())?;
                    expect(got, libc::ECONNREFUSED)?;
                }
                anyhow::Ok(process)
            })
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))?
    })?;
    ensure!(process.comm == "client-main" && process.thread.as_deref() == Some("worker-9"));
    let errno = Errno(libc::ECONNREFUSED);
    let failures = Failures::connect(process.clone(), &closed.name(), errno, 7).begun();
    stage.report(&tally(&process, vec![failures]))
}

/// A process that begins to connect and ends; its socket lives on in another, and fails later.
pub fn gone_before_the_error(stage: &mut Stage) -> Result<()> {
    let silent = Silent::new()?;
    let sockets = (0..3)
        .map(|_| silent.client())
        .collect::<Result<Vec<OwnedFd>>>()?;
    stage.ready()?;
    let mut family = Family::new()?;
    let pid = family.fork(|report| {
        sys::set_thread_name(c"short-lived")?;
        report()?;
        for socket in &sockets {
            sys::set_nonblocking(socket)?;
            let got = sys::connect(socket, silent.listening.target());
            ensure!(got == Err(Errno(libc::EINPROGRESS)), "{got:?}");
        }
        Ok(())
    })?;
    let client = family.report_of(pid)?.short_lived();
    family.wait_for_all()?;
    for socket in &sockets {
        expect(wait_for_error(socket)?, libc::ETIMEDOUT)?;
    }
    ensure!(client.comm == "short-lived");
    let own = sys::own_pid();
    // Its network namespace cannot be asked for any more, for it has gone there with it.
    let failures = Failures {
        listener: crate::truth::Listener::default(),
        server: None,
        ..silent.timeouts(&client, own, 3)?
    };
    stage.report(&Tally {
        pids: vec![own, client.pid],
        ..tally(&client, vec![failures])
    })
}
