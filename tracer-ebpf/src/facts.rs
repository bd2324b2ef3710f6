//! Reads what is known of the failing task and of the listener.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{bpf_get_current_cgroup_id, bpf_get_current_task},
};
use turnaway_common::{
    Exemplar, ListenerFacts, ProcessFacts,
    failure::{UNIX_PATH_LEN, UNIX_PATH_ROOM, known},
    layout::ABSENT,
};

use crate::{
    emit::UNKNOWN,
    globals::{global, offset},
    kread::Addr,
};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_VSOCK: u16 = 40;
const IPPROTO_MPTCP: u16 = 262;
/// `S_IFMT` and `S_IFSOCK` of include/uapi/linux/stat.h.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// Index of `RLIMIT_NOFILE`, and the size of a `struct rlimit`, whose first half is
/// the soft limit.
const RLIMIT_NOFILE: usize = 7;
const RLIMIT_SIZE: usize = 16;
/// A `struct upid` is an `int nr` and a pointer.
const UPID_SIZE: usize = 16;
/// `pid_namespace` depth limit (`MAX_PID_NS_LEVEL`).
const MAX_PID_NS_LEVEL: u32 = 32;
/// `PF_EXITING`, `PF_IO_WORKER` and `PF_KTHREAD` of include/linux/sched.h.
const PF_EXITING: u32 = 0x0000_0004;
const PF_KTHREAD: u32 = 0x0020_0000;
const PF_IO_WORKER: u32 = 0x0000_0010;
/// `struct sockaddr_vm`: family, reserved, port, cid.
const VM_PORT: usize = 4;
const VM_CID: usize = 8;
/// Offset of `sun_path` in a `struct sockaddr_un`.
const SUN_PATH: usize = 2;

/// The task that runs now.
#[inline(always)]
pub(crate) fn current_task() -> Option<Addr> {
    // SAFETY: the helper takes nothing and returns the current task's address.
    Addr::new(unsafe { bpf_get_current_task() })
}

/// Process and thread id of the task that runs now.
#[inline(always)]
pub(crate) fn current_ids() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// The thread that runs now, as one number.
#[inline(always)]
pub(crate) fn this_thread() -> u64 {
    bpf_get_current_pid_tgid()
}

/// Whether a kernel thread runs now.
#[inline(always)]
pub(crate) fn is_kernel_thread(task: Addr) -> bool {
    task.field::<u32>(offset!(task_flags))
        .is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// Whether a task is about to end, and closes what it has open.
#[inline(always)]
pub(crate) fn is_exiting(task: Addr) -> bool {
    task.field::<u32>(offset!(task_flags))
        .is_some_and(|flags| flags & PF_EXITING != 0)
}

/// Whether a task has locked a socket: what happens to it is not a packet's doing.
#[inline(always)]
pub(crate) fn is_locked(sk: Addr) -> bool {
    sk.field::<u32>(offset!(sock_owned))
        .is_some_and(|owned| owned != 0)
}

/// Whether a worker of io_uring's runs now: a thread of its program, or on old kernels one
/// of the kernel's.
#[inline(always)]
pub(crate) fn is_uring_worker(task: Addr) -> bool {
    task.field::<u32>(offset!(task_flags))
        .is_some_and(|flags| flags & PF_IO_WORKER != 0)
}

/// Start of the process, nanoseconds of `CLOCK_BOOTTIME`; 0 where it can't be read.
#[inline(always)]
pub(crate) fn process_start(task: Addr) -> u64 {
    task.follow(offset!(task_group_leader))
        .and_then(|leader| leader.field(offset!(task_start_boottime)))
        .unwrap_or(0)
}

/// The system call that a task is in.
pub(crate) struct SystemCall {
    /// Its number, or [`UNKNOWN`].
    pub(crate) number: u64,
    /// Its first argument as a descriptor, or [`UNKNOWN`].
    pub(crate) fd: u64,
    /// Where its registers are saved, or 0.
    registers: u64,
}

impl SystemCall {
    /// The second argument, or 0.
    #[inline(always)]
    pub(crate) fn second(&self) -> u64 {
        self.argument(global!(SYSCALL_LAYOUT.second_argument))
    }

    /// The third argument, or 0.
    #[inline(always)]
    pub(crate) fn third(&self) -> u64 {
        self.argument(global!(SYSCALL_LAYOUT.third_argument))
    }

    #[inline(always)]
    fn argument(&self, at: u32) -> u64 {
        Addr::new(self.registers)
            .and_then(|registers| registers.at(at as usize).read())
            .unwrap_or(0)
    }
}

/// The accept call that the task is in.
#[inline(always)]
pub(crate) fn accept_call(task: Addr) -> SystemCall {
    system_call(
        task,
        global!(SYSCALL_LAYOUT.accept),
        global!(SYSCALL_LAYOUT.accept4),
    )
}

/// The connect call that the task is in, or the call that has io_uring connect.
#[inline(always)]
pub(crate) fn connect_call(task: Addr) -> SystemCall {
    system_call(
        task,
        global!(SYSCALL_LAYOUT.connect),
        global!(SYSCALL_LAYOUT.io_uring_enter),
    )
}

/// The call that the task is in, if it is one of two.
#[inline(always)]
fn system_call(task: Addr, one: u32, other: u32) -> SystemCall {
    let mut call = SystemCall {
        number: UNKNOWN,
        fd: UNKNOWN,
        registers: 0,
    };
    if let Some(stack) = task.follow(offset!(task_stack))
        && !read_call(
            stack,
            global!(SYSCALL_LAYOUT.regs_at[0]),
            (one, other),
            &mut call,
        )
    {
        let _ = read_call(
            stack,
            global!(SYSCALL_LAYOUT.regs_at[1]),
            (one, other),
            &mut call,
        );
    }
    call
}

#[inline(always)]
fn read_call(stack: Addr, regs_at: u32, numbers: (u32, u32), out: &mut SystemCall) -> bool {
    if regs_at == ABSENT {
        return false;
    }
    let regs = stack.at(regs_at as usize);
    let Some(number) = regs
        .at(global!(SYSCALL_LAYOUT.number) as usize)
        .read::<u64>()
    else {
        return false;
    };
    if number != u64::from(numbers.0) && number != u64::from(numbers.1) {
        return false;
    }
    let Some(fd) = regs
        .at(global!(SYSCALL_LAYOUT.first_argument) as usize)
        .read::<u64>()
    else {
        return false;
    };
    out.number = number;
    // The kernel looks at the lower half only.
    out.fd = fd & 0xffff_ffff;
    out.registers = regs.raw();
    true
}

/// The system call that a task is in, whichever it is.
pub(crate) struct AnyCall {
    /// Its number, or [`UNKNOWN`].
    pub(crate) number: u64,
    /// Its first argument.
    pub(crate) first: u64,
    /// It is a 32-bit program's, whose calls have other numbers.
    pub(crate) is_compat: bool,
}

/// Segments of the code of programs on x86_64 (`__USER_CS` and `__USER32_CS` of
/// arch/x86/include/asm/segment.h).
pub(crate) const USER_CS: u16 = 0x33;
const USER32_CS: u16 = 0x23;

/// The call that the task is in. Where its registers may be at several places, they are where the code's
/// segment is one of programs.
#[inline(always)]
pub(crate) fn any_call(task: Addr) -> AnyCall {
    let mut call = AnyCall {
        number: UNKNOWN,
        first: 0,
        is_compat: false,
    };
    if let Some(stack) = task.follow(offset!(task_stack))
        && !read_any_call(stack, global!(SYSCALL_LAYOUT.regs_at[0]), &mut call)
    {
        let _ = read_any_call(stack, global!(SYSCALL_LAYOUT.regs_at[1]), &mut call);
    }
    call
}

#[inline(always)]
fn read_any_call(stack: Addr, regs_at: u32, out: &mut AnyCall) -> bool {
    if regs_at == ABSENT {
        return false;
    }
    let regs = stack.at(regs_at as usize);
    let code_segment = global!(SYSCALL_LAYOUT.code_segment);
    if code_segment != ABSENT {
        let mut segment = 0_u16;
        if !regs.copy_field(Some(code_segment as usize), &mut segment)
            || segment != USER_CS && segment != USER32_CS
        {
            return false;
        }
        out.is_compat = segment == USER32_CS;
    }
    let (mut number, mut first) = (0_u64, 0_u64);
    if !regs.copy_field(Some(global!(SYSCALL_LAYOUT.number) as usize), &mut number)
        || !regs.copy_field(
            Some(global!(SYSCALL_LAYOUT.first_argument) as usize),
            &mut first,
        )
    {
        return false;
    }
    out.number = number & 0xffff_ffff;
    out.first = first;
    true
}

/// A process's table of descriptors.
#[derive(Clone, Copy)]
pub(crate) struct Descriptors {
    slots: u64,
    files: Addr,
}

impl Descriptors {
    /// The current process's.
    #[inline(always)]
    pub(crate) fn of(task: Addr) -> Option<Self> {
        let table = task
            .follow(offset!(task_files))?
            .follow(offset!(files_fdt))?;
        let slots: u32 = table.field(offset!(fdtable_max_fds))?;
        Some(Self {
            slots: u64::from(slots),
            files: table.follow(offset!(fdtable_fd))?,
        })
    }

    /// Address of the open file behind a descriptor, or 0.
    #[inline(always)]
    pub(crate) fn file(self, fd: u64) -> u64 {
        // A negative descriptor is a large number here.
        if fd >= self.slots {
            return 0;
        }
        self.files
            .at(fd as usize * size_of::<u64>())
            .read()
            .unwrap_or(0)
    }
}

/// Address of the open file behind a descriptor of the current process, or 0.
#[inline(always)]
pub(crate) fn file_of(task: Addr, fd: u64) -> u64 {
    Descriptors::of(task).map_or(0, |descriptors| descriptors.file(fd))
}

/// Number of the socket inode behind a file, or 0 if the file is no socket.
#[inline(always)]
pub(crate) fn socket_inode(file: u64) -> u64 {
    if let Some(file) = Addr::new(file)
        && let Some(inode) = file.follow(offset!(file_inode))
        && let Some(mode) = inode.field::<u16>(offset!(inode_mode))
        && mode & S_IFMT == S_IFSOCK
    {
        return inode.field(offset!(inode_ino)).unwrap_or(0);
    }
    0
}

/// Number of the socket inode that belongs to a protocol's socket, or 0.
///
/// The inode lies beside the `struct socket`, so that it is found for a socket without a
/// file too: those of MPTCP's own TCP listeners, whose inode number is the MPTCP socket's.
#[inline(always)]
pub(crate) fn inode_of(sk: Addr) -> u64 {
    if let Some(socket) = sk.follow(offset!(sock_socket))
        && let Some(inode) = offset!(socket_inode)
    {
        return socket.at(inode).field(offset!(inode_ino)).unwrap_or(0);
    }
    0
}

/// The protocol's socket behind a file that is known to be a socket.
#[inline(always)]
pub(crate) fn sk_of(file: u64) -> Option<Addr> {
    Addr::new(file)?
        .follow(offset!(file_private_data))?
        .follow(offset!(socket_sk))
}

/// Reads the soft limit of descriptors of a task's process.
#[inline(always)]
pub(crate) fn read_nofile(task: Addr, out: &mut u64) -> bool {
    task.follow(offset!(task_signal)).is_some_and(|limits| {
        limits
            .at(RLIMIT_NOFILE * RLIMIT_SIZE)
            .copy_field(offset!(signal_rlim), out)
    })
}

/// Fills in the process and the thread that run now. What was filled in before (limit,
/// syscall) stays.
///
/// `out` is memory of a map or of the ring, not of the stack: what is written there need
/// not fit in 512 bytes, and the verifier forgets it, so that the ways through the
/// optional fields join again instead of multiplying.
#[inline(always)]
pub(crate) fn read_process(task: Addr, out: &mut ProcessFacts) {
    let (_, tid) = current_ids();
    out.tid = tid;
    out.uid = bpf_get_current_uid_gid() as u32;
    // SAFETY: the helper takes nothing; it is there since Linux 4.18.
    out.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    out.known |= known::CGROUP_ID;
    if is_kernel_thread(task) {
        out.known |= known::KERNEL_WORKER;
    }
    let _ = task.copy_field(offset!(task_comm), &mut out.thread_comm);
    if out.known & known::NOFILE == 0 && read_nofile(task, &mut out.nofile_soft) {
        out.known |= known::NOFILE;
    }
    let Some(leader) = task.follow(offset!(task_group_leader)) else {
        return;
    };
    let _ = leader.copy_field(offset!(task_comm), &mut out.comm);
    if let Some(parent) = leader.follow(offset!(task_real_parent))
        && parent.copy_field(offset!(task_tgid), &mut out.parent_tgid)
    {
        out.known |= known::PARENT;
    }
    if let Some(pid) = leader.follow(offset!(task_thread_pid))
        && let Some(level) = pid.field::<u32>(offset!(pid_level))
        && level <= MAX_PID_NS_LEVEL
        && pid
            .at(level as usize * UPID_SIZE)
            .copy_field(offset!(pid_numbers), &mut out.ns_tgid)
    {
        out.known |= known::NS_TGID;
    }
}

/// Fills in what kind of socket it is and where; `out` as for [`read_process`].
#[inline(always)]
pub(crate) fn read_socket(sk: Addr, out: &mut ListenerFacts) {
    if !(sk.copy_field(offset!(sock_family), &mut out.family)
        && sk.copy_field(offset!(sock_protocol), &mut out.protocol)
        && sk.copy_field(offset!(sock_type), &mut out.socket_type))
    {
        return;
    }
    out.known |= known::SOCKET;
    if let Some(net) = sk.follow(offset!(sock_net))
        && net.copy_field(offset!(net_inum), &mut out.netns)
    {
        out.known |= known::NETNS;
    }
}

/// Fills in the listener behind a protocol's socket; `out` as for [`read_process`].
#[inline(always)]
pub(crate) fn read_listener(sk: Addr, out: &mut ListenerFacts) {
    read_socket(sk, out);
    if out.known & known::SOCKET == 0 {
        return;
    }
    let family = out.family;
    if read_address(sk, family, out) {
        out.known |= known::ADDRESS;
    }
    if read_queue(sk, family, out) {
        out.known |= known::QUEUE;
    }
}

/// The bound port of an IPv4, IPv6 or vsock socket.
#[inline(always)]
pub(crate) fn port_of(sk: Addr) -> Option<u32> {
    match sk.field::<u16>(offset!(sock_family))? {
        AF_INET | AF_INET6 => inet_port(sk).map(u32::from),
        AF_VSOCK => sk.at(VM_PORT).field(offset!(vsock_local_addr)),
        _ => None,
    }
}

/// The bound port. A socket that is being closed has given a port back that it did not ask
/// for by number, and remembers only what it sent in its packets.
#[inline(always)]
fn inet_port(sk: Addr) -> Option<u16> {
    match sk.field::<u16>(offset!(sock_num))? {
        0 => sk.field::<u16>(offset!(inet_sport)).map(u16::from_be),
        port => Some(port),
    }
}

/// Fills in the bound address: IPv4, IPv6 and vsock; AF_UNIX has [`read_path`].
#[inline(always)]
fn read_address(sk: Addr, family: u16, out: &mut ListenerFacts) -> bool {
    match family {
        AF_INET | AF_INET6 => {
            let Some(port) = inet_port(sk) else {
                return false;
            };
            out.port = u32::from(port);
            let (at, len) = if family == AF_INET {
                (offset!(sock_rcv_saddr), 4)
            } else {
                (offset!(sock_v6_rcv_saddr), 16)
            };
            at.is_some_and(|at| sk.at(at).copy_to(out.addr.as_mut_ptr(), len))
        }
        AF_VSOCK => {
            sk.at(VM_PORT)
                .copy_field(offset!(vsock_local_addr), &mut out.port)
                && offset!(vsock_local_addr)
                    .is_some_and(|at| sk.at(at).at(VM_CID).copy_to(out.addr.as_mut_ptr(), 4))
        }
        _ => false,
    }
}

/// Fills in how many connections wait and how many may.
#[inline(always)]
fn read_queue(sk: Addr, family: u16, out: &mut ListenerFacts) -> bool {
    if family == AF_UNIX {
        return sk.copy_field(offset!(sock_receive_qlen), &mut out.queue)
            && sk.copy_field(offset!(sock_max_ack_backlog), &mut out.backlog);
    }
    let queued_on = if out.protocol == IPPROTO_MPTCP {
        // An MPTCP listener queues on its first subflow.
        sk.follow(offset!(mptcp_first))
    } else {
        Some(sk)
    };
    queued_on.is_some_and(|sk| {
        sk.copy_field(offset!(sock_ack_backlog), &mut out.queue)
            && sk.copy_field(offset!(sock_max_ack_backlog), &mut out.backlog)
    })
}

/// Fills in who sent a TCP packet that is about to be handled.
#[inline(always)]
pub(crate) fn read_sender(skb: Addr, out: &mut Exemplar) {
    /// Offsets of the sender in IPv4 and IPv6 headers; its port begins the TCP header.
    const IPV4_SOURCE: usize = 12;
    const IPV6_SOURCE: usize = 8;
    let Some(head) = skb.follow(offset!(skb_head)) else {
        return;
    };
    let (mut network, mut transport) = (0_u16, 0_u16);
    if !skb.copy_field(offset!(skb_network_header), &mut network)
        || !skb.copy_field(offset!(skb_transport_header), &mut transport)
    {
        return;
    }
    let header = head.at(network as usize);
    let (mut version, mut port) = (0_u8, 0_u16);
    if !header.copy_field(Some(0), &mut version)
        || !head.copy_field(Some(transport as usize), &mut port)
    {
        return;
    }
    let (family, at, len) = match version >> 4 {
        4 => (AF_INET, IPV4_SOURCE, 4),
        6 => (AF_INET6, IPV6_SOURCE, 16),
        _ => return,
    };
    if header.at(at).copy_to(out.peer_addr.as_mut_ptr(), len) {
        out.peer_family = family;
        out.peer_port = u32::from(u16::from_be(port));
        out.listener.known |= known::PEER;
    }
}

/// Fills in the other end of a TCP connection.
#[inline(always)]
pub(crate) fn read_peer(sk: Addr, out: &mut Exemplar) {
    let (mut family, mut port) = (0_u16, 0_u16);
    if !sk.copy_field(offset!(sock_family), &mut family)
        || !sk.copy_field(offset!(sock_dport), &mut port)
    {
        return;
    }
    let (at, len) = match family {
        AF_INET => (offset!(sock_daddr), 4),
        AF_INET6 => (offset!(sock_v6_daddr), 16),
        _ => return,
    };
    if let Some(at) = at
        && sk.at(at).copy_to(out.peer_addr.as_mut_ptr(), len)
    {
        out.peer_family = family;
        out.peer_port = u32::from(u16::from_be(port));
        out.listener.known |= known::PEER;
    }
}

/// Fills in the path an AF_UNIX socket is bound to.
#[inline(always)]
pub(crate) fn read_path(sk: Addr, out: &mut Exemplar) {
    if out.listener.known & known::SOCKET == 0 || out.listener.family != AF_UNIX {
        return;
    }
    let Some(address) = sk.field::<u64>(offset!(unix_addr)) else {
        return;
    };
    let Some(address) = Addr::new(address) else {
        // Not bound: it has no name, which is something known.
        out.listener.known |= known::PATH;
        return;
    };
    let Some(name) = offset!(unix_address_name) else {
        return;
    };
    let mut len = 0_u32;
    if !address.copy_field(offset!(unix_address_len), &mut len) {
        return;
    }
    let len = len.wrapping_sub(SUN_PATH as u32);
    if len > UNIX_PATH_LEN as u32 {
        return;
    }
    // Old verifiers forget what they knew of a number that was kept on the stack: the mask
    // says it again, and must not be optimised away.
    let bounded = core::hint::black_box(len) & (UNIX_PATH_ROOM as u32 - 1);
    if len == 0
        || address
            .at(name + SUN_PATH)
            .copy_to(out.path.as_mut_ptr(), bounded)
    {
        out.path_len = len;
        out.listener.known |= known::PATH;
    }
}
