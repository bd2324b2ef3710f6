//! What to do about listeners: queues that are full, that nobody serves, or that are thrown
//! away.

use turnaway_common::Reason;

use super::Advice;
use crate::event::{Address, Listener};

/// What advice on a listener depends on.
#[derive(Clone, Copy, Debug)]
pub struct AboutListener<'a> {
    /// The listener.
    pub listener: &'a Listener,
    /// The process that accepts there, if it is known.
    pub pid: Option<u32>,
}

/// Advice on what befell a listener; nothing for reasons that are about something else.
#[must_use]
pub fn advise_listener(reason: Reason, about: &AboutListener<'_>) -> Advice {
    match reason {
        Reason::QueueSynOverflow
        | Reason::QueueAckOverflow
        | Reason::QueueRstOverflow
        | Reason::QueueOverflow => overflow(reason, about),
        Reason::QueueSynFlood => Advice {
            now: Some(in_namespace(
                about.pid,
                "sysctl -w net.ipv4.tcp_syncookies=1",
            )),
            lasting: Some(
                "net.ipv4.tcp_syncookies = 1 in /etc/sysctl.d/90-syncookies.conf".to_owned(),
            ),
            note: Some(
                "more handshakes are under way than the request queue holds: a flood, or peers \
                 that do not answer; with cookies the kernel needs no room for them"
                    .to_owned(),
            ),
        },
        Reason::QueueDropped => Advice {
            now: Some(in_namespace(
                about.pid,
                "nstat -az TcpExtListenDrops TcpExtListenOverflows",
            )),
            note: Some(
                "the listener dropped a packet for another reason than a full queue: no memory, \
                 no route back, or a firewall or security module"
                    .to_owned(),
            ),
            ..Advice::default()
        },
        Reason::QueueStalled => Advice {
            now: about.pid.map(|pid| {
                format!("grep -E 'State|Threads' /proc/{pid}/status; cat /proc/{pid}/task/*/wchan")
            }),
            lasting: None,
            note: Some(
                "connections wait and nobody accepts them: a process that is stopped (T), in \
                 uninterruptible I/O (D), busy, or that has stopped watching its listener"
                    .to_owned(),
            ),
        },
        Reason::QueueSlow => Advice {
            note: Some(
                "the process is slow to accept: its event loop is busy with something else, or \
                 it has too few workers or too little processor time"
                    .to_owned(),
            ),
            ..Advice::default()
        },
        Reason::AcceptShed => Advice {
            now: about
                .pid
                .map(|pid| format!("ls /proc/{pid}/fd | wc -l; ss -tnp | grep -c pid={pid},")),
            lasting: Some(
                "more slots where the program counts its connections (worker_connections, \
                 maxclients, max_connections, MaxStartups), or what it passes them on to repaired"
                    .to_owned(),
            ),
            note: Some(
                "inferred: the program accepts and closes at once, without reading; its own log \
                 may say why"
                    .to_owned(),
            ),
        },
        Reason::QueueAbandoned => Advice {
            lasting: Some(
                "accept what waits before the listener is closed, or hand the listener over \
                 (socket activation); for SO_REUSEPORT workers net.ipv4.tcp_migrate_req=1"
                    .to_owned(),
            ),
            note: Some(
                "the kernel resets what waits in the queue of a listener that is closed: a \
                 restart or reload that loses connections"
                    .to_owned(),
            ),
            ..Advice::default()
        },
        _ => Advice::default(),
    }
}

fn overflow(reason: Reason, about: &AboutListener<'_>) -> Advice {
    let now = match &about.listener.address {
        Some(Address::Inet(address)) => Some(in_namespace(
            about.pid,
            &format!("ss -ltnp 'sport = :{}'", address.port()),
        )),
        _ => None,
    };
    let backlog = about.listener.queue.map(|queue| queue.backlog);
    let lasting = backlog.map(|backlog| {
        format!(
            "a longer backlog where the program listens (it is {backlog} now, which \
             net.core.somaxconn may have cut), then a restart: a queue cannot be made longer \
             while it is in use"
        )
    });
    let what = match reason {
        Reason::QueueAckOverflow => {
            "clients believe that they are connected, and send into nothing; "
        }
        Reason::QueueRstOverflow => {
            "clients are reset at once, since net.ipv4.tcp_abort_on_overflow is 1; "
        }
        _ => "clients try again after 1, 3, 7 … seconds, each packet is counted; ",
    };
    Advice {
        now,
        lasting,
        note: Some(format!(
            "{what}the program accepts too slowly or not at all: a longer queue helps against \
             bursts only"
        )),
    }
}

/// A command as it must be typed for another network namespace.
pub(super) fn in_namespace(pid: Option<u32>, command: &str) -> String {
    match pid {
        Some(pid) => format!("nsenter -t {pid} -n {command}"),
        None => command.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::samples;

    #[test]
    fn every_reason_of_a_queue_has_something_to_say() {
        let (failure, _) = samples::rich();
        for reason in Reason::ALL {
            let advice = advise_listener(
                *reason,
                &AboutListener {
                    listener: &failure.listener,
                    pid: Some(7),
                },
            );
            assert_eq!(
                advice != Advice::default(),
                *reason == Reason::AcceptShed
                    || reason.code().starts_with("queue.") && !reason.is_of_connect(),
                "{reason:?}"
            );
        }
    }

    #[test]
    fn commands_are_for_the_listener_s_own_network() {
        let (failure, _) = samples::rich();
        let mut about = AboutListener {
            listener: &failure.listener,
            pid: Some(7),
        };
        let now = |about: &AboutListener<'_>| {
            advise_listener(Reason::QueueSynOverflow, about)
                .now
                .expect("a command")
        };
        assert_eq!(now(&about), "nsenter -t 7 -n ss -ltnp 'sport = :6432'");
        about.pid = None;
        assert_eq!(now(&about), "ss -ltnp 'sport = :6432'");
    }
}
