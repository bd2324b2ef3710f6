//! The system calls of workloads, as they are: the standard library hides what the tests are
//! about, such as which accept is called and what it returned.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// An errno.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// That of this thread's last call that failed.
    #[must_use]
    pub fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// Its name, of those that accept and connect return in the tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            libc::EPERM => "EPERM",
            libc::EINTR => "EINTR",
            libc::EBADF => "EBADF",
            libc::EAGAIN => "EAGAIN",
            libc::EACCES => "EACCES",
            libc::EFAULT => "EFAULT",
            libc::EINVAL => "EINVAL",
            libc::ENFILE => "ENFILE",
            libc::EMFILE => "EMFILE",
            libc::EPROTO => "EPROTO",
            libc::ENOTSOCK => "ENOTSOCK",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::ECONNABORTED => "ECONNABORTED",
            libc::ENOBUFS => "ENOBUFS",
            libc::ENOMEM => "ENOMEM",
            libc::ENOLINK => "ENOLINK",
            libc::ECANCELED => "ECANCELED",
            libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
            libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
            libc::EAFNOSUPPORT => "EAFNOSUPPORT",
            libc::ENOENT => "ENOENT",
            libc::ECONNREFUSED => "ECONNREFUSED",
            libc::ECONNRESET => "ECONNRESET",
            libc::ETIMEDOUT => "ETIMEDOUT",
            libc::ENETUNREACH => "ENETUNREACH",
            libc::EHOSTUNREACH => "EHOSTUNREACH",
            libc::EINPROGRESS => "EINPROGRESS",
            libc::EALREADY => "EALREADY",
            libc::EPROTOTYPE => "EPROTOTYPE",
            _ => "(an errno that no test expects)",
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

/// Fails with the last errno if a call returned a negative number.
fn checked(returned: i32) -> Result<i32, Errno> {
    if returned < 0 {
        return Err(Errno::last());
    }
    Ok(returned)
}

/// A descriptor that a call returned.
fn owned(returned: i32) -> Result<OwnedFd, Errno> {
    let fd = checked(returned)?;
    // SAFETY: the call created the descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How accept or connect is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// accept(2).
    Accept,
    /// accept4(2).
    Accept4,
    /// `IORING_OP_ACCEPT`.
    IoUringAccept,
    /// connect(2).
    Connect,
    /// `IORING_OP_CONNECT`.
    IoUringConnect,
}

impl Call {
    /// As records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Accept4 => "accept4",
            Self::IoUringAccept => "io_uring_accept",
            Self::Connect => "connect",
            Self::IoUringConnect => "io_uring_connect",
        }
    }
}

/// accept(2), by that very system call.
pub fn accept(fd: RawFd) -> Result<OwnedFd, Errno> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: no address is asked for, so nothing is written.
    let returned = unsafe { libc::syscall(libc::SYS_accept, fd, none, none) };
    owned(i32::try_from(returned).unwrap_or(-1))
}

/// accept4(2), by that very system call.
pub fn accept4(fd: RawFd, flags: i32) -> Result<OwnedFd, Errno> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: no address is asked for, so nothing is written.
    let returned = unsafe { libc::syscall(libc::SYS_accept4, fd, none, none, flags) };
    owned(i32::try_from(returned).unwrap_or(-1))
}

/// accept4(2) that is to write the peer's address where nothing can be written.
pub fn accept4_to_nowhere(fd: RawFd) -> Result<OwnedFd, Errno> {
    let mut len: libc::socklen_t = 128;
    let nowhere = std::ptr::without_provenance_mut::<libc::c_void>(1);
    // SAFETY: the kernel checks the address, which is no mapped page, and returns EFAULT.
    let returned = unsafe { libc::syscall(libc::SYS_accept4, fd, nowhere, &raw mut len, 0) };
    owned(i32::try_from(returned).unwrap_or(-1))
}

/// One of the two system calls.
pub fn accept_by(call: Call, fd: RawFd) -> Result<OwnedFd, Errno> {
    match call {
        Call::Accept => accept(fd),
        _ => accept4(fd, libc::SOCK_CLOEXEC),
    }
}

/// An address in the kernel's form.
pub struct SockAddr {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl SockAddr {
    /// Made of a structure of the kernel's.
    fn of<T>(address: T, len: usize) -> Self {
        assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>());
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        // SAFETY: it is large enough and aligned for every address, as asserted and as POSIX has
        // it, and T is plain data.
        unsafe { (&raw mut storage).cast::<T>().write(address) };
        Self {
            storage,
            len: libc::socklen_t::try_from(len).unwrap_or(0),
        }
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub fn inet(address: std::net::SocketAddr) -> Self {
        match address {
            std::net::SocketAddr::V4(address) => Self::of(
                libc::sockaddr_in {
                    sin_family: family(libc::AF_INET),
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(address.ip().octets()),
                    },
                    sin_zero: [0; 8],
                },
                size_of::<libc::sockaddr_in>(),
            ),
            std::net::SocketAddr::V6(address) => Self::of(
                libc::sockaddr_in6 {
                    sin6_family: family(libc::AF_INET6),
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr {
                        s6_addr: address.ip().octets(),
                    },
                    sin6_scope_id: 0,
                },
                size_of::<libc::sockaddr_in6>(),
            ),
        }
    }

    /// AF_UNIX: a path, or a name that starts with a zero byte.
    ///
    /// # Panics
    ///
    /// If it is longer than such names may be.
    #[must_use]
    pub fn unix(name: &[u8]) -> Self {
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
        address.sun_family = family(libc::AF_UNIX);
        assert!(name.len() < address.sun_path.len(), "the name is too long");
        for (to, from) in address.sun_path.iter_mut().zip(name) {
            *to = from.cast_signed();
        }
        let len = mem::offset_of!(libc::sockaddr_un, sun_path) + name.len();
        // A path ends with a zero byte, an abstract name with its length.
        let len = len + usize::from(name.first() != Some(&0));
        Self::of(address, len)
    }

    /// AF_VSOCK.
    #[must_use]
    pub fn vsock(cid: u32, port: u32) -> Self {
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut address: libc::sockaddr_vm = unsafe { mem::zeroed() };
        address.svm_family = family(libc::AF_VSOCK);
        address.svm_cid = cid;
        address.svm_port = port;
        Self::of(address, size_of::<libc::sockaddr_vm>())
    }

    /// The address that a socket is bound to.
    pub fn bound_to(fd: &OwnedFd) -> Result<Self, Errno> {
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let mut len = libc::socklen_t::try_from(size_of_val(&storage)).unwrap_or(0);
        // SAFETY: both outlive the call and `len` is the first one's size.
        checked(unsafe {
            libc::getsockname(fd.as_raw_fd(), (&raw mut storage).cast(), &raw mut len)
        })?;
        Ok(Self { storage, len })
    }

    /// For calls that take it as it is.
    #[must_use]
    pub fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.storage).cast(), self.len)
    }

    /// The port of an IPv4, IPv6 or vsock address.
    #[must_use]
    pub fn port(&self) -> Option<u32> {
        let storage = &raw const self.storage;
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that it is this structure.
                let address = unsafe { &*storage.cast::<libc::sockaddr_in>() };
                Some(u16::from_be(address.sin_port).into())
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that it is this structure.
                let address = unsafe { &*storage.cast::<libc::sockaddr_in6>() };
                Some(u16::from_be(address.sin6_port).into())
            }
            libc::AF_VSOCK => {
                // SAFETY: the family says that it is this structure.
                let address = unsafe { &*storage.cast::<libc::sockaddr_vm>() };
                Some(address.svm_port)
            }
            _ => None,
        }
    }
}

fn family(number: i32) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or(0)
}

/// socket(2), close-on-exec.
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers only.
    owned(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })
}

/// bind(2).
pub fn bind(fd: &OwnedFd, address: &SockAddr) -> Result<(), Errno> {
    // SAFETY: the address outlives the call and `len` is at most its size.
    checked(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address.storage).cast(),
            address.len,
        )
    })
    .map(drop)
}

/// listen(2).
pub fn listen(fd: &OwnedFd, backlog: u32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::listen(fd.as_raw_fd(), i32::try_from(backlog).unwrap_or(i32::MAX)) })
        .map(drop)
}

/// connect(2), again where a signal interrupts it.
pub fn connect(fd: &OwnedFd, address: &SockAddr) -> Result<(), Errno> {
    // SAFETY: the address outlives the call and `len` is at most its size.
    checked(unsafe {
        libc::connect(
            fd.as_raw_fd(),
            (&raw const address.storage).cast(),
            address.len,
        )
    })
    .map(drop)
}

/// Has a listener take data that comes with a SYN, of so many clients at once.
pub fn fast_open(fd: &OwnedFd, most: i32) -> Result<(), Errno> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &most)
}

/// Connects and sends data with the SYN.
pub fn send_with_syn(fd: &OwnedFd, address: &SockAddr, data: &[u8]) -> Result<(), Errno> {
    // SAFETY: data and address outlive the call, their lengths are theirs.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL,
            (&raw const address.storage).cast(),
            address.len,
        )
    };
    if sent < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// connect(2) with an address that is nowhere.
pub fn connect_to_nowhere(fd: RawFd) -> Result<(), Errno> {
    let nowhere = std::ptr::without_provenance::<libc::sockaddr>(1);
    // SAFETY: the kernel checks the address, which is no mapped page, and returns EFAULT.
    checked(unsafe { libc::connect(fd, nowhere, 16) }).map(drop)
}

/// connect(2) for a number that need not be a socket.
pub fn connect_number(fd: RawFd, address: &SockAddr) -> Result<(), Errno> {
    // SAFETY: the address outlives the call and `len` is at most its size.
    checked(unsafe { libc::connect(fd, (&raw const address.storage).cast(), address.len) })
        .map(drop)
}

/// The error that a socket has for its program, which takes it away.
pub fn take_error(fd: &OwnedFd) -> Result<Errno, Errno> {
    let mut error = 0_i32;
    let mut len = libc::socklen_t::try_from(size_of_val(&error)).unwrap_or(0);
    // SAFETY: both outlive the call and `len` is the first one's size.
    checked(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut len,
        )
    })?;
    Ok(Errno(error))
}

/// How often a SYN is sent again: after 1, 3, 7 … seconds.
pub fn set_syn_retries(fd: &OwnedFd, retries: i32) -> Result<(), Errno> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_SYNCNT, &retries)
}

/// How long a blocking connect waits.
pub fn set_send_timeout(fd: &OwnedFd, timeout: Duration) -> Result<(), Errno> {
    let timeout = libc::timeval {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_usec: i64::from(timeout.subsec_micros()),
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &timeout)
}

/// Makes close reset the connection, so that no port is kept for its sake.
pub fn reset_on_close(fd: &OwnedFd) -> Result<(), Errno> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Has the kernel keep a handshake open until the client sends something.
pub fn defer_accept(fd: &OwnedFd, seconds: i32) -> Result<(), Errno> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)
}

/// Lets several sockets listen on the same port.
pub fn share_port(fd: &OwnedFd) -> Result<(), Errno> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1_i32)
}

/// Whether an IPv6 socket leaves IPv4 alone.
pub fn set_v6_only(fd: &OwnedFd, only: bool) -> Result<(), Errno> {
    set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &i32::from(only))
}

fn set_option<T>(fd: &OwnedFd, level: i32, name: i32, value: &T) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the value outlives the call and `len` is its size.
    checked(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const *value).cast(), len)
    })
    .map(drop)
}

/// shutdown(2) for reading.
pub fn shutdown_read(fd: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RD) }).map(drop)
}

/// Sets or clears O_NONBLOCK.
pub fn set_nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// A copy of a descriptor at the lowest free number.
pub fn dup(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: takes a number only.
    owned(unsafe { libc::dup(fd) })
}

/// Closes a number, owned or not.
pub fn close_number(fd: RawFd) {
    // SAFETY: the callers give up what the number stands for.
    unsafe { libc::close(fd) };
}

/// pipe(2): the end to read from and the one to write to.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut ends = [0; 2];
    // SAFETY: two numbers are written to an array of two.
    checked(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((owned(ends[0])?, owned(ends[1])?))
}

/// Sends a copy of a descriptor over an AF_UNIX socket: SCM_RIGHTS.
pub fn send_descriptor(socket: &OwnedFd, fd: &OwnedFd) -> Result<(), Errno> {
    const BYTES: u32 = u32::from_ne_bytes(4_i32.to_ne_bytes());
    let mut byte = 0_u8;
    let mut data = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // Room for one descriptor, aligned as the header in it must be.
    let mut control = [0_u64; 4];
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: computes a number.
    let space = unsafe { libc::CMSG_SPACE(BYTES) };
    message.msg_controllen = usize::try_from(space).unwrap_or(0);
    // SAFETY: the control buffer has room for a header and one descriptor behind it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = usize::try_from(libc::CMSG_LEN(BYTES)).unwrap_or(0);
        libc::CMSG_DATA(header)
            .cast::<RawFd>()
            .write_unaligned(fd.as_raw_fd());
    }
    // SAFETY: the message and all that it points to outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    checked(i32::try_from(sent).unwrap_or(-1)).map(drop)
}

/// getppid(2): hardly more than the way into the kernel and back.
#[must_use]
pub fn parent() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::getppid() }
}

/// socketpair(2) of AF_UNIX datagrams.
pub fn socket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut ends = [0; 2];
    // SAFETY: two numbers are written to an array of two.
    checked(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, ends.as_mut_ptr()) })?;
    Ok((owned(ends[0])?, owned(ends[1])?))
}

/// Soft and hard `RLIMIT_NOFILE`.
pub fn nofile() -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure outlives the call.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets soft and hard `RLIMIT_NOFILE`.
pub fn set_nofile(soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the structure outlives the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Lifts `RLIMIT_MEMLOCK`.
pub fn lock_any_memory() -> Result<(), Errno> {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the structure outlives the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }).map(drop)
}

/// Names the calling thread.
pub fn set_thread_name(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the string outlives the call.
    checked(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }).map(drop)
}

/// Has the kernel kill this process when its parent ends.
pub fn die_with_parent() -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
}

/// Real, effective and saved user id, of the whole process.
pub fn set_uid(uid: u32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// Effective user id.
#[must_use]
pub fn effective_uid() -> u32 {
    // SAFETY: cannot fail and takes nothing.
    unsafe { libc::geteuid() }
}

/// unshare(2).
pub fn unshare(flags: i32) -> Result<(), Errno> {
    // SAFETY: the callers unshare namespaces only, which no memory depends on.
    checked(unsafe { libc::unshare(flags) }).map(drop)
}

/// Id of the calling process in its own pid namespace.
#[must_use]
pub fn own_pid() -> u32 {
    std::process::id()
}

/// Runs `body` in a child process, which must not have had other threads, and returns its id.
/// What the body returns becomes the exit code: 0, or 1 with a message.
pub fn fork(body: impl FnOnce() -> Result<()>) -> Result<Child, Errno> {
    // SAFETY: the callers have one thread, so the child is a full copy.
    let pid = checked(unsafe { libc::fork() })?;
    forked(pid, body)
}

/// The same with an id for the child, which nobody may have. `body` is to call exec.
pub fn fork_as(pid: u32, body: impl FnOnce() -> Result<()>) -> Result<Child, Errno> {
    let wanted = [pid.cast_signed()];
    // SAFETY: numbers, of which zero is one.
    let mut how: libc::clone_args = unsafe { mem::zeroed() };
    how.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    how.set_tid = wanted.as_ptr().addr() as u64;
    how.set_tid_size = 1;
    // SAFETY: as for fork; the structure and what it points to outlive the call.
    let returned = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of_val(&how)) };
    let pid = checked(i32::try_from(returned).unwrap_or(-1))?;
    forked(pid, body)
}

/// What parent and child do next.
fn forked(pid: i32, body: impl FnOnce() -> Result<()>) -> Result<Child, Errno> {
    if pid != 0 {
        return Ok(Child {
            pid: pid.unsigned_abs(),
            waited: false,
        });
    }
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        die_with_parent()?;
        body()
    }));
    let code = match done {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            eprintln!("child: {error:#}");
            1
        }
        Err(_) => 1,
    };
    // SAFETY: ends the process; what it shares with its parent is left as it is.
    unsafe { libc::_exit(code) }
}

/// A forked process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Child {
    /// Its id, as its parent sees it.
    pub pid: u32,
    waited: bool,
}

impl Child {
    /// Waits for its end, which must be a good one.
    pub fn wait(mut self) -> Result<()> {
        let status = self.reap().context("waitpid")?;
        anyhow::ensure!(
            status == 0,
            "child {} ended with status {status:#x}",
            self.pid
        );
        Ok(())
    }

    fn reap(&mut self) -> Result<i32, Errno> {
        let mut status = 0;
        loop {
            // SAFETY: the number outlives the call.
            let ended =
                checked(unsafe { libc::waitpid(self.pid.cast_signed(), &raw mut status, 0) });
            match ended {
                // A signal of `alarm_every`.
                Err(Errno(libc::EINTR)) => {}
                other => {
                    self.waited = true;
                    return other.map(|_| status);
                }
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.waited {
            kill(self.pid, libc::SIGKILL).ok();
            self.reap().ok();
        }
    }
}

/// Sets the clock of the whole machine.
pub fn set_clock(ns: i128) -> Result<(), Errno> {
    const SECOND: i128 = 1_000_000_000;
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(ns.div_euclid(SECOND)).unwrap_or(0),
        tv_nsec: libc::c_long::try_from(ns.rem_euclid(SECOND)).unwrap_or(0),
    };
    // SAFETY: the structure outlives the call.
    checked(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }).map(drop)
}

/// kill(2).
pub fn kill(pid: u32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::kill(pid.cast_signed(), signal) }).map(drop)
}

static ALARMS: AtomicU64 = AtomicU64::new(0);

/// How many signals of [`alarm_every`] came so far.
#[must_use]
pub fn alarms() -> u64 {
    ALARMS.load(Ordering::Relaxed)
}

/// A signal every `period`, which interrupts system calls unless `restart`.
pub fn alarm_every(period: Duration, restart: bool) -> Result<(), Errno> {
    extern "C" fn count(_signal: i32) {
        ALARMS.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(i32) = count;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
    // SAFETY: the handler adds to an atomic, so it may run at any time.
    checked(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) })?;
    set_alarm(period)
}

/// No more signals.
pub fn stop_alarm() -> Result<(), Errno> {
    set_alarm(Duration::ZERO)
}

fn set_alarm(period: Duration) -> Result<(), Errno> {
    let every = libc::timeval {
        tv_sec: 0,
        tv_usec: i64::from(period.subsec_micros()),
    };
    let timer = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: the structure outlives the call.
    checked(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) })
        .map(drop)
}

/// Waits until a descriptor can be read from, or the time is up (false).
pub fn poll_readable(fd: RawFd, timeout: Duration) -> Result<bool, Errno> {
    poll(fd, libc::POLLIN, timeout)
}

/// Waits until a descriptor can be written to or has an error, or the time is up (false).
pub fn poll_writable(fd: RawFd, timeout: Duration) -> Result<bool, Errno> {
    poll(fd, libc::POLLOUT, timeout)
}

fn poll(fd: RawFd, events: i16, timeout: Duration) -> Result<bool, Errno> {
    let mut poll = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one structure, which outlives the call.
    Ok(checked(unsafe { libc::poll(&raw mut poll, 1, millis) })? > 0)
}

/// Refuses a system call with an errno from now on: seccomp, for this thread and its children.
pub fn refuse_syscall(number: i64, errno: i32) -> Result<(), Errno> {
    // struct seccomp_data starts with the syscall's number (include/uapi/linux/seccomp.h).
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(
            JUMP_IF_EQUAL,
            0,
            1,
            u32::try_from(number).unwrap_or(u32::MAX),
        ),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: takes numbers only.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: the program and its four steps outlive the call, which copies them.
    checked(unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    })
    .map(drop)
}

/// Brings the loopback interface of this network namespace up.
pub fn loopback_up() -> Result<(), Errno> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap_or(0);
    // SAFETY: the structure outlives the call and is what this request takes.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
        .map(drop)
}

/// bpf(2). `attr` must be the attributes that `command` takes.
///
/// # Safety
///
/// Every pointer in `attr` must be good for what the command does with it.
pub unsafe fn bpf<T>(command: i32, attr: &T) -> Result<OwnedFd, Errno> {
    // SAFETY: the size is the structure's; the caller answers for what it points to.
    let returned =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    owned(i32::try_from(returned).unwrap_or(-1))
}

/// Seconds and nanoseconds of a clock.
#[must_use]
pub fn clock_ns(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure outlives the call; the clocks that the tests name exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// Clock ticks per second of /proc.
#[must_use]
pub fn ticks_per_second() -> u64 {
    // SAFETY: takes a number only.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100)
}

/// The kernel's release, as `uname -r` has it.
#[must_use]
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Waits until whatever the kernel does within RCU read-side sections by now has been done.
pub fn wait_for_readers() -> Result<(), Errno> {
    // SAFETY: membarrier(2) takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    checked(i32::try_from(result).unwrap_or(-1)).map(drop)
}

/// Writes one byte.
pub fn write_byte(fd: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: one byte is read from a string of one.
    let written = unsafe { libc::write(fd.as_raw_fd(), c"!".as_ptr().cast(), 1) };
    checked(i32::try_from(written).unwrap_or(-1)).map(drop)
}
