//! The records themselves: one line each.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Clock, Failures, FdFields, HoldingsFields, Hook, KeyFields, ListenerFields, ListeningFields,
    Lost, PeerFields, Run, SCHEMA, WaitFields, Waits,
    clock::rfc3339,
    names::{ReasonCode, Time},
};
use crate::{
    attribute::{Who, holdings::Holdings},
    event::{Failure, Listener},
    history, text,
};

/// What every line begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct Head {
    schema: &'static str,
    r#type: &'static str,
    #[schemars(with = "Time")]
    time: String,
    /// Name of the host.
    host: String,
}

impl Head {
    fn new(kind: &'static str, time: Timestamp, host: &str) -> Self {
        Self {
            schema: SCHEMA,
            r#type: kind,
            time: rfc3339(time),
            host: host.to_owned(),
        }
    }
}

/// An exemplar: one failure in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "event")]
pub struct Event {
    #[serde(flatten)]
    head: Head,
    /// When, nanoseconds of CLOCK_MONOTONIC.
    monotonic_ns: u64,
    #[serde(flatten)]
    key: KeyFields,
    /// How long the connection waited, or a stall lasts, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_ns: Option<u64>,
    /// Of queue.stalled, fd.pressure and fd.table_pressure only; what ended is not one more failure.
    #[schemars(extend("enum" = ["began", "ended"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holdings: Option<HoldingsFields>,
}

impl Event {
    /// The record of a failure on `host`. `fd_used` is the number of open descriptors,
    /// counted as soon after the failure as could be.
    #[must_use]
    pub fn new(
        host: &str,
        failure: &Failure,
        who: &Who,
        fd_used: Option<u64>,
        clock: &Clock,
    ) -> Self {
        let mut key = KeyFields::new(&failure.key, &failure.listener, who, fd_used, clock);
        key.peer = key.peer.or(failure.peer.map(PeerFields::new));
        key.fd = key.fd.or(failure.descriptors.map(FdFields::of_table));
        Self {
            head: Head::new("event", clock.wall_of_monotonic(failure.monotonic_ns), host),
            monotonic_ns: failure.monotonic_ns,
            key,
            waited_ns: failure.waited_ns,
            state: failure.key.reason.lasts().then_some(if failure.ended {
                "ended"
            } else {
                "began"
            }),
            holdings: None,
        }
    }

    /// The same with what holds the process's descriptors.
    #[must_use]
    pub fn holding(mut self, holdings: Option<&Holdings>) -> Self {
        self.holdings = holdings.map(HoldingsFields::new);
        self
    }
}

/// Exact growth of one key since its last record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "count")]
pub struct CountRecord {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    total: SummaryTotal,
}

impl CountRecord {
    /// The record of `failures` on `host`, which were read at `time`.
    #[must_use]
    pub fn new(host: &str, time: Timestamp, failures: &Failures<'_>, clock: &Clock) -> Self {
        Self {
            head: Head::new("count", time, host),
            total: SummaryTotal::new(failures, clock),
        }
    }
}

/// How many connections more were accepted at a listener. Only in what the daemon records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "accepted")]
pub struct AcceptedRecord {
    #[serde(flatten)]
    head: Head,
    listener: ListenerFields,
    /// Connections that were accepted there since the last such record.
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<WaitFields>,
}

impl AcceptedRecord {
    /// The record of `count` connections at a listener on `host`, read at `time`.
    #[must_use]
    pub fn new(
        host: &str,
        time: Timestamp,
        (inode, listener): (u64, &Listener),
        count: u64,
        waits: Option<&Waits>,
    ) -> Self {
        Self {
            head: Head::new("accepted", time, host),
            listener: ListenerFields::new(Some(inode), listener),
            count,
            waited: waits.map(WaitFields::new),
        }
    }
}

/// A run that is recorded began, goes on in another file, or ended. Only in what the daemon records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "run")]
pub struct RunRecord {
    #[serde(flatten)]
    head: Head,
    /// continued: in another file.
    #[schemars(extend("enum" = ["began", "continued", "ended"]))]
    state: &'static str,
    /// Version of turnaway.
    version: &'static str,
    /// Accepted connections are seen, and recorded where rules ask for them: a listener without such a
    /// record accepted none.
    accepts: bool,
    /// What could not be kept, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<Lost>,
}

impl RunRecord {
    /// A run began here.
    #[must_use]
    pub fn began(host: &str, time: Timestamp, accepts: bool) -> Self {
        Self {
            head: Head::new("run", time, host),
            state: "began",
            version: env!("CARGO_PKG_VERSION"),
            accepts,
            lost: None,
        }
    }

    /// The run goes on in this file.
    #[must_use]
    pub fn continued(self, time: Timestamp) -> Self {
        let host = self.head.host;
        Self {
            head: Head::new("run", time, &host),
            state: "continued",
            ..self
        }
    }

    /// The run ended.
    #[must_use]
    pub fn ended(self, time: Timestamp, lost: Lost) -> Self {
        let host = self.head.host;
        Self {
            head: Head::new("run", time, &host),
            state: "ended",
            lost: Some(lost),
            ..self
        }
    }
}

/// That turnaway lives, and what it sees: a reader must tell silence from blindness. Only in what goes to a
/// stream.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "heartbeat")]
pub struct HeartbeatRecord {
    #[serde(flatten)]
    head: Head,
    #[schemars(with = "Time")]
    since: String,
    uptime_s: f64,
    /// Version of turnaway.
    version: &'static str,
    /// Release of the kernel.
    kernel: String,
    hooks: Vec<Hook>,
    /// Failures since the last one, by reason; a reason without any is absent.
    counts: BTreeMap<&'static str, u64>,
    /// Reasons that were watched since the last one without loss, of which nothing was counted.
    #[schemars(extend("uniqueItems" = true), with = "Vec<ReasonCode>")]
    ruled_out: Vec<&'static str>,
    /// Reasons that cannot be watched, or not of all programs.
    blind: Vec<Blind>,
    lost: Lost,
    /// Listeners that were seen to accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    listeners: Option<usize>,
}

/// A reason that cannot be watched, or not of all programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "blind")]
pub struct Blind {
    /// Its code.
    #[schemars(with = "ReasonCode")]
    pub reason: &'static str,
    /// In words that may change with any version.
    pub why: String,
}

/// What a heartbeat says.
#[derive(Clone, Debug)]
pub struct Beat {
    /// When the one before was, or the run began.
    pub since: Timestamp,
    /// How long turnaway runs.
    pub uptime: Duration,
    /// The hooks.
    pub hooks: Vec<Hook>,
    /// Failures since then, by reason.
    pub counts: BTreeMap<&'static str, u64>,
    /// Reasons that were watched all the time without loss, of which nothing was counted.
    pub ruled_out: Vec<&'static str>,
    /// Reasons that cannot be watched, or not of all programs.
    pub blind: Vec<Blind>,
    /// What could not be kept since turnaway runs.
    pub lost: Lost,
    /// Listeners that were seen to accept.
    pub listeners: Option<usize>,
}

impl HeartbeatRecord {
    /// The record on `host`, at `time`.
    #[must_use]
    pub fn new(host: &str, time: Timestamp, beat: Beat) -> Self {
        Self {
            head: Head::new("heartbeat", time, host),
            since: rfc3339(beat.since),
            uptime_s: beat.uptime.as_secs_f64(),
            version: env!("CARGO_PKG_VERSION"),
            kernel: text::json(rustix::system::uname().release().to_bytes()),
            hooks: beat.hooks,
            counts: beat.counts,
            ruled_out: beat.ruled_out,
            blind: beat.blind,
            lost: beat.lost,
            listeners: beat.listeners,
        }
    }
}

/// A program ran, or runs, for longer than a moment. Only in what the daemon records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "program")]
pub struct ProgramRecord {
    #[serde(flatten)]
    head: Head,
    pid: u32,
    /// Its name.
    program: String,
    #[schemars(with = "Time")]
    started: String,
    #[schemars(with = "Option<Time>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<String>,
    /// Its arguments, without what looks like a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    argv: Option<String>,
    /// Name of its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
}

impl ProgramRecord {
    /// The record of a program's run on `host`, as it was known at `time`.
    #[must_use]
    pub fn new(host: &str, time: Timestamp, run: history::Run) -> Self {
        Self {
            head: Head::new("program", time, host),
            pid: run.pid,
            program: run.program,
            started: rfc3339(run.started),
            ended: run.ended.map(rfc3339),
            unit: run.unit,
            exe: run.exe,
            argv: run.argv,
            parent: run.parent,
        }
    }
}

/// One key and what it came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "total")]
pub struct SummaryTotal {
    #[serde(flatten)]
    key: KeyFields,
    /// Failures, exemplars included.
    #[schemars(range(min = 1))]
    count: u64,
    /// First of them.
    #[schemars(with = "Time")]
    first: String,
    /// Last of them.
    #[schemars(with = "Time")]
    last: String,
    /// The longest wait, or stall, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_max_ns: Option<u64>,
    /// Only the sum over several listeners is exact, not this part of it; of net.conntrack_full: at most so
    /// many.
    #[schemars(extend("const" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    approximate: Option<bool>,
}

impl SummaryTotal {
    fn new(failures: &Failures<'_>, clock: &Clock) -> Self {
        Self {
            key: KeyFields::new(
                failures.key,
                failures.listener,
                failures.who,
                // A number of descriptors belongs to a moment, not to a count.
                None,
                clock,
            ),
            count: failures.count,
            first: rfc3339(clock.wall_of_monotonic(failures.first_ns)),
            last: rfc3339(clock.wall_of_monotonic(failures.last_ns)),
            waited_max_ns: failures.waited_max_ns,
            approximate: failures.approximate.then_some(true),
        }
    }
}

/// Last line of a run.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "summary")]
pub struct Summary {
    #[serde(flatten)]
    head: Head,
    /// How long hooks were in place, seconds.
    duration_s: f64,
    /// Exact totals, most failures first.
    totals: Vec<SummaryTotal>,
    /// Failures of keys that were too many to be told apart.
    other: u64,
    lost: Lost,
    hooks: Vec<Hook>,
    /// What went well at listeners, those that accepted most first.
    listeners: Vec<ListeningFields>,
}

impl Summary {
    /// The record of a run on `host`.
    #[must_use]
    pub fn new(host: &str, run: &Run<'_>, clock: &Clock) -> Self {
        Self {
            head: Head::new("summary", run.ended, host),
            duration_s: run.duration.as_secs_f64(),
            totals: run
                .totals
                .iter()
                .map(|failures| SummaryTotal::new(failures, clock))
                .collect(),
            other: run.other,
            lost: run.lost,
            hooks: run.hooks.to_vec(),
            listeners: run.listeners.iter().map(ListeningFields::new).collect(),
        }
    }
}
