//! What can be told of queues by looking at them (pure): what they dropped, where hooks do
//! not see it, which of them nobody serves, and whose connections are thrown away; and what is
//! dropped before it gets to one.

mod drops;
mod sheds;
mod stalls;
mod tables;

pub use drops::Drops;
pub use sheds::Sheds;
pub use stalls::{Served, Stall, Stalls, Suspect};
pub use tables::Tables;

use crate::{
    event::{Listener, Queue},
    sockets,
};

/// A listener as a poll found it, in the terms of failures.
pub(crate) fn listener_of(found: &sockets::Listener, netns: u32) -> Listener {
    Listener {
        fd: None,
        family: Some(found.family),
        socket_type: Some(found.socket_type),
        protocol: Some(found.protocol),
        address: found.address.clone(),
        netns: Some(netns),
        queue: Some(Queue {
            depth: found.depth,
            backlog: found.limit,
        }),
    }
}
