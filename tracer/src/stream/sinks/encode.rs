//! Records as bytes for a receiver. Pure.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::syslog;
use crate::stream::{
    config::{Framing, Stream, Syslog},
    entry::{Entry, Kind},
    format::{Format, convert},
};

/// Makes bytes of records.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) format: Format,
    envelope: Option<Syslog>,
    pub(super) host: String,
}

impl Encoder {
    pub(super) fn new(stream: &Stream) -> Self {
        let uname = rustix::system::uname();
        Self {
            format: stream.format,
            envelope: stream.envelope,
            host: crate::text::json(uname.nodename().to_bytes()),
        }
    }

    /// The record in its format: one line of JSON without its end.
    pub(super) fn json<'a>(&self, entry: &'a Entry) -> Cow<'a, str> {
        if self.format == Format::Native {
            return Cow::Borrowed(&entry.line);
        }
        let record = self.object(entry);
        Cow::Owned(serde_json::to_string(&record).unwrap_or_default())
    }

    /// The same as an object.
    pub(super) fn object(&self, entry: &Entry) -> Map<String, Value> {
        let mut record = native(entry);
        if self.format == Format::Native {
            return record;
        }
        // Other formats have one name for what identifies a record; an incident has an id of its own.
        if entry.kind != Kind::Incident
            && let Some(id) = record.remove("record_id")
        {
            record.insert("id".to_owned(), id);
        }
        convert(self.format, &record)
    }

    /// The record as it is sent, in its envelope if there is one. There is no line feed in it.
    pub(super) fn message<'a>(&self, entry: &'a Entry) -> Cow<'a, str> {
        let json = self.json(entry);
        match self.envelope {
            None => json,
            Some(envelope) => Cow::Owned(syslog::message(
                envelope,
                &self.host,
                entry,
                &native(entry),
                &json,
            )),
        }
    }

    /// Adds it to a stream of bytes.
    pub(super) fn frame(&self, entry: &Entry, framing: Framing, out: &mut Vec<u8>) {
        let message = self.message(entry);
        match framing {
            Framing::Ndjson => {
                out.extend(message.as_bytes());
                out.push(b'\n');
            }
            Framing::OctetCounted => {
                out.extend(message.len().to_string().as_bytes());
                out.push(b' ');
                out.extend(message.as_bytes());
            }
        }
    }
}

/// What was written can be read: it is JSON of our own, and an object.
fn native(entry: &Entry) -> Map<String, Value> {
    serde_json::from_str(&entry.line).unwrap_or_default()
}
