//! What a process's descriptors are: sockets by where they lead and in what state, files
//! by path. Many connections in one place are load; many in CLOSE_WAIT are a leak.

use std::{
    cmp::Reverse,
    collections::HashMap,
    ffi::CStr,
    hash::Hash,
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FsWord, Mode, OFlags, PROC_SUPER_MAGIC, RawDir, fstat, fstatfs, openat, readlinkat_raw},
    io::Errno,
};

mod growth;
mod kind;
mod sockets;

pub use growth::{Grown, Growth, growth};
pub use kind::Kind;

/// Most paths that [`Holdings::files`] has.
const MAX_FILES: usize = 5;
/// Most bytes of paths that are kept to count them, 4 MiB: a path may have 4 KiB.
const MAX_PATH_BYTES: usize = 4 << 20;
/// Bytes of a link of `/proc/PID/fd` at most: the kernel builds it in one page.
const MAX_LINK: usize = 1 << 12;

/// What the descriptors of one process are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Open descriptors. Where not all were looked at: as many as the kernel says there
    /// are (Linux 6.2), before that as many as were looked at.
    pub total: u64,
    /// Descriptors that were looked at, by kind, most first.
    pub kinds: Vec<(Kind, u64)>,
    /// Those that are sockets, most first. Together as many as [`Kind::Socket`] has.
    pub groups: Vec<SocketGroup>,
    /// The paths with most descriptors, any bytes, at most five: those that several
    /// descriptors have, and those that were deleted, which end in ` (deleted)`.
    pub files: Vec<(Vec<u8>, u64)>,
    /// All descriptors were looked at and every table of sockets that was needed was read
    /// to its end. If not, counts are of what was looked at.
    pub complete: bool,
}

/// Sockets that are alike. Each count is of descriptors: one socket may have several.
///
/// Connections that were accepted differ in their peers, and those that were opened
/// differ in their local ports, so the former have a [`SocketGroup::local_port`] and the
/// latter a [`SocketGroup::remote`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketGroup {
    /// Address family.
    pub family: Family,
    /// `tcp`, `udp`, …; `None` for families without protocols and where it is not known.
    pub protocol: Option<&'static str>,
    /// `ESTABLISHED`, `CLOSE_WAIT`, `LISTEN`, …; `UNCONN` for a datagram socket without a
    /// peer. `None` where no table of the process's network namespace has the socket: it
    /// is of another one, or not bound, or its connection is over.
    pub state: Option<&'static str>,
    /// Where connections lead that were not accepted. An IPv4 address in IPv6 is IPv4.
    pub remote: Option<SocketAddr>,
    /// Where it listens, or where connections were accepted: the port of a socket that
    /// listens in the same network namespace, whichever process has that.
    pub local_port: Option<u16>,
    /// AF_UNIX: the name it is bound to, which an accepted connection has from its
    /// listener. Where it leads is not known. A leading NUL marks an abstract name.
    pub path: Option<Vec<u8>>,
    /// Accepted connections: different remote addresses, ports not counted. Otherwise 0.
    pub peers: u64,
    /// Descriptors.
    pub count: u64,
}

/// Address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AF_INET.
    Inet,
    /// AF_INET6, whatever its peer is.
    Inet6,
    /// AF_UNIX.
    Unix,
    /// AF_NETLINK.
    Netlink,
    /// AF_PACKET.
    Packet,
    /// AF_VSOCK.
    Vsock,
    /// Any other, or not known.
    Other,
}

impl Family {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Inet,
        Self::Inet6,
        Self::Unix,
        Self::Netlink,
        Self::Packet,
        Self::Vsock,
        Self::Other,
    ];

    /// Its name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Inet6 => "inet6",
            Self::Unix => "unix",
            Self::Netlink => "netlink",
            Self::Packet => "packet",
            Self::Vsock => "vsock",
            Self::Other => "other",
        }
    }
}

impl Holdings {
    /// Descriptors that were looked at.
    #[must_use]
    pub fn looked_at(&self) -> u64 {
        self.kinds.iter().map(|(_, count)| count).sum()
    }
}

/// What the process under `root` holds; `None` where its `fd` cannot be read: it is gone,
/// or another user's.
///
/// This reads a link for each descriptor, and tables that have a line for each socket of
/// the process's network namespace. After `budget` it returns what it has. Descriptors
/// are read lowest first and get half of that time, the tables most of the rest.
#[must_use]
pub fn holdings(root: &Path, pid: u32, budget: Duration) -> Option<Holdings> {
    let started = Instant::now();
    let path = root.join("proc").join(pid.to_string());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // What is read through it is never of a later process of the same pid.
    let process = rustix::fs::open(&path, flags, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptors = openat(&process, "fd", flags, Mode::empty()).ok()?;
    let size = size(&descriptors);
    let mut looked = look(&descriptors, started + budget / 2)?;
    let found = sockets::Search {
        process: &process,
        descriptors: &path.join("fd"),
        tables_until: started + budget * 9 / 10,
        names_until: started + budget,
    }
    .groups(&looked.sockets);
    looked.complete &= found.complete;
    let counted = looked.kinds.values().sum();
    Some(Holdings {
        // Descriptors come and go: what was counted fits the rest.
        total: match size {
            Some(size) if !looked.complete => size.max(counted),
            _ => counted,
        },
        kinds: most_first(looked.kinds),
        groups: found.groups,
        files: files(looked.paths),
        complete: looked.complete,
    })
}

/// A socket among the descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// One of its descriptors.
    descriptor: u32,
    /// How many it has.
    count: u64,
}

/// What the links of a directory of descriptors say.
struct Looked {
    kinds: HashMap<Kind, u64>,
    /// By inode number.
    sockets: HashMap<u64, Held>,
    paths: HashMap<Vec<u8>, u64>,
    complete: bool,
}

/// How many descriptors the kernel says there are: the size of `/proc/PID/fd` since Linux
/// 6.2, where it is not 0.
fn size(descriptors: &OwnedFd) -> Option<u64> {
    // The size of a directory elsewhere is something else.
    if fstatfs(descriptors).ok()?.f_type as FsWord != PROC_SUPER_MAGIC {
        return None;
    }
    let size = u64::try_from(fstat(descriptors).ok()?.st_size).ok()?;
    (size > 0).then_some(size)
}

fn look(descriptors: &OwnedFd, deadline: Instant) -> Option<Looked> {
    let mut looked = Looked {
        kinds: HashMap::new(),
        sockets: HashMap::new(),
        paths: HashMap::new(),
        complete: true,
    };
    let mut path_bytes = 0;
    let mut buffer = [MaybeUninit::uninit(); 1 << 14];
    let mut entries = RawDir::new(descriptors, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::INTR) => continue,
            // The process exited meanwhile.
            Err(Errno::NOENT | Errno::SRCH) => return None,
            Err(_) => {
                looked.complete = false;
                break;
            }
        };
        let Some(descriptor) = number(entry.file_name()) else {
            continue;
        };
        if Instant::now() >= deadline {
            looked.complete = false;
            break;
        }
        let mut link = [MaybeUninit::uninit(); MAX_LINK];
        let link = match readlinkat_raw(descriptors, entry.file_name(), &mut link) {
            Ok((link, _)) => &*link,
            // Closed meanwhile.
            Err(Errno::NOENT | Errno::SRCH) => continue,
            // Only a path can be too long.
            Err(Errno::NAMETOOLONG) => b"/",
            Err(_) => {
                looked.complete = false;
                continue;
            }
        };
        let kind = Kind::of_link(link);
        *looked.kinds.entry(kind).or_default() += 1;
        if let Some(inode) = kind::socket_inode(link) {
            let held = looked.sockets.entry(inode).or_insert(Held {
                descriptor,
                count: 0,
            });
            held.count += 1;
        }
        if matches!(kind, Kind::File | Kind::Device) && link.len() > 1 {
            if let Some(count) = looked.paths.get_mut(link) {
                *count += 1;
            } else if path_bytes + link.len() <= MAX_PATH_BYTES {
                path_bytes += link.len();
                looked.paths.insert(link.to_vec(), 1);
            } else {
                looked.complete = false;
            }
        }
    }
    Some(looked)
}

fn number(name: &CStr) -> Option<u32> {
    name.to_str().ok()?.parse().ok()
}

fn files(paths: HashMap<Vec<u8>, u64>) -> Vec<(Vec<u8>, u64)> {
    let mut files = most_first(paths);
    files.retain(|(path, count)| *count > 1 || path.ends_with(b" (deleted)"));
    files.truncate(MAX_FILES);
    files
}

fn most_first<T: Ord + Hash>(counts: HashMap<T, u64>) -> Vec<(T, u64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable_by(|(a, more), (b, less)| (Reverse(more), a).cmp(&(Reverse(less), b)));
    counts
}

#[cfg(test)]
impl SocketGroup {
    /// So many sockets of which only the state is known.
    pub(crate) fn of_tcp(state: Option<&'static str>, count: u64) -> Self {
        Self {
            family: Family::Inet,
            protocol: Some("tcp"),
            state,
            remote: None,
            local_port: None,
            path: None,
            peers: 0,
            count,
        }
    }
}

#[cfg(test)]
mod tests;
