//! A processor that is taken away while failures go on, and comes back.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use super::emfile;
use super::full::Full;
use super::listening::Listening;
use super::queue::{Counters, quiet, report_syns, wait_for_overflows};
use super::{Stage, fail};
use crate::sys::Call;
use crate::truth::Process;
use crate::wait;

/// The processor.
const NUMBER: usize = 1;
/// Whether it is there. The first one cannot be taken away.
pub const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

/// Takes it away, and gives it back at the end.
struct Switch(File);

impl Switch {
    /// Opened before there are no descriptors left.
    fn open() -> Result<Self> {
        let file = File::options().write(true).open(ONLINE);
        Ok(Self(file.context("cannot open the switch")?))
    }

    fn set(&self, online: bool) -> Result<()> {
        let word = if online { b"1" } else { b"0" };
        self.0
            .write_all_at(word, 0)
            .with_context(|| format!("cannot write to {ONLINE}"))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if let Err(error) = self.set(true) {
            eprintln!("a processor is still away: {error:#}");
        }
    }
}

/// From now on the calling thread runs there, until the processor is taken away.
fn go_there() -> Result<()> {
    let mut set = CpuSet::new();
    set.set(NUMBER);
    sched_setaffinity(None, &set).context("cannot choose a processor")
}

/// Failures of a thread of that processor, which has to go on elsewhere meanwhile.
pub fn accepts(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 40;
    /// More than happen while nothing else does.
    const MANY: u64 = 1000;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(1)?;
    let process = Process::current()?;
    stage.ready()?;
    let switch = Switch::open()?;
    let _full = Full::at(LIMIT)?;
    // How many happened on each of two processors.
    let there = AtomicU64::new(0);
    let elsewhere = AtomicU64::new(0);
    let is_back = AtomicBool::new(false);
    let is_over = AtomicBool::new(false);
    let more = |on: &AtomicU64| {
        let enough = on.load(Ordering::Relaxed) + MANY;
        wait::until_true("failures", || Ok(on.load(Ordering::Relaxed) >= enough))
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let changes = || {
                more(&there)?;
                switch.set(false)?;
                more(&elsewhere)?;
                switch.set(true)?;
                is_back.store(true, Ordering::Relaxed);
                more(&there)
            };
            let result = changes();
            is_over.store(true, Ordering::Relaxed);
            result
        });
        go_there()?;
        let mut has_returned = false;
        while !is_over.load(Ordering::Relaxed) {
            if is_back.load(Ordering::Relaxed) && !has_returned {
                go_there()?;
                has_returned = true;
            }
            let before = sched_getcpu();
            fail(Call::Accept4, listening.fd(), libc::EMFILE, 16)?;
            let on = if before == NUMBER { &there } else { &elsewhere };
            on.fetch_add(16, Ordering::Relaxed);
        }
        other
            .join()
            .map_err(|_| anyhow::anyhow!("who takes it away panicked"))?
    })?;
    let count = there.into_inner() + elsewhere.into_inner();
    emfile::report(stage, process, &listening, LIMIT, count)
}

/// SYNs that find a full queue, handled by that processor, by another while it is away, and by it
/// again. The kernel has counters for each of them.
pub fn drops(stage: &mut Stage) -> Result<()> {
    quiet()?;
    let listening = Listening::tcp4(2)?;
    // The kernel lets one more in than the backlog.
    let _queued = listening.queue_up(3)?;
    let process = Process::current()?;
    let switch = Switch::open()?;
    stage.ready()?;
    let before = Counters::read()?;
    go_there()?;
    let mut clients = listening.begin_many(4)?;
    wait_for_overflows(before, 4)?;
    switch.set(false)?;
    ensure!(sched_getcpu() != NUMBER, "it is still there");
    clients.extend(listening.begin_many(5)?);
    wait_for_overflows(before, 9)?;
    switch.set(true)?;
    go_there()?;
    clients.extend(listening.begin_many(6)?);
    wait_for_overflows(before, 15)?;
    drop(clients);
    report_syns(stage, &process, listening.truth(3), before)
}
