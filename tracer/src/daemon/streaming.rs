//! What the daemon sends to its streams.

use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;
use turnaway_common::Reason;

use super::Daemon;
use crate::{
    alert::Severity,
    event::Failure,
    incident::Change,
    observation::Code,
    record::{Clock, Summary},
    stream::{Streams, entry::Kind},
    trace::Reading,
};

/// Limits that come near turn nobody away yet.
fn severity(reason: Reason) -> Severity {
    if Code::new(reason.code()).is_pressure() {
        Severity::Info
    } else {
        Severity::Warning
    }
}

/// An exemplar.
pub(super) fn event(
    streams: &mut Streams,
    failure: &Failure,
    clock: &Clock,
    record: &impl Serialize,
) {
    let reason = failure.key.reason;
    let time = clock.wall_of_monotonic(failure.monotonic_ns);
    streams.push(
        Kind::Event,
        Some(severity(reason)),
        Some(reason.code()),
        time,
        record,
    );
}

/// What a counter grew by.
pub(super) fn count(
    streams: &mut Streams,
    reason: Reason,
    time: Timestamp,
    record: &impl Serialize,
) {
    streams.push(
        Kind::Count,
        Some(severity(reason)),
        Some(reason.code()),
        time,
        record,
    );
}

/// What became of an incident.
pub(super) fn incident(streams: &mut Streams, change: &Change) {
    let record = &change.record;
    let reason = record.reasons.first().map(|first| first.reason.as_str());
    streams.push(
        Kind::Incident,
        Some(record.severity),
        reason,
        Timestamp::now(),
        record,
    );
}

impl Daemon {
    /// Says that turnaway lives, when it is time.
    pub(super) fn beat(&mut self, reading: &Reading<'_>) {
        let listeners = reading.listeners.as_ref().map(Vec::len);
        let beat = self
            .heartbeat
            .beat(&self.host, &self.started, &self.last, listeners);
        if let Some(record) = beat {
            self.streams
                .push(Kind::Heartbeat, None, None, Timestamp::now(), &record);
        }
    }

    /// Says what it all came to, and delivers what can still be delivered.
    pub(super) fn finish(&mut self, summary: &Summary, deadline: Instant) {
        self.streams
            .push(Kind::Summary, None, None, Timestamp::now(), summary);
        for health in self.streams.stop(deadline) {
            if let Some(error) = &health.last_error {
                log::warn!("{} ({}): {error}", health.name, health.target);
            }
        }
    }
}
