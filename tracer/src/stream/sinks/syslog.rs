//! Syslog messages in the format of RFC 5424, with what is searched for most in structured data. Pure.

use std::{fmt::Write as _, process};

use jiff::Timestamp;

use crate::{
    alert::Severity,
    notify::syslog::{escape, name},
    stream::{
        config::Syslog,
        entry::Entry,
        format::{Object, Value},
    },
};

/// Of what a record says, so much is structured data: the name there, and where it is.
const FIELDS: [(&str, &str); 14] = [
    ("errno", "/errno"),
    ("count", "/count"),
    ("status", "/status"),
    ("incident", "/id"),
    ("pid", "/process/pid"),
    ("comm", "/process/comm"),
    ("unit", "/process/unit"),
    ("container", "/process/container/name"),
    ("address", "/listener/address"),
    ("port", "/listener/port"),
    ("path", "/listener/path"),
    ("peer", "/peer/address"),
    ("withheld", "/stream/withheld"),
    ("lost", "/stream/lost"),
];

/// What comes before a record's JSON. That has no byte order mark, which a reader of JSON would stumble over:
/// by the standard it is a message of an encoding that is not told. `record` is native, whatever the JSON is.
pub(super) fn head(syslog: Syslog, host: &str, entry: &Entry, record: &Object) -> String {
    let severity = match entry.severity {
        Some(Severity::Critical) => 2,
        Some(Severity::Warning) => 4,
        Some(Severity::Info) | None => 6,
    };
    let number = syslog.facility as u8 * 8 + severity;
    let time = Timestamp::from_nanosecond(entry.time_ns.into()).unwrap_or_default();
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    let kind = entry.kind.name();
    let mut out = format!(
        "<{number}>1 {time} {} turnaway {} {kind} [turnaway@{} id=\"{}\" type=\"{kind}\"",
        name(host),
        process::id(),
        syslog.enterprise,
        escape(&entry.id),
    );
    if let Some(reason) = &entry.reason {
        // Writing to a string cannot fail.
        let _ = write!(out, " reason=\"{}\"", escape(reason));
    }
    let record = Record(record);
    for (name, place) in FIELDS {
        let value = match record.at(place) {
            Some(Value::String(text)) => escape(text),
            Some(Value::Number(number)) => number.to_string(),
            _ => continue,
        };
        let _ = write!(out, " {name}=\"{value}\"");
    }
    out.push_str("] ");
    out
}

struct Record<'a>(&'a Object);

impl<'a> Record<'a> {
    /// The value at a place such as `/process/pid`.
    fn at(&self, place: &str) -> Option<&'a Value> {
        let mut names = place.split('/').skip(1);
        let first = self.0.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }
}
