//! Servers in the foreground, with nothing between them and the test.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::{sys, wait};

/// The state in which a socket listens (include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// A server in the foreground. It is ended when this is dropped.
pub struct Foreground(pub Child);

impl Foreground {
    /// Starts it and waits until it listens on the port.
    pub fn start(command: &mut Command, port: u16) -> Result<Self> {
        command.stderr(Stdio::null());
        Self::start_heard(command, port)
    }

    /// The same; where its errors go has been said.
    pub fn start_heard(command: &mut Command, port: u16) -> Result<Self> {
        let before = listeners(port)?;
        let mut server = Self::spawn(command)?;
        server.listens(port, &before)?;
        Ok(server)
    }

    fn listens(&mut self, port: u16, before: &BTreeSet<String>) -> Result<()> {
        wait::until_true("the server to listen", || {
            self.still_runs()?;
            Ok(!listeners(port)?.is_subset(before))
        })
    }

    /// The same; it writes to a file, which others may shorten.
    pub fn start_logged(command: &mut Command, port: u16, log: &Path) -> Result<Self> {
        let file = File::options().append(true).create(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let before = listeners(port)?;
        let mut server = Self::spawn_to(command.stderr(Stdio::null()), file.into())?;
        server.listens(port, &before)?;
        Ok(server)
    }

    /// Starts it and waits until it listens at a path.
    pub fn start_at(command: &mut Command, path: &Path) -> Result<Self> {
        let mut server = Self::spawn(command.stderr(Stdio::null()))?;
        let path = path.to_string_lossy();
        wait::until_true("the server to listen", || {
            server.still_runs()?;
            listens_at(&path)
        })?;
        Ok(server)
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        Self::spawn_to(command, Stdio::null())
    }

    fn spawn_to(command: &mut Command, output: Stdio) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(output);
        let child = command.spawn();
        Ok(Self(
            child.with_context(|| format!("cannot run {command:?}"))?,
        ))
    }

    fn still_runs(&mut self) -> Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "the server ended: {ended:?}");
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        Ok(sys::kill(self.0.id(), signal)?)
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // All fail only if it has ended.
        let _ = sys::kill(self.0.id(), libc::SIGCONT);
        let _ = sys::kill(self.0.id(), libc::SIGTERM);
        let _ = self.0.wait();
    }
}

/// The inodes of the sockets that listen on a port of 127.0.0.1. A connection to find out would be
/// one more in some queue.
pub fn listeners(port: u16) -> Result<BTreeSet<String>> {
    let wanted = format!("0100007F:{port:04X}");
    Ok(fs::read_to_string("/proc/thread-self/net/tcp")?
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(1) == Some(&wanted.as_str()) && fields[3] == LISTEN)
        .map(|fields| fields[9].to_owned())
        .collect())
}

/// The socket that a process listens on a port of 127.0.0.1 with. It stays open for as long as either
/// has it.
pub fn listener_of(pid: u32, port: u16) -> Result<OwnedFd> {
    let names: BTreeSet<PathBuf> = listeners(port)?
        .iter()
        .map(|inode| format!("socket:[{inode}]").into())
        .collect();
    let number = fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            names.contains(&fs::read_link(&path).ok()?).then_some(path)
        })
        .find_map(|path| path.file_name()?.to_str()?.parse().ok())
        .with_context(|| format!("process {pid} does not listen on {port}"))?;
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process")?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, number, PidfdGetfdFlags::empty())?)
}

/// Bytes that clients of a port of 127.0.0.1 have sent and its server has not read.
pub fn unread(port: u16) -> Result<u64> {
    let local = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/thread-self/net/tcp")?;
    let queues = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, unread) = fields.get(4)?.split_once(':')?;
        (fields[1] == local && fields[3] != LISTEN).then(|| u64::from_str_radix(unread, 16))
    });
    Ok(queues.sum::<Result<u64, _>>()?)
}

/// Whether somebody listens at a path.
pub fn listens_at(path: &str) -> Result<bool> {
    // include/uapi/linux/net.h, __SO_ACCEPTCON
    const LISTENS: &str = "00010000";
    Ok(fs::read_to_string("/proc/thread-self/net/unix")?
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|fields| fields.get(3) == Some(&LISTENS) && fields.get(7) == Some(&path)))
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// A folder that everybody may write to.
pub fn folder() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir().context("cannot create a temporary folder")?;
    open_to_all(dir.path())?;
    Ok(dir)
}

/// Everybody may write to a folder from now on.
pub fn open_to_all(folder: &Path) -> Result<()> {
    Ok(fs::set_permissions(folder, Permissions::from_mode(0o777))?)
}
