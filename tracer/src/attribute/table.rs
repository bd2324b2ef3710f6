//! Lines of `/proc/PID/net/{tcp,udp,unix}` and of the like (proc_pid_net(5)). Pure; any
//! bytes may come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A line of `tcp`, `tcp6`, `udp` or `udp6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inet {
    /// Inode number; 0 for what no process has, such as TIME_WAIT.
    pub(super) inode: u64,
    /// `TCP_*` (include/net/tcp_states.h).
    pub(super) state: u8,
    /// Bound to.
    pub(super) local: SocketAddr,
    /// Connected to; port 0 where it is not.
    pub(super) remote: SocketAddr,
}

/// TCP_ESTABLISHED: connected, for datagram sockets too.
pub(super) const ESTABLISHED: u8 = 1;
/// State of an AF_UNIX socket that listens.
pub(super) const UNIX_LISTEN: &str = "LISTEN";
/// TCP_LISTEN.
pub(super) const LISTEN: u8 = 10;

/// A line of `unix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unix<'a> {
    /// Inode number; 0 for a connection that waits to be accepted.
    pub(super) inode: u64,
    /// `LISTEN`, `ESTABLISHED`, ….
    pub(super) state: &'static str,
    /// Name, with `@` where an abstract one has NUL; empty for none.
    pub(super) name: &'a [u8],
}

/// `sl local rem st tx:rx tr:when retrnsmt uid timeout inode …`, with spaces around and,
/// before `sl`, possibly more of them. The header and rubbish give `None`.
pub(super) fn inet(line: &[u8]) -> Option<Inet> {
    let mut words = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    words.next()?;
    let local = words.next()?;
    let remote = words.next()?;
    let state = words.next()?;
    let inode = decimal(words.nth(9 - 4)?)?;
    Some(Inet {
        inode,
        state: u8::try_from(hex(state, 2)?).ok()?,
        local: address(local)?,
        remote: address(remote)?,
    })
}

/// `Num RefCount Protocol Flags Type St Inode Path`; the path may be absent and may hold
/// any byte.
pub(super) fn unix(line: &[u8]) -> Option<Unix<'_>> {
    let mut rest = line;
    let mut word = || {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ');
        let (word, tail) = rest.split_at(end.unwrap_or(rest.len()));
        rest = tail;
        (!word.is_empty()).then_some(word)
    };
    for _ in 0..3 {
        word()?;
    }
    // __SO_ACCEPTCON (include/linux/net.h).
    let listens = hex(word()?, 8)? & 1 << 16 != 0;
    word()?;
    let state = hex(word()?, 2)?;
    let inode = decimal(word()?)?;
    let state = match state {
        _ if listens => UNIX_LISTEN,
        // SS_* (include/uapi/linux/net.h).
        1 => "UNCONN",
        2 => "CONNECTING",
        3 => "ESTABLISHED",
        4 => "DISCONNECTING",
        _ => return None,
    };
    Some(Unix {
        inode,
        state,
        name: rest.strip_prefix(b" ").unwrap_or(rest),
    })
}

/// Name of a TCP state, as netstat(8) writes it.
pub(super) fn tcp_state(state: u8) -> Option<&'static str> {
    // Index 0 is none.
    [
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
        "SYN_RECV",
    ]
    .get(usize::from(state).checked_sub(1)?)
    .copied()
}

/// `0100007F:0050`: words of the address as this machine reads them from memory, where
/// they are in network order; the port as a number.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    let (address, port) = (&text[..colon], &text[colon + 1..]);
    let port = u16::try_from(hex(port, 4)?).ok()?;
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(hex(address, 8)?.to_ne_bytes())),
        32 => {
            let mut bytes = [0; 16];
            for (word, digits) in bytes.chunks_exact_mut(4).zip(address.chunks_exact(8)) {
                word.copy_from_slice(&hex(digits, 8)?.to_ne_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Exactly so many hexadecimal digits, at most 8.
fn hex(text: &[u8], digits: usize) -> Option<u32> {
    if text.len() != digits {
        return None;
    }
    text.iter().try_fold(0, |number, byte| {
        Some(number << 4 | char::from(*byte).to_digit(16)?)
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr};

    use super::{Inet, Unix, inet, tcp_state, unix};

    const REST: &str = "00000000:00000000 00:00000000 00000000  1000        0";

    fn word(bytes: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(bytes))
    }

    fn v4_line() -> String {
        format!(
            "   0: {}:1538 {}:A1B2 08 {REST} 31337 1 000000008aec9374 100 0 0 10 0   ",
            word([127, 0, 0, 1]),
            word([10, 1, 2, 3]),
        )
    }

    #[test]
    fn inet_lines() {
        let expected = Inet {
            inode: 31_337,
            state: 8,
            local: SocketAddr::from(([127, 0, 0, 1], 0x1538)),
            remote: SocketAddr::from(([10, 1, 2, 3], 0xa1b2)),
        };
        assert_eq!(inet(v4_line().as_bytes()), Some(expected));
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x15);
        let words: String = address
            .octets()
            .chunks_exact(4)
            .map(|bytes| word([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        let line = format!("12345: {words}:0050 {words}:FFFF 01 {REST} 7 1 0 0");
        let found = inet(line.as_bytes()).expect("a line");
        assert_eq!(found.local, SocketAddr::from((address, 80)));
        assert_eq!(found.remote, SocketAddr::from((address, 0xffff)));
    }

    #[test]
    fn no_line_cut_short_or_damaged_is_believed() {
        let line = v4_line();
        let end = line.find("31337").expect("there") + 1;
        for length in 0..end {
            assert_eq!(inet(&line.as_bytes()[..length]), None, "{length}");
        }
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
            uid  timeout inode";
        for line in [
            header,
            "",
            "\0\0\0\0",
            "0: 0100007F:1 0100007F:A1B2 08 a b c d e 7",
            "0: 0100007F:00001 0100007F:A1B2 08 a b c d e 7",
            "0: 0100007F 0100007F:A1B2 08 a b c d e 7",
            "0: +100007F:1538 0100007F:A1B2 08 a b c d e 7",
            "0: 0100007F00:1538 0100007F:A1B2 08 a b c d e 7",
            "0: 0100007F:1538 0100007F:A1B2 8 a b c d e 7",
            "0: 0100007F:1538 0100007F:A1B2 08 a b c d e -7",
            "0: 0100007F:1538 0100007F:A1B2 08 a b c d e 18446744073709551616",
            "0: é00007F:1538 0100007F:A1B2 08 a b c d e 7",
        ] {
            assert_eq!(inet(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn unix_lines() {
        let start = "0000000000000000: 00000002 00000000 ";
        for (line, inode, state, name) in [
            (
                "00010000 0001 01   812 /run/a b.sock",
                812,
                "LISTEN",
                "/run/a b.sock",
            ),
            ("00000000 0001 03 12346", 12_346, "ESTABLISHED", ""),
            ("00000000 0002 01 5 @agent@x", 5, "UNCONN", "@agent@x"),
            ("00000000 0001 03 5  two", 5, "ESTABLISHED", " two"),
        ] {
            assert_eq!(
                unix(format!("{start}{line}").as_bytes()),
                Some(Unix {
                    inode,
                    state,
                    name: name.as_bytes()
                }),
                "{line}"
            );
        }
        let whole = format!("{start}00010000 0001 01 812");
        for length in 0..=whole.len() - "812".len() {
            assert_eq!(unix(&whole.as_bytes()[..length]), None, "{length}");
        }
        for rubbish in [
            "Num       RefCount Protocol Flags    Type St Inode Path",
            "0: 2 0 00010000 0001 09x 7 /x",
            "0: 2 0 1 0001 01 7 /x",
            "0: 2 0 00000000 0001 77 7 /x",
        ] {
            assert_eq!(unix(rubbish.as_bytes()), None, "{rubbish}");
        }
    }

    #[test]
    fn states() {
        // include/net/tcp_states.h.
        assert_eq!(tcp_state(super::ESTABLISHED), Some("ESTABLISHED"));
        assert_eq!(tcp_state(8), Some("CLOSE_WAIT"));
        assert_eq!(tcp_state(super::LISTEN), Some("LISTEN"));
        assert_eq!(tcp_state(12), Some("SYN_RECV"));
        for unknown in [0, 13, 255] {
            assert_eq!(tcp_state(unknown), None);
        }
    }

    #[test]
    fn addresses_of_procfs() {
        for (text, expected) in [
            ("0100007F:1F90", Some("127.0.0.1:8080")),
            ("00000000:0050", Some("0.0.0.0:80")),
            ("00000000000000000000000001000000:0016", Some("[::1]:22")),
            (
                "0000000000000000FFFF00000100007F:0001",
                Some("[::ffff:127.0.0.1]:1"),
            ),
            ("0100007F", None),
            ("01:1", None),
            ("é00007F:1F90", None),
        ] {
            let expected = expected.map(|address| address.parse().expect("an address"));
            assert_eq!(super::address(text.as_bytes()), expected, "{text}");
        }
    }
}
