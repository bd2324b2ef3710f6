//! What the descriptors of a process lead to, as far as they are sockets.

use std::{
    collections::BTreeSet, fs, io, os::unix::ffi::OsStrExt as _, path::Path, str::FromStr,
    time::Instant,
};

/// What a directory of links has.
pub(super) struct Held {
    /// Which of the sockets that were asked for, by inode number.
    pub(super) sockets: BTreeSet<u64>,
    /// Links that were read.
    pub(super) count: u64,
    /// No link was left out, but for those after enough sockets.
    pub(super) all: bool,
}

/// Looks at each link of a directory until `enough` of the wanted sockets are found, or until the deadline.
pub(super) fn held(
    descriptors: &Path,
    wanted: &BTreeSet<u64>,
    enough: usize,
    deadline: Instant,
) -> Held {
    let mut held = Held {
        sockets: BTreeSet::new(),
        count: 0,
        all: true,
    };
    let entries = match fs::read_dir(descriptors) {
        Ok(entries) => entries,
        Err(error) => {
            held.all = is_gone(&error);
            return held;
        }
    };
    for entry in entries {
        match entry.and_then(|entry| fs::read_link(entry.path())) {
            Ok(target) => {
                held.count += 1;
                let inode = number(target.as_os_str().as_bytes(), b"socket:[");
                held.sockets
                    .extend(inode.filter(|inode| wanted.contains(inode)));
            }
            Err(error) if is_gone(&error) => {}
            Err(_) => held.all = false,
        }
        if held.sockets.len() >= enough {
            break;
        }
        if Instant::now() > deadline {
            held.all = false;
            break;
        }
    }
    held
}

/// The number in `socket:[4711]`, whose beginning is `kind`.
pub(super) fn number<T: FromStr>(link: &[u8], kind: &[u8]) -> Option<T> {
    let number = link.strip_prefix(kind)?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// The process exited, or closed the descriptor, meanwhile.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}
