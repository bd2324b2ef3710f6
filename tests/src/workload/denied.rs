//! Accepts that something else forbids.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};

use super::listening::Listening;
use super::{Stage, fail};
use crate::sys::{self, Call, Errno};
use crate::truth::{Failures, Listener, Process, Tally};

/// seccomp refuses the call before it runs: only whoever sees the end of the system call learns
/// of it.
pub fn by_seccomp(stage: &mut Stage) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    let process = Process::current()?;
    let limit = sys::nofile()?.0;
    stage.ready()?;
    sys::refuse_syscall(libc::SYS_accept4, libc::EACCES)?;
    let errno = fail(Call::Accept4, listening.fd(), libc::EACCES, 12)?;
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![
            Failures::new(process, listening.truth(0), Call::Accept4, errno, 12).at_limit(limit),
        ],
        accepted: 0,
        ..Tally::default()
    })
}

/// What a security module may answer, and how often it does here. The kernel hands it to the
/// program as it is. No protocol of these kernels returns ECONNABORTED or EPROTO by itself: a
/// TCP connection that is reset while it waits is accepted all the same.
const ANSWERS: [(i32, u64); 6] = [
    (libc::EPERM, 3),
    (libc::EACCES, 4),
    (libc::ECONNABORTED, 5),
    (libc::EPROTO, 6),
    (libc::ENOBUFS, 7),
    // None that turnaway has a reason code for.
    (libc::ENOLINK, 8),
];

/// A security module, written in BPF, refuses.
pub fn by_security_module(stage: &mut Stage) -> Result<()> {
    refused(stage, &ANSWERS)
}

/// What the kernel answers when it has no memory for a socket or its file. Memory that is really
/// short would fail others, too, and as many accepts as it likes.
pub fn no_memory(stage: &mut Stage) -> Result<()> {
    refused(stage, &[(libc::ENOMEM, 9)])
}

fn refused(stage: &mut Stage, answers: &[(i32, u64)]) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    let _clients = listening.queue_up(2)?;
    let process = Process::current()?;
    let limit = sys::nofile()?.0;
    let hook = btf_function(
        &fs::read("/sys/kernel/btf/vmlinux")?,
        "bpf_lsm_socket_accept",
    )?;
    // Before Linux 5.11, BPF programs are locked memory of their user, who runs turnaway too.
    sys::lock_any_memory()?;
    stage.ready()?;
    let mut failures = Vec::new();
    for &(errno, count) in answers {
        let _module = SecurityModule::refuse(hook, process.pid, errno)?;
        let errno = fail(Call::Accept4, listening.fd(), errno, count)?;
        let truth: Listener = listening.truth(2);
        failures.push(
            Failures::new(process.clone(), truth, Call::Accept4, errno, count).at_limit(limit),
        );
    }
    sys::accept4(listening.fd(), 0).map_err(|errno: Errno| {
        anyhow::anyhow!("the security module outlives its program: {errno:?}")
    })?;
    stage.report(&Tally {
        pids: vec![process.pid],
        failures,
        accepted: 1,
        ..Tally::default()
    })
}

/// A BPF program on a hook of security modules, until it is dropped.
pub(super) struct SecurityModule {
    _link: OwnedFd,
}

/// `union bpf_attr` of BPF_PROG_LOAD, as far as it is needed (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    // No bytes that nobody has set are handed to the kernel.
    padding: u32,
}

/// The same of BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct Open {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

impl SecurityModule {
    /// Refuses what the hook is about to one process.
    pub(super) fn refuse(hook: u32, pid: u32, errno: i32) -> Result<Self> {
        const PROG_LOAD: i32 = 5;
        const RAW_TRACEPOINT_OPEN: i32 = 17;
        const PROG_TYPE_LSM: u32 = 29;
        const LSM_MAC: u32 = 27;
        const GET_CURRENT_PID_TGID: i32 = 14;
        // An instruction: opcode, registers, offset, number.
        let step = |code: u8, offset: i16, number: i32| {
            u64::from(code)
                | u64::from(offset.cast_unsigned()) << 16
                | u64::from(number.cast_unsigned()) << 32
        };
        let steps = [
            step(0x85, 0, GET_CURRENT_PID_TGID), // call
            step(0x77, 0, 32),                   // r0 >>= 32
            step(0x15, 2, i32::try_from(pid)?),  // if r0 == pid, skip two
            step(0xb7, 0, 0),                    // r0 = 0
            step(0x95, 0, 0),                    // return
            step(0xb7, 0, -errno),               // r0 = -errno
            step(0x95, 0, 0),                    // return
        ];
        let load = Load {
            prog_type: PROG_TYPE_LSM,
            insn_cnt: u32::try_from(steps.len())?,
            insns: steps.as_ptr().expose_provenance() as u64,
            license: c"GPL".as_ptr().expose_provenance() as u64,
            expected_attach_type: LSM_MAC,
            attach_btf_id: hook,
            ..Load::default()
        };
        // SAFETY: instructions and licence outlive the call, which copies them.
        let program = unsafe { sys::bpf(PROG_LOAD, &load) }
            .context("cannot load a security module in BPF")?;
        let open = Open {
            name: 0,
            prog_fd: program.as_raw_fd().cast_unsigned(),
            padding: 0,
        };
        // SAFETY: there is no pointer in it.
        let link = unsafe { sys::bpf(RAW_TRACEPOINT_OPEN, &open) }
            .context("cannot attach a security module in BPF")?;
        Ok(Self { _link: link })
    }
}

/// The id of a function in the kernel's BTF (Documentation/bpf/btf.rst).
pub(super) fn btf_function(btf: &[u8], wanted: &str) -> Result<u32> {
    const HEADER: usize = 24;
    const KIND_FUNC: u32 = 12;
    let word = |at: usize| -> Result<u32> {
        let bytes = btf.get(at..at + 4).context("the BTF ends too soon")?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    };
    ensure!(word(0)? & 0xffff == 0xeb9f, "no BTF");
    let offset = |at| -> Result<usize> { Ok(HEADER + word(at)? as usize) };
    let (types, strings) = (offset(8)?, offset(16)?);
    let end = types + word(12)? as usize;
    let (mut at, mut id) = (types, 1);
    while at < end {
        let (name, info) = (word(at)? as usize, word(at + 4)?);
        let members = (info & 0xffff) as usize;
        let kind = info >> 24 & 0x1f;
        let name = btf.get(strings + name..).unwrap_or_default();
        if kind == KIND_FUNC
            && name.starts_with(wanted.as_bytes())
            && name.get(wanted.len()) == Some(&0)
        {
            return Ok(id);
        }
        at += 12
            + match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * members,
                6 | 13 => 8 * members,
                _ => 0,
            };
        id += 1;
    }
    anyhow::bail!("{wanted} is not in the kernel's BTF")
}
