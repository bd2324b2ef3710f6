//! A stream of bytes: a socket of this host, TCP or TLS.
//!
//! Such a receiver acknowledges nothing. What its kernel has may still be lost with it, and that is known
//! only when the connection breaks. So a record counts as arrived when the receiver's kernel has all of
//! it and the connection has gone on for a while after that; what is not known to have arrived when it
//! breaks is sent again. docs/stream.md says what that cannot promise.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use super::{Outcome, Sink, encode::Encoder, wire::Wire};
use crate::{
    notify::receiver::Failure,
    stream::{config::Connection, store::Numbered},
};

/// A receiver that takes nothing gets so long before somebody else has a turn.
const TURN: Duration = Duration::from_millis(500);

/// A connection, or the wish for one.
pub(super) struct Connected {
    of: Connection,
    timeout: Duration,
    encoder: Encoder,
    wire: Option<Wire>,
    flying: VecDeque<Batch>,
}

/// What is under way.
struct Batch {
    last: u64,
    /// Bytes of the connection up to its end; none while the socket has not taken all of it.
    end: Option<u64>,
    /// Since when the receiver's kernel has all of it.
    there: Option<Instant>,
}

impl Connected {
    pub(super) fn new(of: Connection, timeout: Duration, encoder: Encoder) -> Self {
        Self {
            of,
            timeout,
            encoder,
            wire: None,
            flying: VecDeque::new(),
        }
    }

    fn broken(&mut self, error: &io::Error) -> Failure {
        self.wire = None;
        self.flying.clear();
        Failure::later(format!("the connection broke: {error}"))
    }

    /// Has the socket take what it can.
    fn flush(&mut self, wire: &mut Wire, deadline: Instant) -> io::Result<bool> {
        wire.flush(deadline)?;
        let is_flushed = wire.is_flushed();
        if is_flushed
            && let Some(last) = self.flying.back_mut()
            && last.end.is_none()
        {
            last.end = Some(wire.written());
        }
        Ok(is_flushed)
    }

    fn look(&mut self, wire: &mut Wire, now: Instant) -> io::Result<Option<u64>> {
        self.flush(wire, now)?;
        let received = wire.received()?;
        let mut arrived = None;
        for batch in &mut self.flying {
            if batch.there.is_none() && batch.end.is_some_and(|end| end <= received) {
                batch.there = Some(now);
            }
        }
        while let Some(batch) = self.flying.front()
            && let Some(there) = batch.there
            && now.saturating_duration_since(there) >= self.of.settle
        {
            arrived = Some(batch.last);
            self.flying.pop_front();
        }
        Ok(arrived)
    }
}

impl Sink for Connected {
    fn deliver(&mut self, batch: &[Numbered]) -> Result<Outcome, Failure> {
        let mut wire = if let Some(wire) = self.wire.take() {
            wire
        } else {
            self.flying.clear();
            Wire::connect(&self.of.to, self.timeout)
                .map_err(|error| Failure::later(format!("{error:#}")))?
        };
        let deadline = Instant::now() + TURN.min(self.timeout);
        match self.flush(&mut wire, deadline) {
            Err(error) => return Err(self.broken(&error)),
            Ok(false) => {
                self.wire = Some(wire);
                return Ok(Outcome::Busy("the receiver does not read".to_owned()));
            }
            Ok(true) => {}
        }
        let mut bytes = Vec::new();
        for (_, entry) in batch {
            self.encoder.frame(entry, self.of.framing, &mut bytes);
        }
        if let Some((last, _)) = batch.last() {
            self.flying.push_back(Batch {
                last: *last,
                end: None,
                there: None,
            });
        }
        let written = wire
            .write(bytes)
            .and_then(|()| self.flush(&mut wire, deadline));
        if let Err(error) = written {
            return Err(self.broken(&error));
        }
        self.wire = Some(wire);
        Ok(Outcome::Sent)
    }

    fn arrived(&mut self) -> Result<Option<u64>, Failure> {
        let Some(mut wire) = self.wire.take() else {
            return Ok(None);
        };
        match self.look(&mut wire, Instant::now()) {
            Ok(arrived) => {
                self.wire = Some(wire);
                Ok(arrived)
            }
            // Nothing is lost with a connection on which nothing was under way.
            Err(_) if self.flying.is_empty() => Ok(None),
            Err(error) => Err(self.broken(&error)),
        }
    }
}
