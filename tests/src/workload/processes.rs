//! Which process and which thread it was.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::full::Full;
use super::listening::Listening;
use super::{Stage, fail};
use crate::sys::{self, Call, Child, Errno};
use crate::truth::{Failures, Process, Tally};
use crate::wait;

/// How long a child waits for its parent, at most.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// Forked processes, each of which reports who it is.
pub struct Family {
    reports: BufReader<File>,
    reporter: OwnedFd,
    children: Vec<Child>,
    known: Vec<Process>,
}

impl Family {
    /// No children yet.
    pub fn new() -> Result<Self> {
        let (reports, reporter) = sys::pipe()?;
        Ok(Self {
            reports: BufReader::new(reports.into()),
            reporter,
            children: Vec::new(),
            known: Vec::new(),
        })
    }

    /// Forks a child, which calls what it is given once to report itself, and returns its id.
    pub fn fork(
        &mut self,
        body: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<()>,
    ) -> Result<u32> {
        let reporter = &self.reporter;
        let child = sys::fork(|| {
            body(&|| {
                let mut line = serde_json::to_vec(&Process::current()?)?;
                line.push(b'\n');
                // One write of less than PIPE_BUF bytes is not torn apart.
                File::from(reporter.try_clone()?)
                    .write_all(&line)
                    .context("cannot report")
            })
        })?;
        let pid = child.pid;
        self.children.push(child);
        Ok(pid)
    }

    /// Waits for what a child has to say of itself.
    pub fn report_of(&mut self, pid: u32) -> Result<Process> {
        // Each child reports at most once.
        for _ in 0..=self.children.len() {
            if let Some(at) = self.known.iter().position(|process| process.pid == pid) {
                return Ok(self.known.swap_remove(at));
            }
            let mut line = String::new();
            self.reports.read_line(&mut line)?;
            self.known.push(serde_json::from_str(&line)?);
        }
        anyhow::bail!("child {pid} did not report")
    }

    /// Waits for the good end of all children.
    pub fn wait_for_all(&mut self) -> Result<()> {
        self.children.drain(..).try_for_each(Child::wait)
    }
}

/// Fails at its limit, in the process that calls it.
pub fn fail_at_limit(listening: &Listening, limit: u64, count: u64) -> Result<()> {
    let _full = Full::at(limit)?;
    fail(Call::Accept4, listening.fd(), libc::EMFILE, count).map(drop)
}

fn emfile(process: Process, listening: &Listening, queue: u32, limit: u64, count: u64) -> Failures {
    let truth = listening.truth(queue);
    Failures::new(process, truth, Call::Accept4, Errno(libc::EMFILE), count).at_limit(limit)
}

fn tally(failures: Vec<Failures>) -> Tally {
    Tally {
        pids: failures.iter().map(|one| one.process.pid).collect(),
        failures,
        accepted: 0,
        ..Tally::default()
    }
}

/// A thread with a name of its own fails: the process's name is shown, the thread's beside it.
pub fn named_thread(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 45;
    sys::set_thread_name(c"acceptor-main")?;
    let listening = Listening::tcp4(16)?;
    stage.ready()?;
    let process = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                sys::set_thread_name(c"worker-7")?;
                let process = Process::current()?;
                fail_at_limit(&listening, LIMIT, 19)?;
                anyhow::Ok(process)
            })
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))?
    })?;
    ensure!(process.comm == "acceptor-main" && process.thread.as_deref() == Some("worker-7"));
    stage.report(&tally(vec![emfile(process, &listening, 0, LIMIT, 19)]))
}

/// A program that aborts on its first failure: nothing of it is left to be looked at.
pub fn exits_at_once(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 46;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(1)?;
    stage.ready()?;
    let mut family = Family::new()?;
    let pid = family.fork(|report| {
        sys::set_thread_name(c"one-shot")?;
        report()?;
        fail_at_limit(&listening, LIMIT, 1)
    })?;
    let process = family.report_of(pid)?.short_lived();
    family.wait_for_all()?;
    ensure!(process.comm == "one-shot");
    stage.report(&tally(vec![emfile(process, &listening, 1, LIMIT, 1)]))
}

/// Two hundred processes, each of which fails once and ends.
pub fn short_lived(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 47;
    const PROCESSES: usize = 200;
    let listening = Listening::tcp4(16)?;
    stage.ready()?;
    let mut family = Family::new()?;
    let mut failures = Vec::with_capacity(PROCESSES);
    for _ in 0..PROCESSES {
        let pid = family.fork(|report| {
            report()?;
            fail_at_limit(&listening, LIMIT, 1)
        })?;
        let process = family.report_of(pid)?.short_lived();
        family.wait_for_all()?;
        failures.push(emfile(process, &listening, 0, LIMIT, 1));
    }
    stage.report(&tally(failures))
}

/// A server of many processes that wait in accept, and one that fails: hooks with room for a
/// few calls at a time lose the failures.
pub fn prefork(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 48;
    const COUNT: u64 = 33;
    let listening = Listening::tcp4(16)?;
    stage.ready()?;
    let mut waiting = Vec::new();
    for _ in 0..64 {
        waiting.push(sys::fork(|| {
            // It is killed before anybody connects.
            let accepted = sys::accept4(listening.fd(), 0);
            anyhow::bail!("accepted {accepted:?}")
        })?);
    }
    for child in &waiting {
        let task = PathBuf::from(format!("/proc/{}", child.pid));
        wait::until_true("a child to be in accept4", || {
            super::emfile::in_syscall(&task, libc::SYS_accept4)
        })?;
    }
    let mut family = Family::new()?;
    let pid = family.fork(|report| {
        report()?;
        fail_at_limit(&listening, LIMIT, COUNT)
    })?;
    let process = family.report_of(pid)?.short_lived();
    family.wait_for_all()?;
    let mut tally = tally(vec![emfile(process, &listening, 0, LIMIT, COUNT)]);
    tally.pids.extend(waiting.iter().map(|child| child.pid));
    drop(waiting);
    stage.report(&tally)
}

/// Three processes that share a listener, each with a limit and failures of its own.
pub fn shared_listener(stage: &mut Stage) -> Result<()> {
    const SHARES: [(u64, u64); 3] = [(41, 5), (42, 7), (43, 9)];
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(2)?;
    stage.ready()?;
    let mut family = Family::new()?;
    let mut failures = Vec::new();
    for (limit, count) in SHARES {
        let pid = family.fork(|report| {
            report()?;
            fail_at_limit(&listening, limit, count)
        })?;
        let process = family.report_of(pid)?.short_lived();
        failures.push(emfile(process, &listening, 2, limit, count));
    }
    family.wait_for_all()?;
    stage.report(&tally(failures))
}
