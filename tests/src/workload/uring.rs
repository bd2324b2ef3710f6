//! Accepts that no system call makes: `IORING_OP_ACCEPT`.

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr::null_mut;

use anyhow::{Context as _, Result, ensure};
use io_uring::squeue::Flags;
use io_uring::types::{DestinationSlot, Fd, Fixed, OpenHow};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::descriptors;
use super::full::Full;
use super::listening::{Listening, identified};
use super::{Stage, fail_at};
use crate::scenario::env::uring_workers_are_threads;
use crate::sys::{self, Call, Errno, SockAddr};
use crate::truth::{Failures, Listener, Process, Tally};

/// What completions are told apart by.
const ACCEPT: u64 = 1;

/// A ring with room for what the workloads do at a time.
struct Ring(IoUring);

impl Ring {
    fn new() -> Result<Self> {
        Ok(Self(IoUring::new(16).context("io_uring_setup")?))
    }

    fn push(&mut self, entry: &squeue::Entry) -> Result<()> {
        // SAFETY: what an entry of this module points to outlives it.
        unsafe { self.0.submission().push(entry) }.context("the submission queue is full")
    }

    /// Submits what was pushed, without waiting for it.
    fn submit(&mut self) -> Result<()> {
        self.0.submit().context("io_uring_enter")?;
        Ok(())
    }

    /// Submits what was pushed and waits for one completion.
    fn next(&mut self) -> Result<cqueue::Entry> {
        // A completion may be there already; a signal may interrupt.
        for _ in 0..1000 {
            if let Some(entry) = self.0.completion().next() {
                return Ok(entry);
            }
            self.0.submit_and_wait(1).context("io_uring_enter")?;
        }
        anyhow::bail!("no completion came")
    }

    /// Whether a completion is there.
    fn completed(&mut self) -> bool {
        !self.0.completion().is_empty()
    }

    /// One accept, from its submission to its end.
    fn accept(&mut self, entry: &squeue::Entry) -> Result<Result<OwnedFd, Errno>> {
        self.push(entry)?;
        Ok(accepted(&self.next()?))
    }

    /// Accepts that fail with EMFILE.
    fn fail(&mut self, entry: &squeue::Entry, errno: i32, count: u64) -> Result<Errno> {
        let mut broken = None;
        let failed = fail_at(errno, count, || match self.accept(entry) {
            Ok(result) => result.map(drop),
            Err(error) => {
                broken = Some(error);
                Err(Errno(0))
            }
        });
        broken.map_or(failed, Err)
    }
}

fn accepted(entry: &cqueue::Entry) -> Result<OwnedFd, Errno> {
    if entry.result() < 0 {
        return Err(Errno(-entry.result()));
    }
    // SAFETY: accept created the descriptor and nobody else knows it. An accept into the ring's
    // own table is not read by this function.
    Ok(unsafe { OwnedFd::from_raw_fd(entry.result()) })
}

fn accept(fd: RawFd) -> squeue::Entry {
    opcode::Accept::new(Fd(fd), null_mut(), null_mut())
        .build()
        .user_data(ACCEPT)
}

fn accept_fixed(slot: u32) -> squeue::Entry {
    opcode::Accept::new(Fixed(slot), null_mut(), null_mut())
        .build()
        .user_data(ACCEPT)
}

/// io_uring knows the listener's file, not its number.
fn without_number(listener: Listener) -> Listener {
    Listener {
        fd: None,
        ..listener
    }
}

fn failures(
    process: &Process,
    listener: Listener,
    errno: Errno,
    limit: Option<u64>,
    count: u64,
) -> Failures {
    Failures {
        limit,
        limit_copied: limit.map(|_| true),
        ..Failures::new(
            process.clone(),
            without_number(listener),
            Call::IoUringAccept,
            errno,
            count,
        )
    }
}

fn report(
    stage: &mut Stage,
    process: &Process,
    failures: Vec<Failures>,
    accepted: u64,
) -> Result<()> {
    stage.report(&Tally {
        pids: vec![process.pid],
        failures,
        accepted,
        ..Tally::default()
    })
}

/// One accept at a time, at the limit.
pub fn single(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 71;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(3)?;
    let mut ring = Ring::new()?;
    let process = Process::current()?;
    stage.ready()?;
    let _full = Full::at(LIMIT)?;
    let errno = ring.fail(&accept(listening.fd()), libc::EMFILE, 25)?;
    let truth = listening.truth(3);
    report(
        stage,
        &process,
        vec![failures(&process, truth, errno, Some(LIMIT), 25)],
        0,
    )
}

/// One accept for many connections: an error ends it.
pub fn multishot(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 72;
    const AGAIN: u64 = 14;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(3)?;
    let mut ring = Ring::new()?;
    let process = Process::current()?;
    stage.ready()?;
    let mut full = Full::at(LIMIT)?;
    full.free_one()?;
    full.free_one()?;
    let entry = opcode::AcceptMulti::new(Fd(listening.fd()))
        .build()
        .user_data(ACCEPT);
    ring.push(&entry)?;
    let mut open = Vec::new();
    for _ in 0..2 {
        let completion = ring.next()?;
        ensure!(
            cqueue::more(completion.flags()),
            "the multishot ended early"
        );
        open.push(accepted(&completion)?);
    }
    let end = ring.next()?;
    ensure!(
        end.result() == -libc::EMFILE && !cqueue::more(end.flags()),
        "{end:?}"
    );
    let errno = ring.fail(&entry, libc::EMFILE, AGAIN)?;
    let truth = listening.truth(1);
    let failed = failures(&process, truth, errno, Some(LIMIT), 1 + AGAIN);
    report(stage, &process, vec![failed], 2)
}

/// The limit is copied when the accept is armed: raising it later does not help.
pub fn limit_raised_later(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 73;
    let listening = Listening::tcp4(16)?;
    let client = listening.client()?;
    let mut ring = Ring::new()?;
    let process = Process::current()?;
    stage.ready()?;
    let hard = sys::nofile()?.1;
    let mut full = Full::at(LIMIT)?;
    // One is free while it is armed, or it would fail at once.
    full.free_one()?;
    ring.push(&accept(listening.fd()))?;
    ring.submit()?;
    ensure!(!ring.completed(), "the accept did not wait");
    full.take()?;
    sys::set_nofile(LIMIT + 100, hard)?;
    listening.connect(&client)?;
    let errno = Errno(libc::EMFILE);
    ensure!(
        accepted(&ring.next()?).is_err_and(|got| got == errno),
        "not EMFILE"
    );
    // The process itself could open more.
    drop(sys::dup(0)?);
    let truth = listening.truth(1);
    report(
        stage,
        &process,
        vec![failures(&process, truth, errno, Some(LIMIT), 1)],
        0,
    )
}

/// The other way round: armed with room, an accept succeeds although the process is at its limit.
pub fn limit_lowered_later(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 74;
    let listening = Listening::tcp4(16)?;
    let client = listening.client()?;
    let mut ring = Ring::new()?;
    let process = Process::current()?;
    stage.ready()?;
    ring.push(&accept(listening.fd()))?;
    ring.submit()?;
    ensure!(!ring.completed(), "the accept did not wait");
    let _full = Full::at(LIMIT)?;
    ensure!(
        sys::dup(0).is_err_and(|errno| errno == Errno(libc::EMFILE)),
        "not at the limit"
    );
    listening.connect(&client)?;
    let fd = accepted(&ring.next()?)?;
    ensure!(
        u64::try_from(fd.as_raw_fd())? >= LIMIT,
        "accepted as {fd:?}"
    );
    report(stage, &process, Vec::new(), 1)
}

/// A thread of the kernel's submits: it is the program's all the same.
pub fn sqpoll(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 75;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(2)?;
    let ring = IoUring::builder()
        .setup_sqpoll(100)
        .build(16)
        .context("io_uring_setup with SQPOLL")?;
    let mut ring = Ring(ring);
    // Before Linux 5.11, it takes registered files only.
    ring.0
        .submitter()
        .register_files(&[listening.fd()])
        .context("cannot register a file")?;
    let process = Process::current()?;
    stage.ready()?;
    let _full = Full::at(LIMIT)?;
    let errno = ring.fail(&accept_fixed(0), libc::EMFILE, 16)?;
    let process = in_kernel_thread(process, "sqp");
    let truth = listening.truth(2);
    report(
        stage,
        &process,
        vec![failures(&process, truth, errno, Some(LIMIT), 16)],
        0,
    )
}

/// The process, failing in a thread that io_uring made: `iou-sqp-PID` or `iou-wrk-PID`. Before
/// Linux 5.12 that was a kernel thread.
fn in_kernel_thread(process: Process, kind: &str) -> Process {
    Process {
        tid: None,
        thread: uring_workers_are_threads().then(|| format!("iou-{kind}-{}", process.pid)),
        ..process
    }
}

/// A worker of io_uring's does it, because it was asked to.
pub fn worker(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 76;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(2)?;
    let mut ring = Ring::new()?;
    let process = Process::current()?;
    stage.ready()?;
    let _full = Full::at(LIMIT)?;
    let entry = accept(listening.fd()).flags(Flags::ASYNC);
    let errno = ring.fail(&entry, libc::EMFILE, 17)?;
    let process = in_kernel_thread(process, "wrk");
    let truth = listening.truth(2);
    report(
        stage,
        &process,
        vec![failures(&process, truth, errno, Some(LIMIT), 17)],
        0,
    )
}

/// The listener is a registered file.
pub fn registered_listener(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 77;
    let listening = Listening::tcp6(16)?;
    let _clients = listening.queue_up(1)?;
    let mut ring = Ring::new()?;
    ring.0.submitter().register_files(&[-1, listening.fd()])?;
    let process = Process::current()?;
    stage.ready()?;
    let _full = Full::at(LIMIT)?;
    let errno = ring.fail(&accept_fixed(1), libc::EMFILE, 18)?;
    let truth = listening.truth(1);
    report(
        stage,
        &process,
        vec![failures(&process, truth, errno, Some(LIMIT), 18)],
        0,
    )
}

/// The ring's own table of files is full: ENFILE, and the connection is lost.
pub fn table_full(stage: &mut Stage) -> Result<()> {
    const SLOTS: usize = 2;
    const CLIENTS: u32 = 5;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(CLIENTS)?;
    let mut ring = Ring::new()?;
    ring.0.submitter().register_files(&[-1; SLOTS])?;
    let process = Process::current()?;
    stage.ready()?;
    let entry = opcode::Accept::new(Fd(listening.fd()), null_mut(), null_mut())
        .file_index(Some(DestinationSlot::auto_target()))
        .build()
        .user_data(ACCEPT);
    for slot in 0..SLOTS {
        ring.push(&entry)?;
        let got = ring.next()?.result();
        ensure!(
            usize::try_from(got).is_ok_and(|got| got == slot),
            "slot {slot}: {got}"
        );
    }
    let errno = ring.fail(&entry, libc::ENFILE, 3)?;
    // The first of them left two behind; the others lose those.
    let truth = listening.truth(2);
    report(
        stage,
        &process,
        vec![failures(&process, truth, errno, None, 3).taking()],
        SLOTS as u64,
    )
}

/// ENOTSOCK and EINVAL.
pub fn misuse(stage: &mut Stage) -> Result<()> {
    let file = File::open("/proc/self/exe")?;
    let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    sys::bind(&socket, &SockAddr::inet(address))?;
    let truth = Listener {
        family: Some("inet".to_owned()),
        kind: Some("stream".to_owned()),
        protocol: Some("tcp".to_owned()),
        port: SockAddr::bound_to(&socket)?.port(),
        ..identified(&socket, Listener::default())?
    };
    let mut ring = Ring::new()?;
    let process = Process::current()?;
    stage.ready()?;
    let not_socket = ring.fail(&accept(file.as_raw_fd()), libc::ENOTSOCK, 4)?;
    let not_listening = ring.fail(&accept(socket.as_raw_fd()), libc::EINVAL, 5)?;
    let failed = vec![
        failures(&process, Listener::default(), not_socket, None, 4),
        failures(&process, truth, not_listening, None, 5),
    ];
    report(stage, &process, failed, 0)
}

/// EBADF, which comes before accept is tried.
pub fn not_open(stage: &mut Stage) -> Result<()> {
    let mut ring = Ring::new()?;
    let process = Process::current()?;
    stage.ready()?;
    let errno = ring.fail(&accept(987), libc::EBADF, 6)?;
    let failed = vec![failures(&process, Listener::default(), errno, None, 6)];
    report(stage, &process, failed, 0)
}

/// An accept that its own program cancels is none that failed.
pub fn cancelled(stage: &mut Stage) -> Result<()> {
    const CANCEL: u64 = 2;
    let listening = Listening::tcp4(16)?;
    let mut ring = Ring::new()?;
    let process = Process::current()?;
    stage.ready()?;
    for _ in 0..10 {
        ring.push(&accept(listening.fd()))?;
        ring.submit()?;
        ring.push(&opcode::AsyncCancel::new(ACCEPT).build().user_data(CANCEL))?;
        let (one, other) = (ring.next()?, ring.next()?);
        let end = if one.user_data() == ACCEPT {
            one
        } else {
            other
        };
        ensure!(end.result() == -libc::ECANCELED, "{end:?}");
    }
    report(stage, &process, Vec::new(), 0)
}

/// An open of /dev/null that fails with EMFILE.
fn refused(ring: &mut Ring, entry: &squeue::Entry, count: u64) -> Result<Errno> {
    ring.fail(entry, libc::EMFILE, count)
}

fn openat_entry() -> squeue::Entry {
    opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/dev/null".as_ptr())
        .build()
        .user_data(ACCEPT)
}

/// Failures of an operation that is no accept, and those that it took to find the limit.
fn operation(
    stage: &mut Stage,
    entry: &squeue::Entry,
    name: &str,
    limit: u64,
    count: u64,
) -> Result<()> {
    let mut ring = Ring::new()?;
    let process = Process::current()?;
    stage.ready()?;
    let full = Full::at(limit)?;
    let errno = refused(&mut ring, entry, count)?;
    let failed = descriptors::refused(process.clone(), name, errno, count).at_limit(limit);
    report(stage, &process, vec![full.truth(&process), failed], 0)
}

/// `IORING_OP_OPENAT`.
pub fn openat(stage: &mut Stage) -> Result<()> {
    operation(stage, &openat_entry(), "io_uring_openat", 71, 13)
}

/// `IORING_OP_OPENAT2`.
pub fn openat2(stage: &mut Stage) -> Result<()> {
    let how = OpenHow::new();
    let entry = opcode::OpenAt2::new(Fd(libc::AT_FDCWD), c"/dev/null".as_ptr(), &raw const how)
        .build()
        .user_data(ACCEPT);
    operation(stage, &entry, "io_uring_openat2", 72, 14)
}

/// `IORING_OP_SOCKET`.
pub fn socket(stage: &mut Stage) -> Result<()> {
    let entry = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0)
        .build()
        .user_data(ACCEPT);
    operation(stage, &entry, "io_uring_socket", 73, 15)
}

/// Accepts and opens of one ring, each counted as what it is.
pub fn accept_and_others(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 74;
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(2)?;
    let mut ring = Ring::new()?;
    let process = Process::current()?;
    stage.ready()?;
    let full = Full::at(LIMIT)?;
    let errno = Errno(libc::EMFILE);
    for _ in 0..7 {
        refused(&mut ring, &openat_entry(), 2)?;
        refused(&mut ring, &accept(listening.fd()), 1)?;
    }
    let accepts = failures(&process, listening.truth(2), errno, Some(LIMIT), 7);
    let opens = descriptors::refused(process.clone(), "io_uring_openat", errno, 14).at_limit(LIMIT);
    report(
        stage,
        &process,
        vec![full.truth(&process), accepts, opens],
        0,
    )
}
