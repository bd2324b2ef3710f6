//! Numbers that user space resolves at start and hands to the kernel programs as
//! read-only globals.

/// An offset that this kernel's BTF does not have: the read is skipped.
pub const ABSENT: u32 = u32::MAX;

macro_rules! layout {
    ($($(#[$doc:meta])* $field:ident: $path:literal;)+) => {
        /// Byte offsets of the kernel fields that the programs read, from this kernel's
        /// BTF. A field that is [`ABSENT`] is skipped by the programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct Offsets {
            $($(#[$doc])* pub $field: u32,)+
        }

        impl Offsets {
            /// Nothing resolved.
            pub const NONE: Self = Self { $($field: ABSENT,)+ };

            /// Every field's path in BTF (`type.member.member`), and where it is kept.
            pub fn slots(&mut self) -> impl Iterator<Item = (&'static str, &mut u32)> {
                [$(($path, &mut self.$field)),+].into_iter()
            }
        }
    };
}

layout! {
    /// The task's open files.
    task_files: "task_struct.files";
    /// State shared by the threads of a process.
    task_signal: "task_struct.signal";
    /// Leader of the thread group.
    task_group_leader: "task_struct.group_leader";
    /// Parent that would receive SIGCHLD.
    task_real_parent: "task_struct.real_parent";
    /// Thread group id.
    task_tgid: "task_struct.tgid";
    /// `PF_*`.
    task_flags: "task_struct.flags";
    /// Its memory.
    task_mm: "task_struct.mm";
    /// Where its arguments begin.
    mm_arg_start: "mm_struct.arg_start";
    /// Where they end.
    mm_arg_end: "mm_struct.arg_end";
    /// Threads that have not ended.
    signal_live: "signal_struct.live";
    /// Name.
    task_comm: "task_struct.comm";
    /// Start, nanoseconds of `CLOCK_BOOTTIME`.
    task_start_boottime: "task_struct.start_boottime";
    /// Bottom of the kernel stack.
    task_stack: "task_struct.stack";
    /// Its `struct pid`.
    task_thread_pid: "task_struct.thread_pid";
    /// Depth of the pid namespace.
    pid_level: "pid.level";
    /// One `struct upid` for each namespace the pid is in.
    pid_numbers: "pid.numbers";
    /// Resource limits.
    signal_rlim: "signal_struct.rlim";
    /// Descriptor table of a process.
    files_fdt: "files_struct.fdt";
    /// Slots of the table.
    fdtable_max_fds: "fdtable.max_fds";
    /// Array of `struct file *`.
    fdtable_fd: "fdtable.fd";
    /// The file's inode.
    file_inode: "file.f_inode";
    /// For a socket file, its `struct socket`.
    file_private_data: "file.private_data";
    /// Type and permissions.
    inode_mode: "inode.i_mode";
    /// Inode number.
    inode_ino: "inode.i_ino";
    /// The protocol's socket.
    socket_sk: "socket.sk";
    /// `AF_*`.
    sock_family: "sock.__sk_common.skc_family";
    /// State: `TCP_LISTEN` is every stream family's.
    sock_state: "sock.__sk_common.skc_state";
    /// Local port, host order.
    sock_num: "sock.__sk_common.skc_num";
    /// Local port, network order, as it was sent.
    inet_sport: "inet_sock.inet_sport";
    /// Local IPv4 address.
    sock_rcv_saddr: "sock.__sk_common.skc_rcv_saddr";
    /// Local IPv6 address.
    sock_v6_rcv_saddr: "sock.__sk_common.skc_v6_rcv_saddr";
    /// Network namespace.
    sock_net: "sock.__sk_common.skc_net.net";
    /// `SOCK_*`.
    sock_type: "sock.sk_type";
    /// `IPPROTO_*`.
    sock_protocol: "sock.sk_protocol";
    /// Connections waiting (TCP, vsock).
    sock_ack_backlog: "sock.sk_ack_backlog";
    /// The most that may wait.
    sock_max_ack_backlog: "sock.sk_max_ack_backlog";
    /// Packets that were dropped (TCP: by a listener).
    sock_drops: "sock.sk_drops";
    /// Whether a task has locked it: packets must wait.
    sock_owned: "sock.sk_lock.owned";
    /// The error that is to be told to the program, positive.
    sock_err: "sock.sk_err";
    /// IPv4 address of the other end.
    sock_daddr: "sock.__sk_common.skc_daddr";
    /// IPv6 address of the other end.
    sock_v6_daddr: "sock.__sk_common.skc_v6_daddr";
    /// Port of the other end, network order.
    sock_dport: "sock.__sk_common.skc_dport";
    /// Its `struct socket`.
    sock_socket: "sock.sk_socket";
    /// Connections waiting (AF_UNIX).
    sock_receive_qlen: "sock.sk_receive_queue.qlen";
    /// Inode number of the namespace.
    net_inum: "net.ns.inum";
    /// Counters of TCP and of the sockets layer, one set a processor.
    net_statistics: "net.mib.net_statistics";
    /// `net.ipv4.tcp_abort_on_overflow`.
    net_abort_on_overflow: "net.ipv4.sysctl_tcp_abort_on_overflow";
    /// `net.ipv4.tcp_syncookies`.
    net_syncookies: "net.ipv4.sysctl_tcp_syncookies";
    /// `net.ipv4.tcp_max_syn_backlog`.
    net_max_syn_backlog: "net.ipv4.sysctl_max_syn_backlog";
    /// Requests (SYNs answered) of a listener.
    icsk_requests: "inet_connection_sock.icsk_accept_queue.qlen";
    /// How often the last packet was sent again.
    icsk_retransmits: "inet_connection_sock.icsk_retransmits";
    /// How often a SYN may be (`TCP_SYNCNT`); 0 is as the namespace has it.
    icsk_syn_retries: "inet_connection_sock.icsk_syn_retries";
    /// `net.ipv4.tcp_syn_retries`.
    net_syn_retries: "net.ipv4.sysctl_tcp_syn_retries";
    /// When data was last sent, jiffies; on a new connection, when its handshake ended.
    tcp_lsndtime: "tcp_sock.lsndtime";
    /// When data last came, jiffies; on a new connection, when its handshake ended.
    icsk_lrcvtime: "inet_connection_sock.icsk_ack.lrcvtime";
    /// Data that the peer has acknowledged, bytes.
    tcp_bytes_acked: "tcp_sock.bytes_acked";
    /// Data that came, bytes.
    tcp_bytes_received: "tcp_sock.bytes_received";
    /// First byte that is not acknowledged.
    tcp_snd_una: "tcp_sock.snd_una";
    /// First byte that the program has not written yet.
    tcp_write_seq: "tcp_sock.write_seq";
    /// First byte that has not come yet.
    tcp_rcv_nxt: "tcp_sock.rcv_nxt";
    /// First byte that the program has not read yet.
    tcp_copied_seq: "tcp_sock.copied_seq";
    /// Which directions the program has closed.
    sock_shutdown: "sock.sk_shutdown";
    /// The inode that is made together with a `struct socket`.
    socket_inode: "socket_alloc.vfs_inode";
    /// Where a packet's memory begins.
    skb_head: "sk_buff.head";
    /// Where its network header is in that.
    skb_network_header: "sk_buff.network_header";
    /// Where its transport header is in that.
    skb_transport_header: "sk_buff.transport_header";
    /// Bound name of an AF_UNIX socket.
    unix_addr: "unix_sock.addr";
    /// Bytes of that name, family included.
    unix_address_len: "unix_address.len";
    /// The name, a `struct sockaddr_un`.
    unix_address_name: "unix_address.name";
    /// Bound address of an AF_VSOCK socket, a `struct sockaddr_vm`.
    vsock_local_addr: "vsock_sock.local_addr";
    /// First subflow of an MPTCP socket; a listener's queue is that of its first.
    mptcp_first: "mptcp_sock.first";
    /// Which operation an io_uring request is.
    kiocb_opcode: "io_kiocb.opcode";
    /// The file it works on.
    kiocb_file: "io_kiocb.file";
    /// Where the operation keeps its own data.
    kiocb_cmd: "io_kiocb.cmd";
    /// Where an accept keeps its own data, before `cmd`.
    kiocb_accept: "io_kiocb.accept";
    /// Its result once it has one.
    kiocb_res: "io_kiocb.cqe.res";
    /// The limit that was copied when the accept was prepared.
    io_accept_nofile: "io_accept.nofile";
}

/// Filters that the kernel side applies before it counts anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct KernelFilter {
    /// Reasons to keep, bit `1 << reason`.
    pub reasons: u64,
    /// Errnos to keep, one bit each, numbers 0 to 191.
    pub errnos: [u64; 3],
    /// Errnos of 192 and above: 1 keeps them, 0 drops them.
    pub high_errnos: u32,
    /// How many of [`KernelFilter::pids`] are set; 0 keeps every process.
    pub pid_count: u32,
    /// Process ids to keep.
    pub pids: [u32; MAX_PIDS],
    /// How many of [`KernelFilter::ports`] are set; 0 keeps every listener and target.
    pub port_count: u32,
    /// Local ports to keep, and ports connected to.
    pub ports: [u32; MAX_PORTS],
    /// Most exemplars of one key between two readings of the counters.
    pub exemplars_per_key: u32,
}

/// How this architecture keeps the arguments of a syscall in progress, and the numbers
/// of the calls that are hooked.
///
/// The saved registers lie at the top of the kernel stack, at a distance that depends on
/// the kernel's configuration (x86_64 with FRED keeps 16 bytes more above them). The
/// programs try each place and believe the one that holds the number of the call they are hooked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SyscallLayout {
    /// Where a `struct pt_regs` may begin, bytes from the bottom of the stack.
    pub regs_at: [u32; 2],
    /// Offset in `struct pt_regs` of the first argument.
    pub first_argument: u32,
    /// Offset in `struct pt_regs` of the second argument.
    pub second_argument: u32,
    /// Offset in `struct pt_regs` of the third argument.
    pub third_argument: u32,
    /// Offset in `struct pt_regs` of the syscall's number.
    pub number: u32,
    /// Offset in `struct pt_regs` of the segment of the code, on x86_64.
    pub code_segment: u32,
    /// Number of accept(2).
    pub accept: u32,
    /// Number of accept4(2).
    pub accept4: u32,
    /// Number of connect(2).
    pub connect: u32,
    /// Number of io_uring_enter(2).
    pub io_uring_enter: u32,
    /// Number of recvmsg(2).
    pub recvmsg: u32,
    /// Number of inotify_init(2).
    pub inotify_init: u32,
    /// Number of inotify_init1(2).
    pub inotify_init1: u32,
    /// Keeps the size a multiple of 8 bytes.
    pub padding: u32,
    /// Calls whose success matters, a bit for each number: recvmsg, and those whose result is a new descriptor.
    pub watched: [u64; Self::WORDS],
}

impl SyscallLayout {
    /// Words of a set of calls: more calls than any architecture has.
    pub const WORDS: usize = 8;

    /// Nothing known: the descriptor of a failed call is then known only where a hook
    /// is handed it.
    pub const NONE: Self = Self {
        regs_at: [ABSENT; 2],
        first_argument: ABSENT,
        second_argument: ABSENT,
        third_argument: ABSENT,
        number: ABSENT,
        code_segment: ABSENT,
        accept: ABSENT,
        accept4: ABSENT,
        connect: ABSENT,
        io_uring_enter: ABSENT,
        recvmsg: ABSENT,
        inotify_init: ABSENT,
        inotify_init1: ABSENT,
        padding: 0,
        watched: [0; Self::WORDS],
    };
}

/// Where a processor's counters of dropped connections are.
///
/// They tell what the kernel did, not what it was about to do: a queue that was full when a
/// hook looked may have had room when the kernel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Address of the array of each processor's base (`__per_cpu_offset`); 0 is unknown.
    pub per_cpu_offset: u64,
    /// Offset of `ListenOverflows` in a `struct linux_mib`.
    pub overflows: u32,
    /// Offset of `ListenDrops`.
    pub drops: u32,
    /// Offset of `TCPReqQFullDoCookies`.
    pub cookies: u32,
    /// Offset of `TCPReqQFullDrop`.
    pub request_drops: u32,
}

impl Counters {
    /// Nothing known.
    pub const NONE: Self = Self {
        per_cpu_offset: 0,
        overflows: 0,
        drops: 0,
        cookies: 0,
        request_drops: 0,
    };
}

/// What else the programs are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Length of a jiffy, nanoseconds; 0 is unknown.
    pub jiffy_ns: u32,
    /// From this long in the queue an accepted connection was slow, jiffies; `u32::MAX` is
    /// never.
    pub slow_jiffies: u32,
    /// 1: what io_uring completes is seen by a tracepoint, which is to note accepted
    /// connections too.
    pub uring_accepted: u32,
    /// 1: keep the number of drops of listeners that are closed, for user space polls it.
    pub final_drops: u32,
    /// From this long a connect that waits is slow, nanoseconds; `u64::MAX` is never.
    pub slow_ns: u64,
    /// 1: note processes that come close to their limit of descriptors.
    pub pressure: u32,
    /// 1: what inotify_init returns has a hook of its own.
    pub inotify: u32,
}

impl Settings {
    /// Watches nothing.
    pub const NONE: Self = Self {
        jiffy_ns: 0,
        slow_jiffies: u32::MAX,
        uring_accepted: 0,
        final_drops: 0,
        slow_ns: u64::MAX,
        pressure: 0,
        inotify: 0,
    };
}

/// Most process ids that the kernel side filters by.
pub const MAX_PIDS: usize = 16;
/// Most ports that the kernel side filters by.
pub const MAX_PORTS: usize = 16;

impl KernelFilter {
    /// Keeps everything.
    pub const EVERYTHING: Self = Self {
        reasons: u64::MAX,
        errnos: [u64::MAX; 3],
        high_errnos: 1,
        pid_count: 0,
        pids: [0; MAX_PIDS],
        port_count: 0,
        ports: [0; MAX_PORTS],
        exemplars_per_key: 10,
    };
}

/// Hooks that one program at changes of TCP sockets' states serves: bits of the `STATES` map's only element.
pub mod states {
    /// Connections that are begun, and how that ends.
    pub const CONNECT: u32 = 1;
    /// Connections that their program closes.
    pub const SHED: u32 = 2;
    /// Listeners that are closed.
    pub const LISTEN_CLOSE: u32 = 4;
}

/// Kernel-side losses, each a slot of the `LOST` map.
pub mod lost {
    /// Exemplars that found the ring buffer full.
    pub const RING: u32 = 0;
    /// Failures that found the counter map full: counted in no key.
    pub const MAP: u32 = 1;
    /// Accepted connections and cookies that found the map of listeners full.
    pub const LISTENERS: u32 = 2;
    /// Connections being made that found the map of them full: if they fail later, nobody
    /// learns of it.
    pub const CONNECTING: u32 = 3;
    /// Number of slots.
    pub const SLOTS: u32 = 4;
}

const _: () = assert!(size_of::<KernelFilter>() == 176);
