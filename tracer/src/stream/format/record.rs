//! A native record, as both formats need it.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{
    meaning::{Meaning, Outcome, Side},
    object::{Object, Value, number, object, text},
};
use crate::{incident::plain, observation::Code};

/// How bad a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    /// That of a record: an incident says it, limits that come near are good to know, failures are more.
    pub(super) fn of(record: &Object, code: Option<&str>) -> Self {
        match text(record, "severity") {
            Some("critical") => return Self::Critical,
            Some("warning") => return Self::Warning,
            Some(_) => return Self::Info,
            None => {}
        }
        match code {
            Some(code) if !Code::new(code).is_pressure() => Self::Warning,
            _ => Self::Info,
        }
    }

    /// Its number in OCSF: 0 is unknown, 6 the worst. ECS leaves numbers to the source: it has the same.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Info => 1,
            Self::Warning => 3,
            Self::Critical => 5,
        }
    }
}

/// The reason code of a record; of an incident, that of its cause.
pub(super) fn reason(record: &Object) -> Option<&str> {
    text(record, "reason").or_else(|| {
        let first = record.get("reasons")?.as_array()?.first()?;
        text(first.as_object()?, "reason")
    })
}

/// Whether a connection failed, as far as that is known.
pub(super) fn outcome(record: &Object, meaning: Option<Meaning>) -> Outcome {
    let is_over = text(record, "state") == Some("ended");
    // connect waited for room, and then there was some, or a signal came.
    let is_unclear = text(record, "reason") == Some("queue.unix_full")
        && !record.contains_key("errno")
        && record.contains_key("tier");
    match meaning {
        Some(meaning) if !is_over && !is_unclear => meaning.outcome(),
        _ => Outcome::Unknown,
    }
}

/// A time of RFC 3339.
pub(super) fn time(record: &Object, name: &str) -> Option<Timestamp> {
    text(record, name)?.parse().ok()
}

/// Its last `name`: when the last failure of an incident was.
pub(super) fn last_of_reasons(record: &Object) -> Option<&str> {
    let reasons = record.get("reasons")?.as_array()?;
    // Times of one format are in the order of their text.
    reasons
        .iter()
        .filter_map(|reason| reason.get("last")?.as_str())
        .max()
}

/// What identifies a process on all hosts: pids are reused.
pub(super) fn entity(host: Option<&str>, process: &Object) -> Option<String> {
    let (host, pid) = (host?, number(process, "pid")?);
    let start = text(process, "start_time")?;
    Some(format!("{host}/{pid}/{start}"))
}

/// A record in words.
pub(super) fn words(record: &Object, meaning: Option<Meaning>) -> Option<String> {
    match text(record, "type")? {
        "incident" => text(record, "statement").map(str::to_owned),
        "event" | "count" => Some(of_failures(record, meaning?)),
        "heartbeat" => Some(of_heartbeat(record)),
        "summary" => Some(format!(
            "turnaway ends: {} after {} s",
            times(of_totals(record)),
            record
                .get("duration_s")
                .and_then(Value::as_f64)
                .unwrap_or(0.0)
        )),
        "program" => {
            let ended = record.contains_key("ended");
            let program = plain(text(record, "program")?);
            Some(format!(
                "{program} {}",
                if ended { "has ended" } else { "runs" }
            ))
        }
        "run" => Some(format!("a run of turnaway {}", text(record, "state")?)),
        "accepted" => Some(format!(
            "{} connections were accepted",
            number(record, "count")?
        )),
        _ => None,
    }
}

fn of_failures(record: &Object, meaning: Meaning) -> String {
    let mut out = object(record, "process")
        .and_then(who)
        .unwrap_or_else(|| match meaning.side {
            Side::Descriptors | Side::Network => "the host".to_owned(),
            Side::Server | Side::Client => "a process that is not known".to_owned(),
        });
    let place = match meaning.side {
        Side::Client => object(record, "peer")
            .and_then(place)
            .map(|place| (" to ", place)),
        _ => object(record, "listener")
            .and_then(place)
            .map(|place| (" on ", place)),
    };
    // Writing to a string cannot fail.
    if let Some((word, place)) = place {
        let _ = write!(out, "{word}{place}");
    }
    let _ = write!(out, ": {}", meaning.says);
    if let Some(errno) = text(record, "errno") {
        let _ = write!(out, " ({})", plain(errno));
    }
    if let Some(fd) = object(record, "fd")
        && let (Some(used), Some(limit)) = (number(fd, "used"), number(fd, "limit"))
    {
        let _ = write!(out, ", {used} of {limit}");
    }
    if text(record, "state") == Some("ended") {
        out.push_str("; it has passed");
    }
    if let Some(count) = number(record, "count") {
        let _ = write!(out, ", {}", times(count));
    }
    out
}

fn times(count: u64) -> String {
    if count == 1 {
        "once".to_owned()
    } else {
        format!("{count} times")
    }
}

/// A process, as it is named in a sentence.
pub(super) fn who(process: &Object) -> Option<String> {
    let name = text(process, "comm").map(plain);
    let pid = number(process, "pid");
    let unit = text(process, "unit").map(plain);
    let mut out = match (name, pid) {
        (Some(name), Some(pid)) => format!("{name} (pid {pid}"),
        (None, Some(pid)) => format!("a process (pid {pid}"),
        (Some(name), None) => return Some(name),
        (None, None) => return None,
    };
    if let Some(unit) = unit {
        let _ = write!(out, ", {unit}");
    }
    out.push(')');
    Some(out)
}

/// Where something listens.
pub(super) fn place(listener: &Object) -> Option<String> {
    if let Some(path) = text(listener, "path") {
        return Some(plain(path));
    }
    let address = plain(text(listener, "address")?);
    Some(match number(listener, "port") {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address,
    })
}

fn of_totals(record: &Object) -> u64 {
    let totals = record.get("totals").and_then(Value::as_array);
    let counts = totals
        .into_iter()
        .flatten()
        .filter_map(|total| total.get("count")?.as_u64())
        .chain(number(record, "other"));
    counts.fold(0, u64::saturating_add)
}

fn of_heartbeat(record: &Object) -> String {
    let hooks = record.get("hooks").and_then(Value::as_array);
    let hooks: Vec<_> = hooks.into_iter().flatten().collect();
    let attached = hooks
        .iter()
        .filter(|hook| hook.get("status").and_then(Value::as_str) == Some("attached"))
        .count();
    let counts = object(record, "counts");
    let failures = counts
        .into_iter()
        .flat_map(Object::values)
        .filter_map(Value::as_u64)
        .fold(0, u64::saturating_add);
    let lost = object(record, "lost").is_some_and(|lost| {
        ["ring", "map", "missed"]
            .iter()
            .any(|name| number(lost, name).is_some_and(|lost| lost > 0))
    });
    format!(
        "turnaway watches with {attached} of {} hooks: {failures} failures since the last heartbeat{}",
        hooks.len(),
        if lost {
            ", and some were lost since it began"
        } else {
            ""
        }
    )
}

/// When a run began whose record says how long it took.
pub(super) fn began(record: &Object) -> Option<Timestamp> {
    let duration = record.get("duration_s")?.as_f64()?;
    let duration = jiff::SignedDuration::try_from_secs_f64(duration).ok()?;
    time(record, "time")?.checked_sub(duration).ok()
}
