//! A network of a test's own, where nothing else is counted, and a disk of its own, which it may fill.

use std::fs;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::sys;

/// Runs `body` in a thread that has a network namespace of its own, with the loopback interface
/// up. What it starts is in there too.
pub fn in_netns<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::unshare(libc::CLONE_NEWNET).context("cannot make a network namespace")?;
            sys::loopback_up()?;
            body()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Writes a setting of the calling thread's network namespace, such as `ipv4/tcp_syn_retries`.
pub fn set(name: &str, value: &str) -> Result<()> {
    // The folder shows the namespace of the thread that opens it.
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).with_context(|| format!("cannot write {path}"))
}

/// Bytes that a small disk holds.
pub const SMALL: usize = 4 << 20;

/// Runs `body` where a folder is a file system of its own, of [`SMALL`] bytes. What it starts sees that, and
/// nobody else does.
pub fn on_small_disk<T: Send>(folder: &Path, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    with_mounts(|| {
        let path = folder.to_string_lossy();
        let size = format!("size={SMALL}");
        mount(&["-t", "tmpfs", "-o", &size, "small", &path])?;
        body()
    })
}

/// Runs `body` in a thread that has a mount namespace of its own. What it starts is in there too.
pub fn with_mounts<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::unshare(libc::CLONE_NEWNS).context("cannot make a mount namespace")?;
            mount(&["--make-rprivate", "/"])?;
            body()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// mount(8), in the calling thread's mount namespace.
pub fn mount(arguments: &[&str]) -> Result<()> {
    let status = Command::new("mount").args(arguments).status()?;
    ensure!(status.success(), "mount {arguments:?}: {status}");
    Ok(())
}
