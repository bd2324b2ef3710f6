//! What to do about connections that could not be made.

use turnaway_common::{Reason, reason::errno as number};

use super::{Advice, queue::in_namespace, shell_word};
use crate::{errno, event::Target, record::unix_name, text};

/// What advice on a failed connect depends on.
#[derive(Clone, Copy, Debug)]
pub struct AboutConnect<'a> {
    /// What was to be connected to.
    pub target: Option<Target>,
    /// Its name, of an AF_UNIX one.
    pub path: Option<&'a [u8]>,
    /// A listener of this host is there.
    pub listens: bool,
    /// The errno, positive.
    pub errno: Option<u16>,
    /// The client, if it lives.
    pub pid: Option<u32>,
}

impl AboutConnect<'_> {
    /// A command as it must be typed for the client's network namespace.
    fn command(&self, command: &str) -> String {
        in_namespace(self.pid, command)
    }

    fn is_unix(&self) -> bool {
        matches!(self.target, Some(Target::Unix(_)))
    }

    /// The path of an AF_UNIX socket as a shell must be given it; none for abstract names.
    fn file(&self) -> Option<String> {
        let path = self.path.filter(|path| path.first() != Some(&0))?;
        Some(shell_word(&text::terminal(&unix_name(path))))
    }

    fn ip(&self) -> Option<String> {
        match self.target {
            Some(Target::Inet(address)) => Some(address.ip().to_string()),
            _ => None,
        }
    }

    fn port(&self) -> Option<u16> {
        match self.target {
            Some(Target::Inet(address)) => Some(address.port()),
            _ => None,
        }
    }
}

/// Advice on a failed connect; nothing for reasons that are about something else.
#[must_use]
pub fn advise_connect(reason: Reason, about: &AboutConnect<'_>) -> Advice {
    match reason {
        Reason::ConnectRefused => refused(about),
        Reason::ConnectTimeout => timeout(about),
        Reason::ConnectUnreachable => unreachable(about),
        Reason::ConnectReset => Advice {
            now: about
                .port()
                .map(|port| about.command(&format!("ss -tanpi 'dport = :{port}'"))),
            lasting: None,
            note: Some(
                "the connection was reset while it was being made: by the other end or a firewall \
                 between, by a listener that was closed, or by the program's own shutdown"
                    .to_owned(),
            ),
        },
        Reason::ConnectDenied => denied(about),
        Reason::ConnectNoPort => no_port(about),
        Reason::ConnectOther => Advice {
            note: Some(other(about.errno)),
            ..Advice::default()
        },
        Reason::QueueUnixFull => unix_full(about),
        _ => Advice::default(),
    }
}

fn refused(about: &AboutConnect<'_>) -> Advice {
    if about.is_unix() {
        let absent = about.errno == Some(number::ENOENT);
        return Advice {
            now: Some(match about.file() {
                Some(file) if absent => format!("ls -ld {file}; ss -xlp"),
                _ => about.command("ss -xlp"),
            }),
            lasting: None,
            note: Some(
                if absent {
                    "the socket's path does not exist for the client: the server is not started \
                     yet, listens elsewhere, or the path is in another mount namespace"
                } else {
                    "the path is there and nobody listens: a server that ended and left its \
                     socket behind"
                }
                .to_owned(),
            ),
        };
    }
    Advice {
        now: about
            .port()
            .map(|port| about.command(&format!("ss -ltnp 'sport = :{port}'"))),
        lasting: None,
        note: Some(
            if about.listens {
                "something listens there now: it was started since, its queue was full \
                 (net.ipv4.tcp_abort_on_overflow), or a firewall answers with a reset"
            } else {
                "nothing listens at that address and port: the server is down, listens on \
                 another address, or a firewall answers in its place; to be looked for on the \
                 host that has the address"
            }
            .to_owned(),
        ),
    }
}

fn timeout(about: &AboutConnect<'_>) -> Advice {
    let now = match (about.port(), about.ip()) {
        (Some(port), _) if about.listens => {
            Some(about.command(&format!("ss -ltn 'sport = :{port}'")))
        }
        (_, Some(ip)) => Some(about.command(&format!("ip route get {ip}"))),
        _ => None,
    };
    Advice {
        now,
        lasting: None,
        note: Some(
            if about.listens {
                "a process of this host listens there: its accept queue is full (Recv-Q above \
                 Send-Q), so that it drops what comes"
            } else {
                "no answer came: a firewall that drops, a host that is down, a route that leads \
                 nowhere, or a server whose accept queue is full"
            }
            .to_owned(),
        ),
    }
}

fn unreachable(about: &AboutConnect<'_>) -> Advice {
    Advice {
        now: about
            .ip()
            .map(|ip| about.command(&format!("ip route get {ip}"))),
        lasting: None,
        note: Some(match about.errno {
            Some(number::EHOSTUNREACH | number::EHOSTDOWN) => {
                "the host does not answer on its own network, or a router or firewall says that \
                 there is no way to it"
                    .to_owned()
            }
            Some(number::ENETDOWN) => "the interface that leads there is down".to_owned(),
            _ => "there is no route in the client's network namespace: for IPv6, often a host \
                  without it"
                .to_owned(),
        }),
    }
}

fn denied(about: &AboutConnect<'_>) -> Advice {
    if let Some(file) = about.file() {
        return Advice {
            now: Some(format!("namei -l {file}")),
            lasting: None,
            note: Some(
                "connecting needs write permission on the socket, and search permission on each \
                 folder above it; else a security module refused"
                    .to_owned(),
            ),
        };
    }
    Advice {
        now: Some("journalctl -k --since -10min | grep -iE 'denied|avc|apparmor'".to_owned()),
        lasting: None,
        note: Some(
            "a firewall rule for outgoing packets, a BPF program on the cgroup (bpftool cgroup \
             tree), or a security module refused; EACCES is also a broadcast address without \
             SO_BROADCAST, or a route of type prohibit"
                .to_owned(),
        ),
    }
}

fn no_port(about: &AboutConnect<'_>) -> Advice {
    let summary = match about.target {
        Some(Target::Inet(address)) => {
            format!("ss -tan 'dst {address}' | awk '{{print $1}}' | sort | uniq -c")
        }
        _ => "ss -s".to_owned(),
    };
    Advice {
        now: Some(about.command(&summary)),
        lasting: Some(
            "net.ipv4.ip_local_port_range = 1024 65000 and net.ipv4.tcp_tw_reuse = 1 in \
             /etc/sysctl.d/90-ports.conf; better, keep connections open and use them again"
                .to_owned(),
        ),
        note: Some(
            "every local port is in use towards this one address and port (TIME-WAIT counts), \
             or the address that the client is bound to is none of this host; more addresses at \
             either end give as many ports again"
                .to_owned(),
        ),
    }
}

fn unix_full(about: &AboutConnect<'_>) -> Advice {
    Advice {
        now: Some(about.command("ss -xlp")),
        lasting: Some(
            "a longer backlog where the server listens (net.core.somaxconn may cut it), then a \
             restart; and more workers that accept"
                .to_owned(),
        ),
        note: Some(
            "the server's queue is full (Recv-Q above Send-Q): it accepts too slowly or not at \
             all, and no counter of the kernel's shows it"
                .to_owned(),
        ),
    }
}

fn other(errno: Option<u16>) -> String {
    let what = match errno {
        Some(number::EBADF) => "the descriptor is not open: it was closed under its client",
        Some(number::ENOTSOCK) => "the descriptor is no socket",
        Some(number::EFAULT) => "the program passed a bad pointer: a bug in it",
        Some(number::EINVAL) => {
            "the address is of a wrong length, or the socket cannot be connected (any more)"
        }
        Some(number::ENOMEM | number::ENOBUFS) => "the kernel had no memory for it",
        _ => "connect is not usually answered so (man 2 connect)",
    };
    errno.map_or_else(
        || what.to_owned(),
        |errno| format!("{}: {what}", errno::name(errno)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(target: Target) -> AboutConnect<'static> {
        AboutConnect {
            target: Some(target),
            path: None,
            listens: false,
            errno: Some(number::ECONNREFUSED),
            pid: Some(7),
        }
    }

    fn tcp() -> AboutConnect<'static> {
        about(Target::Inet("10.1.2.3:5432".parse().expect("an address")))
    }

    #[test]
    fn every_reason_of_connect_has_something_to_say() {
        for reason in Reason::ALL {
            assert_eq!(
                advise_connect(*reason, &tcp()) != Advice::default(),
                reason.is_of_connect(),
                "{reason:?}"
            );
        }
    }

    #[test]
    fn commands_are_for_the_client_s_own_network() {
        let now = |reason, about: &AboutConnect<'_>| advise_connect(reason, about).now;
        assert_eq!(
            now(Reason::ConnectRefused, &tcp()).as_deref(),
            Some("nsenter -t 7 -n ss -ltnp 'sport = :5432'")
        );
        let gone = AboutConnect { pid: None, ..tcp() };
        assert_eq!(
            now(Reason::ConnectUnreachable, &gone).as_deref(),
            Some("ip route get 10.1.2.3")
        );
        let full = AboutConnect {
            listens: true,
            ..gone
        };
        assert_eq!(
            now(Reason::ConnectTimeout, &full).as_deref(),
            Some("ss -ltn 'sport = :5432'")
        );
    }

    #[test]
    fn paths_are_safe_in_a_shell() {
        let unix = AboutConnect {
            path: Some(b"/run/a b;$(x)\n"),
            errno: Some(number::ENOENT),
            ..about(Target::Unix([1; 16]))
        };
        let advice = advise_connect(Reason::ConnectRefused, &unix);
        assert_eq!(
            advice.now.as_deref(),
            Some("ls -ld '/run/a b;$(x)\\n'; ss -xlp")
        );
        let hidden = AboutConnect {
            path: Some(b"\0name"),
            ..unix
        };
        let advice = advise_connect(Reason::ConnectRefused, &hidden);
        assert_eq!(advice.now.as_deref(), Some("nsenter -t 7 -n ss -xlp"));
    }
}
