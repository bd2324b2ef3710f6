//! What a descriptor is, from its link in `/proc/PID/fd`.

/// Kind of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A socket of any family.
    Socket,
    /// A path outside `/dev`: a file, a directory or a named pipe. To tell them apart the
    /// path's file system would have to be asked, which may hang where that is remote.
    File,
    /// An end of a pipe without a name.
    Pipe,
    /// eventfd(2).
    EventFd,
    /// epoll(7).
    EventPoll,
    /// timerfd_create(2).
    TimerFd,
    /// signalfd(2).
    SignalFd,
    /// inotify(7).
    Inotify,
    /// io_uring(7).
    IoUring,
    /// A path in `/dev`.
    Device,
    /// memfd_create(2).
    Memfd,
    /// pidfd_open(2).
    PidFd,
    /// A program, map, link or type information of bpf(2).
    BpfObject,
    /// Anything else.
    Other,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 14] = [
        Self::Socket,
        Self::File,
        Self::Pipe,
        Self::EventFd,
        Self::EventPoll,
        Self::TimerFd,
        Self::SignalFd,
        Self::Inotify,
        Self::IoUring,
        Self::Device,
        Self::Memfd,
        Self::PidFd,
        Self::BpfObject,
        Self::Other,
    ];

    /// Its name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::File => "file",
            Self::Pipe => "pipe",
            Self::EventFd => "event_fd",
            Self::EventPoll => "event_poll",
            Self::TimerFd => "timer_fd",
            Self::SignalFd => "signal_fd",
            Self::Inotify => "inotify",
            Self::IoUring => "io_uring",
            Self::Device => "device",
            Self::Memfd => "memfd",
            Self::PidFd => "pid_fd",
            Self::BpfObject => "bpf_object",
            Self::Other => "other",
        }
    }

    /// A path begins with `/`, and nothing else does: no name of a file can look like one
    /// of the other kinds.
    pub(super) fn of_link(link: &[u8]) -> Self {
        if link.starts_with(b"/") {
            return Self::of_path(link);
        }
        if link.starts_with(b"socket:[") {
            return Self::Socket;
        }
        if link.starts_with(b"pipe:[") {
            return Self::Pipe;
        }
        // Some kernels of 6.9's time had a file system's name there.
        if link.starts_with(b"pidfd:") {
            return Self::PidFd;
        }
        let Some(name) = link.strip_prefix(b"anon_inode:") else {
            return Self::Other;
        };
        let name = name.strip_prefix(b"[").unwrap_or(name);
        match name.strip_suffix(b"]").unwrap_or(name) {
            b"eventfd" => Self::EventFd,
            b"eventpoll" => Self::EventPoll,
            b"timerfd" => Self::TimerFd,
            b"signalfd" => Self::SignalFd,
            b"inotify" => Self::Inotify,
            b"io_uring" => Self::IoUring,
            b"pidfd" => Self::PidFd,
            b"btf" => Self::BpfObject,
            name if name.starts_with(b"bpf") => Self::BpfObject,
            _ => Self::Other,
        }
    }

    fn of_path(path: &[u8]) -> Self {
        if path.starts_with(b"/memfd:") && path.ends_with(b" (deleted)") {
            return Self::Memfd;
        }
        // File systems of their own, whose files are in memory.
        let in_memory = [&b"/dev/shm/"[..], b"/dev/mqueue/", b"/dev/hugepages/"];
        if path.starts_with(b"/dev/") && !in_memory.iter().any(|it| path.starts_with(it)) {
            return Self::Device;
        }
        Self::File
    }
}

/// N of `socket:[N]`.
pub(super) fn socket_inode(link: &[u8]) -> Option<u64> {
    let number = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Kind, socket_inode};

    #[test]
    fn links() {
        for (link, kind) in [
            (&b"socket:[77]"[..], Kind::Socket),
            (b"pipe:[5]", Kind::Pipe),
            (b"anon_inode:[eventfd]", Kind::EventFd),
            (b"anon_inode:[eventpoll]", Kind::EventPoll),
            (b"anon_inode:[timerfd]", Kind::TimerFd),
            (b"anon_inode:[signalfd]", Kind::SignalFd),
            (b"anon_inode:inotify", Kind::Inotify),
            (b"anon_inode:[io_uring]", Kind::IoUring),
            (b"anon_inode:[pidfd]", Kind::PidFd),
            (b"pidfd:[912]", Kind::PidFd),
            (b"anon_inode:bpf-map", Kind::BpfObject),
            (b"anon_inode:bpf-prog", Kind::BpfObject),
            (b"anon_inode:bpf_link", Kind::BpfObject),
            (b"anon_inode:btf", Kind::BpfObject),
            (b"anon_inode:[perf_event]", Kind::Other),
            (b"anon_inode:", Kind::Other),
            (b"mnt:[4026531841]", Kind::Other),
            (b"", Kind::Other),
            (b"\xff", Kind::Other),
            (b"/", Kind::File),
            (b"/var/log/x", Kind::File),
            (b"/tmp/socket:[77]", Kind::File),
            (b"/memfd:pool (deleted)", Kind::Memfd),
            (b"/memfd:pool", Kind::File),
            (b"/dev/null", Kind::Device),
            (b"/dev/pts/3", Kind::Device),
            (b"/dev/shm/sem.x", Kind::File),
            (b"/devices", Kind::File),
        ] {
            assert_eq!(Kind::of_link(link), kind, "{}", link.escape_ascii());
        }
    }

    #[test]
    fn inodes() {
        assert_eq!(socket_inode(b"socket:[77]"), Some(77));
        assert_eq!(
            socket_inode(b"socket:[18446744073709551615]"),
            Some(u64::MAX)
        );
        for rubbish in [
            &b"socket:[]"[..],
            b"socket:[-1]",
            b"socket:[7",
            b"socket:[18446744073709551616]",
            b"pipe:[7]",
            b"socket:[\xff]",
        ] {
            assert_eq!(socket_inode(rubbish), None, "{}", rubbish.escape_ascii());
        }
    }
}
