//! What to do about a network namespace: its settings, and its table of tracked connections.

use super::{Advice, queue::in_namespace};
use crate::event::Address;

/// A backlog that suits a busy server.
const ROOMY: u32 = 65_535;

/// A network namespace, as commands must be typed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// turnaway's own: nothing needs to be added.
    Own,
    /// Another.
    Other {
        /// Its inode number.
        inode: u32,
        /// A process in it.
        pid: Option<u32>,
    },
}

impl Network {
    /// A command as it must be typed for it.
    #[must_use]
    pub fn command(self, command: &str) -> String {
        match self {
            Self::Own => command.to_owned(),
            Self::Other { pid: Some(pid), .. } => in_namespace(Some(pid), command),
            Self::Other { inode, pid: None } => format!("in net:[{inode}]: {command}"),
        }
    }

    /// What sets a setting for good. A file of sysctl.d is for the host alone.
    #[must_use]
    pub fn lasting(self, setting: &str, file: &str) -> String {
        match self {
            Self::Own => format!("{setting} in /etc/sysctl.d/90-{file}.conf"),
            Self::Other { .. } => format!(
                "{setting} where the namespace is made (docker run --sysctl, or sysctls: of a \
                 pod's securityContext)"
            ),
        }
    }
}

/// A backlog that is as long as `net.core.somaxconn` lets it be.
#[must_use]
pub fn backlog_cut(network: Network, somaxconn: u32) -> Advice {
    let wanted = somaxconn.saturating_mul(2).max(ROOMY);
    let setting = "net.core.somaxconn";
    let lasting = network.lasting(&format!("{setting} = {wanted}"), "somaxconn");
    Advice {
        now: Some(network.command(&format!("sysctl -w {setting}={wanted}"))),
        lasting: Some(format!(
            "{lasting}, then a restart of the program: a backlog is cut when it begins to listen"
        )),
        note: None,
    }
}

/// `net.ipv4.tcp_abort_on_overflow` is on.
#[must_use]
pub fn abort_on_overflow(network: Network) -> Advice {
    let setting = "net.ipv4.tcp_abort_on_overflow";
    Advice {
        now: Some(network.command(&format!("sysctl -w {setting}=0"))),
        lasting: Some(network.lasting(&format!("{setting} = 0"), "overflow")),
        note: None,
    }
}

/// A listener that nobody holds.
#[must_use]
pub fn held_by_nobody(network: Network, address: Option<&Address>) -> Advice {
    let command = match address {
        Some(Address::Inet(address)) => format!("ss -ltnpe 'sport = :{}'", address.port()),
        _ => "ss -lxpe".to_owned(),
    };
    Advice {
        now: Some(network.command(&command)),
        lasting: Some("a restart of the service whose listener it is".to_owned()),
        note: None,
    }
}

/// The table of tracked connections is full, or nearly; `max` is the most it may hold.
#[must_use]
pub fn conntrack(max: Option<u64>) -> Advice {
    let setting = "net.netfilter.nf_conntrack_max";
    let wanted = max.map(|max| max.saturating_mul(2));
    Advice {
        // Of the host: other namespaces may not write it, or not above the host's.
        now: wanted.map(|wanted| format!("sysctl -w {setting}={wanted}")),
        lasting: wanted
            .map(|wanted| Network::Own.lasting(&format!("{setting} = {wanted}"), "conntrack")),
        note: Some(
            "new connections are dropped before any listener sees them; what fills the table: \
             conntrack -L, or a notrack rule for what need not be tracked"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_for_the_namespace_in_question() {
        let now = |network| abort_on_overflow(network).now.unwrap();
        let command = "sysctl -w net.ipv4.tcp_abort_on_overflow=0";
        assert_eq!(now(Network::Own), command);
        let inode = 4711;
        let pid = Some(7);
        assert_eq!(
            now(Network::Other { inode, pid }),
            format!("nsenter -t 7 -n {command}")
        );
        let pid = None;
        assert_eq!(
            now(Network::Other { inode, pid }),
            format!("in net:[4711]: {command}")
        );
    }

    #[test]
    fn a_limit_is_raised_and_never_lowered() {
        let now = |advice: Advice| advice.now.unwrap();
        assert!(now(backlog_cut(Network::Own, 128)).ends_with("=65535"));
        assert!(now(backlog_cut(Network::Own, 65_535)).ends_with("=131070"));
        assert!(now(conntrack(Some(262_144))).ends_with("=524288"));
        assert_eq!(conntrack(None).now, None);
    }
}
