//! Records as bytes for a receiver. Pure.

use std::borrow::Cow;

use super::syslog;
use crate::stream::{
    config::{Framing, Stream, Syslog},
    entry::Entry,
    format::{Format, Object, convert},
};

/// Makes bytes of records.
#[derive(Debug)]
pub(super) struct Encoder {
    envelope: Option<Syslog>,
    pub(super) format: Format,
    pub(super) host: String,
}

impl Encoder {
    pub(super) fn new(stream: &Stream) -> Self {
        let uname = rustix::system::uname();
        Self {
            envelope: stream.envelope,
            format: stream.format,
            host: crate::text::json(uname.nodename().to_bytes()),
        }
    }

    /// The record as it is sent, in its envelope if there is one. There is no line feed in it.
    pub(super) fn message<'a>(&self, entry: &'a Entry) -> Cow<'a, str> {
        match self.envelope {
            None => self.json(entry),
            Some(envelope) => {
                let native = object(entry);
                let mut message = syslog::head(envelope, &self.host, entry, &native);
                match self.format {
                    Format::Native => message.push_str(&entry.line),
                    other => message.push_str(&told(other, native)),
                }
                Cow::Owned(message)
            }
        }
    }

    /// The record alone, in the words that are asked for.
    pub(super) fn json<'a>(&self, entry: &'a Entry) -> Cow<'a, str> {
        match self.format {
            Format::Native => Cow::Borrowed(&entry.line),
            other => Cow::Owned(told(other, object(entry))),
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

fn told(format: Format, native: Object) -> String {
    // Twice as fast as to format it; there is nothing in it that JSON cannot say.
    serde_json::to_string(&convert(format, native)).unwrap_or_default()
}

/// What was written can be read: it is JSON of our own, and an object.
fn object(entry: &Entry) -> Object {
    serde_json::from_str(&entry.line).unwrap_or_default()
}
