//! Settings of a network namespace that decide what becomes of connections it has no room for.

use std::{fs, path::Path, str::FromStr};

/// Of the calling thread's namespace: the kernel shows each thread its own.
const SYSCTL: &str = "/proc/sys/net";

/// Settings of a network namespace; `None` where the kernel has none or does not show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `net.core.somaxconn`: the most that a backlog may be, whatever was asked for.
    pub somaxconn: Option<u32>,
    /// `net.ipv4.tcp_abort_on_overflow`: 1 resets who finds a queue full.
    pub abort_on_overflow: Option<u32>,
    /// `net.ipv4.tcp_syncookies`: 0 never sends cookies.
    pub syncookies: Option<u32>,
}

/// Reads those of the calling thread's namespace.
pub(super) fn read() -> Settings {
    Settings {
        somaxconn: number(&Path::new(SYSCTL).join("core/somaxconn")),
        abort_on_overflow: number(&Path::new(SYSCTL).join("ipv4/tcp_abort_on_overflow")),
        syncookies: number(&Path::new(SYSCTL).join("ipv4/tcp_syncookies")),
    }
}

/// The number that is all of a file.
pub(super) fn number<T: FromStr>(path: &Path) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn of_this_kernel() {
        let settings = read();
        assert!(settings.somaxconn.is_some_and(|most| most > 0));
        assert!(settings.abort_on_overflow.is_some());
    }
}
