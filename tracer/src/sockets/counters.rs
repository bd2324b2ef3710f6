//! What a network namespace counts of connections that it did not let in.

use std::fs;

/// Of the calling thread's namespace, since Linux 5.0 also right after setns(2).
const NETSTAT: &str = "/proc/thread-self/net/netstat";

/// Counters of a network namespace since it exists, in packets: a client that tries again
/// is counted again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpExt {
    /// `ListenOverflows`: an accept queue was full.
    pub listen_overflows: u64,
    /// `ListenDrops`: dropped for any reason, a full accept queue among them.
    pub listen_drops: u64,
    /// `TCPReqQFullDoCookies`: a SYN queue was full, and a SYN cookie was sent instead.
    pub cookies: u64,
    /// `TCPReqQFullDrop`: a SYN queue was full, and the SYN was dropped.
    pub request_drops: u64,
}

/// Reads those of the calling thread's namespace. `None` where any of them is missing.
pub(super) fn read() -> Option<TcpExt> {
    parse(&fs::read_to_string(NETSTAT).ok()?)
}

/// Two lines a group: `TcpExt: NAME ...`, then `TcpExt: VALUE ...`.
fn parse(netstat: &str) -> Option<TcpExt> {
    let mut lines = netstat
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let names = names.split_ascii_whitespace();
    let values: Vec<_> = values.split_ascii_whitespace().collect();
    let value = |name| {
        let at = names.clone().position(|field| field == name)?;
        values.get(at)?.parse().ok()
    };
    let counters = TcpExt {
        listen_overflows: value("ListenOverflows")?,
        listen_drops: value("ListenDrops")?,
        cookies: value("TCPReqQFullDoCookies")?,
        request_drops: value("TCPReqQFullDrop")?,
    };
    Some(counters)
}

#[cfg(test)]
mod tests {
    use super::{TcpExt, parse, read};

    #[test]
    fn found_by_name() {
        let netstat = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPReqQFullDoCookies TCPReqQFullDrop\n\
            TcpExt: 0 17 18446744073709551615 3 4\n\
            IpExt: InNoRoutes\nIpExt: 5\n";
        assert_eq!(
            parse(netstat),
            Some(TcpExt {
                listen_overflows: 17,
                listen_drops: u64::MAX,
                cookies: 3,
                request_drops: 4,
            })
        );
    }

    #[test]
    fn none_where_one_is_missing() {
        for netstat in [
            "",
            "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 2\n",
            "TcpExt: ListenOverflows ListenDrops TCPReqQFullDoCookies TCPReqQFullDrop\n",
            "TcpExt: ListenOverflows ListenDrops TCPReqQFullDoCookies TCPReqQFullDrop\nTcpExt: 1 2 3\n",
            "TcpExt: ListenOverflows ListenDrops TCPReqQFullDoCookies TCPReqQFullDrop\nTcpExt: 1 2 3 x\n",
        ] {
            assert_eq!(parse(netstat), None, "{netstat}");
        }
    }

    #[test]
    fn of_this_kernel() {
        assert!(read().is_some());
    }
}
