//! One process in procfs.

use std::{
    fs,
    io::Read as _,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FsWord, Mode, OFlags, PROC_SUPER_MAGIC, RawDir, fstat, fstatfs, openat, readlinkat},
    io::Errno,
};

/// Most bytes of a file about a process that are read: real ones are far smaller.
const MAX_BYTES: u64 = 1 << 16;
/// Longest time that is spent on counting the descriptors of one process.
const COUNTING: Duration = Duration::from_millis(50);

/// An open `/proc/PID`. Once the process is gone nothing can be read through it, so what
/// is read never belongs to a later process of the same pid.
#[derive(Debug)]
pub(super) struct Task(OwnedFd);

/// Limits of open files (`RLIMIT_NOFILE`); `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NofileLimits {
    /// What accept is held to.
    pub soft: Option<u64>,
    /// What the process itself may raise the soft limit to.
    pub hard: Option<u64>,
}

/// What `/proc/PID/stat` tells (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Field 3 and 9: dead, and perhaps not yet waited for, or about to be: its descriptors
    /// and its cgroup are being taken away.
    pub(super) dead: bool,
    /// Field 4: the parent; 0 where it has none in this pid namespace.
    pub(super) parent: u32,
    /// Field 22: start, clock ticks since boot.
    pub(super) start_ticks: u64,
}

impl Task {
    /// Opens the directory of a process; `None` where there is none.
    pub(super) fn open(root: &Path, pid: u32) -> Option<Self> {
        let path = root.join("proc").join(pid.to_string());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).ok().map(Self)
    }

    /// A file of it.
    pub(super) fn read(&self, file: &str) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&self.0, file, flags, Mode::empty()).ok()?;
        let mut content = Vec::new();
        fs::File::from(file)
            .take(MAX_BYTES)
            .read_to_end(&mut content)
            .ok()?;
        Some(content)
    }

    /// Field 4 and 22 of `stat`.
    pub(super) fn stat(&self) -> Option<Stat> {
        parse_stat(&self.read("stat")?)
    }

    /// Its name.
    pub(super) fn comm(&self) -> Option<Vec<u8>> {
        let mut comm = self.read("comm")?;
        if comm.last() == Some(&b'\n') {
            comm.pop();
        }
        (!comm.is_empty()).then_some(comm)
    }

    /// Where its link `exe` leads.
    pub(super) fn exe(&self) -> Option<Vec<u8>> {
        let target = readlinkat(&self.0, "exe", Vec::new()).ok()?;
        Some(target.into_bytes()).filter(|path| !path.is_empty())
    }

    /// Its pid in its own pid namespace, where that is not the reader's.
    pub(super) fn ns_pid(&self) -> Option<u32> {
        parse_ns_pid(&self.read("status")?)
    }

    /// Effective user id, as the reader's user namespace sees it.
    pub(super) fn uid(&self) -> Option<u32> {
        parse_uid(&self.read("status")?)
    }

    /// Open descriptors: exact, or `None` where they cannot be read, or not counted in
    /// [`COUNTING`].
    ///
    /// Since Linux 6.2 the size of `/proc/PID/fd` is their number. Before, it is 0 and
    /// they have to be counted one by one.
    pub(super) fn open_descriptors(&self) -> Option<u64> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&self.0, "fd", flags, Mode::empty()).ok()?;
        // The size of a directory elsewhere is something else.
        if fstatfs(&directory).ok()?.f_type as FsWord == PROC_SUPER_MAGIC {
            let size = u64::try_from(fstat(&directory).ok()?.st_size).ok()?;
            if size > 0 {
                return Some(size);
            }
        }
        let mut buffer = [MaybeUninit::uninit(); 1 << 14];
        let mut entries = RawDir::new(&directory, &mut buffer);
        let mut count = 0;
        let started = Instant::now();
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => {
                    count += u64::from(!matches!(entry.file_name().to_bytes(), b"." | b".."));
                }
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
            if started.elapsed() > COUNTING {
                return None;
            }
        }
        Some(count)
    }

    /// Its limits of open files, now.
    pub(super) fn nofile_limits(&self) -> Option<NofileLimits> {
        parse_nofile(&self.read("limits")?)
    }
}

/// Flag of a task that has begun to exit (include/linux/sched.h).
const PF_EXITING: u32 = 4;

fn parse_stat(stat: &[u8]) -> Option<Stat> {
    // The name, field 2, is in parentheses and may hold any bytes, parentheses included.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..])
        .ok()?
        .split_whitespace();
    let gone = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let flags: u32 = fields.nth(9 - 5)?.parse().ok()?;
    let dead = gone || flags & PF_EXITING != 0;
    let start_ticks = fields.nth(22 - 10)?.parse().ok()?;
    Some(Stat {
        dead,
        parent,
        start_ticks,
    })
}

/// `Uid:` has the real, effective, saved and filesystem ids (proc_pid_status(5)).
fn parse_uid(status: &[u8]) -> Option<u32> {
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line)
        .ok()?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn parse_ns_pid(status: &[u8]) -> Option<u32> {
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"NSpid:"))?;
    let mut pids = std::str::from_utf8(line).ok()?.split_whitespace();
    pids.next()?;
    pids.next_back()?.parse().ok()
}

fn parse_nofile(limits: &[u8]) -> Option<NofileLimits> {
    let line = limits
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Max open files"))?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    let mut limit = || match words.next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    Some(NofileLimits {
        soft: limit()?,
        hard: limit()?,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::File, path::Path};

    use super::{NofileLimits, Stat, Task, parse_nofile, parse_ns_pid, parse_stat};

    #[test]
    fn stat_survives_any_name() {
        let rest = "S 1 9 9 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0 18446744073709551615";
        for name in ["bash", "a b", ") S 7 (", "))", "\n"] {
            let stat = format!("812 ({name}) {rest}");
            assert_eq!(
                parse_stat(stat.as_bytes()),
                Some(Stat {
                    dead: false,
                    parent: 1,
                    start_ticks: 4711
                }),
                "{name}"
            );
        }
        assert_eq!(
            parse_stat(&[b"1 (\xff) ", rest.as_bytes()].concat()).map(|stat| stat.start_ticks),
            Some(4711)
        );
        assert!(
            parse_stat(b"7 (x) R 1 9 9 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 5")
                .is_some_and(|it| it.dead),
            "on its way out"
        );
        assert!(
            parse_stat(b"7 (x) Z 1 9 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5")
                .is_some_and(|it| it.dead)
        );
        for rubbish in ["", "1 (x", "1 (x) S", "1 (x) S x"] {
            assert_eq!(parse_stat(rubbish.as_bytes()), None, "{rubbish}");
        }
    }

    #[test]
    fn a_pid_of_its_own_needs_a_namespace_of_its_own() {
        assert_eq!(
            parse_ns_pid(b"Name:\tx\nNSpid:\t812\t7\t1\nVmPeak:\n"),
            Some(1)
        );
        assert_eq!(parse_ns_pid(b"NSpid:\t812\n"), None);
        assert_eq!(parse_ns_pid(b"Name:\tx\n"), None);
    }

    #[test]
    fn limits() {
        let text = b"Limit                     Soft Limit           Hard Limit           Units\n\
            Max processes             1                    2                    processes\n\
            Max open files            1024                 unlimited            files\n";
        assert_eq!(
            parse_nofile(text),
            Some(NofileLimits {
                soft: Some(1024),
                hard: None
            })
        );
        assert_eq!(parse_nofile(b"Max open files  x  1\n"), None);
    }

    #[test]
    fn descriptors_are_counted_exactly() {
        let root = tempfile::tempdir().expect("a directory");
        let fd = root.path().join("proc/7/fd");
        std::fs::create_dir_all(&fd).expect("created");
        // More than one buffer's worth.
        for number in 0..1_500 {
            File::create(fd.join(number.to_string())).expect("created");
        }
        let task = Task::open(root.path(), 7).expect("there");
        assert_eq!(task.open_descriptors(), Some(1_500));
    }

    #[test]
    fn this_process() {
        let task = Task::open(Path::new("/"), std::process::id()).expect("there");
        let exe = std::env::current_exe().expect("known");
        assert_eq!(task.exe(), Some(exe.into_os_string().into_encoded_bytes()));
        // Other tests open files meanwhile: a spare one is the least there is.
        let _spare = File::open("/proc/self/stat").expect("opened");
        assert!(task.open_descriptors() > Some(1));
        assert!(task.nofile_limits().is_some());
        assert!(Task::open(Path::new("/"), u32::MAX).is_none());
    }
}
