//! tracefs: where the kernel lists its tracepoints and takes named kprobes.

use std::{
    ffi::CString,
    fs, io,
    path::{Path, PathBuf},
};

use rustix::thread::CapabilitySet;

use crate::privileges;

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
    if let Some(why) = unreadable() {
        return Err(why);
    }
    let place = PLACES[0];
    mount_privately(place).map_err(|error| {
        let lacking = privileges::lacking(CapabilitySet::SYS_ADMIN)
            .map_or_else(String::new, |lacking| format!(" ({lacking})"));
        format!(
            "tracefs is not mounted and cannot be mounted at {place}: {error}{lacking}; \
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

/// Why tracefs, though mounted, cannot be read, in words; `None` if it is not mounted.
#[must_use]
pub fn unreadable() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let place = mounted(&mounts)?;
    let error = fs::read_dir(place).err()?;
    let lacking = privileges::lacking(CapabilitySet::DAC_READ_SEARCH)
        .map_or_else(String::new, |lacking| format!(": {lacking}"));
    Some(format!("{place} cannot be read: {error}{lacking}"))
}

/// The first of its places that is one, by `/proc/self/mounts`.
fn mounted(mounts: &str) -> Option<&'static str> {
    let is_there = |place: &&&str| {
        mounts.lines().any(|line| {
            let mut words = line.split(' ').skip(1);
            words.next() == Some(**place) && words.next() == Some("tracefs")
        })
    };
    PLACES.iter().find(is_there).copied()
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

#[cfg(test)]
mod tests {
    use super::mounted;

    #[test]
    fn its_place_is_where_it_is_mounted() {
        let mounts = "sysfs /sys sysfs rw 0 0\nnodev /sys/kernel/debug/tracing tracefs rw 0 0\n";
        assert_eq!(mounted(mounts), Some("/sys/kernel/debug/tracing"));
        assert_eq!(mounted("x /sys/kernel/tracing autofs rw 0 0\n"), None);
        assert_eq!(mounted("x /mnt/sys/kernel/tracing tracefs rw 0 0\n"), None);
    }
}
