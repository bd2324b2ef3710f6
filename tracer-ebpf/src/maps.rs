//! The only maps.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use turnaway_common::{FailureCount, FailureKey, layout::lost};

/// Exact counters, first generation. User space switches [`GENERATION`] to the other
/// map, waits until no program can still be using this one, and empties it: so no count
/// is ever read while it grows, and no key stays for longer than it fails.
#[map]
pub(crate) static FAILURES_0: HashMap<FailureKey, FailureCount> =
    HashMap::with_max_entries(16_384, 0);

/// Exact counters, second generation.
#[map]
pub(crate) static FAILURES_1: HashMap<FailureKey, FailureCount> =
    HashMap::with_max_entries(16_384, 0);

/// Which generation to count in: 0 or 1.
#[map]
pub(crate) static GENERATION: Array<u32> = Array::with_max_entries(1, 0);

/// One counter that is all zero: what a new key starts as. A program's stack is too small
/// to make one.
#[map]
pub(crate) static BLANK: Array<FailureCount> = Array::with_max_entries(1, 0);

/// Exemplars, on their way to user space. The size is set by the loader.
#[map]
pub(crate) static EXEMPLARS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// What could not be kept, by [`lost`] slot.
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(lost::SLOTS, 0);

/// An io_uring accept between a hook at its start and the one at its end.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct UringCall {
    /// The request, or on kernels whose hook is handed only the file, zero.
    pub(crate) request: u64,
    /// The listener's file.
    pub(crate) file: u64,
    /// The limit that was copied when the request was prepared.
    pub(crate) nofile: u64,
}

/// io_uring accepts in progress, by thread, for hooks that are not handed the request.
#[map]
pub(crate) static URING_CALLS: LruHashMap<u64, UringCall> = LruHashMap::with_max_entries(8192, 0);
