//! Descriptors that are sent from process to process, and lost on the way.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Result, ensure};

use super::Stage;
use super::descriptors::{self, lost};
use super::full::Full;
use crate::sys::{self, Errno};
use crate::truth::{Failures, Process};

/// Room for so many descriptors, as CMSG_SPACE has it.
fn room(descriptors: usize) -> usize {
    // SAFETY: computes a number.
    unsafe { libc::CMSG_SPACE(bytes(descriptors)) as usize }
}

/// Bytes of so many descriptors.
fn bytes(descriptors: usize) -> u32 {
    u32::try_from(descriptors * size_of::<RawFd>()).unwrap_or(0)
}

/// What came of one recvmsg.
struct Received {
    descriptors: Vec<OwnedFd>,
    truncated: bool,
}

/// Sends standard input so many times in one message.
fn send(to: &OwnedFd, descriptors: usize) -> Result<(), Errno> {
    let mut byte = [7_u8];
    let mut control = [0_u64; 16];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = room(descriptors);
    // SAFETY: the control buffer has room for the header and for all descriptors, and outlives the call.
    let sent = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(bytes(descriptors)) as usize;
        // Standard input is 0, and so is the buffer.

        libc::sendmsg(to.as_raw_fd(), &raw const message, 0)
    };
    if sent == 1 {
        Ok(())
    } else {
        Err(Errno::last())
    }
}

/// Receives a message with so many bytes for control messages.
fn receive(from: &OwnedFd, room: usize) -> Result<Received, Errno> {
    let mut byte = [0_u8];
    let mut control = [0_u64; 16];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = room.min(size_of_val(&control));
    // SAFETY: every buffer outlives the call.
    let got = unsafe { libc::recvmsg(from.as_raw_fd(), &raw mut message, 0) };
    if got != 1 {
        return Err(Errno::last());
    }
    let mut descriptors = Vec::new();
    // SAFETY: the kernel wrote the control messages; each descriptor in them is new and nobody's.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<[u8; 4]>();
                for index in 0..bytes / 4 {
                    let number = RawFd::from_ne_bytes(data.add(index).read());
                    descriptors.push(OwnedFd::from_raw_fd(number));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(Received {
        descriptors,
        truncated: message.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// Sends and receives `count` times. Each message has `sent` descriptors, there is room for `room` bytes
/// of control messages, and `wanted` come.
fn exchange(
    pair: &(OwnedFd, OwnedFd),
    count: u64,
    sent: usize,
    room: usize,
    wanted: usize,
) -> Result<()> {
    for number in 0..count {
        send(&pair.0, sent)?;
        let received = receive(&pair.1, room)?;
        ensure!(
            received.descriptors.len() == wanted && received.truncated == (wanted < sent),
            "message {number} brought {} descriptors, truncated: {}",
            received.descriptors.len(),
            received.truncated
        );
    }
    Ok(())
}

fn report(stage: &mut Stage, process: &Process, full: &Full, limit: u64, count: u64) -> Result<()> {
    let mut failures = vec![full.truth(process)];
    if count > 0 {
        let truth = Failures {
            used: None,
            ..lost(process.clone(), count).at_limit(limit)
        };
        failures.push(truth);
    }
    descriptors::report(stage, process, failures)
}

/// At the limit, a descriptor that was sent is lost although the call succeeds.
pub fn all_lost(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 50;
    const COUNT: u64 = 21;
    let pair = sys::socket_pair()?;
    let process = Process::current()?;
    stage.ready()?;
    let full = Full::at(LIMIT)?;
    exchange(&pair, COUNT, 1, room(1), 0)?;
    // Room for more than was sent.
    exchange(&pair, COUNT, 3, room(9), 0)?;
    report(stage, &process, &full, LIMIT, 2 * COUNT)
}

/// Some numbers are free, but not enough.
pub fn some_lost(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 51;
    const COUNT: u64 = 19;
    let pair = sys::socket_pair()?;
    let process = Process::current()?;
    stage.ready()?;
    let mut full = Full::at(LIMIT)?;
    full.free_one()?;
    exchange(&pair, COUNT, 2, room(2), 1)?;
    full.free_one()?;
    exchange(&pair, COUNT, 3, room(3), 2)?;
    exchange(&pair, COUNT, 4, room(4), 2)?;
    report(stage, &process, &full, LIMIT, 3 * COUNT)
}

/// The program that receives them has too little room for them: no limit is to blame.
pub fn no_room(stage: &mut Stage) -> Result<()> {
    const COUNT: u64 = 17;
    let pair = sys::socket_pair()?;
    let process = Process::current()?;
    stage.ready()?;
    exchange(&pair, COUNT, 1, 0, 0)?;
    exchange(&pair, COUNT, 1, 8, 0)?;
    exchange(&pair, COUNT, 3, room(2), 2)?;
    exchange(&pair, COUNT, 2, 20, 1)?;
    descriptors::report(stage, &process, Vec::new())
}

/// It has too little room for them, and is at its limit, too: what would have happened with more room is
/// what a tier tells that sees only the end of the call.
pub fn no_room_either(stage: &mut Stage) -> Result<()> {
    const LIMIT: u64 = 52;
    const COUNT: u64 = 17;
    let pair = sys::socket_pair()?;
    let process = Process::current()?;
    stage.ready()?;
    let full = Full::at(LIMIT)?;
    exchange(&pair, COUNT, 1, 0, 0)?;
    exchange(&pair, COUNT, 1, 16, 0)?;
    let truth = Failures {
        used: None,
        guessed: true,
        ..lost(process.clone(), 2 * COUNT).at_limit(LIMIT)
    };
    descriptors::report(stage, &process, vec![full.truth(&process), truth])
}

/// All of them come.
pub fn all_come(stage: &mut Stage) -> Result<()> {
    const COUNT: u64 = 2_000;
    let pair = sys::socket_pair()?;
    let process = Process::current()?;
    stage.ready()?;
    exchange(&pair, COUNT, 3, room(3), 3)?;
    exchange(&pair, COUNT, 1, room(8), 1)?;
    descriptors::report(stage, &process, Vec::new())
}
