//! TCP sockets that change their state: connections that are begun and made or not, connections that their
//! program closes, listeners that are closed. One program for all, since the kernel runs each that sits
//! here ten times for a connection over the loopback interface, mostly to no purpose.
//!
//! Since 5.12 the kernel leaves out a program that an interrupt would run within itself. Tasks' changes
//! never come in an interrupt. Those of packets and timers do, and may come while [`socket_state`] runs for
//! a task: so [`socket_state_again`] sees them too. At most one of the two can be interrupted, and the
//! other sees what the interrupt does; whichever comes first takes the connection out of the map. Packets
//! and timers touch no socket that a task has locked, so that no two changes of one socket meet.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use turnaway_common::layout::states;

use crate::{connect, facts, kread::Addr, listeners, maps::STATES, shed};

const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_FIN_WAIT1: i32 = 4;
const TCP_CLOSE: i32 = 7;
const TCP_LISTEN: i32 = 10;

/// `inet_sock_set_state(const struct sock *, const int oldstate, const int newstate)`: 5.10 to 7.2.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn socket_state(ctx: BtfTracePointContext) -> i32 {
    let (from, to): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if to == TCP_SYN_SENT {
        if is_on(states::CONNECT) {
            connect::asked_for(ctx.arg(0));
        }
    } else if from == TCP_SYN_SENT {
        if is_on(states::CONNECT) {
            connect::ended(&ctx, ctx.arg(0), to == TCP_CLOSE, is_locked(ctx.arg(0)));
        }
    } else if from == TCP_ESTABLISHED && (to == TCP_FIN_WAIT1 || to == TCP_CLOSE) {
        if is_on(states::SHED) {
            shed::closed(&ctx, ctx.arg(0));
        }
    } else if from == TCP_LISTEN && to == TCP_CLOSE && is_on(states::LISTEN_CLOSE) {
        // Comes just before `inet_csk_listen_stop`.
        listeners::closed(&ctx, ctx.arg(0), turnaway_common::failure::tier::TRACEPOINT);
    }
    0
}

/// The same tracepoint, for what interrupts that.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn socket_state_again(ctx: BtfTracePointContext) -> i32 {
    let (from, to): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if from == TCP_SYN_SENT && !is_locked(ctx.arg(0)) {
        connect::ended(&ctx, ctx.arg(0), to == TCP_CLOSE, false);
    }
    0
}

/// Whether a hook that this program serves is in place.
#[inline(always)]
fn is_on(hook: u32) -> bool {
    STATES.get(0).is_some_and(|on| on & hook != 0)
}

#[inline(always)]
fn is_locked(sk: u64) -> bool {
    Addr::new(sk).is_some_and(facts::is_locked)
}
