//! Who it was, where that is not plain to see.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::Stage;
use super::emfile::at_limit;
use super::enfile::NOBODY;
use super::listening::Listening;
use super::processes::{Family, PATIENCE, fail_at_limit};
use crate::scenario::env::unified_cgroups;
use crate::sys::{self, Call, Errno};
use crate::truth::{Failures, Process, Tally};

/// A name that would change the colour of a terminal, is no text and breaks lines.
pub const HOSTILE_COMM: &std::ffi::CStr = c"\x1b[31m\xff\n\"\\e";

/// A process with a hostile name.
pub fn hostile_comm(stage: &mut Stage) -> Result<()> {
    sys::set_thread_name(HOSTILE_COMM)?;
    at_limit(stage, &Listening::tcp4(16)?, 1, Call::Accept4, 56, 3)
}

/// A process that was root when it started.
pub fn drops_root(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    // While /proc/self may still be read.
    let _clients = listening.queue_up(1)?;
    sys::set_uid(NOBODY)?;
    let process = Process::current()?;
    stage.ready()?;
    fail_at_limit(&listening, 57, 11)?;
    ensure!(process.uid == NOBODY);
    stage.report(&one(process, &listening, 1, 57, 11))
}

fn one(process: Process, listening: &Listening, queue: u32, limit: u64, count: u64) -> Tally {
    let errno = Errno(libc::EMFILE);
    Tally {
        pids: vec![process.pid],
        failures: vec![
            Failures::new(process, listening.truth(queue), Call::Accept4, errno, count)
                .at_limit(limit),
        ],
        accepted: 0,
        ..Tally::default()
    }
}

/// The first process of a pid namespace.
pub fn pid_namespace(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    stage.ready()?;
    let mut family = Family::new()?;
    sys::unshare(libc::CLONE_NEWPID)?;
    let (hold, release) = sys::pipe()?;
    let pid = family.fork(|report| {
        report()?;
        fail_at_limit(&listening, 58, 6)?;
        sys::poll_readable(hold.as_raw_fd(), PATIENCE)?;
        Ok(())
    })?;
    let process = family.report_of(pid)?.short_lived();
    ensure!(process.ns_pid == Some(1), "ns_pid is {:?}", process.ns_pid);
    let tally = one(process, &listening, 0, 58, 6);
    stage.report(&tally)?;
    sys::write_byte(&release)?;
    family.wait_for_all()
}

/// A network namespace of its own.
pub fn network_namespace(stage: &mut Stage) -> Result<()> {
    let outside = crate::truth::own_netns()?;
    sys::unshare(libc::CLONE_NEWNET)?;
    sys::loopback_up()?;
    let listening = Listening::tcp4(16)?;
    ensure!(listening.truth(0).netns != Some(outside));
    at_limit(stage, &listening, 2, Call::Accept4, 59, 4)
}

/// A cgroup that was made for a test.
struct Cgroup {
    slice: PathBuf,
    leaf: PathBuf,
    path: String,
}

impl Cgroup {
    /// In the unified hierarchy where that is the only one, else in systemd's, which is the one
    /// that tells which unit a process belongs to.
    fn new(leaf: &str) -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let root = if root.join("cgroup.controllers").exists() {
            root.to_owned()
        } else {
            root.join("systemd")
        };
        let slice = format!("turnaway{}.slice", sys::own_pid());
        let path = format!("/{slice}/{leaf}");
        let cgroup = Self {
            leaf: root.join(&slice).join(leaf),
            slice: root.join(slice),
            path,
        };
        fs::create_dir_all(&cgroup.leaf)
            .with_context(|| format!("cannot create {}", cgroup.leaf.display()))?;
        Ok(cgroup)
    }

    /// Moves the calling process there.
    fn enter(&self) -> Result<()> {
        fs::write(self.leaf.join("cgroup.procs"), "0").context("cannot enter the cgroup")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in [&self.leaf, &self.slice] {
            if let Err(error) = fs::remove_dir(dir) {
                eprintln!("cannot remove {}: {error}", dir.display());
            }
        }
    }
}

/// Fails in a cgroup and stays, or not.
fn in_cgroup(stage: &mut Stage, cgroup: &Cgroup, stays: bool, truth: Process) -> Result<()> {
    const LIMIT: u64 = 44;
    let listening = Listening::tcp4(16)?;
    stage.ready()?;
    let mut family = Family::new()?;
    let (hold, release) = sys::pipe()?;
    let pid = family.fork(|report| {
        cgroup.enter()?;
        report()?;
        fail_at_limit(&listening, LIMIT, 8)?;
        if stays {
            sys::poll_readable(hold.as_raw_fd(), PATIENCE)?;
        }
        Ok(())
    })?;
    let process = family.report_of(pid)?.short_lived();
    let id = fs::metadata(&cgroup.leaf)?.ino();
    if unified_cgroups() {
        ensure!(
            process.cgroup_id == Some(id),
            "cgroup ids are no inode numbers here"
        );
    }
    let process = Process {
        cgroup: Some(cgroup.path.clone()),
        unit: truth.unit,
        container: truth.container,
        ..process
    };
    if !stays {
        family.wait_for_all()?;
    }
    stage.report(&one(process, &listening, 0, LIMIT, 8))?;
    sys::write_byte(&release)?;
    family.wait_for_all()
}

/// A service of systemd's.
pub fn unit(stage: &mut Stage) -> Result<()> {
    let truth = Process {
        unit: Some("pooler.service".to_owned()),
        ..Process::default()
    };
    in_cgroup(stage, &Cgroup::new("pooler.service")?, true, truth)
}

/// A container of Docker's.
pub fn container(stage: &mut Stage) -> Result<()> {
    let id = "4f5cbdb2ca0e9a3e4f2d4a1c0b9e8d7c6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c";
    let cgroup = Cgroup::new(&format!("docker-{id}.scope"))?;
    let truth = Process {
        container: Some(id.to_owned()),
        ..Process::default()
    };
    in_cgroup(stage, &cgroup, true, truth)
}

/// A service whose process is gone before anybody can ask which cgroup it was in.
pub fn unit_of_the_dead(stage: &mut Stage) -> Result<()> {
    let truth = Process {
        unit: Some("late.service".to_owned()),
        ..Process::default()
    };
    in_cgroup(stage, &Cgroup::new("late.service")?, false, truth)
}
