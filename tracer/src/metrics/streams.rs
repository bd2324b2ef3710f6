//! How sinks of records are.

use std::fmt::Error;

use prometheus_client::encoding::DescriptorEncoder;

use super::encode::{Family, Snapshot, counter, float, gauge};
use crate::stream::Health;

impl Snapshot {
    pub(super) fn streams(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let streams = &self.state.streams;
        let rows = |value: fn(&Health) -> u64| {
            streams
                .iter()
                .map(move |one| ([("stream", &*one.name)], value(one)))
        };
        counter(
            encoder,
            Family(
                "turnaway_stream_delivered",
                None,
                "Records that arrived, as far as that can be known",
            ),
            rows(|one| one.delivered),
        )?;
        counter(
            encoder,
            Family(
                "turnaway_stream_failed",
                None,
                "Attempts to deliver records that failed",
            ),
            rows(|one| one.failed_attempts),
        )?;
        let dropped = streams.iter().flat_map(|one| {
            [
                ("queue", one.overflowed),
                ("spool", one.dropped),
                ("refused", one.refused),
                ("damaged", one.damaged),
            ]
            .map(|(cause, count)| ([("stream", &*one.name), ("cause", cause)], count))
        });
        counter(
            encoder,
            Family(
                "turnaway_stream_dropped",
                None,
                "Records that will not arrive, by what became of them",
            ),
            dropped,
        )?;
        counter(
            encoder,
            Family(
                "turnaway_stream_withheld",
                None,
                "Exemplars above a configured rate, whose failures are counted",
            ),
            rows(|one| one.withheld),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_stream_waiting",
                None,
                "Records that wait, or are on their way",
            ),
            rows(|one| one.waiting).map(|(labels, count)| (labels, float(count))),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_stream_in_memory",
                None,
                "Of the records that wait, those that are not on disk",
            ),
            rows(|one| one.in_memory).map(|(labels, count)| (labels, float(count))),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_stream_spooled_bytes",
                None,
                "Bytes of records on disk",
            ),
            rows(|one| one.spooled_bytes).map(|(labels, count)| (labels, float(count))),
        )?;
        let connected = streams.iter().filter_map(|one| {
            let connected = u64::from(one.connected?);
            Some(([("stream", &*one.name)], float(connected)))
        });
        gauge(
            encoder,
            Family(
                "turnaway_stream_connected",
                None,
                "Whether the last attempt to deliver succeeded",
            ),
            connected,
        )
    }
}
