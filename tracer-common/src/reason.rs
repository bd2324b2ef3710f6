//! Reason codes: one per kind of failure, stable in text, JSON, metrics and rules.

/// Errno values that Linux's accept and connect paths return and that need a name here.
///
/// The numbers are those of `asm-generic/errno.h`, used by x86_64, arm64 and riscv64.
pub mod errno {
    /// Operation not permitted.
    pub const EPERM: u16 = 1;
    /// No such file: an AF_UNIX path.
    pub const ENOENT: u16 = 2;
    /// Interrupted by a signal.
    pub const EINTR: u16 = 4;
    /// Bad file descriptor.
    pub const EBADF: u16 = 9;
    /// Nothing to accept now.
    pub const EAGAIN: u16 = 11;
    /// Out of memory.
    pub const ENOMEM: u16 = 12;
    /// Permission denied.
    pub const EACCES: u16 = 13;
    /// Bad address.
    pub const EFAULT: u16 = 14;
    /// Not a listening socket, or bad flags.
    pub const EINVAL: u16 = 22;
    /// The system's file table is full.
    pub const ENFILE: u16 = 23;
    /// The process is at its descriptor limit.
    pub const EMFILE: u16 = 24;
    /// Protocol error.
    pub const EPROTO: u16 = 71;
    /// Not a socket.
    pub const ENOTSOCK: u16 = 88;
    /// The socket's type has no accept.
    pub const EOPNOTSUPP: u16 = 95;
    /// No local port is left, or the local address is not this host's.
    pub const EADDRNOTAVAIL: u16 = 99;
    /// The network is down.
    pub const ENETDOWN: u16 = 100;
    /// No route to the network.
    pub const ENETUNREACH: u16 = 101;
    /// The connection was aborted before it was accepted, or before it was made.
    pub const ECONNABORTED: u16 = 103;
    /// The other end reset the connection.
    pub const ECONNRESET: u16 = 104;
    /// No buffer space.
    pub const ENOBUFS: u16 = 105;
    /// Connected already.
    pub const EISCONN: u16 = 106;
    /// Nobody answered in time.
    pub const ETIMEDOUT: u16 = 110;
    /// Nobody listens there.
    pub const ECONNREFUSED: u16 = 111;
    /// The host is down.
    pub const EHOSTDOWN: u16 = 112;
    /// No route to the host.
    pub const EHOSTUNREACH: u16 = 113;
    /// Being connected already.
    pub const EALREADY: u16 = 114;
    /// Being connected; the result comes later.
    pub const EINPROGRESS: u16 = 115;
    /// The operation was cancelled (io_uring).
    pub const ECANCELED: u16 = 125;
    /// First of the kernel's internal restart codes (`ERESTARTSYS`,
    /// include/linux/errno.h). They reach a hook raw and never reach a program.
    pub const RESTART_FIRST: u16 = 512;
    /// Last of the restart codes (`ERESTART_RESTARTBLOCK`).
    pub const RESTART_LAST: u16 = 516;
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $value:literal, $code:literal;)+) => {
        /// Why a connection was turned away. The discriminant is what the kernel side
        /// writes; [`Reason::code`] is what people and machines read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Reason {
            $($(#[$doc])* $variant = $value,)+
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable code, such as `accept.emfile`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)+
                }
            }

            /// The reason a kernel-side number stands for, if it is one.
            #[must_use]
            pub const fn from_raw(raw: u16) -> Option<Self> {
                match raw {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// EMFILE: the process is at its soft `RLIMIT_NOFILE`.
    AcceptEmfile = 1, "accept.emfile";
    /// ENFILE: the system's file table is full.
    AcceptEnfile = 2, "accept.enfile";
    /// ENOMEM or ENOBUFS.
    AcceptNomem = 3, "accept.nomem";
    /// ECONNABORTED or EPROTO: the client left before it was accepted.
    AcceptAborted = 4, "accept.aborted";
    /// EPERM or EACCES: a firewall or a security module.
    AcceptDenied = 5, "accept.denied";
    /// EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP or EFAULT: a bug, or a listener that was
    /// closed or shut down under its acceptor.
    AcceptMisuse = 6, "accept.misuse";
    /// Any other errno: named by its errno, never dropped.
    AcceptOther = 7, "accept.other";
    /// Inferred: the program accepted the connection and closed it first, having read nothing
    /// and sent nothing, or no more than a word.
    AcceptShed = 18, "accept.shed";
    /// A SYN was dropped because the accept queue is full.
    QueueSynOverflow = 8, "queue.syn_overflow";
    /// The handshake's last ACK was dropped because the accept queue is full: the client
    /// believes that it is connected.
    QueueAckOverflow = 9, "queue.ack_overflow";
    /// The same, answered with a reset (`net.ipv4.tcp_abort_on_overflow`).
    QueueRstOverflow = 10, "queue.rst_overflow";
    /// A SYN or a last ACK was dropped because the accept queue is full; which of the two
    /// is not known, since the queue was polled.
    QueueOverflow = 11, "queue.overflow";
    /// A SYN was dropped because the request queue is full, and no cookie was sent.
    QueueSynFlood = 12, "queue.syn_flood";
    /// A listener dropped a SYN or an ACK for another reason, or for one that is not known.
    QueueDropped = 13, "queue.dropped";
    /// Connections wait, and none has been accepted for a while.
    QueueStalled = 14, "queue.stalled";
    /// A connection waited longer than a threshold before it was accepted.
    QueueSlow = 15, "queue.slow";
    /// A listener was closed while connections waited: the kernel resets them.
    QueueAbandoned = 16, "queue.abandoned";
    /// A listener that had failures was closed.
    ListenerClosed = 17, "listener.closed";
    /// ECONNREFUSED, and ENOENT for AF_UNIX: nobody listens there.
    ConnectRefused = 20, "connect.refused";
    /// ETIMEDOUT: nobody answered.
    ConnectTimeout = 21, "connect.timeout";
    /// ENETUNREACH, EHOSTUNREACH, ENETDOWN or EHOSTDOWN: there is no way there.
    ConnectUnreachable = 22, "connect.unreachable";
    /// ECONNRESET or ECONNABORTED.
    ConnectReset = 23, "connect.reset";
    /// EPERM or EACCES: permissions, a firewall or a security module.
    ConnectDenied = 24, "connect.denied";
    /// EADDRNOTAVAIL: no local port is left for this target.
    ConnectNoPort = 25, "connect.no_port";
    /// Any other errno: named by its errno, never dropped.
    ConnectOther = 26, "connect.other";
    /// EAGAIN from connecting to an AF_UNIX listener whose queue is full.
    QueueUnixFull = 27, "queue.unix_full";
    /// EMFILE or ENFILE from any other call than accept, or a descriptor that was sent and lost
    /// because there was no number for it.
    FdExhausted = 30, "fd.exhausted";
    /// A process came close to its soft `RLIMIT_NOFILE`.
    FdPressure = 31, "fd.pressure";
    /// The system's file table is nearly full.
    FdTablePressure = 32, "fd.table_pressure";
    /// nf_conntrack's table is full: new connections are dropped before any listener sees
    /// them.
    NetConntrackFull = 33, "net.conntrack_full";
}

const AF_UNIX: u16 = 1;

impl Reason {
    /// Whether nobody's call failed: the kernel turned connections away by itself, and the
    /// listener says whose they were.
    #[must_use]
    pub const fn is_of_listener(self) -> bool {
        matches!(
            self,
            Self::QueueSynOverflow
                | Self::QueueAckOverflow
                | Self::QueueRstOverflow
                | Self::QueueOverflow
                | Self::QueueSynFlood
                | Self::QueueDropped
                | Self::QueueStalled
        )
    }

    /// The reason behind a failed accept, or `None` where the errno is normal life:
    /// EAGAIN (nothing to accept), EINTR and the kernel's restart codes (a signal).
    ///
    /// ECANCELED is normal life too: it is how io_uring ends an accept that its own
    /// program cancelled.
    #[must_use]
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "the kernel side must not pay for a call, nor spend its stack on one"
    )]
    pub const fn of_accept(errno: u16) -> Option<Self> {
        use self::errno as e;
        Some(match errno {
            e::EAGAIN | e::EINTR | e::ECANCELED | e::RESTART_FIRST..=e::RESTART_LAST => {
                return None;
            }
            e::EMFILE => Self::AcceptEmfile,
            e::ENFILE => Self::AcceptEnfile,
            e::ENOMEM | e::ENOBUFS => Self::AcceptNomem,
            e::ECONNABORTED | e::EPROTO => Self::AcceptAborted,
            e::EPERM | e::EACCES => Self::AcceptDenied,
            e::EBADF | e::EINVAL | e::ENOTSOCK | e::EOPNOTSUPP | e::EFAULT => Self::AcceptMisuse,
            _ => Self::AcceptOther,
        })
    }

    /// Whether it is about descriptors, and no listener.
    #[must_use]
    pub const fn is_of_descriptors(self) -> bool {
        matches!(
            self,
            Self::FdExhausted | Self::FdPressure | Self::FdTablePressure
        )
    }

    /// Whether it is a state that begins and ends.
    #[must_use]
    pub const fn lasts(self) -> bool {
        matches!(
            self,
            Self::QueueStalled | Self::FdPressure | Self::FdTablePressure
        )
    }

    /// Whether it is about a connection that a process of this host wanted to make: it is then
    /// told apart by its target, not by a listener.
    #[must_use]
    pub const fn is_of_connect(self) -> bool {
        matches!(
            self,
            Self::ConnectRefused
                | Self::ConnectTimeout
                | Self::ConnectUnreachable
                | Self::ConnectReset
                | Self::ConnectDenied
                | Self::ConnectNoPort
                | Self::ConnectOther
                | Self::QueueUnixFull
        )
    }

    /// Whether an errno of connect is normal life, whatever is connected: the result comes
    /// later or is there already, or a signal came.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as for `of_accept`")]
    pub const fn is_life_of_connect(errno: u16) -> bool {
        use self::errno as e;
        matches!(
            errno,
            e::EINPROGRESS | e::EALREADY | e::EISCONN | e::EINTR | e::RESTART_FIRST
                ..=e::RESTART_LAST
        )
    }

    /// The reason behind a failed connect to an address of a family, or `None` where the errno
    /// is normal life.
    ///
    /// A datagram socket sends nothing when it is connected: resolvers connect them to learn
    /// which of a name's addresses there is a route to, and that there is none for some is no
    /// failure.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as for `of_accept`")]
    pub const fn of_connect(errno: u16, family: u16, is_datagram: bool) -> Option<Self> {
        use self::errno as e;
        if Self::is_life_of_connect(errno) {
            return None;
        }
        Some(match errno {
            e::EAGAIN if family == AF_UNIX => Self::QueueUnixFull,
            e::EAGAIN => return None,
            e::ECONNREFUSED => Self::ConnectRefused,
            e::ENOENT if family == AF_UNIX => Self::ConnectRefused,
            e::ETIMEDOUT => Self::ConnectTimeout,
            e::ENETUNREACH | e::EHOSTUNREACH if is_datagram => return None,
            e::ENETUNREACH | e::EHOSTUNREACH | e::ENETDOWN | e::EHOSTDOWN => {
                Self::ConnectUnreachable
            }
            e::ECONNRESET | e::ECONNABORTED => Self::ConnectReset,
            e::EPERM | e::EACCES => Self::ConnectDenied,
            e::EADDRNOTAVAIL => Self::ConnectNoPort,
            _ => Self::ConnectOther,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Reason, errno};

    #[test]
    fn raw_numbers_round_trip_and_codes_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::from_raw(*reason as u16), Some(*reason));
            for other in &Reason::ALL[index + 1..] {
                assert_ne!(reason.code(), other.code());
            }
        }
        assert_eq!(Reason::from_raw(0), None);
    }

    #[test]
    fn normal_life_is_no_failure() {
        for errno in [
            errno::EAGAIN,
            errno::EINTR,
            errno::ECANCELED,
            512,
            513,
            514,
            516,
        ] {
            assert_eq!(Reason::of_accept(errno), None, "{errno}");
        }
    }

    #[test]
    fn a_connect_that_goes_on_is_no_failure() {
        for errno in [
            errno::EINPROGRESS,
            errno::EALREADY,
            errno::EISCONN,
            errno::EINTR,
            512,
            516,
        ] {
            assert_eq!(Reason::of_connect(errno, 2, false), None, "{errno}");
        }
        assert_eq!(Reason::of_connect(errno::EAGAIN, 2, false), None);
        assert_eq!(
            Reason::of_connect(errno::EAGAIN, 1, false),
            Some(Reason::QueueUnixFull)
        );
    }

    #[test]
    fn a_route_that_a_resolver_looks_for_is_no_connection() {
        let reason = |datagram| Reason::of_connect(errno::ENETUNREACH, 10, datagram);
        assert_eq!(reason(true), None);
        assert_eq!(reason(false), Some(Reason::ConnectUnreachable));
    }

    #[test]
    fn every_reason_of_connect_is_about_a_target() {
        for errno in 1..4096 {
            for family in [1, 2, 10, 40] {
                if let Some(reason) = Reason::of_connect(errno, family, false) {
                    assert!(reason.is_of_connect(), "{errno}");
                }
            }
        }
        for reason in Reason::ALL {
            let about = reason.code().starts_with("connect.");
            assert!(!about || reason.is_of_connect(), "{reason:?}");
            assert!(!(reason.is_of_connect() && reason.is_of_listener()));
        }
    }

    #[test]
    fn an_unknown_errno_is_kept() {
        for errno in [100, 101, 110, 113, 133, 511, 517, 4095] {
            assert_eq!(
                Reason::of_accept(errno),
                Some(Reason::AcceptOther),
                "{errno}"
            );
        }
    }
}
