//! The only maps.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use turnaway_common::{
    ClosedListener, FailureCount, FailureKey, ListenerFacts, ListenerStats, ProcessFacts,
    layout::lost,
};

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

/// What went well, by socket inode of the listener. Entries go when the listener is closed.
#[map]
pub(crate) static LISTENERS: HashMap<u64, ListenerStats> = HashMap::with_max_entries(16_384, 0);

/// What a new entry of [`LISTENERS`] starts as.
#[map]
pub(crate) static BLANK_LISTENER: Array<ListenerStats> = Array::with_max_entries(1, 0);

/// Where a process accepts.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Place {
    /// Inode number of the network namespace.
    pub(crate) netns: u32,
    /// Port.
    pub(crate) port: u32,
    /// The process; 0 is whoever began to accept last.
    pub(crate) tgid: u32,
}

/// Socket inodes of listeners, by who accepts where: an accepted connection does not say which
/// listener it came by.
#[map]
pub(crate) static PLACES: LruHashMap<Place, u64> = LruHashMap::with_max_entries(16_384, 0);

/// How many ports there are.
const ALL_PORTS: usize = 1 << 16;

/// A byte for each port: 1 where somebody was seen to accept, in any namespace.
#[map]
pub(crate) static PORTS: Array<[u8; ALL_PORTS]> = Array::with_max_entries(1, 0);

/// Hooks that [`crate::states`] serves and that are in place: bits of [`turnaway_common::layout::states`].
#[map]
pub(crate) static STATES: Array<u32> = Array::with_max_entries(1, 0);

/// Listeners that were closed after they had dropped something, by socket inode; user space
/// takes them out.
#[map]
pub(crate) static CLOSED: HashMap<u64, ClosedListener> = HashMap::with_max_entries(4096, 0);

/// What a new entry of [`CLOSED`] starts as.
#[map]
pub(crate) static BLANK_CLOSED: Array<ClosedListener> = Array::with_max_entries(1, 0);

/// What a processor had counted when a packet came to a listener.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Arrival {
    /// The listener; 0 when no packet is being handled.
    pub(crate) sk: u64,
    /// The packet.
    pub(crate) skb: u64,
    /// `ListenOverflows`.
    pub(crate) overflows: u64,
    /// `ListenDrops`.
    pub(crate) drops: u64,
    /// `TCPReqQFullDoCookies`.
    pub(crate) cookies: u64,
    /// `TCPReqQFullDrop`.
    pub(crate) request_drops: u64,
}

/// One for each function that handles packets of listeners: they call each other.
pub(crate) const ARRIVAL_SLOTS: u32 = 3;

/// Packets that are being handled, by function.
#[map]
pub(crate) static ARRIVALS: PerCpuArray<Arrival> = PerCpuArray::with_max_entries(ARRIVAL_SLOTS, 0);

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

/// Listeners that accept is being called on, by thread, for return probes.
#[map]
pub(crate) static ACCEPT_CALLS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8192, 0);

/// A connect that waits for room in an AF_UNIX listener's queue.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct UnixWait {
    /// Since when, nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) since_ns: u64,
}

/// Those, by thread.
#[map]
pub(crate) static UNIX_WAITS: LruHashMap<u64, UnixWait> = LruHashMap::with_max_entries(8192, 0);

/// A TCP connection that is being made: whose it is, from the moment that it was asked for,
/// since nobody is current when it fails.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Connecting {
    /// Inode number of the client's socket.
    pub(crate) inode: u64,
    /// As [`FailureKey::start_boottime_ns`].
    pub(crate) start_boottime_ns: u64,
    /// As [`FailureKey::target_addr`].
    pub(crate) target_addr: [u8; 16],
    /// As [`FailureKey::tgid`].
    pub(crate) tgid: u32,
    /// As [`FailureKey::target_port`].
    pub(crate) target_port: u32,
    /// As [`FailureKey::target_family`].
    pub(crate) target_family: u16,
    /// As [`FailureKey::op`].
    pub(crate) op: u8,
    /// Zero.
    pub(crate) pad: [u8; 5],
    /// The process that asked for it.
    pub(crate) process: ProcessFacts,
    /// The client's socket.
    pub(crate) socket: ListenerFacts,
}

/// TCP connections that are being made, by `struct sock`. None is thrown out for another: one
/// that finds no room is counted in [`lost::CONNECTING`].
#[map]
pub(crate) static CONNECTING: HashMap<u64, Connecting> = HashMap::with_max_entries(32_768, 0);

/// Processes that were given a descriptor near their limit, or were refused one, and when they were
/// started, as in [`FailureKey`]; user space takes them out.
#[map]
pub(crate) static PRESSED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(4096, 0);

/// What a new entry of [`CONNECTING`] starts as.
#[map]
pub(crate) static BLANK_CONNECTING: Array<Connecting> = Array::with_max_entries(1, 0);

/// Errnos of TCP connections that failed and were counted, by inode of the client's socket:
/// the connect call that hands the errno out must not count the failure again.
#[map]
pub(crate) static FAILED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(16_384, 0);

/// Programs that begin and end, on their way to user space. The size is set by the loader.
#[map]
pub(crate) static PROGRAMS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Records that found that ring full.
#[map]
pub(crate) static PROGRAMS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Processes that began to run a program, and when they were started: only of those is the end told.
#[map]
pub(crate) static RUNNING: LruHashMap<u32, u64> = LruHashMap::with_max_entries(32_768, 0);
