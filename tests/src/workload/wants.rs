//! The calls that give a descriptor, each by that very system call.

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use crate::sys::Errno;

/// A call that gives one descriptor, or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// openat(2) of /dev/null.
    OpenAt,
    /// openat2(2) of /dev/null.
    OpenAt2,
    /// open(2) of /dev/null.
    Open,
    /// socket(2).
    Socket,
    /// socketpair(2).
    SocketPair,
    /// pipe2(2).
    Pipe2,
    /// dup(2).
    Dup,
    /// fcntl(2) with F_DUPFD_CLOEXEC.
    Fcntl,
    /// epoll_create1(2).
    Epoll,
    /// eventfd2(2).
    Event,
    /// timerfd_create(2).
    Timer,
    /// signalfd4(2).
    Signal,
    /// inotify_init1(2).
    Inotify,
    /// memfd_create(2).
    Memory,
    /// io_uring_setup(2).
    Uring,
    /// pidfd_open(2).
    Pid,
}

const PATH: &std::ffi::CStr = c"/dev/null";

impl Wants {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::OpenAt,
        Self::OpenAt2,
        Self::Open,
        Self::Socket,
        Self::SocketPair,
        Self::Pipe2,
        Self::Dup,
        Self::Fcntl,
        Self::Epoll,
        Self::Event,
        Self::Timer,
        Self::Signal,
        Self::Inotify,
        Self::Memory,
        Self::Uring,
        Self::Pid,
    ];

    /// As records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAt => "openat",
            Self::OpenAt2 => "openat2",
            Self::Open => "open",
            Self::Socket => "socket",
            Self::SocketPair => "socketpair",
            Self::Pipe2 => "pipe2",
            Self::Dup => "dup",
            Self::Fcntl => "fcntl",
            Self::Epoll => "epoll_create1",
            Self::Event => "eventfd2",
            Self::Timer => "timerfd_create",
            Self::Signal => "signalfd4",
            Self::Inotify => "inotify_init1",
            Self::Memory => "memfd_create",
            Self::Uring => "io_uring_setup",
            Self::Pid => "pidfd_open",
        }
    }

    /// Calls it once; what it gives is closed again.
    pub fn attempt(self) -> Result<(), Errno> {
        /// `sizeof(sigset_t)` of the kernel.
        const SIGNALS: usize = 8;
        /// `struct io_uring_params`, zero, and `struct open_how` of O_RDONLY.
        const PARAMETERS: [u8; 120] = [0; 120];
        const HOW: [u64; 3] = [0; 3];
        let mut ends: [RawFd; 2] = [-1; 2];
        let mut parameters = PARAMETERS;
        let signals = [0_u64; 1];
        let path = PATH.as_ptr();
        // SAFETY: every pointer is to memory of the right size that outlives the call.
        let given = unsafe {
            match self {
                Self::OpenAt => libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, 0, 0),
                Self::OpenAt2 => libc::syscall(
                    libc::SYS_openat2,
                    libc::AT_FDCWD,
                    path,
                    HOW.as_ptr(),
                    size_of_val(&HOW),
                ),
                #[cfg(target_arch = "x86_64")]
                Self::Open => libc::syscall(libc::SYS_open, path, 0, 0),
                #[cfg(not(target_arch = "x86_64"))]
                Self::Open => libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, 0, 0),
                Self::Socket => {
                    libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)
                }
                Self::SocketPair => libc::syscall(
                    libc::SYS_socketpair,
                    libc::AF_UNIX,
                    libc::SOCK_STREAM,
                    0,
                    ends.as_mut_ptr(),
                ),
                Self::Pipe2 => libc::syscall(libc::SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC),
                Self::Dup => libc::syscall(libc::SYS_dup, 0),
                Self::Fcntl => libc::syscall(libc::SYS_fcntl, 0, libc::F_DUPFD_CLOEXEC, 3),
                Self::Epoll => libc::syscall(libc::SYS_epoll_create1, 0),
                Self::Event => libc::syscall(libc::SYS_eventfd2, 0, 0),
                Self::Timer => libc::syscall(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0),
                Self::Signal => {
                    libc::syscall(libc::SYS_signalfd4, -1, signals.as_ptr(), SIGNALS, 0)
                }
                Self::Inotify => libc::syscall(libc::SYS_inotify_init1, 0),
                Self::Memory => libc::syscall(libc::SYS_memfd_create, c"x".as_ptr(), 0),
                Self::Uring => libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()),
                Self::Pid => libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0),
            }
        };
        if given < 0 {
            return Err(Errno::last());
        }
        let given = match self {
            Self::SocketPair | Self::Pipe2 => ends.to_vec(),
            _ => vec![RawFd::try_from(given).unwrap_or(-1)],
        };
        for fd in given {
            // SAFETY: the call created it and nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        Ok(())
    }
}
