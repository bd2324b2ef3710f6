//! What the host says of itself. Nothing here reads what may be on a disk, or a process's own memory: where
//! a disk hangs, so would the one who reads.

use std::{fs, path::Path};

use jiff::Timestamp;

use super::{Files, Level, Levels, Memory};
use crate::attribute::cgroup::{Place, telling_path};

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Time on processors, clock ticks.
    pub(super) ticks: u64,
    /// Bytes to and from disks; `None` where it may not be read.
    pub(super) bytes: Option<u64>,
    /// Open descriptors, where the kernel counts them (Linux 6.2).
    pub(super) fds: Option<u64>,
}

/// A process that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) pid: u32,
    pub(super) comm: String,
    pub(super) parent: u32,
    /// When it started, clock ticks since the boot.
    pub(super) start_ticks: u64,
    /// Where its stack begins, which execve draws by lot and fork leaves as it is; `None` where that may not
    /// be read.
    pub(super) stack: Option<u64>,
    pub(super) used: Used,
}

/// Every process, up to a bound.
pub(super) fn processes(root: &Path, most: usize) -> Vec<Looked> {
    let Ok(entries) = fs::read_dir(root.join("proc")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| process(root, pid))
        .take(most)
        .collect()
}

/// One process; `None` if it is gone.
pub(super) fn process(root: &Path, pid: u32) -> Option<Looked> {
    let folder = root.join("proc").join(pid.to_string());
    let stat = fs::read(folder.join("stat")).ok()?;
    let Stat {
        comm,
        parent,
        start_ticks,
        ticks,
        stack,
    } = parse_stat(&stat)?;
    Some(Looked {
        pid,
        comm: crate::text::json(comm),
        parent,
        start_ticks,
        stack,
        used: Used {
            ticks,
            bytes: fs::read_to_string(folder.join("io"))
                .ok()
                .and_then(|io| parse_io(&io)),
            fds: fds(&folder),
        },
    })
}

/// Open descriptors, where counting them is no work.
pub(super) fn fds(folder: &Path) -> Option<u64> {
    let size = fs::metadata(folder.join("fd")).ok()?.len();
    (size > 0).then_some(size)
}

/// What is read of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat<'a> {
    comm: &'a [u8],
    parent: u32,
    start_ticks: u64,
    ticks: u64,
    stack: Option<u64>,
}

fn parse_stat(stat: &[u8]) -> Option<Stat<'_>> {
    // The name may hold anything: it ends at the last parenthesis.
    let begin = stat.iter().position(|byte| *byte == b'(')? + 1;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let comm = stat.get(begin..end)?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let user: u64 = fields.nth(9)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(6)?.parse().ok()?;
    // Zero or one where it may not be read.
    let stack = fields.nth(5).and_then(|field| field.parse().ok());
    Some(Stat {
        comm,
        parent,
        start_ticks,
        ticks: user.saturating_add(system),
        stack: stack.filter(|stack| *stack > 1),
    })
}

/// Bytes that came from and went to disks (proc_pid_io(5)).
fn parse_io(io: &str) -> Option<u64> {
    let value = |name: &str| -> Option<u64> {
        let line = io.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':')?.trim().parse().ok()
    };
    Some(value("read_bytes")?.saturating_add(value("write_bytes")?))
}

/// The unit of a process, and the path of its cgroup.
pub(super) fn unit(root: &Path, pid: u32) -> Option<(Option<String>, Vec<u8>)> {
    let text = fs::read(root.join("proc").join(pid.to_string()).join("cgroup")).ok()?;
    let path = telling_path(&text)?;
    Some((Place::of(&path).unit, path))
}

/// The executable of a process.
pub(super) fn exe(root: &Path, pid: u32) -> Option<String> {
    use std::os::unix::ffi::OsStrExt as _;
    let link = fs::read_link(root.join("proc").join(pid.to_string()).join("exe")).ok()?;
    Some(crate::text::json(link.as_os_str().as_bytes()))
}

/// What starts a program by the clock: cron, or the timer of its unit, which systemd shows in `/run`.
pub(super) fn clock(root: &Path, unit: Option<&str>, parent: Option<&str>) -> Option<String> {
    if parent.is_some_and(|parent| matches!(parent, "cron" | "crond" | "anacron" | "atd")) {
        return parent.map(str::to_owned);
    }
    let name = unit?.strip_suffix(".service")?;
    if matches!(name, "cron" | "crond" | "anacron" | "atd") {
        return Some(name.to_owned());
    }
    let timer = format!("{name}.timer");
    let invocation = root
        .join("run/systemd/units")
        .join(format!("invocation:{timer}"));
    fs::symlink_metadata(invocation).is_ok().then_some(timer)
}

/// Pressure in a folder: `/proc/pressure`, or that of a cgroup. Why not, where there is none.
pub(super) fn pressure(folder: &Path, suffix: &str) -> Result<Levels, String> {
    let read = |name: &str| {
        let path = folder.join(format!("{name}{suffix}"));
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (cpu, io, memory) = (read("cpu"), read("io"), read("memory"));
    if let (Err(why), Err(_), Err(_)) = (&cpu, &io, &memory) {
        return Err(why.clone());
    }
    let some = |text: &Result<String, String>| parse_pressure(text.as_ref().ok()?, "some");
    Ok(Levels {
        cpu: some(&cpu),
        io: some(&io),
        io_full: io
            .as_ref()
            .ok()
            .and_then(|text| parse_pressure(text, "full")),
        memory: some(&memory),
    })
}

/// `some avg10=0.17 avg60=0.34 avg300=0.42 total=4366045`.
fn parse_pressure(text: &str, kind: &str) -> Option<Level> {
    let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
    let value = |name: &str| -> Option<f64> {
        let word = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name))?;
        word.parse().ok().filter(|value: &f64| value.is_finite())
    };
    Some(Level {
        avg10: value("avg10=")?,
        avg60: value("avg60=")?,
    })
}

/// Memory.
pub(super) fn memory(root: &Path, read: Timestamp) -> Option<Memory> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let value = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(Memory {
        read,
        total: value("MemTotal:")?,
        available: value("MemAvailable:")?,
        swap_used: value("SwapTotal:")?.saturating_sub(value("SwapFree:")?),
    })
}

/// The table of files.
pub(super) fn files(root: &Path, read: Timestamp) -> Option<Files> {
    let text = fs::read_to_string(root.join("proc/sys/fs/file-nr")).ok()?;
    let mut words = text.split_whitespace();
    let used = words.next()?.parse().ok()?;
    Some(Files {
        read,
        used,
        limit: words.nth(1)?.parse().ok()?,
    })
}

/// Soft and hard limit of descriptors; `None` within is no limit.
pub(super) fn limits(root: &Path, pid: u32) -> Option<(Option<u64>, Option<u64>)> {
    let path = root.join("proc").join(pid.to_string()).join("limits");
    let text = fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = line.split_whitespace().map(|word| word.parse().ok());
    Some((words.next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let rest = "S 4 9 9 0 -1 4194560 0 0 0 0 70 5 0 0 20 0 1 0 4711 0 0 99 1 2";
        for name in ["bash", "a b", ") S 7 (", ""] {
            for (stack, more) in [(Some(140), " 140 0"), (None, " 0 0"), (None, "")] {
                let stat = format!("812 ({name}) {rest}{more}");
                let found = parse_stat(stat.as_bytes()).unwrap();
                let told = Stat {
                    comm: name.as_bytes(),
                    parent: 4,
                    start_ticks: 4711,
                    ticks: 75,
                    stack,
                };
                assert_eq!(found, told);
            }
        }
        assert_eq!(parse_stat(b"1 (x) S"), None);
        assert_eq!(parse_stat(b")("), None);
        let io =
            "rchar: 9\nwchar: 8\nread_bytes: 4096\nwrite_bytes: 100\ncancelled_write_bytes: 7\n";
        assert_eq!(parse_io(io), Some(4196));
        let text = "some avg10=81.17 avg60=0.34 avg300=0.42 total=4\nfull avg10=1.00 avg60=2.00 avg300=0 total=3\n";
        assert_eq!(
            parse_pressure(text, "some"),
            Some(Level {
                avg10: 81.17,
                avg60: 0.34
            })
        );
        assert_eq!(
            parse_pressure(text, "full"),
            Some(Level {
                avg10: 1.0,
                avg60: 2.0
            })
        );
        assert_eq!(parse_pressure("", "some"), None);
    }

    #[test]
    fn this_host_answers() {
        let root = Path::new("/");
        let own = process(root, std::process::id()).unwrap();
        assert!(own.start_ticks > 0);
        let all = processes(root, 100_000);
        assert!(all.iter().any(|one| one.pid == own.pid));
        assert_eq!(processes(root, 1).len(), 1);
        let memory = memory(root, Timestamp::now()).unwrap();
        assert!(memory.total > memory.available);
        let files = files(root, Timestamp::now()).unwrap();
        assert!(files.used > 0 && files.used < files.limit);
        // The truth comes from another system call.
        let own_limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(
            limits(root, own.pid),
            Some((own_limit.current, own_limit.maximum))
        );
        assert!(exe(root, own.pid).is_some());
        assert_eq!(process(root, u32::MAX), None);
    }

    #[test]
    fn a_timer_is_found_where_systemd_shows_it() {
        let root = tempfile::tempdir().unwrap();
        let units = root.path().join("run/systemd/units");
        fs::create_dir_all(&units).unwrap();
        // It names what is not there: an id.
        std::os::unix::fs::symlink("4f5c", units.join("invocation:backup.timer")).unwrap();
        let clock = |unit, parent| clock(root.path(), unit, parent);
        assert_eq!(
            clock(Some("backup.service"), Some("systemd")).as_deref(),
            Some("backup.timer")
        );
        assert_eq!(clock(Some("web.service"), Some("systemd")), None);
        assert_eq!(
            clock(Some("cron.service"), Some("sh")).as_deref(),
            Some("cron")
        );
        assert_eq!(clock(None, Some("crond")).as_deref(), Some("crond"));
        assert_eq!(clock(None, None), None);
    }

    #[test]
    fn where_there_is_no_pressure_the_reason_is_said() {
        let root = tempfile::tempdir().unwrap();
        let why = pressure(root.path(), "").unwrap_err();
        assert!(why.contains("cpu"), "{why}");
        fs::write(
            root.path().join("io"),
            "some avg10=5.00 avg60=1.00 avg300=0 total=1\n",
        )
        .unwrap();
        let levels = pressure(root.path(), "").unwrap();
        assert_eq!(
            levels.io,
            Some(Level {
                avg10: 5.0,
                avg60: 1.0
            })
        );
        assert_eq!(levels.cpu, None);
    }
}
