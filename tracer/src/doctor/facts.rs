//! Reads what risks are looked for in. Nothing of it needs eBPF.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use rustix::thread::CapabilitySet;

use super::risks::{self, Facts, Found};
use crate::{
    advice::System,
    attribute::{Attributor, survey::survey},
    sockets::{Conntrack, Poll, Poller},
    text,
};

/// Most time that looking at all processes takes, the second look included.
const SURVEY: Duration = Duration::from_secs(5);
/// Most processes that are looked at more closely, for advice on them.
const IDENTITIES: usize = 1000;

/// The risks of this host, and how its connection tracking is.
pub(super) fn find(root: &Path) -> (Found, Option<Conntrack>) {
    let mut poller = Poller::new(root).with_settings();
    let poll = poller.poll();
    let deadline = Instant::now() + SURVEY;
    let listeners = sockets(&poll);
    let survey = survey(root, &listeners, SURVEY);
    let mut facts = Facts {
        all_processes: sees_all_processes(root),
        open_files: open_files(root),
        system: System::read(root),
        ..Facts::default()
    };
    if facts.all_processes && survey.is_of_all() {
        let holders = survey.holders();
        let unheld = listeners
            .into_iter()
            .filter(|inode| !holders.contains_key(inode))
            .collect();
        facts.held_by_nobody = still_unheld(root, unheld, &mut poller, deadline);
    }
    let mut attributor = Attributor::new(root);
    facts.identities = survey
        .processes
        .iter()
        .filter(|process| risks::matters(process))
        .take(IDENTITIES)
        .filter_map(|process| Some((process.pid, attributor.of_pid(process.pid)?)))
        .collect();
    let own = poll.namespaces.first();
    let conntrack = own.and_then(|own| own.conntrack.clone());
    facts.namespaces = poll.namespaces;
    facts.survey = survey;
    let mut found = risks::risks(&facts);
    let unreachable = poll.unreachable.iter();
    found.unknown.extend(
        unreachable.map(|why| format!("who listens in {}", text::terminal(why.as_bytes()))),
    );
    (found, conntrack)
}

fn sockets(poll: &Poll) -> BTreeSet<u64> {
    let listeners = poll.namespaces.iter().flat_map(|one| &one.listeners);
    listeners
        .map(|listener| listener.inode)
        .filter(|inode| *inode != 0)
        .collect()
}

/// Those that still listen and that nobody holds when all processes are looked at again: one
/// may have been closed, or have changed hands, during the first look.
fn still_unheld(
    root: &Path,
    unheld: BTreeSet<u64>,
    poller: &mut Poller,
    deadline: Instant,
) -> BTreeSet<u64> {
    if unheld.is_empty() {
        return unheld;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let again = survey(root, &unheld, left);
    if !again.is_of_all() {
        return BTreeSet::new();
    }
    let holders = again.holders();
    let listening = sockets(&poller.poll());
    unheld
        .into_iter()
        .filter(|inode| !holders.contains_key(inode) && listening.contains(inode))
        .collect()
}

/// Whether `/proc` has every process of the host: this one is in the initial pid namespace, and
/// may look at others, so that none is hidden from it (hidepid).
fn sees_all_processes(root: &Path) -> bool {
    /// Inode number of that namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
    const INITIAL: u64 = 0xefff_fffc;
    let namespace = fs::metadata(root.join("proc/self/ns/pid"));
    let may = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE));
    may && namespace.is_ok_and(|namespace| namespace.ino() == INITIAL)
}

/// `OPEN 0 MOST` (proc_sys_fs(5)).
fn open_files(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/sys/fs/file-nr")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::open_files;

    #[test]
    fn open_files_of_this_host() {
        assert!(open_files(Path::new("/")).is_some_and(|open| open > 0));
    }
}
