//! Against this kernel, in network namespaces of the tests' own, where nothing else
//! counts. Need root.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs, io, mem,
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            fs::MetadataExt as _,
            net::{SocketAddr as UnixAddr, UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, acceptfrom, bind, connect,
        getsockname, listen, socket_with,
    },
    thread::{
        CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities, move_into_link_name_space,
        set_capabilities, unshare_unsafe,
    },
};

use super::{Listener, Namespace, Poll, Poller, TcpExt};
use crate::event::{AF_UNIX, Address};

const DEADLINE: Duration = Duration::from_secs(20);

/// Longest tick of the kernel's clock, twice: where two readings of it are compared.
const TICKS: Duration = Duration::from_millis(20);

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: not CLONE_FILES, after which descriptors would mean other files.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Runs a test in a thread with a network namespace of its own, whose loopback device is
/// up.
fn quiet(test: impl FnOnce() + Send + 'static) {
    let tested = thread::spawn(|| {
        if let Err(error) = unshare(UnshareFlags::NEWNET) {
            eprintln!("SKIPPED: cannot make a network namespace: {error}");
            return;
        }
        loopback_up();
        test();
    })
    .join();
    if let Err(panic) = tested {
        std::panic::resume_unwind(panic);
    }
}

fn loopback_up() {
    let socket = socket(AddressFamily::INET, SocketType::STREAM);
    // SAFETY: all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name[0] = libc::c_char::try_from(b'l').expect("ASCII");
    request.ifr_name[1] = libc::c_char::try_from(b'o').expect("ASCII");
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).expect("a flag");
    // SAFETY: an ifreq with a name and flags, as SIOCSIFFLAGS wants it.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// A process with a network namespace of its own.
struct Elsewhere {
    process: Child,
    netns: u32,
}

impl Elsewhere {
    fn new() -> Option<Self> {
        let mut command = Command::new("sleep");
        command.arg("1000");
        // SAFETY: one system call, which allocates nothing.
        unsafe { command.pre_exec(|| unshare(UnshareFlags::NEWNET)) };
        match command.spawn() {
            Ok(process) => Some(Self {
                netns: netns(&format!("/proc/{}", process.id())),
                process,
            }),
            Err(error) => {
                eprintln!("SKIPPED: cannot start a process in a network namespace: {error}");
                None
            }
        }
    }

    /// Runs something in a thread that has moved there.
    fn inside<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/proc/{}/ns/net", self.process.id());
        thread::spawn(move || {
            let namespace = fs::File::open(path).expect("open");
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(LinkNameSpaceType::Network),
            )
            .expect("entered");
            f()
        })
        .join()
        .expect("no panic")
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn netns(process: &str) -> u32 {
    let inode = fs::metadata(format!("{process}/ns/net"))
        .expect("linked")
        .ino();
    u32::try_from(inode).expect("32 bits")
}

fn own_netns() -> u32 {
    netns("/proc/thread-self")
}

fn socket(family: AddressFamily, kind: SocketType) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, kind, flags, None).expect("a socket")
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}

fn tcp_listener(address: &str, backlog: i32) -> (OwnedFd, SocketAddr) {
    let address: SocketAddr = address.parse().expect("an address");
    let listener = socket(family(address), SocketType::STREAM);
    bind(&listener, &address).expect("bound");
    listen(&listener, backlog).expect("listens");
    let address = getsockname(&listener).expect("bound");
    (listener, address.try_into().expect("of IP"))
}

fn client(to: SocketAddr) -> OwnedFd {
    let client = socket(family(to), SocketType::STREAM);
    match connect(&client, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => client,
        Err(error) => panic!("cannot connect to {to}: {error}"),
    }
}

fn inode(socket: &OwnedFd) -> u64 {
    rustix::fs::fstat(socket).expect("open").st_ino
}

fn cookie(socket: &OwnedFd) -> u64 {
    rustix::net::sockopt::socket_cookie(socket).expect("has one")
}

fn find(poll: &Poll, netns: u32) -> Option<&Namespace> {
    let mut found = poll.namespaces.iter().filter(|it| it.inode == netns);
    let namespace = found.next();
    assert!(found.next().is_none(), "listed twice");
    namespace
}

fn refused(poll: &Poll, netns: u32) -> bool {
    let name = format!("net:[{netns}]");
    poll.unreachable.iter().any(|it| it.starts_with(&name))
}

/// Polls until something holds of this thread's namespace.
fn own_until(poller: &mut Poller, holds: impl Fn(&Namespace) -> bool) -> Namespace {
    let started = Instant::now();
    loop {
        let mut poll = poller.poll();
        let namespace = poll.namespaces.swap_remove(0);
        assert_eq!(namespace.inode, own_netns());
        assert!(namespace.complete, "{:?}", namespace.problem);
        if holds(&namespace) {
            return namespace;
        }
        assert!(started.elapsed() < DEADLINE, "still {namespace:?}");
    }
}

fn listener_with<'a>(namespace: &'a Namespace, socket: &OwnedFd) -> &'a Listener {
    let found = namespace
        .listeners
        .iter()
        .find(|it| it.cookie == cookie(socket));
    let found = found.expect("listed");
    assert_eq!(found.inode, inode(socket));
    found
}

#[test]
fn what_a_listener_drops_is_what_its_namespace_counts() {
    const CLIENTS: u64 = 12;
    /// The kernel lets one more wait than the backlog says.
    const QUEUED: u32 = 4;
    quiet(|| {
        let mut poller = Poller::new(Path::new("/"));
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let before = own_until(&mut poller, |_| true).counters.expect("counted");
            let (listener, address) = tcp_listener(ip, 3);
            let clients: Vec<_> = (0..CLIENTS).map(|_| client(address)).collect();
            let growth = |counters: TcpExt| {
                [
                    counters.listen_overflows - before.listen_overflows,
                    counters.listen_drops - before.listen_drops,
                ]
            };
            // Clients try again: only between two polls that counted the same was nothing
            // dropped, neither while the second looked.
            let mut last = before;
            let started = Instant::now();
            loop {
                let namespace = own_until(&mut poller, |_| true);
                assert_eq!(namespace.listeners.len(), 1, "{:?}", namespace.listeners);
                let found = listener_with(&namespace, &listener);
                assert_eq!(found.address, Some(Address::Inet(address)));
                assert_eq!((found.socket_type, found.protocol), (1, 6));
                assert_eq!(found.family == 2, address.is_ipv4());
                assert_eq!(found.limit, 3);
                let drops = found.drops.expect("this kernel tells");
                let counters = namespace.counters.expect("counted");
                assert!(growth(counters).iter().all(|growth| *growth >= drops));
                if mem::replace(&mut last, counters) == counters
                    && found.depth == QUEUED
                    && drops >= CLIENTS - u64::from(QUEUED)
                {
                    assert_eq!(growth(counters), [drops; 2]);
                    break;
                }
                assert!(started.elapsed() < DEADLINE, "{namespace:?}");
            }
            drop(clients);
        }
    });
}

#[test]
fn who_waits_and_for_how_long() {
    quiet(|| {
        let mut poller = Poller::new(Path::new("/"));
        let netns = own_netns();
        let (listener, bound) = tcp_listener("[::]:0", 8);
        let port = bound.port();
        assert_eq!(poller.waiting(netns, port), Some(Vec::new()));
        // Another port's connections do not count, nor do clients.
        let (_other, other) = tcp_listener("127.0.0.1:0", 8);
        let _elsewhere = client(other);

        let started = Instant::now();
        let mut clients: Vec<_> = [
            format!("127.0.0.1:{port}"),
            format!("[::1]:{port}"),
            format!("127.0.0.2:{port}"),
        ]
        .iter()
        .map(|to| client(to.parse().expect("an address")))
        .collect();
        own_until(&mut poller, |namespace| {
            listener_with(namespace, &listener).depth == 3
        });
        let queued = Instant::now();
        let mut expected: Vec<(SocketAddr, SocketAddr)> = clients
            .iter()
            .map(|client| {
                let local = getsockname(client).expect("bound");
                let peer = rustix::net::getpeername(client).expect("connected");
                let peer = peer.expect("connected").try_into().expect("of IP");
                (local.try_into().expect("of IP"), peer)
            })
            .collect();
        expected.sort_unstable();
        loop {
            let at_least = queued.elapsed();
            let waiting = poller.waiting(netns, port).expect("read");
            let at_most = started.elapsed();
            let mut found: Vec<_> = waiting.iter().map(|it| (it.peer, it.local)).collect();
            found.sort_unstable();
            assert_eq!(found, expected);
            assert!(waiting.is_sorted_by(|a, b| a.waited >= b.waited));
            for it in &waiting {
                assert!(it.waited + TICKS >= at_least, "{it:?}, {at_least:?}");
                assert!(it.waited <= at_most + TICKS, "{it:?}, {at_most:?}");
                assert!(!it.closed_by_peer);
            }
            if at_least > Duration::from_millis(200) {
                break;
            }
        }

        // A client that gives up stays in the queue.
        clients.remove(0);
        let started = Instant::now();
        loop {
            let waiting = poller.waiting(netns, port).expect("read");
            assert_eq!(waiting.len(), 3);
            let closed: Vec<_> = waiting.iter().filter(|it| it.closed_by_peer).collect();
            if let [closed] = closed[..] {
                assert_eq!(closed.local, SocketAddr::from(([127, 0, 0, 1], port)));
                break;
            }
            assert!(started.elapsed() < DEADLINE, "{waiting:?}");
        }
        let accepted: Vec<_> = (0..3)
            .map(|_| acceptfrom(&listener).expect("waiting"))
            .collect();
        assert_eq!(poller.waiting(netns, port), Some(Vec::new()));
        drop(accepted);
        assert_eq!(poller.waiting(0, port), None, "there is no such namespace");
    });
}

#[test]
fn unix_listeners() {
    quiet(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a b.sock");
        let by_path = UnixListener::bind(&path).expect("bound");
        let name = b"turnaway\0test\0";
        let address = UnixAddr::from_abstract_name(name).expect("an address");
        let by_name = UnixListener::bind_addr(&address).expect("bound");
        let packets = socket(AddressFamily::UNIX, SocketType::SEQPACKET);
        let packets_path = directory.path().join("packets");
        let packets_address = SocketAddrUnix::new(&packets_path).expect("short");
        bind(&packets, &packets_address).expect("bound");
        listen(&packets, 1).expect("listens");

        let _stream = UnixStream::connect_addr(&address).expect("connected");
        let client = || {
            let client = socket(AddressFamily::UNIX, SocketType::SEQPACKET);
            connect(&client, &packets_address).map(|()| client)
        };
        let _clients = [client().expect("connected"), client().expect("connected")];
        assert_eq!(client().expect_err("full"), Errno::AGAIN);

        let mut poller = Poller::new(Path::new("/"));
        let namespace = own_until(&mut poller, |_| true);
        assert_eq!(namespace.listeners.len(), 3, "{:?}", namespace.listeners);
        for (socket, address, kind, depth) in [
            (by_path.into(), path.as_os_str().as_bytes(), 1, 0),
            (by_name.into(), b"\0turnaway\0test\0".as_slice(), 1, 1),
            (packets, packets_path.as_os_str().as_bytes(), 5, 2),
        ] {
            let found = listener_with(&namespace, &socket);
            assert_eq!(found.address, Some(Address::Unix(address.to_vec())));
            assert_eq!((found.family, found.protocol), (AF_UNIX, 0));
            assert_eq!((found.socket_type, found.depth), (kind, depth));
            assert_eq!(found.drops, None);
            assert!(kind == 1 || found.limit == 1);
        }
    });
}

/// The files of this thread's descriptors.
fn descriptors() -> BTreeSet<PathBuf> {
    fs::read_dir("/proc/thread-self/fd")
        .expect("listed")
        .filter_map(|entry| fs::read_link(entry.expect("read").path()).ok())
        .collect()
}

#[test]
fn another_namespace_is_visited_and_let_go() {
    quiet(|| {
        let Some(elsewhere) = Elsewhere::new() else {
            return;
        };
        let (listener, client, address) = elsewhere.inside(|| {
            loopback_up();
            let (listener, address) = tcp_listener("127.0.0.1:0", 3);
            (listener, client(address), address)
        });
        let own = own_netns();
        assert_ne!(own, elsewhere.netns);
        let mut poller = Poller::new(Path::new("/"));
        let poll = poller.poll();
        assert_eq!(own_netns(), own, "not back");
        assert_eq!(find(&poll, own).expect("listed").listeners, []);
        let namespace = find(&poll, elsewhere.netns).expect("listed");
        assert!(namespace.complete && namespace.counters.is_some());
        let found = listener_with(namespace, &listener);
        assert_eq!(found.address, Some(Address::Inet(address)));

        let waiting = poller
            .waiting(elsewhere.netns, address.port())
            .expect("read");
        assert_eq!(own_netns(), own, "not back");
        assert_eq!(waiting.len(), 1);
        assert_eq!(
            SocketAddr::try_from(getsockname(&client).expect("bound")),
            Ok(waiting[0].peer)
        );
        assert_eq!(poller.waiting(own, address.port()), Some(Vec::new()));

        drop((listener, client));
        let netns = elsewhere.netns;
        drop(elsewhere);
        let poll = poller.poll();
        assert!(find(&poll, netns).is_none());
        assert!(!refused(&poll, netns));
    });
}

#[test]
fn counters_are_those_of_the_namespace_that_was_entered() {
    quiet(|| {
        let Some(elsewhere) = Elsewhere::new() else {
            return;
        };
        let _sockets = elsewhere.inside(|| {
            loopback_up();
            let (listener, address) = tcp_listener("127.0.0.1:0", 0);
            (listener, [0; 4].map(|_| client(address)))
        });
        let mut poller = Poller::new(Path::new("/"));
        let started = Instant::now();
        loop {
            let poll = poller.poll();
            let drops = |netns| {
                let namespace = find(&poll, netns).expect("listed");
                namespace.counters.expect("counted").listen_drops
            };
            assert_eq!(drops(own_netns()), 0);
            if drops(elsewhere.netns) >= 3 {
                break;
            }
            assert!(started.elapsed() < DEADLINE);
        }
    });
}

#[test]
fn nothing_stays_open_between_polls() {
    quiet(|| {
        let Some(elsewhere) = Elsewhere::new() else {
            return;
        };
        // SAFETY: from here on this thread has a table of descriptors of its own, and
        // none in it that anything here uses.
        let done = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_UNSHARE,
            )
        };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        let before = descriptors();
        let mut poller = Poller::new(Path::new("/"));
        let poll = poller.poll();
        assert!(find(&poll, elsewhere.netns).is_some());
        assert!(poller.waiting(elsewhere.netns, 1).is_some());
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn a_namespace_that_may_not_be_entered_is_named() {
    quiet(|| {
        let Some(elsewhere) = Elsewhere::new() else {
            return;
        };
        let (listener, _) = tcp_listener("127.0.0.1:0", 3);
        // Of this thread alone.
        let mut capabilities = capabilities(None).expect("told");
        capabilities.effective -= CapabilitySet::SYS_ADMIN;
        set_capabilities(None, capabilities).expect("less is allowed");
        let poll = Poller::new(Path::new("/")).poll();
        assert!(refused(&poll, elsewhere.netns), "{:?}", poll.unreachable);
        assert!(find(&poll, elsewhere.netns).is_none());
        let own = find(&poll, own_netns()).expect("needs no capability");
        assert!(own.complete && own.counters.is_some());
        listener_with(own, &listener);
    });
}

fn mount(source: Option<&str>, target: &Path, flags: libc::c_ulong) -> io::Result<()> {
    let source = source.map(|source| CString::new(source).expect("no NUL"));
    let target = CString::new(target.as_os_str().as_bytes()).expect("no NUL");
    let source = source.as_ref().map_or(std::ptr::null(), |it| it.as_ptr());
    // SAFETY: strings that end in NUL and outlive the call; the rest may be null.
    let done = unsafe {
        libc::mount(
            source,
            target.as_ptr(),
            std::ptr::null(),
            flags,
            std::ptr::null(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[test]
fn a_mounted_namespace_without_a_process() {
    quiet(|| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mounted = unshare(UnshareFlags::NEWNS)
            .and_then(|()| mount(None, Path::new("/"), libc::MS_PRIVATE | libc::MS_REC))
            .and_then(|()| mount(Some("/proc/thread-self/ns/net"), file.path(), libc::MS_BIND));
        if let Err(error) = mounted {
            eprintln!("SKIPPED: cannot mount a network namespace: {error}");
            return;
        }
        let netns = own_netns();
        let (listener, _) = tcp_listener("127.0.0.1:0", 3);
        unshare(UnshareFlags::NEWNET).expect("allowed before");
        assert_ne!(own_netns(), netns);

        let mut poller = Poller::new(Path::new("/"));
        let poll = poller.poll();
        listener_with(find(&poll, netns).expect("listed"), &listener);

        let target = CString::new(file.path().as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: a string that ends in NUL and outlives the call.
        let done = unsafe { libc::umount2(target.as_ptr(), 0) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        let poll = poller.poll();
        assert!(find(&poll, netns).is_none());
        assert!(!refused(&poll, netns));
    });
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().expect("positive")
}

/// Thousands of listeners in dozens of namespaces: every one is found, once. Prints what it costs.
#[test]
fn a_poll_finds_every_one_of_thousands() {
    const NAMESPACES: usize = 50;
    quiet(|| {
        // As many as this process may have open, and 10 000 at most; others of its tests run
        // beside this one.
        let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current = limit.maximum;
        let room = limit.maximum.map_or(20_000, |most| most.min(20_000));
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("allowed");
        let room = usize::try_from(room).expect("it fits").saturating_sub(500) / 2;
        let each = (room / NAMESPACES).clamp(1, 200);
        let elsewhere: Vec<_> = (0..NAMESPACES).filter_map(|_| Elsewhere::new()).collect();
        assert_eq!(elsewhere.len(), NAMESPACES);
        let sockets: Vec<Vec<_>> = elsewhere
            .iter()
            .map(|elsewhere| {
                elsewhere.inside(move || (0..each).map(|_| tcp_listener("0.0.0.0:0", 3)).collect())
            })
            .collect();
        let made: BTreeSet<u64> = sockets
            .iter()
            .flatten()
            .map(|(listener, _)| inode(listener))
            .collect();
        assert_eq!(made.len(), NAMESPACES * each);

        let mut poller = Poller::new(Path::new("/"));
        for _ in 0..3 {
            let before = cpu();
            let poll = poller.poll();
            let cpu = cpu().saturating_sub(before);
            println!(
                "{} listeners in {NAMESPACES} namespaces: CPU {cpu:?}, wall {:?}",
                made.len(),
                poll.took
            );
            let mut found: Vec<u64> = poll
                .namespaces
                .iter()
                .flat_map(|namespace| &namespace.listeners)
                .map(|listener| listener.inode)
                .filter(|inode| made.contains(inode))
                .collect();
            found.sort_unstable();
            assert!(found.iter().eq(&made), "{} of {}", found.len(), made.len());
        }
    });
}
