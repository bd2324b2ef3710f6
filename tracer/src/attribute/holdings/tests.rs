use std::{
    collections::HashMap,
    fs,
    io::{self, BufRead as _, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::symlink,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    fs::{MemfdFlags, inotify, memfd_create},
    process::{PidfdFlags, pidfd_open},
    time::{TimerfdClockId, TimerfdFlags, timerfd_create},
};

use super::{Family, Grown, Holdings, Kind, MAX_FILES, SocketGroup, growth, holdings};

const BUDGET: Duration = Duration::from_secs(20);

/// Set for a process that is to hold what a test looks at: a directory to work in.
const DIRECTORY: &str = "TURNAWAY_TEST_HOLD_IN";

/// Descriptors that [`hold`] opens, by kind.
const OPENED: [(Kind, u64); 12] = [
    (Kind::Socket, 46),
    (Kind::File, 6),
    (Kind::Pipe, 14),
    (Kind::EventFd, 3),
    (Kind::EventPoll, 2),
    (Kind::TimerFd, 4),
    (Kind::SignalFd, 1),
    (Kind::Inotify, 5),
    (Kind::Device, 2),
    (Kind::Memfd, 6),
    (Kind::PidFd, 1),
    (Kind::IoUring, 1),
];

/// Connections to the test's listener, and how many of them the test closes.
const OUT: (usize, usize) = (12, 5);
/// Connections from the test, from three addresses, and how many of them it closes.
const IN: (usize, usize) = (9, 2);

/// Runs in a process of its own, where no other test opens anything: waits for a line,
/// opens all, says so, and waits for the end of its input.
#[test]
fn hold() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let mut input = io::stdin().lock().lines();
    let mut line = || input.next().expect("a line").expect("read");
    let server: SocketAddr = line().parse().expect("an address");

    // Sockets: 1 + 12 + 9 to be accepted, 12 UDP, 3 UNIX to be accepted and 1, 2 + 2 in
    // pairs, 1 netlink, 3 that lead nowhere.
    let listener = TcpListener::bind("0.0.0.0:0").expect("bound");
    let mut out: Vec<TcpStream> = (0..OUT.0)
        .map(|_| TcpStream::connect(server).expect("connected"))
        .collect();
    let unix = UnixListener::bind(directory.join("s")).expect("bound");
    say(&listener.local_addr().expect("bound").to_string());
    let mut accepted: Vec<TcpStream> = (0..IN.0)
        .map(|_| listener.accept().expect("accepted").0)
        .collect();
    let unix_accepted: Vec<UnixStream> =
        (0..3).map(|_| unix.accept().expect("accepted").0).collect();
    let udp: Vec<UdpSocket> = (0..12)
        .map(|index| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
            if index < 8 {
                socket.connect(server).expect("connected");
            }
            socket
        })
        .collect();
    let pair = UnixStream::pair().expect("opened");
    let copies = [&pair.0, &pair.1].map(|it| it.try_clone().expect("copied"));
    let raw = |family, kind| {
        // SAFETY: socket(2) takes no pointers; what it returns is open and nobody else's.
        unsafe {
            let socket = libc::socket(family, kind | libc::SOCK_CLOEXEC, 0);
            assert!(socket >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(socket)
        }
    };
    let others = [
        raw(libc::AF_NETLINK, libc::SOCK_RAW),
        raw(libc::AF_INET, libc::SOCK_STREAM),
        raw(libc::AF_INET6, libc::SOCK_STREAM),
        raw(libc::AF_INET, libc::SOCK_STREAM),
    ];
    // Their ends have arrived: they are in CLOSE_WAIT.
    for stream in out
        .iter_mut()
        .take(OUT.1)
        .chain(accepted.iter_mut().take(IN.1))
    {
        assert_eq!(stream.read(&mut [0]).expect("read"), 0);
    }

    let evil = directory.join("evil\n\x1b[2J");
    fs::write(&evil, "").expect("written");
    let mut files: Vec<_> = (0..5)
        .map(|_| fs::File::open(&evil).expect("opened"))
        .collect();
    let doomed = directory.join("doomed");
    files.push(fs::File::create(&doomed).expect("created"));
    fs::remove_file(&doomed).expect("removed");
    let devices = [(); 2].map(|()| fs::File::open("/dev/null").expect("opened"));
    let pipes: Vec<_> = (0..7).map(|_| io::pipe().expect("opened")).collect();
    let events: Vec<_> = (0..3)
        .map(|_| eventfd(0, EventfdFlags::CLOEXEC).expect("opened"))
        .collect();
    let polls = [(); 2].map(|()| epoll::create(epoll::CreateFlags::CLOEXEC).expect("opened"));
    let timers = [(); 4].map(|()| {
        timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).expect("opened")
    });
    let watches = [(); 5].map(|()| inotify::init(inotify::CreateFlags::CLOEXEC).expect("opened"));
    let memory = [(); 6].map(|()| memfd_create("evil)", MemfdFlags::CLOEXEC).expect("opened"));
    let process = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).expect("opened");
    let signals = signal_fd();
    let ring = io_uring();

    say(if ring.is_some() {
        "done"
    } else {
        "no io_uring"
    });
    assert!(input.next().is_none());
    drop((out, accepted, unix_accepted, udp, pair, copies, others));
    drop((
        files, devices, pipes, events, polls, timers, watches, memory,
    ));
    drop((process, signals, ring));
}

fn say(line: &str) {
    // After what the harness of tests may have begun to print.
    println!("\nheld {line}");
    io::stdout().flush().expect("written");
}

fn signal_fd() -> OwnedFd {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is filled before it is used; the descriptor is open and nobody
    // else's.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let descriptor = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC);
        assert!(descriptor >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(descriptor)
    }
}

/// `None` where this host does not let it be opened.
fn io_uring() -> Option<OwnedFd> {
    // struct io_uring_params (include/uapi/linux/io_uring.h).
    let mut parameters = [0_u32; 30];
    // SAFETY: the parameters are as many bytes as the kernel writes; the descriptor is
    // open and nobody else's.
    unsafe {
        let descriptor = libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr());
        (descriptor >= 0).then(|| OwnedFd::from_raw_fd(i32::try_from(descriptor).expect("an fd")))
    }
}

/// The process that runs [`hold`], ended with the test.
struct Holder {
    child: std::process::Child,
    input: Option<ChildStdin>,
    output: io::Lines<io::BufReader<ChildStdout>>,
}

impl Holder {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("known"))
            .args(["--exact", "attribute::holdings::tests::hold", "--nocapture"])
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        Self {
            input: child.stdin.take(),
            output: io::BufReader::new(child.stdout.take().expect("piped")).lines(),
            child,
        }
    }

    fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("open");
        writeln!(input, "{line}").expect("written");
    }

    fn hear(&mut self) -> String {
        self.output
            .find_map(|line| Some(line.expect("read").strip_prefix("held ")?.to_owned()))
            .expect("said")
    }

    fn holdings(&self) -> Holdings {
        let holdings = holdings(Path::new("/"), self.child.id(), BUDGET).expect("there");
        assert!(holdings.complete, "{holdings:#?}");
        holdings
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Its input ends, and so does it.
        self.input = None;
        let _ = self.child.wait();
    }
}

/// Connects from another address of this host.
fn connect_from(address: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("opened");
        socket.bind(SocketAddr::from((address, 0))).expect("bound");
        socket.connect(to).await.expect("connected")
    });
    stream.into_std().expect("taken out")
}

fn counts<T: Copy + Eq + std::hash::Hash>(counts: &[(T, u64)]) -> HashMap<T, u64> {
    counts.iter().copied().collect()
}

#[test]
fn what_a_process_opened_is_found_to_the_last() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = TcpListener::bind("127.0.0.1:0").expect("bound");
    let server_address = server.local_addr().expect("bound");
    let mut holder = Holder::start(directory.path());
    // It reads nothing but its input until it is told where to connect to.
    await_reader(&holder);
    let before = holder.holdings();

    holder.tell(&server_address.to_string());
    let mut kept = Vec::new();
    for index in 0..OUT.0 {
        // In the order it connects: the first ones are closed at once.
        let (stream, _) = server.accept().expect("accepted");
        if index >= OUT.1 {
            kept.push(stream);
        }
    }
    let port = holder
        .hear()
        .parse::<SocketAddr>()
        .expect("an address")
        .port();
    for index in 0..IN.0 {
        let from = Ipv4Addr::new(127, 0, 0, [2, 3, 4][index % 3]);
        let stream = connect_from(from, SocketAddr::from(([127, 0, 0, 1], port)));
        if index >= IN.1 {
            kept.push(stream);
        }
    }
    let unix: Vec<_> = (0..3)
        .map(|_| UnixStream::connect(directory.path().join("s")).expect("connected"))
        .collect();
    let has_ring = holder.hear() == "done";
    let after = holder.holdings();

    let kinds_before = counts(&before.kinds);
    let kinds_after = counts(&after.kinds);
    for (kind, opened) in OPENED {
        let opened = if kind == Kind::IoUring && !has_ring {
            0
        } else {
            opened
        };
        let more = kinds_after.get(&kind).copied().unwrap_or(0)
            - kinds_before.get(&kind).copied().unwrap_or(0);
        assert_eq!(more, opened, "{kind:?}");
    }
    let opened: u64 = OPENED.iter().map(|(_, count)| count).sum();
    assert_eq!(after.total - before.total, opened - u64::from(!has_ring));
    // The kernel's own count, where it has one.
    let size = fs::metadata(format!("/proc/{}/fd", holder.child.id()))
        .expect("there")
        .len();
    assert!(size == 0 || size == after.total, "{size} {}", after.total);

    let mut groups = new_sockets(&before, &after);
    groups.sort();
    let mut expected = expected_sockets(server_address, port, directory.path());
    expected.sort();
    assert_eq!(groups, expected);

    let path = |name: &str| [directory.path().as_os_str().as_bytes(), name.as_bytes()].concat();
    let files: HashMap<_, _> = after.files.iter().cloned().collect();
    assert_eq!(files.get(&path("/evil\n\x1b[2J")), Some(&5));
    assert_eq!(files.get(&path("/doomed (deleted)")), Some(&1));
    drop((kept, unix));
}

/// Waits until the process sleeps in a read of its input.
fn await_reader(holder: &Holder) {
    let tasks = format!("/proc/{}/task", holder.child.id());
    let reads = || {
        fs::read_dir(&tasks).expect("there").flatten().any(|task| {
            fs::read_to_string(task.path().join("syscall"))
                // read(0, …), in a process that has not been told a thing.
                .is_ok_and(|call| call.starts_with(&format!("{} 0x0 ", libc::SYS_read)))
        })
    };
    let started = std::time::Instant::now();
    while !reads() {
        assert!(started.elapsed() < BUDGET, "it never read");
        std::thread::yield_now();
    }
}

/// Groups that were not there before; the process's output may be a socket.
fn new_sockets(before: &Holdings, after: &Holdings) -> Vec<SocketGroup> {
    assert_eq!(growth(after, before), [], "nothing was closed");
    growth(before, after)
        .into_iter()
        .filter_map(|growth| match growth.what {
            Grown::Sockets(group) => Some(SocketGroup {
                count: growth.after - growth.before,
                ..group
            }),
            Grown::Kind(_) => None,
        })
        .collect()
}

fn expected_sockets(server: SocketAddr, port: u16, directory: &Path) -> Vec<SocketGroup> {
    let none = SocketGroup {
        family: Family::Inet,
        protocol: Some("tcp"),
        state: None,
        remote: None,
        local_port: None,
        path: None,
        peers: 0,
        count: 1,
    };
    let state = |state| SocketGroup {
        state: Some(state),
        ..none.clone()
    };
    let unix = SocketGroup {
        family: Family::Unix,
        protocol: None,
        ..state("ESTABLISHED")
    };
    let path = directory.join("s").as_os_str().as_bytes().to_vec();
    vec![
        SocketGroup {
            remote: Some(server),
            count: 7,
            ..state("ESTABLISHED")
        },
        SocketGroup {
            remote: Some(server),
            count: 5,
            ..state("CLOSE_WAIT")
        },
        SocketGroup {
            local_port: Some(port),
            ..state("LISTEN")
        },
        SocketGroup {
            local_port: Some(port),
            peers: 3,
            count: 7,
            ..state("ESTABLISHED")
        },
        SocketGroup {
            local_port: Some(port),
            peers: 2,
            count: 2,
            ..state("CLOSE_WAIT")
        },
        SocketGroup {
            protocol: Some("udp"),
            remote: Some(server),
            count: 8,
            ..state("ESTABLISHED")
        },
        SocketGroup {
            protocol: Some("udp"),
            count: 4,
            ..state("UNCONN")
        },
        SocketGroup {
            path: Some(path.clone()),
            count: 3,
            ..unix.clone()
        },
        SocketGroup {
            path: Some(path),
            state: Some("LISTEN"),
            ..unix.clone()
        },
        // A pair, each end twice.
        SocketGroup { count: 4, ..unix },
        SocketGroup {
            family: Family::Netlink,
            protocol: None,
            ..none.clone()
        },
        // Never bound nor connected.
        SocketGroup {
            count: 2,
            ..none.clone()
        },
        SocketGroup {
            family: Family::Inet6,
            ..none
        },
    ]
}

/// A process under a root of its own, with these links.
fn fake(links: impl IntoIterator<Item = Vec<u8>>) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let fd = root.path().join("proc/7/fd");
    fs::create_dir_all(&fd).expect("created");
    for (number, link) in links.into_iter().enumerate() {
        let link = std::ffi::OsStr::from_bytes(&link);
        symlink(link, fd.join(number.to_string())).expect("linked");
    }
    root
}

#[test]
fn the_budget_ends_it() {
    let root = fake((0..10_000).map(|inode| format!("socket:[{inode}]").into_bytes()));
    let cut = holdings(root.path(), 7, Duration::ZERO).expect("readable");
    assert!(!cut.complete);
    assert!(cut.total < 10_000, "{}", cut.total);
    assert_eq!(cut.total, cut.looked_at());
    let whole = holdings(root.path(), 7, BUDGET).expect("readable");
    assert_eq!(whole.kinds, [(Kind::Socket, 10_000)]);
    assert_eq!(whole.total, 10_000);
    // There are sockets, and no table.
    assert!(!whole.complete);
    assert_eq!(whole.groups.len(), 1);
    assert_eq!(whole.groups[0].family, Family::Other);
    assert_eq!(whole.groups[0].count, 10_000);
}

#[test]
fn what_the_budget_left_out_is_in_the_total() {
    let size = fs::metadata("/proc/self/fd").expect("there").len();
    let cut = holdings(Path::new("/"), std::process::id(), Duration::ZERO).expect("readable");
    assert!(!cut.complete);
    assert_eq!(cut.looked_at(), 0);
    assert_eq!(cut.total > 0, size > 0, "{}", cut.total);
}

#[test]
fn no_process_no_holdings() {
    let root = fake([]);
    assert_eq!(holdings(root.path(), 8, BUDGET), None);
    let empty = holdings(root.path(), 7, BUDGET);
    let expected = Holdings {
        complete: true,
        ..Holdings::default()
    };
    assert_eq!(empty, Some(expected));
}

#[test]
fn paths_are_bytes_and_only_the_telling_ones_stay() {
    let mut links = vec![b"/once".to_vec(), b"/gone (deleted)".to_vec()];
    links.extend([(); 4].map(|()| b"/evil\xff\n\x1b]0;x\x07".to_vec()));
    links.extend([(); 3].map(|()| b"/dev/urandom".to_vec()));
    links.extend([(); 2].map(|()| b"pipe:[5]".to_vec()));
    links.extend([(); 2].map(|()| b"/memfd:x (deleted)".to_vec()));
    let root = fake(links);
    let found = holdings(root.path(), 7, BUDGET).expect("readable");
    assert_eq!(
        found.files,
        [
            (b"/evil\xff\n\x1b]0;x\x07".to_vec(), 4),
            (b"/dev/urandom".to_vec(), 3),
            (b"/gone (deleted)".to_vec(), 1),
        ]
    );
    assert_eq!(
        found.kinds,
        [
            (Kind::File, 6),
            (Kind::Device, 3),
            (Kind::Pipe, 2),
            (Kind::Memfd, 2)
        ]
    );
    assert!(found.complete);

    let root = fake((0..40).map(|number| format!("/{} (deleted)", number / 2).into_bytes()));
    let found = holdings(root.path(), 7, BUDGET).expect("readable");
    assert_eq!(found.files.len(), MAX_FILES);
}

#[test]
fn names_that_are_no_numbers_are_no_descriptors() {
    let root = fake([b"/x".to_vec()]);
    let fd = root.path().join("proc/7/fd");
    symlink("/y", fd.join("x")).expect("linked");
    let found = holdings(root.path(), 7, BUDGET).expect("readable");
    assert_eq!((found.total, found.complete), (1, true));
    // Not a link, so it cannot be read as one.
    fs::write(fd.join("8"), "").expect("written");
    let found = holdings(root.path(), 7, BUDGET).expect("readable");
    assert_eq!((found.total, found.complete), (1, false));
}

fn with(kinds: &[(Kind, u64)], groups: &[(&'static str, u64)]) -> Holdings {
    Holdings {
        total: 0,
        kinds: kinds.to_vec(),
        groups: groups
            .iter()
            .map(|(state, count)| SocketGroup {
                family: Family::Inet,
                protocol: Some("tcp"),
                state: Some(state),
                remote: Some(SocketAddr::new(IpAddr::from([10, 1, 2, 3]), 5_432)),
                local_port: None,
                path: None,
                // Not what tells groups apart.
                peers: *count,
                count: *count,
            })
            .collect(),
        files: Vec::new(),
        complete: true,
    }
}

#[test]
fn growth_is_most_first() {
    let before = with(
        &[(Kind::Socket, 100), (Kind::File, 9), (Kind::Pipe, 8)],
        &[("ESTABLISHED", 90), ("LISTEN", 1)],
    );
    let after = with(
        &[(Kind::Socket, 150), (Kind::Pipe, 10), (Kind::File, 9)],
        &[("CLOSE_WAIT", 60), ("ESTABLISHED", 80), ("LISTEN", 1)],
    );
    let grown: Vec<_> = growth(&before, &after)
        .into_iter()
        .map(|growth| {
            let what = match growth.what {
                Grown::Kind(kind) => kind.name(),
                Grown::Sockets(group) => group.state.expect("one"),
            };
            (what, growth.before, growth.after)
        })
        .collect();
    assert_eq!(
        grown,
        [("CLOSE_WAIT", 0, 60), ("socket", 100, 150), ("pipe", 8, 10)]
    );
    assert_eq!(growth(&after, &after), []);
    let cut = Holdings {
        complete: false,
        ..before
    };
    assert_eq!(growth(&cut, &after), []);
    assert_eq!(growth(&after, &cut), []);
}
