//! Who holds a socket, and where a socket is bound, for failures that do not tell.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{links, table};

/// Most bytes of `/proc/PID/net/unix` that are read, 16 MiB: some 100 000 sockets.
const MAX_BYTES: u64 = 16 << 20;

/// Processes that hold a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Process ids, ascending.
    pub pids: Vec<u32>,
    /// Every process was looked at: there are no others.
    pub complete: bool,
}

/// Who holds each of some sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOwners {
    /// Process ids, by inode, ascending.
    holders: HashMap<u64, Vec<u32>>,
    /// Every process was looked at.
    complete: bool,
}

impl SocketOwners {
    /// Who holds one of them.
    #[must_use]
    pub fn of(&self, inode: u64) -> Owners {
        Owners {
            pids: self.holders.get(&inode).cloned().unwrap_or_default(),
            complete: self.complete,
        }
    }
}

/// Every process with a descriptor of any of the sockets: those whose `/proc/PID/fd` under
/// `root` links to `socket:[inode]`.
///
/// This reads every link of every process, once for all sockets, so it stops after `budget`
/// with what it found. It begins with the highest process ids: who holds a new socket is likely
/// to be new itself.
#[must_use]
pub fn owners_of_sockets(root: &Path, sockets: &BTreeSet<u64>, budget: Duration) -> SocketOwners {
    let deadline = Instant::now() + budget;
    let Ok(processes) = fs::read_dir(root.join("proc")) else {
        return SocketOwners::default();
    };
    let mut owners = SocketOwners {
        holders: HashMap::new(),
        complete: true,
    };
    let mut pids: Vec<u32> = processes
        .filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable_by(|a, b| b.cmp(a));
    for pid in pids {
        let held = links::held(&descriptors_of(root, pid), sockets, sockets.len(), deadline);
        owners.complete &= held.all;
        for inode in held.sockets {
            owners.holders.entry(inode).or_default().push(pid);
        }
        if Instant::now() > deadline {
            owners.complete = false;
            break;
        }
    }
    for pids in owners.holders.values_mut() {
        pids.sort_unstable();
    }
    owners
}

/// Whether a process has a descriptor of the socket; `None` where that could not be found out
/// within `budget`.
#[must_use]
pub fn is_holder(root: &Path, pid: u32, inode: u64, budget: Duration) -> Option<bool> {
    let deadline = Instant::now() + budget;
    let wanted = BTreeSet::from([inode]);
    let held = links::held(&descriptors_of(root, pid), &wanted, 1, deadline);
    let is_held = held.sockets.contains(&inode);
    (is_held || held.all).then_some(is_held)
}

fn descriptors_of(root: &Path, pid: u32) -> PathBuf {
    root.join("proc").join(pid.to_string()).join("fd")
}

/// The name an AF_UNIX socket is bound to, from `/proc/PID/net/unix` under `root`: any
/// process in the socket's network namespace will do.
///
/// A leading NUL marks an abstract name. The kernel shows each NUL inside such a name as
/// `@`, so those cannot be told apart here. `None` where the socket is not listed, has no
/// name, or where two lines claim its inode: a name may hold a newline and what looks
/// like a line.
#[must_use]
pub fn unix_path(root: &Path, pid: u32, inode: u64) -> Option<Vec<u8>> {
    find_path(&unix_table(root, &pid.to_string())?, inode)
}

fn find_path(table: &[u8], inode: u64) -> Option<Vec<u8>> {
    let mut found = lines(table).filter(|line| line.inode == inode);
    let path = found.next()?.name;
    if found.next().is_some() {
        return None;
    }
    match path.split_first()? {
        (b'@', name) => Some([b"\0", name].concat()),
        _ => Some(path.to_vec()),
    }
}

/// The listening AF_UNIX socket of a name in a `/proc/PID/net/unix`; a leading NUL marks an
/// abstract name. `None` where none listens, or several sockets claim the name.
pub(super) fn unix_listener(table: &[u8], name: &[u8]) -> Option<u64> {
    // As the kernel shows it: an `@` for each NUL of an abstract name.
    let shown: Vec<u8> = match name.first() {
        Some(0) => name
            .iter()
            .map(|byte| if *byte == 0 { b'@' } else { *byte })
            .collect(),
        _ => name.to_vec(),
    };
    let mut found =
        lines(table).filter(|line| line.state == table::UNIX_LISTEN && line.name == shown);
    let inode = found.next()?.inode;
    found.next().is_none().then_some(inode)
}

/// The whole of a `/proc/PID/net/unix`.
pub(super) fn unix_table(root: &Path, pid: &str) -> Option<Vec<u8>> {
    let path = root.join("proc").join(pid).join("net/unix");
    let mut table = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(MAX_BYTES)
        .read_to_end(&mut table)
        .ok()?;
    Some(table)
}

fn lines(table: &[u8]) -> impl Iterator<Item = table::Unix<'_>> {
    table.split(|byte| *byte == b'\n').filter_map(table::unix)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        os::unix::{fs::MetadataExt as _, fs::symlink, net::UnixListener},
        path::Path,
        time::Duration,
    };

    use super::{Owners, find_path, is_holder, owners_of_sockets, unix_listener, unix_path};

    const BUDGET: Duration = Duration::from_secs(10);

    fn owners_of(root: &Path, inode: u64, budget: Duration) -> Owners {
        owners_of_sockets(root, &BTreeSet::from([inode]), budget).of(inode)
    }

    fn hold(root: &Path, pid: &str, descriptor: &str, target: &str) {
        let directory = root.join("proc").join(pid).join("fd");
        fs::create_dir_all(&directory).expect("created");
        symlink(target, directory.join(descriptor)).expect("linked");
    }

    #[test]
    fn every_holder_is_found_once() {
        let root = tempfile::tempdir().expect("a directory");
        hold(root.path(), "900", "3", "socket:[77]");
        hold(root.path(), "900", "4", "socket:[77]");
        hold(root.path(), "21", "0", "socket:[77]");
        hold(root.path(), "5", "0", "socket:[777]");
        hold(root.path(), "6", "1", "/var/log/socket:[77]");
        hold(root.path(), "self", "1", "socket:[77]");
        fs::create_dir_all(root.path().join("proc/8")).expect("created");
        assert_eq!(
            owners_of(root.path(), 77, BUDGET),
            Owners {
                pids: vec![21, 900],
                complete: true
            }
        );
        for (pid, holder) in [(900, true), (5, false), (8, false), (9, false)] {
            assert_eq!(is_holder(root.path(), pid, 77, BUDGET), Some(holder));
        }
        assert_eq!(is_holder(root.path(), 5, 77, Duration::ZERO), None);
    }

    #[test]
    fn holders_of_many_are_found_in_one_search() {
        let root = tempfile::tempdir().expect("a directory");
        hold(root.path(), "7", "3", "socket:[70]");
        hold(root.path(), "7", "4", "socket:[71]");
        hold(root.path(), "9", "5", "socket:[71]");
        hold(root.path(), "9", "6", "socket:[72]");
        let found = owners_of_sockets(root.path(), &BTreeSet::from([70, 71, 73]), BUDGET);
        for (inode, pids) in [(70, vec![7]), (71, vec![7, 9]), (73, Vec::new())] {
            let complete = true;
            assert_eq!(found.of(inode), Owners { pids, complete }, "{inode}");
        }
    }

    #[test]
    fn what_was_not_looked_at_is_not_ruled_out() {
        let root = tempfile::tempdir().expect("a directory");
        assert!(!owners_of(root.path(), 1, BUDGET).complete);
        hold(root.path(), "1", "0", "socket:[77]");
        hold(root.path(), "2", "0", "socket:[77]");
        assert!(!owners_of(root.path(), 77, Duration::ZERO).complete);
    }

    const TABLE: &[u8] = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
        0000000000000000: 00000002 00000000 00010000 0001 01   812 /run/a b.sock\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 12345 @agent@x\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 12346\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 12347 /tmp/\xff\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 12348 /run/real.sock\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 12349 x\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 12348 /run/forged.sock\n";

    #[test]
    fn names_of_unix_sockets() {
        for (inode, path) in [
            (812, Some(&b"/run/a b.sock"[..])),
            (12345, Some(b"\0agent@x")),
            (12346, None),
            (12347, Some(b"/tmp/\xff")),
            // Two lines claim it.
            (12348, None),
            (1, None),
        ] {
            assert_eq!(find_path(TABLE, inode).as_deref(), path, "{inode}");
        }
    }

    #[test]
    fn listeners_by_name() {
        for (name, inode) in [
            (&b"/run/a b.sock"[..], Some(812)),
            (b"\0agent\0x", Some(12345)),
            (b"/tmp/\xff", Some(12347)),
            (b"/run/none.sock", None),
            // Connected, without a name.
            (b"", None),
        ] {
            assert_eq!(unix_listener(TABLE, name), inode, "{name:?}");
        }
    }

    #[test]
    fn a_socket_of_this_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let inode = fs::metadata(format!("/proc/self/fd/{descriptor}"))
            .expect("open")
            .ino();
        let pid = std::process::id();
        assert_eq!(
            unix_path(Path::new("/"), pid, inode),
            Some(path.into_os_string().into_encoded_bytes())
        );
        assert!(owners_of(Path::new("/"), inode, BUDGET).pids.contains(&pid));
    }
}
