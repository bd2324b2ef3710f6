//! tracefs: where the kernel lists its tracepoints and takes named kprobes.

use std::{
    ffi::CString,
    fs, io,
    path::{Path, PathBuf},
};

/// Where tracefs belongs, and where old systems have it.
const PLACES: &[&str] = &["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Finds tracefs, or mounts it in a mount namespace of this process's own, where nobody
/// else sees it and nothing is left behind.
///
/// Must be called before the process has a second thread, since the namespace is left
/// for the calling thread only.
///
/// # Errors
/// In words: what was tried and what to do.
pub fn find_or_mount() -> Result<PathBuf, String> {
    if let Some(found) = find() {
        return Ok(found);
    }
    let place = PLACES[0];
    mount_privately(place).map_err(|error| {
        format!(
            "tracefs is not mounted and cannot be mounted at {place}: {error}; \
             run: mount -t tracefs tracefs {place}"
        )
    })?;
    find().ok_or_else(|| format!("tracefs was mounted at {place} but holds no events"))
}

/// Where tracefs is mounted.
#[must_use]
pub fn find() -> Option<PathBuf> {
    PLACES
        .iter()
        .map(PathBuf::from)
        .find(|place| place.join("events").is_dir())
}

fn mount_privately(place: &str) -> io::Result<()> {
    let place = CString::new(place)?;
    // SAFETY: plain syscalls on NUL-terminated strings that outlive the calls.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        // What is mounted below /sys from here on stays here; what the system mounts is seen.
        // Not of all of /: in a chroot that is no mount point.
        check(libc::mount(
            std::ptr::null(),
            c"/sys".as_ptr(),
            std::ptr::null(),
            libc::MS_SLAVE | libc::MS_REC,
            std::ptr::null(),
        ))?;
        check(libc::mount(
            c"tracefs".as_ptr(),
            place.as_ptr(),
            c"tracefs".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            std::ptr::null(),
        ))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Which of these events a category has.
#[must_use]
pub fn events(tracefs: &Path, category: &str, names: &[&'static str]) -> Vec<&'static str> {
    names
        .iter()
        .copied()
        .filter(|name| {
            fs::metadata(tracefs.join("events").join(category).join(name).join("id")).is_ok()
        })
        .collect()
}
