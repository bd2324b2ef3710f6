//! From a cgroup v2 id, which outlives the processes in it, to a path.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use super::cgroup;

/// Type of kernfs' file handles (`FILEID_KERNFS`, include/linux/exportfs.h): the 64-bit
/// id of the node, which for a cgroup is its id.
const FILEID_KERNFS: i32 = 0xfe;

/// `struct file_handle` (open_by_handle_at(2)) with room for an id.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u8; 8],
}

/// The cgroup v2 hierarchy as it is mounted here.
#[derive(Debug)]
pub(super) struct Cgroup2 {
    mount_point: PathBuf,
    mount: OwnedFd,
    /// Controllers are on v1: the root of v2 says nothing about a process.
    hybrid: bool,
}

impl Cgroup2 {
    /// Finds the mount in `/proc/self/mountinfo` under `root`.
    pub(super) fn find(root: &Path) -> Option<Self> {
        let mounts = fs::read(root.join("proc/self/mountinfo")).ok()?;
        let (mount_point, hybrid) = parse_mounts(&mounts)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mount = rustix::fs::open(&mount_point, flags, Mode::empty()).ok()?;
        Some(Self {
            mount_point,
            mount,
            hybrid,
        })
    }

    /// Path of a cgroup below the root of the hierarchy. `None` where it is gone, outside
    /// of what is mounted, or may not be asked (CAP_DAC_READ_SEARCH).
    pub(super) fn path_of(&self, id: u64) -> Option<Vec<u8>> {
        let mut handle = Handle {
            bytes: 8,
            kind: FILEID_KERNFS,
            id: id.to_ne_bytes(),
        };
        // SAFETY: the handle has libc's layout with as many bytes as it says, and lives
        // for the call; the mount's descriptor is open.
        let fd = unsafe {
            libc::open_by_handle_at(
                self.mount.as_raw_fd(),
                (&raw mut handle).cast(),
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            return None;
        }
        // SAFETY: just opened, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // The descriptor is this process's own, wherever the hierarchy was found.
        let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        let path = fs::read_link(link).ok()?.into_os_string().into_vec();
        let below = cgroup::living(&path).strip_prefix(self.mount_point.as_os_str().as_bytes())?;
        match below {
            [] if self.hybrid => None,
            [] => Some(b"/".to_vec()),
            [b'/', ..] => Some(below.to_vec()),
            _ => None,
        }
    }
}

/// The first cgroup2 mount, and whether any v1 hierarchy is mounted
/// (proc_pid_mountinfo(5)).
fn parse_mounts(mounts: &[u8]) -> Option<(PathBuf, bool)> {
    let mut cgroup2 = None;
    let mut v1 = false;
    for line in mounts.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let Some(mount_point) = fields.nth(4) else {
            continue;
        };
        // Optional fields end with a dash; the type follows.
        let Some(kind) = fields.by_ref().skip_while(|field| *field != b"-").nth(1) else {
            continue;
        };
        match kind {
            b"cgroup2" if cgroup2.is_none() => cgroup2 = Some(unescape(mount_point)),
            b"cgroup" => v1 = true,
            _ => {}
        }
    }
    let path = std::ffi::OsString::from_vec(cgroup2?);
    Some((PathBuf::from(path), v1))
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) =
            (byte, rest)
        {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
        } else {
            out.push(byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::MetadataExt as _,
        path::{Path, PathBuf},
    };

    use super::{Cgroup2, parse_mounts};

    #[test]
    fn mounts() {
        let pure = b"24 1 0:22 / /sys rw,nosuid shared:2 - sysfs sysfs rw\n\
            30 24 0:26 / /sys/fs/cgroup rw shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            parse_mounts(pure),
            Some((PathBuf::from("/sys/fs/cgroup"), false))
        );
        let hybrid = b"31 30 0:27 / /sys/fs/cgroup/a\\040b rw - cgroup2 cgroup2 rw\n\
            32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(
            parse_mounts(hybrid),
            Some((PathBuf::from("/sys/fs/cgroup/a b"), true))
        );
        assert_eq!(parse_mounts(b"1 2 3\n\nx - y\n"), None);
    }

    #[test]
    fn the_id_of_a_cgroup_leads_to_its_path() {
        // A cgroup's id is its directory's inode number.
        let Some(mut hierarchy) = Cgroup2::find(Path::new("/")) else {
            eprintln!("skipped: no cgroup2 mount");
            return;
        };
        let root = fs::metadata(&hierarchy.mount_point).expect("mounted").ino();
        hierarchy.hybrid = false;
        if hierarchy.path_of(root).is_none() {
            eprintln!("skipped: no permission to open by handle");
            return;
        }
        assert_eq!(hierarchy.path_of(root), Some(b"/".to_vec()));
        hierarchy.hybrid = true;
        assert_eq!(hierarchy.path_of(root), None);
        assert_eq!(hierarchy.path_of(u64::MAX), None);

        let made = tempfile::tempdir_in(&hierarchy.mount_point);
        if let Ok(made) = made {
            let id = fs::metadata(made.path()).expect("made").ino();
            let name = made.path().file_name().expect("named");
            assert_eq!(
                hierarchy.path_of(id),
                Some([b"/", name.as_encoded_bytes()].concat())
            );
            fs::remove_dir(made.path()).expect("removed");
            assert_eq!(hierarchy.path_of(id), None);
        }
    }
}
