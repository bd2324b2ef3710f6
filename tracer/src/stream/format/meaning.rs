//! What each reason is to a SIEM.

use turnaway_common::Reason;

use crate::observation::Code;

/// What a reason is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    /// In words, to follow on who and where.
    pub(super) says: &'static str,
    /// Whose connections it is about.
    pub(super) side: Side,
    /// What became of the connection.
    pub(super) what: What,
}

/// Whose connections it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A client's, at a listener of this host.
    Server,
    /// Those that a process of this host wants to make.
    Client,
    /// Nobody's: a process, or the host, has no descriptors.
    Descriptors,
    /// Those of others that come through this host's tables.
    Network,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It was made in the end.
    Opened,
    /// It was closed.
    Closed,
    /// It was reset.
    Reset,
    /// It failed.
    Failed,
    /// It was refused.
    Refused,
    /// It is not known yet, or it is about no connection: what it is about instead.
    Other(&'static str),
}

impl Meaning {
    /// That of a reason code; of one that a later version has, what its family tells.
    pub(super) fn of(code: &str) -> Self {
        let known = Reason::ALL.iter().find(|reason| reason.code() == code);
        known.map_or_else(
            || {
                let side = match Code::new(code).family() {
                    "connect" => Side::Client,
                    "fd" => Side::Descriptors,
                    "net" => Side::Network,
                    _ => Side::Server,
                };
                Self {
                    says: "connections are turned away",
                    side,
                    what: What::Other("Turned away"),
                }
            },
            |reason| known_meaning(*reason),
        )
    }

    /// Whether a connection failed, as far as that is known.
    pub(super) fn outcome(&self) -> Outcome {
        match (self.what, self.side) {
            (What::Opened, _) => Outcome::Success,
            (What::Other(_), _) => Outcome::Unknown,
            _ => Outcome::Failure,
        }
    }
}

/// Whether something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Failure,
    Success,
    Unknown,
}

fn known_meaning(reason: Reason) -> Meaning {
    use What::{Closed, Failed, Opened, Other, Refused, Reset};
    let (says, what) = match reason {
        Reason::AcceptEmfile => (
            "accept failed: the process is at its limit of file descriptors",
            Failed,
        ),
        Reason::AcceptEnfile => ("accept failed: the system's file table is full", Failed),
        Reason::AcceptNomem => ("accept failed: no memory", Failed),
        Reason::AcceptAborted => (
            "accept failed: the client left before it was accepted",
            Reset,
        ),
        Reason::AcceptDenied => (
            "accept failed: a firewall or a security module does not allow it",
            Refused,
        ),
        Reason::AcceptMisuse => (
            "accept failed: a mistake of the program, or its listener was closed",
            Failed,
        ),
        Reason::AcceptOther => ("accept failed", Failed),
        Reason::AcceptShed => (
            "the program closed a connection that it had accepted, unused",
            Closed,
        ),
        Reason::QueueSynOverflow => ("a SYN was dropped: the accept queue is full", Failed),
        Reason::QueueAckOverflow => (
            "the last ACK of a handshake was dropped: the accept queue is full",
            Failed,
        ),
        Reason::QueueRstOverflow => ("a handshake was reset: the accept queue is full", Reset),
        Reason::QueueOverflow => (
            "a packet of a handshake was dropped: the accept queue is full",
            Failed,
        ),
        Reason::QueueSynFlood => ("a SYN was dropped: the request queue is full", Failed),
        Reason::QueueDropped => ("a packet of a handshake was dropped", Failed),
        Reason::QueueStalled => ("connections wait and nobody accepts", Other("Stall")),
        Reason::QueueSlow => (
            "a connection waited for long before it was accepted",
            Opened,
        ),
        Reason::QueueAbandoned => ("a listener was closed while connections waited", Reset),
        Reason::ListenerClosed => (
            "a listener that had failures was closed",
            Other("Listener closed"),
        ),
        Reason::ConnectRefused => ("connect failed: nobody listens there", Refused),
        Reason::ConnectTimeout => ("connect failed: no answer came", Failed),
        Reason::ConnectUnreachable => ("connect failed: there is no way there", Failed),
        Reason::ConnectReset => ("connect failed: the connection was reset", Reset),
        Reason::ConnectDenied => (
            "connect failed: permissions, a firewall or a security module do not allow it",
            Refused,
        ),
        Reason::ConnectNoPort => ("connect failed: no local port is left", Failed),
        Reason::ConnectOther => ("connect failed", Failed),
        Reason::QueueUnixFull => ("connect found the listener's queue full", Failed),
        Reason::FdExhausted => ("a call failed: no file descriptor is left", Failed),
        Reason::FdPressure => (
            "the process is near its limit of file descriptors",
            Other("Pressure"),
        ),
        Reason::FdTablePressure => ("the system's file table is nearly full", Other("Pressure")),
        Reason::NetConntrackFull => (
            "packets of new connections were dropped: the table of tracked connections is full",
            Failed,
        ),
    };
    let side = match reason {
        _ if reason.is_of_connect() => Side::Client,
        _ if reason.is_of_descriptors() => Side::Descriptors,
        Reason::NetConntrackFull => Side::Network,
        _ => Side::Server,
    };
    Meaning { says, side, what }
}
