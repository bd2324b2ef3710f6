//! Names of AF_UNIX sockets that turnaway listens on.

use std::{fs, io, os::unix::fs::FileTypeExt as _, path::Path};

use anyhow::{Context as _, Result, bail};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

/// Removes a socket that nobody listens on any more; `what` is what shall be served there.
pub fn make_way(path: &Path, what: &str) -> Result<()> {
    let shown = path.display();
    let Ok(there) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !there.file_type().is_socket() {
        bail!("cannot serve {what} at {shown}: it exists and is no socket");
    }
    if is_served(path) {
        bail!("cannot serve {what} at {shown}: another process does");
    }
    fs::remove_file(path).with_context(|| format!("cannot remove the old socket {shown}"))
}

/// Whether somebody listens there. It does not wait: one whose queue is full is there.
fn is_served(path: &Path) -> bool {
    let attempt = || -> io::Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &SocketAddrUnix::new(path)?) {
            Err(Errno::AGAIN) => Ok(()),
            other => Ok(other?),
        }
    };
    attempt().is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::make_way;

    #[test]
    fn only_a_socket_that_nobody_serves_makes_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        make_way(&path, "x").unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let said = make_way(&path, "x").unwrap_err().to_string();
        assert!(said.contains("another process does"), "{said}");
        drop(listener);
        make_way(&path, "x").unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        let said = make_way(&path, "x").unwrap_err().to_string();
        assert!(said.contains("no socket"), "{said}");
        assert!(path.exists());
    }
}
