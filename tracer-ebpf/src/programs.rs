//! Programs that begin and end: what went on around an incident. Arguments are read here, where they
//! have just been written: to read them later, of a process whose memory is on a disk that hangs, is to
//! hang as well.

use aya_ebpf::{
    helpers::bpf_ktime_get_boot_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use turnaway_common::{ProgramRecord, program::ARGUMENTS};

use crate::{
    facts,
    globals::offset,
    kread::{Addr, UserAddr},
    maps::{PROGRAMS, PROGRAMS_LOST, RUNNING},
};

/// `sched_process_exec(struct task_struct *, pid_t old_pid, struct linux_binprm *)`: 5.10 to 7.2. The task is
/// the current one, and leads its process by now.
#[btf_tracepoint(function = "sched_process_exec")]
fn program_began(ctx: BtfTracePointContext) -> i32 {
    let _ = began(ctx.arg(0));
    0
}

/// `sched_process_exit(struct task_struct *)`: 5.10 to 6.12; later `bool group_dead` follows.
#[btf_tracepoint(function = "sched_process_exit")]
fn program_ended(ctx: BtfTracePointContext) -> i32 {
    let _ = ended(ctx.arg(0));
    0
}

#[inline(always)]
fn began(task: u64) -> Option<()> {
    let task = Addr::new(task)?;
    let (tgid, _) = facts::current_ids();
    let started = facts::process_start(task);
    // The map evicts what is oldest: an insert does not fail for want of room.
    let _ = RUNNING.insert(tgid, started, 0);
    tell(task, tgid, started, ProgramRecord::BEGAN)
}

#[inline(always)]
fn ended(task: u64) -> Option<()> {
    let task = Addr::new(task)?;
    // Threads end, too; the last one ends the process.
    let live = task
        .follow(offset!(task_signal))?
        .field::<u32>(offset!(signal_live))?;
    if live != 0 {
        return None;
    }
    let (tgid, _) = facts::current_ids();
    // SAFETY: read at once, and no pointer into the map is kept.
    let started = unsafe { RUNNING.get(tgid) }.copied()?;
    // It is gone only if another took its place.
    let _ = RUNNING.remove(tgid);
    tell(task, tgid, started, ProgramRecord::ENDED)
}

#[inline(always)]
fn tell(task: Addr, tgid: u32, started: u64, kind: u32) -> Option<()> {
    let Some(mut entry) = PROGRAMS.reserve::<ProgramRecord>(0) else {
        if let Some(lost) = PROGRAMS_LOST.get_ptr_mut(0) {
            // SAFETY: the element is this processor's own.
            unsafe { *lost += 1 };
        }
        return None;
    };
    let out = entry.as_mut_ptr();
    // SAFETY: the reservation is as large and as aligned as a record, and every byte of it is written
    // before it is used as one.
    let out = unsafe {
        zero(out);
        &mut *out
    };
    // SAFETY: the helper takes nothing; it is there since Linux 5.8.
    out.boottime_ns = unsafe { bpf_ktime_get_boot_ns() };
    out.start_boottime_ns = started;
    out.tgid = tgid;
    out.kind = kind;
    if kind == ProgramRecord::BEGAN {
        let _ = task.copy_field(offset!(task_comm), &mut out.comm);
        if let Some(parent) = task.follow(offset!(task_real_parent)) {
            let _ = parent.copy_field(offset!(task_tgid), &mut out.parent_tgid);
            if let Some(leader) = parent.follow(offset!(task_group_leader)) {
                let _ = leader.copy_field(offset!(task_comm), &mut out.parent_comm);
            }
        }
        arguments(task, out);
    }
    entry.submit(0);
    Some(())
}

#[inline(always)]
fn arguments(task: Addr, out: &mut ProgramRecord) {
    let Some(memory) = task.follow(offset!(task_mm)) else {
        return;
    };
    let (mut begin, mut end) = (0_u64, 0_u64);
    if !memory.copy_field(offset!(mm_arg_start), &mut begin)
        || !memory.copy_field(offset!(mm_arg_end), &mut end)
    {
        return;
    }
    // Any way of bounding it must be one that the verifier sees.
    let mut length = end.saturating_sub(begin);
    if length > ARGUMENTS as u64 {
        length = ARGUMENTS as u64;
    }
    let length = length as u32;
    if length == 0 || length > ARGUMENTS as u32 {
        return;
    }
    if let Some(from) = UserAddr::new(begin)
        && from.copy_to(out.arguments.as_mut_ptr(), length)
    {
        out.arguments_len = length;
    }
}

/// Zeroes a record, word by word, as [`crate::emit`] does.
#[inline(always)]
unsafe fn zero(record: *mut ProgramRecord) {
    const WORDS: usize = size_of::<ProgramRecord>() / size_of::<u64>();
    let words = record.cast::<u64>();
    let mut index = 0;
    while index < WORDS {
        // SAFETY: within the record, which is aligned for its own words.
        unsafe { words.add(index).write_volatile(0) };
        index += 1;
    }
}
