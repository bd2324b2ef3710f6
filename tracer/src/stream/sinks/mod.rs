//! Where records go: one file for each way.

mod bodies;
mod connection;
mod datagrams;
mod encode;
mod file;
mod http;
mod otlp;
mod stdout;
mod syslog;
mod wire;

#[cfg(test)]
mod tests;

use std::time::Instant;

use encode::Encoder;

use super::{
    config::{Stream, Target},
    store::Numbered,
};
use crate::notify::receiver::Failure;

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The first of them are with the receiver, but for some that it will never take.
    Took {
        /// How many, those that it refuses among them.
        records: usize,
        /// How many it refuses.
        refused: usize,
    },
    /// They are under way: [`Sink::arrived`] tells when they are there.
    Sent,
    /// The receiver takes nothing now; nothing was sent, and nothing is lost.
    Busy(String),
}

/// A way to a receiver. Each has a thread of its own and may take the time that is configured.
pub(super) trait Sink: Send {
    /// Sends a batch, which is not empty.
    fn deliver(&mut self, batch: &[Numbered]) -> Result<Outcome, Failure>;

    /// The number up to which what was sent is known to have arrived, if that is known to have changed. If
    /// it fails, all that is not known to have arrived must be sent again.
    fn arrived(&mut self) -> Result<Option<u64>, Failure> {
        Ok(None)
    }

    /// Opens files anew: somebody has moved them.
    fn reopen(&mut self) {}

    /// When [`arrived`](Self::arrived) is to be asked in any case.
    fn due(&self) -> Option<Instant> {
        None
    }
}

/// All of a batch was taken.
fn took(batch: &[Numbered]) -> Outcome {
    Outcome::Took {
        records: batch.len(),
        refused: 0,
    }
}

/// The way that a stream takes.
pub(super) fn sink(stream: &Stream) -> Box<dyn Sink> {
    let encoder = Encoder::new(stream);
    match &stream.target {
        Target::Stdout => Box::new(stdout::Stdout::new(encoder)),
        Target::File(file) => Box::new(file::File::new(file.clone(), encoder)),
        Target::Datagrams(path) => Box::new(datagrams::Datagrams::unix(
            path.clone(),
            stream.timeout,
            encoder,
        )),
        Target::Udp(address) => Box::new(datagrams::Datagrams::udp(
            address.clone(),
            stream.timeout,
            encoder,
        )),
        Target::Connection(to) => Box::new(connection::Connected::new(
            to.clone(),
            stream.timeout,
            encoder,
        )),
        Target::Http(http) => Box::new(http::Poster::new(http, stream.timeout, encoder)),
    }
}
