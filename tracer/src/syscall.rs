//! Names of the calls that failures are told apart by.

macro_rules! names {
    ($($name:literal = $constant:ident),+; x86: $($old:literal = $old_constant:ident),+ $(,)?) => {
        /// Names of system calls that ask for a descriptor or a connection, on any architecture.
        pub(crate) const NAMES: &[&str] = &[$($name,)+ $($old),+];

        /// Name of a system call that asks for a descriptor or a connection; `None` for others.
        #[must_use]
        pub fn name(number: u32) -> Option<&'static str> {
            match i64::from(number) {
                $(libc::$constant => Some($name),)+
                $(#[cfg(target_arch = "x86_64")] libc::$old_constant => Some($old),)+
                _ => None,
            }
        }
    };
}

names! {
    "accept" = SYS_accept, "accept4" = SYS_accept4, "connect" = SYS_connect,
    "openat" = SYS_openat, "openat2" = SYS_openat2, "socket" = SYS_socket,
    "socketpair" = SYS_socketpair, "pipe2" = SYS_pipe2, "dup" = SYS_dup, "dup3" = SYS_dup3,
    "fcntl" = SYS_fcntl, "epoll_create1" = SYS_epoll_create1, "eventfd2" = SYS_eventfd2,
    "timerfd_create" = SYS_timerfd_create, "signalfd4" = SYS_signalfd4,
    "inotify_init1" = SYS_inotify_init1, "fanotify_init" = SYS_fanotify_init,
    "memfd_create" = SYS_memfd_create, "memfd_secret" = SYS_memfd_secret,
    "io_uring_setup" = SYS_io_uring_setup, "io_uring_register" = SYS_io_uring_register,
    "pidfd_open" = SYS_pidfd_open, "pidfd_getfd" = SYS_pidfd_getfd,
    "perf_event_open" = SYS_perf_event_open, "userfaultfd" = SYS_userfaultfd,
    "open_by_handle_at" = SYS_open_by_handle_at, "open_tree" = SYS_open_tree,
    "fsopen" = SYS_fsopen, "fspick" = SYS_fspick, "fsmount" = SYS_fsmount,
    "mq_open" = SYS_mq_open, "bpf" = SYS_bpf, "seccomp" = SYS_seccomp,
    "landlock_create_ruleset" = SYS_landlock_create_ruleset,
    "recvmsg" = SYS_recvmsg, "recvmmsg" = SYS_recvmmsg, "ioctl" = SYS_ioctl,
    "execve" = SYS_execve, "execveat" = SYS_execveat, "clone" = SYS_clone,
    "clone3" = SYS_clone3, "mmap" = SYS_mmap, "shmget" = SYS_shmget, "read" = SYS_read,
    "getsockopt" = SYS_getsockopt, "prctl" = SYS_prctl;
    x86: "open" = SYS_open, "creat" = SYS_creat, "pipe" = SYS_pipe, "dup2" = SYS_dup2,
    "epoll_create" = SYS_epoll_create, "eventfd" = SYS_eventfd, "signalfd" = SYS_signalfd,
    "inotify_init" = SYS_inotify_init, "uselib" = SYS_uselib
}

/// Name of an operation of io_uring's (`IORING_OP_*`, include/uapi/linux/io_uring.h) that asks for a
/// descriptor.
#[must_use]
pub fn io_uring_operation(opcode: u32) -> Option<&'static str> {
    let known = IO_URING.iter().find(|(number, _)| *number == opcode);
    known.map(|(_, name)| *name)
}

/// Those operations.
pub(crate) const IO_URING: [(u32, &str); 5] = [
    (18, "io_uring_openat"),
    (28, "io_uring_openat2"),
    (45, "io_uring_socket"),
    (54, "io_uring_fixed_fd_install"),
    (62, "io_uring_pipe"),
];
