//! All processes at a glance: their descriptors, their limits, and who holds which socket.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::{Duration, Instant},
};

use super::{NofileLimits, links, task::Task};

/// All processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Those that were looked at, by process id.
    pub processes: Vec<Surveyed>,
    /// Processes whose descriptors could not be looked at, or not all of them.
    pub unread: u64,
    /// There was time to look at all others.
    pub complete: bool,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surveyed {
    /// Its id.
    pub pid: u32,
    /// Its name, any bytes.
    pub comm: Option<Vec<u8>>,
    /// The network namespace it is in.
    pub netns: Option<u32>,
    /// Its limits of open files.
    pub nofile: Option<NofileLimits>,
    /// Its open descriptors.
    pub used: Option<u64>,
    /// The sockets asked for that it holds, by inode number, ascending.
    pub holds: Vec<u64>,
}

impl Survey {
    /// Whether every process was looked at, so that what nobody was found to hold nobody holds.
    #[must_use]
    pub fn is_of_all(&self) -> bool {
        self.complete && self.unread == 0
    }

    /// Who holds each socket, by process id.
    #[must_use]
    pub fn holders(&self) -> HashMap<u64, Vec<&Surveyed>> {
        let mut holders: HashMap<u64, Vec<&Surveyed>> = HashMap::new();
        for process in &self.processes {
            for inode in &process.holds {
                holders.entry(*inode).or_default().push(process);
            }
        }
        holders
    }
}

/// Looks at every process under `root`, and at which of `sockets` it holds. Ends after
/// `budget` with what it found.
#[must_use]
pub fn survey(root: &Path, sockets: &BTreeSet<u64>, budget: Duration) -> Survey {
    let deadline = Instant::now() + budget;
    let Ok(entries) = fs::read_dir(root.join("proc")) else {
        return Survey::default();
    };
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let mut survey = Survey {
        complete: true,
        ..Survey::default()
    };
    for pid in pids {
        if Instant::now() > deadline {
            survey.complete = false;
            break;
        }
        let Some(task) = Task::open(root, pid) else {
            continue;
        };
        // One that exits takes its descriptors with it.
        if task.stat().is_none_or(|stat| stat.dead) {
            continue;
        }
        let process = root.join("proc").join(pid.to_string());
        let held = links::held(&process.join("fd"), sockets, usize::MAX, deadline);
        survey.unread += u64::from(!held.all);
        survey.processes.push(Surveyed {
            pid,
            comm: task.comm(),
            netns: fs::read_link(process.join("ns/net"))
                .ok()
                .and_then(|link| links::number(link.as_os_str().as_bytes(), b"net:[")),
            nofile: task.nofile_limits(),
            used: task.open_descriptors().or(held.all.then_some(held.count)),
            holds: held.sockets.into_iter().collect(),
        });
    }
    survey
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        net::TcpListener,
        os::{fd::AsRawFd as _, unix::fs::MetadataExt as _, unix::fs::symlink},
        path::Path,
        time::Duration,
    };

    use super::survey;

    const BUDGET: Duration = Duration::from_secs(20);
    const STAT: &str = "S 1 9 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711";

    #[test]
    fn what_each_holds() {
        let root = tempfile::tempdir().unwrap();
        for (pid, flags, links) in [
            ("7", "S", &["socket:[11]", "socket:[12]", "pipe:[11]"][..]),
            ("8", "S", &["socket:[11]", "socket:[11]"]),
            ("9", "Z", &["socket:[11]"]),
        ] {
            let process = root.path().join("proc").join(pid);
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::create_dir_all(process.join("ns")).unwrap();
            let stat = STAT.replacen('S', flags, 1);
            fs::write(process.join("stat"), format!("{pid} (x) {stat}")).unwrap();
            fs::write(process.join("comm"), "x\n").unwrap();
            fs::write(process.join("limits"), "Max open files  64  128  files\n").unwrap();
            symlink("net:[99]", process.join("ns/net")).unwrap();
            for (number, link) in links.iter().enumerate() {
                symlink(link, process.join("fd").join(number.to_string())).unwrap();
            }
        }
        let found = survey(root.path(), &BTreeSet::from([11, 13]), BUDGET);
        assert!(found.is_of_all());
        let holders: Vec<u32> = found.holders()[&11].iter().map(|it| it.pid).collect();
        assert_eq!(holders, [7, 8], "a zombie holds nothing");
        let seven = &found.processes[0];
        assert_eq!(seven.holds, [11], "others were not asked for");
        assert_eq!(seven.used, Some(3));
        assert_eq!(seven.netns, Some(99));
        assert_eq!(seven.nofile.unwrap().soft, Some(64));
        assert!(!survey(root.path(), &BTreeSet::new(), Duration::ZERO).complete);
        assert!(!survey(Path::new("/nowhere"), &BTreeSet::new(), BUDGET).complete);
    }

    #[test]
    fn of_this_host() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = format!("/proc/self/fd/{}", listener.as_raw_fd());
        let inode = fs::metadata(link).unwrap().ino();
        let found = survey(Path::new("/"), &BTreeSet::from([inode]), BUDGET);
        // A child that another test starts may hold it for a moment.
        let holders = found.holders();
        let own = holders[&inode]
            .iter()
            .find(|process| process.pid == std::process::id())
            .unwrap();
        assert!(own.used > Some(1));
    }
}
