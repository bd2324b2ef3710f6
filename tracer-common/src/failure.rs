//! Layout of what the kernel side writes: the key and value of the exact counters and
//! the exemplar record of the ring buffer.

/// Bits of [`ProcessFacts::known`] and [`ListenerFacts::known`]: which fields hold
/// something that was read, as opposed to something that could not be.
pub mod known {
    /// [`super::ProcessFacts::nofile_soft`].
    pub const NOFILE: u32 = 1 << 0;
    /// [`super::ProcessFacts::ns_tgid`].
    pub const NS_TGID: u32 = 1 << 1;
    /// [`super::ProcessFacts::parent_tgid`].
    pub const PARENT: u32 = 1 << 2;
    /// [`super::ProcessFacts::cgroup_id`].
    pub const CGROUP_ID: u32 = 1 << 3;
    /// [`super::ProcessFacts::syscall_nr`].
    pub const SYSCALL: u32 = 1 << 4;
    /// The limit is the one that io_uring copied when the request was prepared, not
    /// the one the process has now.
    pub const NOFILE_COPIED: u32 = 1 << 5;
    /// The failing task is a kernel worker acting for a program (io_uring before Linux
    /// 5.12): its pid and name are not the program's.
    pub const KERNEL_WORKER: u32 = 1 << 6;

    /// [`super::ListenerFacts::fd`].
    pub const FD: u32 = 1 << 16;
    /// Family, type and protocol: the descriptor is a socket.
    pub const SOCKET: u32 = 1 << 17;
    /// Address and port (IPv4, IPv6, vsock).
    pub const ADDRESS: u32 = 1 << 18;
    /// [`super::Exemplar::path`] (AF_UNIX); length 0 means unnamed.
    pub const PATH: u32 = 1 << 19;
    /// [`super::ListenerFacts::netns`].
    pub const NETNS: u32 = 1 << 20;
    /// [`super::ListenerFacts::queue`] and [`super::ListenerFacts::backlog`].
    pub const QUEUE: u32 = 1 << 21;
    /// [`super::Exemplar::peer_addr`] and its port.
    pub const PEER: u32 = 1 << 22;
    /// [`super::Exemplar::path`] is that of what was connected to, not a listener's own.
    pub const TARGET_PATH: u32 = 1 << 23;
}

/// What was going on.
pub mod op {
    /// A system call, or socketcall(2) on architectures that have it.
    pub const SYSCALL: u8 = 1;
    /// A request of io_uring, single or multishot.
    pub const IO_URING: u8 = 2;
    /// The kernel at work on its own, for nobody: a packet came. The task that happens to
    /// be running has nothing to do with it.
    pub const NETWORK: u8 = 3;
}

/// What kind of hook saw the failure.
pub mod tier {
    /// fentry/fexit.
    pub const TRAMPOLINE: u8 = 1;
    /// kprobe/kretprobe.
    pub const KPROBE: u8 = 2;
    /// Syscall tracepoints and BTF tracepoints.
    pub const TRACEPOINT: u8 = 3;
}

/// Bytes of a task's name, its terminating NUL included (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;
/// Bytes of an AF_UNIX path (`sockaddr_un.sun_path`).
pub const UNIX_PATH_LEN: usize = 108;
/// Room for such a path: a power of two, so that a mask bounds what is copied.
pub const UNIX_PATH_ROOM: usize = 128;

/// Identifies one exact counter: failures of one process on one listener, or towards one
/// address, for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FailureKey {
    /// Start of the process (its thread group leader), nanoseconds of `CLOCK_BOOTTIME`.
    /// With `tgid` it identifies the process; a reused pid differs here.
    pub start_boottime_ns: u64,
    /// Inode number of the listening socket, the `N` of `socket:[N]` under /proc/PID/fd; 0
    /// where the descriptor is no open socket, or where it is not about a listener.
    pub socket_inode: u64,
    /// Address that was connected to, as [`ListenerFacts::addr`]; a hash of the path for
    /// AF_UNIX; zero where nothing was.
    pub target_addr: [u8; 16],
    /// Process id (thread group id), as the initial pid namespace sees it; 0 for
    /// [`op::NETWORK`].
    pub tgid: u32,
    /// Port that was connected to, host order.
    pub target_port: u32,
    /// Where failures are told apart by call: the number of the system call plus one, or that of
    /// io_uring's operation; else 0.
    pub call: u32,
    /// `AF_*` of what was connected to; else 0.
    pub target_family: u16,
    /// A [`crate::Reason`] as its number.
    pub reason: u16,
    /// The errno, positive; 0 where there is none.
    pub errno: u16,
    /// One of [`op`].
    pub op: u8,
    /// One of [`tier`].
    pub tier: u8,
    /// Zero.
    pub pad: [u8; 4],
}

/// What is known of the failing process and thread.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ProcessFacts {
    /// Id of its cgroup in the v2 hierarchy.
    pub cgroup_id: u64,
    /// Soft `RLIMIT_NOFILE` that decided; `u64::MAX` is "unlimited".
    pub nofile_soft: u64,
    /// Bits of [`known`].
    pub known: u32,
    /// Failing thread, as the initial pid namespace sees it.
    pub tid: u32,
    /// Effective user id, as the initial user namespace sees it.
    pub uid: u32,
    /// The process id as its own pid namespace sees it.
    pub ns_tgid: u32,
    /// Process id of the parent.
    pub parent_tgid: u32,
    /// Number of the syscall the thread is in.
    pub syscall_nr: u32,
    /// Name of the process (its thread group leader's comm), NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Name of the failing thread, NUL-padded.
    pub thread_comm: [u8; COMM_LEN],
}

/// What is known of the listening socket.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ListenerFacts {
    /// Bound address: 4 bytes for AF_INET, 16 for AF_INET6 (network order), a 4-byte
    /// CID for AF_VSOCK (native order).
    pub addr: [u8; 16],
    /// Bound port, host order. 32 bits, since AF_VSOCK's are.
    pub port: u32,
    /// Bits of [`known`].
    pub known: u32,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Connections waiting to be accepted at the moment of the failure.
    pub queue: u32,
    /// Effective backlog: the most that may wait.
    pub backlog: u32,
    /// The descriptor that accept was called on.
    pub fd: i32,
    /// `AF_*`.
    pub family: u16,
    /// `SOCK_*`.
    pub socket_type: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// Zero.
    pub pad: u16,
}

/// Value of an exact counter.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FailureCount {
    /// Failures.
    pub count: u64,
    /// First of them, nanoseconds of `CLOCK_MONOTONIC`.
    pub first_ns: u64,
    /// Last of them, nanoseconds of `CLOCK_MONOTONIC`.
    pub last_ns: u64,
    /// How many of them asked for an exemplar record.
    pub exemplars: u64,
    /// The largest of their [`Exemplar::amount`].
    pub amount_max: u64,
    /// The process at the first failure.
    pub process: ProcessFacts,
    /// The listener at the first failure.
    pub listener: ListenerFacts,
}

/// One failure in full, as it travels through the ring buffer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Exemplar {
    /// Its counter.
    pub key: FailureKey,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// How much, where the reason has such a thing: nanoseconds waited, connections lost.
    pub amount: u64,
    /// The process at this failure.
    pub process: ProcessFacts,
    /// The listener at this failure.
    pub listener: ListenerFacts,
    /// The other end's address, as [`ListenerFacts::addr`].
    pub peer_addr: [u8; 16],
    /// The other end's port, host order.
    pub peer_port: u32,
    /// The other end's `AF_*`.
    pub peer_family: u16,
    /// Zero.
    pub pad: u16,
    /// Bytes of [`Exemplar::path`] in use.
    pub path_len: u32,
    /// AF_UNIX path; a leading NUL marks an abstract name.
    pub path: [u8; UNIX_PATH_ROOM],
    /// Zero.
    pub pad_end: u32,
}

/// What went well at a listener.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ListenerStats {
    /// Connections that were accepted.
    pub accepted: u64,
    /// When the last of them was, nanoseconds of `CLOCK_MONOTONIC`.
    pub last_accept_ns: u64,
    /// Start of the process that accepted it, as [`FailureKey::start_boottime_ns`].
    pub acceptor_start_ns: u64,
    /// That process.
    pub acceptor_tgid: u32,
    /// The longest that one waited, jiffies.
    pub waited_max: u32,
    /// SYN cookies that were sent since its request queue was full.
    pub cookies: u64,
    /// Connections that the program closed first, unused ([`crate::Reason::AcceptShed`]).
    pub shed: u64,
    /// Accepted connections by the time that they waited in the queue: slot 0 is less than
    /// a jiffy, slot n is from 2^(n-1) to below 2^n jiffies. Where that is not known, a
    /// connection is in none.
    pub waited: [u64; WAIT_SLOTS],
    /// The listener when it was first seen.
    pub listener: ListenerFacts,
}

/// A listener at the moment that it was closed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ClosedListener {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// Packets that were dropped for it since it existed (`sk_drops`).
    pub drops: u64,
    /// The rest.
    pub listener: ListenerFacts,
}

/// Slots of [`ListenerStats::waited`].
pub const WAIT_SLOTS: usize = 24;

const _: () = assert!(size_of::<FailureKey>() == 56);
const _: () = assert!(size_of::<ProcessFacts>() == 72);
const _: () = assert!(size_of::<ListenerFacts>() == 48);
const _: () = assert!(size_of::<FailureCount>() == 160);
const _: () = assert!(size_of::<Exemplar>() == 352);
const _: () = assert!(size_of::<ListenerStats>() == 288);
const _: () = assert!(size_of::<ClosedListener>() == 64);
