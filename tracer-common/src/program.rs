//! What the kernel side says of programs that begin and end.

/// Most bytes of a program's arguments that are kept.
pub const ARGUMENTS: usize = 256;
/// Length of a task's name (`TASK_COMM_LEN`).
pub const COMM: usize = 16;

/// A process began to run a program ([`ProgramRecord::BEGAN`]), or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ProgramRecord {
    /// When, nanoseconds of `CLOCK_BOOTTIME`.
    pub boottime_ns: u64,
    /// When the process was started, nanoseconds of `CLOCK_BOOTTIME`; 0 is unknown.
    pub start_boottime_ns: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// [`ProgramRecord::BEGAN`] or [`ProgramRecord::ENDED`].
    pub kind: u32,
    /// Process id of the parent; 0 is unknown.
    pub parent_tgid: u32,
    /// Bytes of [`ProgramRecord::arguments`] that were read.
    pub arguments_len: u32,
    /// Name.
    pub comm: [u8; COMM],
    /// Name of the parent; all zero is unknown.
    pub parent_comm: [u8; COMM],
    /// Its arguments, each ended by a NUL.
    pub arguments: [u8; ARGUMENTS],
}

impl ProgramRecord {
    /// It began.
    pub const BEGAN: u32 = 1;
    /// It ended.
    pub const ENDED: u32 = 2;
}

const _: () = assert!(size_of::<ProgramRecord>() == 320);
