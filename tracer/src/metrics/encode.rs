//! A moment's metrics as text.

use std::{
    fmt::Error,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    Format, Moment, OTHER, State,
    listeners::{ListenerLabels, Values},
    own::Own,
};

pub(super) fn encode(state: State, format: Format, now: Moment) -> Result<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot {
        state,
        own: Own::read(),
        now,
    }));
    let mut out = String::new();
    match format {
        Format::Text => prometheus_text::encode(&mut out, &registry),
        Format::OpenMetrics => text::encode(&mut out, &registry),
    }
    .context("cannot write metrics")?;
    Ok(out)
}

#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) state: State,
    own: Own,
    now: Moment,
}

/// A family: name without its unit and `_total`, and what it is.
pub(super) struct Family(
    pub(super) &'static str,
    pub(super) Option<Unit>,
    pub(super) &'static str,
);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let encoder = &mut encoder;
        self.failures(encoder)?;
        self.listeners(encoder)?;
        self.processes(encoder)?;
        self.incidents(encoder)?;
        self.notifiers(encoder)?;
        self.streams(encoder)?;
        self.health(encoder)?;
        self.own(encoder)
    }
}

/// Labels and values of a family. One without any is left out: unknown is not zero.
fn family<L: EncodeLabelSet, V>(
    encoder: &mut DescriptorEncoder<'_>,
    Family(name, unit, help): Family,
    kind: MetricType,
    rows: impl IntoIterator<Item = (L, V)>,
    mut write: impl FnMut(&mut prometheus_client::encoding::MetricEncoder<'_>, V) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
    for (labels, value) in rows {
        write(&mut metric.encode_family(&labels)?, value)?;
    }
    Ok(())
}

pub(super) fn counter<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    about: Family,
    rows: impl IntoIterator<Item = (L, u64)>,
) -> Result<(), Error> {
    family(
        encoder,
        about,
        MetricType::Counter,
        rows,
        |metric, value| metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
    )
}

pub(super) fn gauge<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    about: Family,
    rows: impl IntoIterator<Item = (L, f64)>,
) -> Result<(), Error> {
    family(encoder, about, MetricType::Gauge, rows, |metric, value| {
        metric.encode_gauge(&value)
    })
}

/// No labels at all.
const ALONE: [(&str, &str); 0] = [];

impl Snapshot {
    fn failures(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let named = self.state.failures.iter().map(|(labels, failed)| {
            let values = [
                ("reason", labels.reason.code()),
                ("comm", &*labels.comm),
                ("unit", &*labels.unit),
                ("port", &*labels.port),
            ];
            (values, failed)
        });
        let other = self.state.other_failures.iter().map(|(reason, failed)| {
            let values = [
                ("reason", reason.code()),
                ("comm", OTHER),
                ("unit", OTHER),
                ("port", OTHER),
            ];
            (values, failed)
        });
        let rows: Vec<_> = named.chain(other).collect();
        counter(
            encoder,
            Family(
                "turnaway_failures",
                None,
                "Connections that were turned away, and what led to it, by reason, process, systemd unit and port",
            ),
            rows.iter().map(|(labels, failed)| (*labels, failed.count)),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_last_failure_timestamp",
                Some(Unit::Seconds),
                "When the last of these failures was, Unix time",
            ),
            rows.iter()
                .map(|(labels, failed)| (*labels, unix(failed.last))),
        )
    }

    fn listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let rows = self.state.listeners.rows();
        let gauges = |value: fn(&Values) -> Option<u64>| {
            rows.iter()
                .filter_map(move |(labels, values)| Some((of(labels), float(value(values)?))))
        };
        let counters = |value: fn(&Values) -> Option<u64>| {
            rows.iter()
                .filter_map(move |(labels, values)| Some((of(labels), value(values)?)))
        };
        gauge(
            encoder,
            Family(
                "turnaway_listener_queue_depth",
                None,
                "Connections that wait to be accepted",
            ),
            gauges(|values| values.queue.map(|(depth, _)| depth)),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_listener_queue_limit",
                None,
                "The most connections that may wait to be accepted: the effective backlog",
            ),
            gauges(|values| values.queue.map(|(_, limit)| limit)),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_listener_last_accept_age",
                Some(Unit::Seconds),
                "Since a connection was last accepted",
            ),
            rows.iter().filter_map(|(labels, values)| {
                let since = self
                    .now
                    .monotonic
                    .saturating_duration_since(values.last_accept?);
                Some((of(labels), since.as_secs_f64()))
            }),
        )?;
        counter(
            encoder,
            Family(
                "turnaway_listener_accepted",
                None,
                "Connections that were accepted",
            ),
            counters(|values| values.accepted),
        )?;
        counter(
            encoder,
            Family(
                "turnaway_listener_shed",
                None,
                "Connections that the program accepted and closed at once, unused",
            ),
            counters(|values| values.shed),
        )?;
        counter(
            encoder,
            Family(
                "turnaway_listener_syn_cookies",
                None,
                "SYN cookies that were sent since the queue of requests was full",
            ),
            counters(|values| values.cookies),
        )?;
        self.waits(encoder, &rows)
    }

    fn waits(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        rows: &[(std::sync::Arc<ListenerLabels>, Values)],
    ) -> Result<(), Error> {
        let bounds = self.state.listeners.bounds();
        family(
            encoder,
            Family(
                "turnaway_listener_queue_wait",
                Some(Unit::Seconds),
                "How long connections waited to be accepted; the sum is an estimate from the buckets",
            ),
            MetricType::Histogram,
            rows.iter()
                .filter_map(|(labels, values)| Some((of(labels), values.waited?))),
            |metric, waited| {
                let mut buckets: Vec<(f64, u64)> = bounds
                    .iter()
                    .zip(waited)
                    .map(|(bound, count)| (bound.as_secs_f64(), count))
                    .collect();
                let beyond = waited.iter().skip(bounds.len()).sum();
                buckets.push((f64::INFINITY, beyond));
                let count = waited.iter().sum();
                metric.encode_histogram::<NoLabelSet>(
                    estimate(&bounds, &waited),
                    count,
                    &buckets,
                    None,
                )
            },
        )
    }

    fn processes(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let rows: Vec<_> = self
            .state
            .processes
            .iter()
            .map(|row| {
                let labels = [
                    ("pid", &*row.pid),
                    ("comm", &*row.comm),
                    ("unit", &*row.unit),
                ];
                (labels, row.used, row.limit)
            })
            .collect();
        gauge(
            encoder,
            Family(
                "turnaway_process_open_fds",
                None,
                "Open descriptors of a process that has too few, or soon may",
            ),
            rows.iter()
                .filter_map(|(labels, used, _)| Some((*labels, float((*used)?)))),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_process_max_fds",
                None,
                "Its limit of open descriptors: the soft RLIMIT_NOFILE",
            ),
            rows.iter()
                .filter_map(|(labels, _, limit)| Some((*labels, float((*limit)?)))),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_process_fds",
                Some(Unit::Other("ratio".to_owned())),
                "Its open descriptors as a part of its limit",
            ),
            rows.iter().filter_map(|(labels, used, limit)| {
                let limit = (*limit).filter(|limit| *limit > 0)?;
                Some((*labels, float((*used)?) / float(limit)))
            }),
        )
    }

    fn incidents(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let incidents = self.state.incidents.as_ref();
        let label = |severity: crate::alert::Severity| [("severity", severity.name())];
        gauge(
            encoder,
            Family("turnaway_incidents_firing", None, "Incidents that fire now"),
            incidents
                .iter()
                .flat_map(|incidents| incidents.firing.each())
                .map(|(severity, count)| (label(severity), float(count))),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_incidents_pending",
                None,
                "Incidents that will fire if they last",
            ),
            incidents
                .iter()
                .map(|incidents| (ALONE, float(incidents.pending))),
        )?;
        counter(
            encoder,
            Family(
                "turnaway_incidents_fired",
                None,
                "Incidents that began to fire since turnaway started",
            ),
            incidents
                .iter()
                .flat_map(|incidents| incidents.fired.each())
                .map(|(severity, count)| (label(severity), count)),
        )
    }

    fn notifiers(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let notifiers = &self.state.notifiers;
        let rows = |value: fn(&super::NotifierState) -> u64| {
            notifiers
                .iter()
                .map(move |(name, state)| ([("notifier", &**name)], value(state)))
        };
        counter(
            encoder,
            Family(
                "turnaway_notifications_delivered",
                None,
                "Notifications that arrived",
            ),
            rows(|state| state.delivered),
        )?;
        counter(
            encoder,
            Family(
                "turnaway_notifications_failed",
                None,
                "Attempts to deliver a notification that failed",
            ),
            rows(|state| state.failed),
        )?;
        counter(
            encoder,
            Family(
                "turnaway_notifications_dropped",
                None,
                "Notifications that were given up",
            ),
            rows(|state| state.dropped),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_notifications_queued",
                None,
                "Notifications that wait to be delivered",
            ),
            rows(|state| state.queued).map(|(labels, count)| (labels, float(count))),
        )
    }

    fn health(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let health = self.state.health.as_ref();
        counter(
            encoder,
            Family(
                "turnaway_events",
                None,
                "Exemplars of failures that were taken from the kernel",
            ),
            health.iter().map(|health| (ALONE, health.events)),
        )?;
        let drops = health.iter().flat_map(|health| {
            [
                ("ring", Some(health.losses.ring)),
                ("map", Some(health.losses.map)),
                ("missed", health.losses.missed),
                ("output", Some(health.output)),
                ("recording", health.recording),
            ]
        });
        counter(
            encoder,
            Family(
                "turnaway_drops",
                None,
                "What was not seen or not kept: exemplars (ring), failures (map), runs of a hook (missed), records (output, recording)",
            ),
            drops.filter_map(|(kind, count)| Some(([("kind", kind)], count?))),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_hook_attached",
                None,
                "Whether a hook is in place: 1 if it is",
            ),
            health.iter().flat_map(|health| &health.hooks).map(|hook| {
                let tier = hook.tier.map_or("", crate::event::Tier::name);
                let labels = [("hook", hook.hook.name()), ("tier", tier)];
                (labels, f64::from(u8::from(hook.tier.is_some())))
            }),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_loop_lag",
                Some(Unit::Seconds),
                "How late the last reading of the counters was",
            ),
            health
                .iter()
                .map(|health| (ALONE, health.lag.as_secs_f64())),
        )?;
        gauge(
            encoder,
            Family(
                "turnaway_last_reading_age",
                Some(Unit::Seconds),
                "Since the counters were last read",
            ),
            health.iter().map(|health| {
                let age = self.now.monotonic.saturating_duration_since(health.read);
                (ALONE, age.as_secs_f64())
            }),
        )?;
        let dropped = [
            ("failures", self.state.failures.dropped()),
            ("listeners", self.state.listeners.dropped()),
            ("processes", self.state.processes_dropped),
        ];
        counter(
            encoder,
            Family(
                "turnaway_series_dropped",
                None,
                "How often something had no room for series of its own and went into those called other",
            ),
            dropped.map(|(family, count)| ([("family", family)], count)),
        )
    }

    fn own(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        encoder
            .encode_descriptor(
                "turnaway_build",
                "The version of turnaway",
                None,
                MetricType::Info,
            )?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let own = self.own;
        family(
            encoder,
            Family(
                "process_cpu",
                Some(Unit::Seconds),
                "Processor time that turnaway has taken, user and system",
            ),
            MetricType::Counter,
            own.cpu.map(|cpu| (ALONE, cpu.as_secs_f64())),
            |metric, value| metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        )?;
        gauge(
            encoder,
            Family(
                "process_resident_memory",
                Some(Unit::Bytes),
                "Resident memory of turnaway",
            ),
            own.resident.map(|bytes| (ALONE, float(bytes))),
        )?;
        gauge(
            encoder,
            Family(
                "process_start_time",
                Some(Unit::Seconds),
                "When turnaway started, Unix time",
            ),
            self.state.started.map(|started| (ALONE, unix(started))),
        )
    }
}

fn of(labels: &ListenerLabels) -> [(&'static str, &str); 5] {
    [
        ("listener", &labels.listener),
        ("netns", &labels.netns),
        ("socket", &labels.socket),
        ("comm", &labels.comm),
        ("unit", &labels.unit),
    ]
}

/// What waits come to if each took the middle of its slot.
fn estimate(bounds: &[Duration], waited: &[u64]) -> f64 {
    let Some(jiffy) = bounds.first() else {
        return 0.0;
    };
    let mut sum = 0.0;
    let mut upper = jiffy.as_secs_f64();
    let mut lower = 0.0;
    for count in waited {
        sum += float(*count) * f64::midpoint(lower, upper);
        lower = upper;
        upper *= 2.0;
    }
    sum
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// As Prometheus keeps every value.
#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 2^53 the last digits do not matter"
)]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}
