//! Accepted connections that the program throws away: it closes them first, has read nothing, and
//! sent nothing or a word of regret. That is how a program without free slots refuses; no errno
//! tells it. A health check is closed by its client first, and a client that is too slow to
//! say anything is closed later.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_jiffies64};
use turnaway_common::{ListenerFacts, ListenerStats, failure::known};

use crate::{
    emit, facts,
    globals::{global, offset},
    kread::Addr,
    maps::{LISTENERS, PLACES, PORTS, Place},
};

/// Both directions (`SHUTDOWN_MASK`): closed, not half closed.
const SHUT_DOWN: u8 = 3;
/// More than this is an answer.
const A_WORD: u64 = 512;
/// Longer than this, a client that has sent nothing was waited for.
const AT_ONCE_NS: u64 = 1_000_000_000;

/// A process accepts on a listener that it did not accept on last.
#[inline(always)]
pub(crate) fn accepts(sk: Addr, tgid: u32, listener: &ListenerFacts) {
    if listener.known & known::ADDRESS == 0 {
        return;
    }
    let inode = facts::inode_of(sk);
    let place = Place {
        netns: listener.netns,
        port: listener.port,
        tgid,
    };
    // SAFETY: read at once, and no pointer into the map is kept.
    if unsafe { PLACES.get(place) }.copied() != Some(inode) {
        // The map evicts what is oldest: an insert does not fail for want of room.
        let _ = PLACES.insert(place, inode, 0);
        let _ = PLACES.insert(Place { tgid: 0, ..place }, inode, 0);
        if let Some(ports) = PORTS.get_ptr_mut(0) {
            // SAFETY: within the element, which has a byte for each port; whoever else writes to it writes
            // the same.
            unsafe { *(*ports).as_mut_ptr().add(usize::from(place.port as u16)) = 1 };
        }
    }
}

/// Whether anybody was seen to accept at a port, in whichever namespace.
#[inline(always)]
fn is_accepted_at(port: u32) -> bool {
    PORTS
        .get(0)
        .is_some_and(|ports| ports.get(usize::from(port as u16)) == Some(&1))
}

/// A connection that its program closes goes to FIN_WAIT1, or to CLOSE if data was not read.
#[inline(always)]
pub(crate) fn closed<C: EbpfContext>(ctx: &C, sk: u64) -> Option<()> {
    let sk = Addr::new(sk)?;
    let port = facts::port_of(sk)?;
    // Most are clients', whose ports nobody accepts at.
    if !is_accepted_at(port) || !facts::is_locked(sk) || !is_thrown_away(sk) {
        return None;
    }
    let task = facts::current_task()?;
    // What dies closes everything, and MPTCP closes its connections by kernel threads.
    if facts::is_exiting(task) || facts::is_kernel_thread(task) {
        return None;
    }
    let inode = listener_of(sk, port)?;
    let stats = LISTENERS.get_ptr_mut(inode)?;
    // SAFETY: the map's element stays valid for as long as this program runs; the listener in it
    // was written when it was made.
    let stats: &mut ListenerStats = unsafe { &mut *stats };
    // SAFETY: as above.
    unsafe { emit::add(&raw mut stats.shed, 1) };
    emit::shed(ctx, inode, &stats.listener, sk)
}

/// Whether the program closes it without having used it.
#[inline(always)]
fn is_thrown_away(sk: Addr) -> bool {
    let (mut shutdown, mut error) = (0_u8, 0_u32);
    if !sk.copy_field(offset!(sock_shutdown), &mut shutdown)
        || shutdown != SHUT_DOWN
        || !sk.copy_field(offset!(sock_err), &mut error)
        || error != 0
    {
        return false;
    }
    let (mut write_seq, mut snd_una, mut rcv_nxt, mut copied_seq) = (0_u32, 0_u32, 0_u32, 0_u32);
    let (mut acked, mut received) = (0_u64, 0_u64);
    if !sk.copy_field(offset!(tcp_rcv_nxt), &mut rcv_nxt)
        || !sk.copy_field(offset!(tcp_copied_seq), &mut copied_seq)
        || !sk.copy_field(offset!(tcp_bytes_received), &mut received)
    {
        return false;
    }
    let unread = u64::from(rcv_nxt.wrapping_sub(copied_seq));
    if unread != received {
        return false;
    }
    if !sk.copy_field(offset!(tcp_write_seq), &mut write_seq)
        || !sk.copy_field(offset!(tcp_snd_una), &mut snd_una)
        || !sk.copy_field(offset!(tcp_bytes_acked), &mut acked)
    {
        return false;
    }
    let written = u64::from(write_seq.wrapping_sub(snd_una)).wrapping_add(acked);
    written <= A_WORD && (unread > 0 || is_new(sk))
}

/// Whether its handshake ended a moment ago; it has received nothing since.
#[inline(always)]
fn is_new(sk: Addr) -> bool {
    let mut since = 0_u32;
    if !sk.copy_field(offset!(icsk_lrcvtime), &mut since) || global!(SETTINGS.jiffy_ns) == 0 {
        return false;
    }
    // SAFETY: the helper takes nothing; it is there since Linux 5.5.
    let age = (unsafe { bpf_jiffies64() } as u32).wrapping_sub(since);
    u64::from(age) * u64::from(global!(SETTINGS.jiffy_ns)) < AT_ONCE_NS
}

/// Socket inode of the listener that a connection came by: the one that this process accepts on
/// at that port, or else that anybody does.
#[inline(always)]
fn listener_of(sk: Addr, port: u32) -> Option<u64> {
    let mut netns = 0_u32;
    if !sk
        .follow(offset!(sock_net))?
        .copy_field(offset!(net_inum), &mut netns)
    {
        return None;
    }
    let (tgid, _) = facts::current_ids();
    let place = Place { netns, port, tgid };
    // SAFETY: read at once, and no pointer into the map is kept.
    if let Some(inode) = unsafe { PLACES.get(place) }.copied() {
        return Some(inode);
    }
    // SAFETY: as above.
    unsafe { PLACES.get(Place { tgid: 0, ..place }) }.copied()
}
