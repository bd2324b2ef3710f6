//! Which network namespaces there are, and going there and back.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs, io, mem,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::attribute::kernfs;

/// How long what is known of a process and of mounts is believed, where processes are many:
/// reading the link of each of 10 000 takes tens of milliseconds.
const BELIEVED: Duration = Duration::from_secs(5);
/// So many processes are few.
const FEW: usize = 1000;

/// The network namespaces that are known of, by inode number. Holds none of them open.
#[derive(Debug)]
pub(super) struct Known {
    root: PathBuf,
    /// Processes and their namespaces; `None` where that may not be read.
    processes: HashMap<u32, Option<u32>>,
    mounts: Vec<(u32, PathBuf)>,
    scanned: Option<Instant>,
    /// With so many processes or fewer, every link is read each time.
    few: usize,
}

/// The ways into one namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Doors {
    mounts: Vec<PathBuf>,
    pids: Vec<u32>,
}

impl Known {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            processes: HashMap::new(),
            mounts: Vec::new(),
            scanned: None,
            few: FEW,
        }
    }

    /// Looks for processes that are new or gone, and at times for everything.
    pub(super) fn refresh(&mut self, now: Instant) {
        let mut before = mem::take(&mut self.processes);
        let believed = before.len() > self.few
            && self
                .scanned
                .is_some_and(|scanned| now.saturating_duration_since(scanned) < BELIEVED);
        if !believed {
            before.clear();
            self.mounts = mounts(&self.root);
            self.scanned = Some(now);
        }
        self.processes = pids(&self.root)
            .map(|pid| {
                let namespace = before.get(&pid).copied();
                let namespace = namespace.unwrap_or_else(|| self.namespace_of(pid));
                (pid, namespace)
            })
            .collect();
    }

    /// The namespaces, ascending.
    pub(super) fn doors(&self) -> BTreeMap<u32, Doors> {
        let mut doors = BTreeMap::<u32, Doors>::new();
        for (inode, path) in &self.mounts {
            doors.entry(*inode).or_default().mounts.push(path.clone());
        }
        for (pid, inode) in &self.processes {
            if let Some(inode) = inode {
                doors.entry(*inode).or_default().pids.push(*pid);
            }
        }
        doors
    }

    /// Opens a namespace through the first door that still leads there. `None` where none
    /// does: it ended.
    ///
    /// # Errors
    /// In words, where there are doors and none may be used.
    pub(super) fn open(&mut self, inode: u32, doors: &Doors) -> Result<Option<OwnedFd>, String> {
        let mut refused = None;
        for path in &doors.mounts {
            match open(path, inode) {
                Ok(Some(namespace)) => return Ok(Some(namespace)),
                Ok(None) => self.mounts.retain(|mount| mount.1 != *path),
                Err(error) => refused = Some(format!("cannot open {}: {error}", path.display())),
            }
        }
        for pid in &doors.pids {
            let path = self.link(*pid);
            match open(&path, inode) {
                Ok(Some(namespace)) => return Ok(Some(namespace)),
                // Gone, or moved: looked at again by the next refresh.
                Ok(None) => drop(self.processes.remove(pid)),
                Err(error) => refused = Some(format!("cannot open {}: {error}", path.display())),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn namespace_of(&self, pid: u32) -> Option<u32> {
        let target = fs::read_link(self.link(pid)).ok()?;
        inode_in(target.as_os_str().as_bytes())
    }

    fn link(&self, pid: u32) -> PathBuf {
        self.root.join(format!("proc/{pid}/ns/net"))
    }
}

/// The cookie of the network namespace that this thread is in.
pub(super) fn cookie() -> Option<u64> {
    /// include/uapi/asm-generic/socket.h
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .ok()?;
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: the kernel writes at most `len` bytes to `cookie`, and the length to `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    (result == 0 && cookie != 0).then_some(cookie)
}

fn pids(root: &Path) -> impl Iterator<Item = u32> {
    fs::read_dir(root.join("proc"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Namespaces that are mounted somewhere (`ip netns add`, docker, podman): in what this
/// thread sees, and in what pid 1 sees, which may be more.
fn mounts(root: &Path) -> Vec<(u32, PathBuf)> {
    let read = |process: &str| {
        let path = root.join("proc").join(process).join("mountinfo");
        parse_mounts(&fs::read(path).unwrap_or_default())
    };
    let init = root.join("proc/1/root");
    let of_init = read("1").into_iter().filter_map(|(inode, path)| {
        let path = init.join(path.strip_prefix("/").ok()?);
        Some((inode, path))
    });
    read("thread-self").into_iter().chain(of_init).collect()
}

/// `ID PARENT MAJOR:MINOR net:[INODE] PATH ...` (proc_pid_mountinfo(5)).
fn parse_mounts(mountinfo: &[u8]) -> Vec<(u32, PathBuf)> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ').skip(3);
            let inode = inode_in(fields.next()?)?;
            let path = OsString::from_vec(kernfs::unescape(fields.next()?));
            Some((inode, path.into()))
        })
        .collect()
}

/// `net:[4026531840]`
fn inode_in(name: &[u8]) -> Option<u32> {
    let number = name.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Opens what is at a path, if that is the namespace with this inode number.
fn open(path: &Path, inode: u32) -> Result<Option<OwnedFd>, Errno> {
    // Where a mount was, anything may be by now, and a fifo would block.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::SRCH | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_it = inode_of(&file)? == inode;
    Ok(is_it.then_some(file))
}

/// 0, which no namespace has, where the number has more than 32 bits: it is none of a
/// namespace.
fn inode_of(file: &OwnedFd) -> Result<u32, Errno> {
    Ok(u32::try_from(rustix::fs::fstat(file)?.st_ino).unwrap_or(0))
}

/// The network namespace a thread belongs to, and is brought back to.
#[derive(Debug)]
pub(super) struct Home {
    namespace: OwnedFd,
    /// Its inode number.
    pub(super) inode: u32,
    away: bool,
}

impl Home {
    /// Where the calling thread is now.
    pub(super) fn open() -> io::Result<Self> {
        // The thread's own, whatever procfs processes are looked for in.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())?;
        Ok(Self {
            inode: inode_of(&namespace)?,
            namespace,
            away: false,
        })
    }

    /// Goes from wherever the thread is to another namespace.
    pub(super) fn enter(&mut self, namespace: &OwnedFd) -> io::Result<()> {
        if !self.away {
            // Who may not enter its own could not come back.
            move_into(&self.namespace)?;
            self.away = true;
        }
        move_into(namespace)
    }

    /// Goes back.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        if self.away {
            move_into(&self.namespace)?;
            self.away = false;
        }
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Whoever wants to know has called leave.
        let _ = self.leave();
    }
}

fn move_into(namespace: &OwnedFd) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace.as_fd(), kind)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot enter it: {error}")))
}
