//! Servers in the foreground, with nothing between them and the test.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::{sys, wait};

/// A server in the foreground. It is ended when this is dropped.
pub struct Foreground(pub Child);

impl Foreground {
    /// Starts it and waits until it listens on the port.
    pub fn start(command: &mut Command, port: u16) -> Result<Self> {
        let before = listeners(port)?;
        let server = Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot run {command:?}"))?,
        );
        wait::until_true("the server to listen", || {
            Ok(!listeners(port)?.is_subset(&before))
        })?;
        Ok(server)
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
    const LISTEN: &str = "0A";
    let wanted = format!("0100007F:{port:04X}");
    Ok(fs::read_to_string("/proc/net/tcp")?
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(1) == Some(&wanted.as_str()) && fields[3] == LISTEN)
        .map(|fields| fields[9].to_owned())
        .collect())
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// A folder that everybody may write to.
pub fn folder() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir().context("cannot create a temporary folder")?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777))?;
    Ok(dir)
}
