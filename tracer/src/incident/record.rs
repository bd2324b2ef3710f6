//! The `incident` record (docs/records.md), and alerts.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cause,
    episode::{Episode, ReasonTotal, State},
    words,
};
use crate::{
    alert::{Alert, Severity, Status},
    context::Explanation,
    observation::{Code, Fd, Listener, Process},
    record::{Percentiles, SCHEMA, names::Time},
    rules::Rule,
};

/// An incident as it is written: one line when it fires, when it changes and when it is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "incident")]
pub struct IncidentRecord {
    schema: Cow<'static, str>,
    r#type: Cow<'static, str>,
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    time: Timestamp,
    /// Name of the host.
    host: String,
    /// Identifies the incident, the same in all its records and across restarts.
    pub id: String,
    /// Whether it lasts.
    pub status: Status,
    /// How bad it is, or was at its worst.
    pub severity: Severity,
    /// What it is, in one sentence.
    pub statement: String,
    /// When it began.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub started: Timestamp,
    /// When it was first told.
    #[schemars(with = "Option<Time>")]
    #[serde(serialize_with = "maybe", skip_serializing_if = "Option::is_none")]
    pub fired: Option<Timestamp>,
    /// The last that was seen of it; only once it is over.
    #[schemars(with = "Option<Time>")]
    #[serde(serialize_with = "maybe", skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The incident of the same victim that ended shortly before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again_of: Option<String>,
    /// Whose it is.
    pub victim: VictimFields,
    /// Causes before their symptoms.
    #[schemars(length(min = 1))]
    pub reasons: Vec<ReasonFields>,
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// Descriptors of the victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<Fd>,
    /// The longest that was waited, or that nobody accepted, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_max_ns: Option<u64>,
    /// How long connections waited that were accepted meanwhile at its listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<Percentiles>,
    /// Clients of this host that did not get through.
    pub sufferers: Vec<SuffererFields>,
    /// Failures of further clients.
    pub others_suffered: u64,
    /// What happened, in order.
    pub timeline: Vec<TimelineFields>,
    /// Lines of the timeline that there was no room for.
    pub untold: u64,
    /// What went on around it, and what that says of its cause; only from the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Box<Explanation>>,
}

/// Whose an incident is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "victim")]
pub struct VictimFields {
    /// Whether it turns connections away, or cannot connect.
    #[schemars(extend("enum" = ["server", "client"]))]
    pub role: Cow<'static, str>,
    /// The process; where there are several, the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessFields>,
    /// How many processes.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
    /// What it cannot connect to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The network namespace, where it is about that as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
}

/// A process in an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "incident_process")]
pub struct ProcessFields {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// When it started.
    #[schemars(with = "Option<Time>")]
    #[serde(serialize_with = "maybe", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Path of its cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<crate::observation::Container>,
}

/// What one reason came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "incident_reason")]
pub struct ReasonFields {
    /// Reason code; one of a later version is kept as it is.
    #[schemars(with = "String")]
    pub reason: Code,
    /// Failures.
    pub count: u64,
    /// First of them.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub first: Timestamp,
    /// Last of them.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub last: Timestamp,
    /// Only the sum over several listeners is exact.
    #[schemars(extend("const" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approximate: Option<bool>,
}

/// A client of this host that did not get through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "sufferer")]
pub struct SuffererFields {
    /// Who.
    pub process: ProcessFields,
    /// Its failures.
    pub count: u64,
    /// First of them.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub first: Timestamp,
    /// Last of them.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub last: Timestamp,
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "timeline")]
pub struct TimelineFields {
    /// When.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub time: Timestamp,
    /// Reason code; one of a later version is kept as it is.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Code>,
    /// What happened, in words.
    pub text: String,
}

impl ProcessFields {
    fn new(process: &Process) -> Self {
        Self {
            pid: process.pid,
            start_time: process.start_time,
            comm: process.comm.clone(),
            unit: process.unit.clone(),
            cgroup: process.cgroup.clone(),
            container: process.container.clone(),
        }
    }
}

fn reason_fields((code, total): (&Code, &ReasonTotal)) -> ReasonFields {
    ReasonFields {
        reason: code.clone(),
        count: total.failures(),
        first: total.first,
        last: total.last,
        approximate: total.approximate.then_some(true),
    }
}

impl IncidentRecord {
    /// The record of an incident as it stands at `time`.
    #[must_use]
    pub fn new(episode: &Episode, time: Timestamp) -> Self {
        let victim = &episode.victim;
        let is_over = episode.state == State::Resolved;
        Self {
            schema: SCHEMA.into(),
            r#type: "incident".into(),
            time,
            host: episode.host.clone(),
            id: episode.id.clone(),
            status: if is_over {
                Status::Resolved
            } else {
                Status::Firing
            },
            severity: episode.severity,
            statement: words::statement(episode),
            started: episode.started,
            fired: episode.fired,
            ended: is_over.then_some(episode.last),
            again_of: episode.again_of.clone(),
            victim: VictimFields {
                role: if victim.is_client { "client" } else { "server" }.into(),
                process: victim.process.as_ref().map(ProcessFields::new),
                processes: Some(victim.processes.len()).filter(|count| *count > 0),
                target: victim.target.clone(),
                netns: victim.netns,
            },
            reasons: cause::order(episode.reasons.keys())
                .into_iter()
                .filter_map(|code| episode.reasons.get_key_value(code))
                .map(reason_fields)
                .collect(),
            listeners: episode
                .places
                .iter()
                .map(|place| place.listener.clone())
                .collect(),
            fd: Some(episode.fd).filter(|fd| *fd != Fd::default()),
            waited_max_ns: episode
                .waited
                .map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            waits: episode.waits.as_ref().map(Percentiles::of),
            sufferers: episode
                .sufferers
                .iter()
                .map(|one| SuffererFields {
                    process: ProcessFields::new(&one.process),
                    count: one.total.failures(),
                    first: one.total.first,
                    last: one.total.last,
                })
                .collect(),
            others_suffered: episode.others_suffered,
            timeline: episode
                .timeline
                .iter()
                .map(|told| TimelineFields {
                    time: told.time,
                    reason: told.reason.clone(),
                    text: told.text.clone(),
                })
                .collect(),
            untold: episode.untold,
            explanation: None,
        }
    }

    /// When it was written.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }
}

/// The labels of an incident's alerts, as it stands.
pub(super) fn labels(episode: &Episode, rule: Option<&Rule>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if let Some(rule) = rule {
        labels.extend(
            rule.labels
                .iter()
                .map(|(label, value)| (label.clone(), words::plain(value))),
        );
        labels.insert("alertname".to_owned(), words::plain(&rule.name));
    }
    let mut set = |label: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            labels.insert(label.to_owned(), words::plain(value));
        }
    };
    set("severity", Some(episode.severity.name()));
    set("host", Some(&episode.host));
    set("reason", episode.root().map(Code::as_str));
    if let Some(process) = &episode.victim.process {
        set("comm", process.comm.as_deref());
        set("pid", Some(&process.pid.to_string()));
        set("unit", process.unit.as_deref());
        set("cgroup", process.cgroup.as_deref());
        if let Some(container) = &process.container {
            set("container", Some(&container.id));
            set("container_name", container.name.as_deref());
            set("pod", container.pod.as_deref());
        }
    }
    let listener = episode.places.first().and_then(|one| one.listener.place());
    set("listener", listener.as_deref());
    set("target", episode.victim.target.as_deref());
    labels
}

/// The alert of an incident whose labels are those.
pub(super) fn alert(
    episode: &Episode,
    labels: BTreeMap<String, String>,
    updated_at: Timestamp,
) -> Alert {
    let is_over = episode.state == State::Resolved;
    let mut annotations = BTreeMap::new();
    let mut note = |name: &str, text: String| {
        if !text.is_empty() {
            annotations.insert(name.to_owned(), text);
        }
    };
    note("summary", words::statement(episode));
    note("reasons", words::reasons(episode));
    let timeline: Vec<String> = episode
        .timeline
        .iter()
        .map(|told| format!("{:.3} {}", told.time, told.text))
        .collect();
    note("description", timeline.join("\n"));
    let sufferers: Vec<String> = episode
        .sufferers
        .iter()
        .map(|one| {
            let failures = one.total.failures();
            format!("{}: {failures} failures", words::process(&one.process))
        })
        .collect();
    note("sufferers", sufferers.join("\n"));
    if let Some(waits) = &episode.waits {
        note("queue_wait", words::waits(&Percentiles::of(waits)));
    }
    if let Some(limit) = episode.fd.limit {
        note("fd_limit", limit.to_string());
    }
    if let Some(used) = episode.fd.used {
        note("fd_used", used.to_string());
    }
    let lasted = episode.last.duration_since(episode.started).unsigned_abs();
    note("lasting", words::time_in_words(lasted));
    if let Some(before) = &episode.again_of {
        note("again_of", before.clone());
    }
    Alert {
        id: episode.id.clone(),
        status: if is_over {
            Status::Resolved
        } else {
            Status::Firing
        },
        severity: episode.severity,
        starts_at: episode.started,
        ends_at: is_over.then_some(episode.last),
        updated_at,
        labels,
        annotations,
    }
}

fn rfc3339<S: serde::Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.9}"))
}

#[expect(clippy::ref_option, reason = "serde hands out a reference")]
fn maybe<S: serde::Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339(time, to),
        None => to.serialize_none(),
    }
}
