//! Connections that a listener's queues have no room for: the kernel drops them while it
//! handles a packet, and no process is current that it could be about.
//!
//! What happened is read from the processor's own counters before and after: they change
//! with the drop itself, and nobody else changes them meanwhile, since packets are handled
//! with bottom halves disabled.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_smp_processor_id,
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use turnaway_common::{Reason, failure::tier};

use crate::{
    emit::{self, Event},
    globals::{global, offset},
    kread::Addr,
    listeners,
    maps::{ARRIVAL_SLOTS, ARRIVALS, Arrival},
};

/// Slots of [`ARRIVALS`].
const SYN: u32 = 0;
const ACK_V4: u32 = 1;
const ACK_V6: u32 = 2;

// `int tcp_conn_request(struct request_sock_ops *, const struct tcp_request_sock_ops *,
// struct sock *, struct sk_buff *)`: a SYN. 5.10 to 7.2.

/// A SYN comes.
#[fentry(function = "tcp_conn_request")]
fn syn_fentry(ctx: FEntryContext) -> i32 {
    arrived(SYN, ctx.arg(2), ctx.arg(3));
    0
}

/// A SYN was handled.
#[fexit(function = "tcp_conn_request")]
fn syn_fexit(ctx: FExitContext) -> i32 {
    handled(&ctx, SYN, tier::TRAMPOLINE);
    0
}

/// A SYN comes.
#[kprobe]
fn syn_kprobe(ctx: ProbeContext) -> u32 {
    probe_arrived(SYN, ctx.arg(2), ctx.arg(3));
    0
}

/// A SYN was handled.
#[kretprobe]
fn syn_kretprobe(ctx: RetProbeContext) -> u32 {
    handled(&ctx, SYN, tier::KPROBE);
    0
}

// `struct sock *tcp_v4_syn_recv_sock(const struct sock *, struct sk_buff *, …)`: the ACK that
// ends a handshake. 5.10 to 7.2, with more arguments over time.

/// An ACK by IPv4 comes.
#[fentry(function = "tcp_v4_syn_recv_sock")]
fn ack_v4_fentry(ctx: FEntryContext) -> i32 {
    arrived(ACK_V4, ctx.arg(0), ctx.arg(1));
    0
}

/// An ACK by IPv4 was handled.
#[fexit(function = "tcp_v4_syn_recv_sock")]
fn ack_v4_fexit(ctx: FExitContext) -> i32 {
    handled(&ctx, ACK_V4, tier::TRAMPOLINE);
    0
}

/// An ACK by IPv4 comes.
#[kprobe]
fn ack_v4_kprobe(ctx: ProbeContext) -> u32 {
    probe_arrived(ACK_V4, ctx.arg(0), ctx.arg(1));
    0
}

/// An ACK by IPv4 was handled.
#[kretprobe]
fn ack_v4_kretprobe(ctx: RetProbeContext) -> u32 {
    handled(&ctx, ACK_V4, tier::KPROBE);
    0
}

// `tcp_v6_syn_recv_sock`, the same by IPv6; it calls the other for IPv4 peers.

/// An ACK by IPv6 comes.
#[fentry(function = "tcp_v6_syn_recv_sock")]
fn ack_v6_fentry(ctx: FEntryContext) -> i32 {
    arrived(ACK_V6, ctx.arg(0), ctx.arg(1));
    0
}

/// An ACK by IPv6 was handled.
#[fexit(function = "tcp_v6_syn_recv_sock")]
fn ack_v6_fexit(ctx: FExitContext) -> i32 {
    handled(&ctx, ACK_V6, tier::TRAMPOLINE);
    0
}

/// An ACK by IPv6 comes.
#[kprobe]
fn ack_v6_kprobe(ctx: ProbeContext) -> u32 {
    probe_arrived(ACK_V6, ctx.arg(0), ctx.arg(1));
    0
}

/// An ACK by IPv6 was handled.
#[kretprobe]
fn ack_v6_kretprobe(ctx: RetProbeContext) -> u32 {
    handled(&ctx, ACK_V6, tier::KPROBE);
    0
}

#[inline(always)]
fn probe_arrived(slot: u32, sk: Option<u64>, skb: Option<u64>) {
    if let (Some(sk), Some(skb)) = (sk, skb) {
        arrived(slot, sk, skb);
    }
}

/// Notes what this processor has counted until now.
#[inline(always)]
fn arrived(slot: u32, sk: u64, skb: u64) -> Option<()> {
    let counters = counters(Addr::new(sk)?)?;
    let arrival = ARRIVALS.get_ptr_mut(slot)?;
    // SAFETY: a slot of this processor, which nothing else uses until the packet is handled.
    unsafe {
        read_counters(counters, &mut *arrival)?;
        (*arrival).skb = skb;
        (*arrival).sk = sk;
    }
    Some(())
}

/// Compares what this processor has counted with what it had when the packet came.
#[inline(always)]
fn handled<C: EbpfContext>(ctx: &C, slot: u32, tier: u8) -> Option<()> {
    let arrival = ARRIVALS.get_ptr_mut(slot)?;
    // SAFETY: as in `arrived`.
    let arrival = unsafe { &mut *arrival };
    let sk = Addr::new(arrival.sk)?;
    arrival.sk = 0;
    let counters = counters(sk)?;
    let drops: u64 = counters.at(global!(COUNTERS.drops) as usize).read()?;
    let cookies: u64 = counters.at(global!(COUNTERS.cookies) as usize).read()?;
    let dropped = drops.wrapping_sub(arrival.drops);
    let sent = cookies.wrapping_sub(arrival.cookies);
    if dropped == 0 && sent == 0 {
        return None;
    }
    let overflows: u64 = counters.at(global!(COUNTERS.overflows) as usize).read()?;
    let overflowed = overflows != arrival.overflows;
    let requests: u64 = counters
        .at(global!(COUNTERS.request_drops) as usize)
        .read()?;
    let flooded = requests != arrival.request_drops;
    let skb = arrival.skb;
    // A function that called this one must not count the same again.
    let mut other = 0;
    while other < ARRIVAL_SLOTS {
        if let Some(outer) = ARRIVALS.get_ptr_mut(other) {
            // SAFETY: as in `arrived`.
            unsafe {
                (*outer).drops = drops;
                (*outer).cookies = cookies;
                (*outer).overflows = overflows;
                (*outer).request_drops = requests;
            }
        }
        other += 1;
    }
    if sent > 0 {
        listeners::cookies(sk, sent);
    }
    if dropped == 0 {
        return None;
    }
    let reason = match (slot, overflowed) {
        (SYN, true) => Reason::QueueSynOverflow,
        (SYN, false) if flooded || requests_are_many(sk) => Reason::QueueSynFlood,
        (_, false) => Reason::QueueDropped,
        (_, true) if aborts(sk) => Reason::QueueRstOverflow,
        (_, true) => Reason::QueueAckOverflow,
    };
    emit::of_listener(
        ctx,
        &Event {
            reason,
            tier,
            task: None,
            sk,
            skb,
            count: dropped,
            amount: 0,
        },
    )
}

/// This processor's counters of the listener's network namespace, a `struct linux_mib`.
#[inline(always)]
fn counters(sk: Addr) -> Option<Addr> {
    let bases = Addr::new(global!(COUNTERS.per_cpu_offset))?;
    // SAFETY: the helper takes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() } as usize;
    let base: u64 = bases.at(cpu * size_of::<u64>()).read()?;
    let counters: u64 = sk
        .follow(offset!(sock_net))?
        .field(offset!(net_statistics))?;
    Addr::new(base.wrapping_add(counters))
}

#[inline(always)]
fn read_counters(counters: Addr, into: &mut Arrival) -> Option<()> {
    into.overflows = counters.at(global!(COUNTERS.overflows) as usize).read()?;
    into.drops = counters.at(global!(COUNTERS.drops) as usize).read()?;
    into.cookies = counters.at(global!(COUNTERS.cookies) as usize).read()?;
    into.request_drops = counters
        .at(global!(COUNTERS.request_drops) as usize)
        .read()?;
    Some(())
}

/// Whether the kernel answers an ACK that it has no room for with a reset.
#[inline(always)]
fn aborts(sk: Addr) -> bool {
    // An int before 5.15, a byte since: 0 or 1 either way.
    sk.follow(offset!(sock_net))
        .and_then(|net| net.field::<u8>(offset!(net_abort_on_overflow)))
        .is_some_and(|aborts| aborts != 0)
}

/// Whether requests are so many that, without cookies, the kernel takes none from peers that
/// it does not know: the last quarter of the queue is kept for those.
#[inline(always)]
fn requests_are_many(sk: Addr) -> bool {
    let Some(net) = sk.follow(offset!(sock_net)) else {
        return false;
    };
    let (mut cookies, mut most, mut requests) = (1_u8, 0_u32, 0_u32);
    if !net.copy_field(offset!(net_syncookies), &mut cookies)
        || !net.copy_field(offset!(net_max_syn_backlog), &mut most)
        || !sk.copy_field(offset!(icsk_requests), &mut requests)
    {
        return false;
    }
    cookies == 0 && most.saturating_sub(requests) < most >> 2
}
