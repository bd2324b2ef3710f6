//! Descriptors that cannot be had, by other calls than accept.

use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::enfile::{NOBODY, Table};
use super::full::Full;
use super::listening::Listening;
use super::processes::{self, Family};
use super::wants::Wants;
use super::{Stage, fail, fail_at};
use crate::sys::{self, Call, Errno};
use crate::truth::{Failures, Listener, Process, Tally};

/// So many failures of one call.
#[must_use]
pub fn refused(process: Process, call: &str, errno: Errno, count: u64) -> Failures {
    Failures {
        reason: Some("fd.exhausted".to_owned()),
        call: call.to_owned(),
        ..Failures::new(process, Listener::default(), Call::Accept, errno, count)
    }
}

/// So many messages that lost descriptors. Tracepoints do not tell by which errno.
#[must_use]
pub fn lost(process: Process, count: u64) -> Failures {
    Failures {
        inferred: true,
        ..refused(process, "recvmsg", Errno(libc::EMFILE), count)
    }
}

/// Hands in failures of one process.
pub fn report(stage: &mut Stage, process: &Process, failures: Vec<Failures>) -> Result<()> {
    stage.report(&Tally {
        pids: vec![process.pid],
        failures,
        ..Tally::default()
    })
}

/// The failures of one call at the limit, and those of the calls that found the limit.
fn at_limit(stage: &mut Stage, wants: Wants, limit: u64, count: u64) -> Result<()> {
    wants.attempt().context("without a limit in the way")?;
    let process = Process::current()?;
    stage.ready()?;
    let full = Full::at(limit)?;
    let errno = fail_at(libc::EMFILE, count, || wants.attempt())?;
    let mut failures = vec![Failures {
        used: Some(full.used()),
        ..refused(process.clone(), wants.name(), errno, count).at_limit(limit)
    }];
    let mut found = full.truth(&process);
    if wants == Wants::Dup {
        failures[0].count += found.count;
    } else {
        found.used = Some(full.used());
        failures.push(found);
    }
    report(stage, &process, failures)
}

macro_rules! each_call {
    ($($(#[$doc:meta])* $name:ident = $wants:ident, $limit:literal, $count:literal;)+) => {
        $(
            $(#[$doc])*
            pub fn $name(stage: &mut Stage) -> Result<()> {
                at_limit(stage, Wants::$wants, $limit, $count)
            }
        )+
    };
}

each_call! {
    /// openat(2).
    openat = OpenAt, 64, 137;
    /// openat2(2).
    openat2 = OpenAt2, 47, 11;
    /// open(2).
    open = Open, 48, 12;
    /// socket(2).
    socket = Socket, 49, 13;
    /// socketpair(2).
    socketpair = SocketPair, 50, 14;
    /// pipe2(2).
    pipe2 = Pipe2, 51, 15;
    /// dup(2).
    dup = Dup, 52, 16;
    /// fcntl(2).
    fcntl = Fcntl, 53, 17;
    /// epoll_create1(2).
    epoll_create1 = Epoll, 54, 18;
    /// eventfd2(2).
    eventfd2 = Event, 55, 19;
    /// timerfd_create(2).
    timerfd_create = Timer, 56, 20;
    /// signalfd4(2).
    signalfd4 = Signal, 57, 21;
    /// inotify_init1(2).
    inotify_init1 = Inotify, 58, 22;
    /// memfd_create(2).
    memfd_create = Memory, 59, 23;
    /// io_uring_setup(2).
    io_uring_setup = Uring, 60, 24;
    /// pidfd_open(2).
    pidfd_open = Pid, 61, 25;
}

/// Calls that want two, where there is one.
pub fn second_of_two(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 62;
    const COUNT: u64 = 26;
    let process = Process::current()?;
    stage.ready()?;
    let mut full = Full::at(LIMIT)?;
    full.free_one()?;
    let mut failures = vec![full.truth(&process)];
    for wants in [Wants::Pipe2, Wants::SocketPair] {
        let errno = fail_at(libc::EMFILE, COUNT, || wants.attempt())?;
        failures.push(refused(process.clone(), wants.name(), errno, COUNT).at_limit(LIMIT));
    }
    // One is enough for these.
    Wants::OpenAt.attempt()?;
    report(stage, &process, failures)
}

/// The story: accept fails, and so does all else, each counted as what it is.
pub fn accept_and_others(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 63;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(3)?;
    let process = Process::current()?;
    stage.ready()?;
    let full = Full::at(LIMIT)?;
    let mut counts = [0_u64; 3];
    for round in 1..40 {
        fail(Call::Accept4, listening.fd(), libc::EMFILE, round % 3)?;
        fail_at(libc::EMFILE, round % 5, || Wants::OpenAt.attempt())?;
        fail_at(libc::EMFILE, 1, || Wants::Socket.attempt())?;
        counts[0] += round % 3;
        counts[1] += round % 5;
        counts[2] += 1;
    }
    let errno = Errno(libc::EMFILE);
    let failures = vec![
        full.truth(&process),
        Failures::new(
            process.clone(),
            listening.truth(3),
            Call::Accept4,
            errno,
            counts[0],
        )
        .at_limit(LIMIT),
        refused(process.clone(), "openat", errno, counts[1]).at_limit(LIMIT),
        refused(process.clone(), "socket", errno, counts[2]).at_limit(LIMIT),
    ];
    report(stage, &process, failures)
}

/// As fast as it can.
pub fn spin(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 44;
    const SPIN: Duration = Duration::from_secs(2);
    let process = Process::current()?;
    stage.ready()?;
    let full = Full::at(LIMIT)?;
    let end = Instant::now() + SPIN;
    let mut count = 0;
    while Instant::now() < end {
        count += 64;
        fail_at(libc::EMFILE, 64, || Wants::OpenAt.attempt())?;
    }
    let failures = vec![
        full.truth(&process),
        refused(process.clone(), "openat", Errno(libc::EMFILE), count).at_limit(LIMIT),
    ];
    report(stage, &process, failures)
}

/// Somebody lowers the limit below what is open, and raises it again.
pub fn limit_lowered(stage: &mut Stage) -> Result<()> {
    const COUNT: u64 = 9;
    let process = Process::current()?;
    stage.ready()?;
    let before = sys::nofile()?;
    let open = (0..60)
        .map(|_| sys::dup(0))
        .collect::<Result<Vec<_>, _>>()?;
    let errno = Errno(libc::EMFILE);
    let mut failures = Vec::new();
    for limit in [40_u64, 30] {
        sys::set_nofile(limit, before.1)?;
        fail_at(libc::EMFILE, COUNT, || Wants::Event.attempt())?;
        sys::set_nofile(before.0, before.1)?;
        Wants::Event.attempt()?;
    }
    drop(open);
    failures.push(refused(process.clone(), "eventfd2", errno, 2 * COUNT));
    report(stage, &process, failures)
}

/// A number that is asked for by itself is no limit that is reached: dup2 and dup3 give EBADF.
pub fn dup_to_a_number(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 45;
    let process = Process::current()?;
    stage.ready()?;
    let full = Full::at(LIMIT)?;
    for number in 0..11 {
        // SAFETY: takes numbers only, none of which is open.
        let got = unsafe { libc::dup3(0, 45 + number, 0) };
        ensure!(
            got < 0 && Errno::last() == Errno(libc::EBADF),
            "dup3 gave {got}"
        );
        // SAFETY: takes numbers only.
        let got = unsafe { libc::fcntl(0, libc::F_DUPFD, 45 + number) };
        ensure!(
            got < 0 && Errno::last() == Errno(libc::EINVAL),
            "F_DUPFD gave {got}"
        );
    }
    let failures = vec![full.truth(&process)];
    report(stage, &process, failures)
}

/// A thread with a name of its own.
pub fn named_thread(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 46;
    sys::set_thread_name(c"main-loop")?;
    stage.ready()?;
    let (process, found) = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                sys::set_thread_name(c"opener-3")?;
                let process = Process::current()?;
                let full = Full::at(LIMIT)?;
                fail_at(libc::EMFILE, 8, || Wants::OpenAt.attempt())?;
                let found = full.truth(&process);
                anyhow::Ok((process, found))
            })
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))?
    })?;
    let failed = refused(process.clone(), "openat", Errno(libc::EMFILE), 8).at_limit(LIMIT);
    report(stage, &process, vec![found, failed])
}

/// A program that ends on its first failure.
pub fn exits_at_once(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 47;
    stage.ready()?;
    let mut family = Family::new()?;
    let pid = family.fork(|report| {
        sys::set_thread_name(c"one-shot")?;
        report()?;
        let before = sys::nofile()?;
        let mut open = Vec::new();
        sys::set_nofile(LIMIT, before.1)?;
        while let Ok(fd) = sys::dup(0) {
            ensure!(open.len() < 100, "the limit did not limit");
            open.push(fd);
        }
        Ok(())
    })?;
    let process = family.report_of(pid)?.short_lived();
    family.wait_for_all()?;
    let failed = refused(process.clone(), "dup", Errno(libc::EMFILE), 1).at_limit(LIMIT);
    report(stage, &process, vec![failed])
}

/// The system's table is full, for a user without capabilities.
pub fn table_full(stage: &mut Stage) -> Result<()> {
    const COUNT: u64 = 12;
    // AF_UNIX has a limit of its own that is twice as many.
    const CALLS: [Wants; 6] = [
        Wants::OpenAt,
        Wants::Socket,
        Wants::Pipe2,
        Wants::Epoll,
        Wants::Event,
        Wants::Memory,
    ];
    let limit = sys::nofile()?.0;
    stage.ready()?;
    let (wait_here, go) = sys::pipe()?;
    let mut family = Family::new()?;
    let pid = family.fork(|report| {
        sys::set_uid(NOBODY)?;
        report()?;
        sys::poll_readable(wait_here.as_raw_fd(), processes::PATIENCE)?;
        for wants in CALLS {
            fail_at(libc::ENFILE, COUNT, || wants.attempt()).context(wants.name())?;
        }
        // A copy is no new file.
        Wants::Dup.attempt().context("dup")
    })?;
    let process = family.report_of(pid)?.short_lived();
    let table = Table::full()?;
    sys::write_byte(&go)?;
    family.wait_for_all()?;
    drop(table);
    let failures = CALLS
        .iter()
        .map(|wants| {
            refused(process.clone(), wants.name(), Errno(libc::ENFILE), COUNT).at_limit(limit)
        })
        .collect();
    report(stage, &process, failures)
}

/// inotify has a limit of its own, and says EMFILE at that too.
pub fn inotify_instances(stage: &mut Stage) -> Result<()> {
    const PATH: &str = "/proc/sys/fs/inotify/max_user_instances";
    const COUNT: u64 = 10;
    let before = std::fs::read_to_string(PATH).context("cannot read the limit of inotify")?;
    let process = Process::current()?;
    stage.ready()?;
    std::fs::write(PATH, "0").context("cannot lower the limit of inotify")?;
    let failed = fail_at(libc::EMFILE, COUNT, || Wants::Inotify.attempt());
    std::fs::write(PATH, &before).context("cannot restore the limit of inotify")?;
    let failed = refused(process.clone(), "inotify_init1", failed?, COUNT);
    report(stage, &process, vec![failed])
}

/// A hundred thousand descriptors, never many at a time.
pub fn good_life(stage: &mut Stage) -> Result<()> {
    const OPENS: u32 = 100_000;
    let process = Process::current()?;
    stage.ready()?;
    for number in 0..OPENS {
        let wants = Wants::ALL[number as usize % 3];
        wants.attempt()?;
        if number % 1_000 == 0 {
            for wants in Wants::ALL {
                wants.attempt().context(wants.name())?;
            }
        }
    }
    report(stage, &process, Vec::new())
}
