//! Listeners that change hands: who is it that does not accept?

use std::env;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::Stage;
use super::enfile::NOBODY;
use super::listening::Listening;
use super::processes::{Family, PATIENCE};
use super::queue::{Counters, quiet, settled, wait_for_overflows};
use crate::sys;
use crate::truth::{Failures, Listener, Process, Tally};

const BACKLOG: u32 = 2;

/// Fills the queue and comes once more: SYNs that are dropped, whose failure is `process`'s.
fn overflow(listening: &Listening, process: &Process, holders: &[u32]) -> Result<Failures> {
    // The kernel lets one more in than the backlog.
    let _queued = listening.queue_up(BACKLOG + 1)?;
    let before = Counters::read()?;
    let clients = listening.begin_many(5)?;
    wait_for_overflows(before, 5)?;
    drop(clients);
    let counted = settled()?.since(before);
    ensure!(
        counted.overflows > 0 && counted.overflows == counted.drops,
        "{counted:?}"
    );
    let truth = listening.truth(BACKLOG + 1);
    Ok(Failures::of_listener(
        "queue.syn_overflow",
        process.clone(),
        truth,
        counted.overflows,
    )
    .held_by(holders))
}

fn tally(pids: &[u32], failure: Failures, accepted: u64) -> Tally {
    Tally {
        pids: pids.to_vec(),
        failures: vec![failure],
        accepted,
        ..Tally::default()
    }
}

/// Sends a descriptor (SCM_RIGHTS).
fn send(over: &UnixStream, fd: &OwnedFd) -> Result<()> {
    let fds = [fd.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    ensure!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let word = [std::io::IoSlice::new(b"!")];
    sendmsg(over, &word, &mut control, SendFlags::empty())?;
    Ok(())
}

/// Receives a descriptor.
fn receive(over: &UnixStream) -> Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let mut word = [std::io::IoSliceMut::new(&mut word)];
    recvmsg(over, &mut word, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            return fds.next().context("no descriptor");
        }
    }
    bail!("no descriptor came")
}

/// The first process listens as root, a worker accepts as nobody.
pub fn drops_root(stage: &mut Stage) -> Result<()> {
    quiet()?;
    let listening = Listening::tcp4(BACKLOG)?;
    let master = sys::own_pid();
    let mut family = Family::new()?;
    let (hold, release) = sys::pipe()?;
    let pid = family.fork(|report| {
        sys::set_uid(NOBODY)?;
        let _busy_with = sys::accept(listening.fd())?;
        report()?;
        sys::poll_readable(hold.as_raw_fd(), PATIENCE)?;
        Ok(())
    })?;
    stage.ready()?;
    let _first = listening.queue_up_any()?;
    // Others may not look at what its executable is, but root may.
    let worker = family.report_of(pid)?;
    ensure!(worker.uid == NOBODY, "its user is {}", worker.uid);
    let failure = overflow(&listening, &worker, &[master, pid])?;
    stage.report(&tally(&[master, pid], failure, 1))?;
    sys::write_byte(&release)?;
    family.wait_for_all()
}

/// One process makes the listener and sends it to another, which was there before, and closes it.
/// Whichever is to accept does so once.
fn hand_over(stage: &mut Stage, receiver_accepts: bool) -> Result<()> {
    quiet()?;
    let mut family = Family::new()?;
    let (hold, release) = sys::pipe()?;
    let (near, far) = UnixStream::pair()?;
    let pid = family.fork(|report| {
        sys::set_thread_name(c"receiver")?;
        let fd = receive(&far)?;
        let _busy_with = if receiver_accepts {
            Some(sys::accept(fd.as_raw_fd())?)
        } else {
            None
        };
        report()?;
        sys::poll_readable(hold.as_raw_fd(), PATIENCE)?;
        Ok(())
    })?;
    let listening = Listening::tcp4(BACKLOG)?;
    stage.ready()?;
    let _first = listening.queue_up_any()?;
    if !receiver_accepts {
        drop(sys::accept(listening.fd())?);
    }
    send(&near, listening.socket())?;
    let receiver = family.report_of(pid)?;
    ensure!(receiver.comm == "receiver");
    let listening = listening.given_away()?;
    let failure = overflow(&listening, &receiver, &[pid])?;
    stage.report(&tally(&[sys::own_pid(), pid], failure, 1))?;
    sys::write_byte(&release)?;
    family.wait_for_all()
}

/// Who was sent it accepts.
pub fn sent(stage: &mut Stage) -> Result<()> {
    hand_over(stage, true)
}

/// Who made it has accepted, and has it no more: it is not the one that does not accept now.
pub fn sent_and_not_accepted(stage: &mut Stage) -> Result<()> {
    hand_over(stage, false)
}

/// Tells the program that this process becomes what it has: a descriptor, and what that is.
const HANDED: &str = "TURNAWAY_TEST_HANDED";

/// A program accepts, then becomes another one (exec), which keeps the listener: the process is
/// the same, and its name is the new one.
pub fn exec(stage: &mut Stage) -> Result<()> {
    if let Ok(handed) = env::var(HANDED) {
        return exec_done(stage, &handed);
    }
    quiet()?;
    sys::set_thread_name(c"before-exec")?;
    let listening = Listening::tcp4(BACKLOG)?;
    stage.ready()?;
    let _first = listening.queue_up_any()?;
    drop(sys::accept(listening.fd())?);
    // Such a copy is not closed by exec.
    let kept = sys::dup(listening.fd())?;
    let truth = listening.truth_of_any_queue();
    let handed = serde_json::to_string(&(kept.as_raw_fd(), truth))?;
    let error = Command::new("/proc/self/exe")
        .args(env::args_os().skip(1))
        .env(HANDED, handed)
        .exec();
    Err(error).context("exec")
}

fn exec_done(stage: &mut Stage, handed: &str) -> Result<()> {
    stage.was_ready();
    let (fd, truth): (i32, Listener) = serde_json::from_str(handed)?;
    // SAFETY: what this process was left it open, and nobody else here knows of it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let listening = Listening::handed(fd, truth)?;
    let process = Process::current()?;
    ensure!(process.comm != "before-exec");
    let failure = overflow(&listening, &process, &[process.pid])?;
    stage.report(&tally(&[process.pid], failure, 1))
}
