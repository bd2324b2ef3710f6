//! A record on its way, with what is asked of it without reading it.

use serde::Deserialize;

use crate::alert::Severity;

/// What type a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An exemplar: one failure of those that are counted.
    Event,
    /// Exact growth of a counter.
    Count,
    /// An incident began, changed or ended.
    Incident,
    /// turnaway lives, and what it can see.
    Heartbeat,
    /// The end of a run.
    Summary,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::Event,
        Self::Count,
        Self::Incident,
        Self::Heartbeat,
        Self::Summary,
    ];

    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Count => "count",
            Self::Incident => "incident",
            Self::Heartbeat => "heartbeat",
            Self::Summary => "summary",
        }
    }
}

/// A record on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unlike that of every other record of any host: receivers tell by it what they have already.
    pub id: String,
    /// Its type.
    pub kind: Kind,
    /// How bad it is; none where that makes no sense.
    pub severity: Option<Severity>,
    /// Its reason, if it has one.
    pub reason: Option<String>,
    /// When, nanoseconds since 1970.
    pub time_ns: i64,
    /// The native record, one line without its end, the id in it.
    pub line: String,
}

impl Entry {
    /// Bytes that it takes in memory, about.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + self.id.len()
            + self.reason.as_ref().map_or(0, String::len)
            + self.line.len()
    }

    /// As it is kept on disk.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let severity = self.severity.map_or(0, |severity| severity as u8 + 1);
        let reason = self.reason.as_deref().unwrap_or_default();
        let short = |text: &str| u8::try_from(text.len()).unwrap_or(u8::MAX);
        let (id, reason) = (cut(&self.id), cut(reason));
        out.extend([self.kind as u8, severity, short(id), short(reason)]);
        out.extend(self.time_ns.to_le_bytes());
        out.extend(id.as_bytes());
        out.extend(reason.as_bytes());
        out.extend(self.line.as_bytes());
    }

    /// The same, read; none where it is nothing that was ever written.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (&[kind, severity, id, reason], rest) = bytes.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let (id, rest) = rest.split_at_checked(id.into())?;
        let (reason, line) = rest.split_at_checked(reason.into())?;
        Some(Self {
            id: text(id)?,
            kind: *Kind::ALL.get(usize::from(kind))?,
            severity: match severity {
                0 => None,
                1 => Some(Severity::Info),
                2 => Some(Severity::Warning),
                3 => Some(Severity::Critical),
                _ => return None,
            },
            reason: (!reason.is_empty()).then(|| text(reason)).flatten(),
            time_ns: i64::from_le_bytes(*time),
            line: text(line)?,
        })
    }
}

/// Ids and reasons are short; a length is one byte.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(usize::from(u8::MAX))]
}

/// Adds a field to a line of JSON that is an object.
pub(super) fn add_field(line: &mut String, name: &str, value: &str) {
    if line.pop() == Some('}') {
        if !line.ends_with('{') {
            line.push(',');
        }
        line.push('"');
        line.push_str(name);
        line.push_str("\":");
        line.push_str(value);
        line.push('}');
    }
}

/// Gives every record an id: chance for this run, and a number in it.
#[derive(Debug)]
pub(super) struct Ids {
    run: String,
    next: u64,
}

impl Ids {
    pub(super) fn new() -> Self {
        // The kernel's own chance: two hosts that boot at once from one image must differ.
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        let mut run: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
        if run.len() < 16 {
            run = format!("{:032x}", fastrand::u128(..));
        }
        Self { run, next: 0 }
    }

    pub(super) fn next(&mut self) -> String {
        self.next += 1;
        format!("{}-{}", self.run, self.next)
    }
}

#[cfg(test)]
pub(super) fn sample(number: u64, kind: Kind) -> Entry {
    Entry {
        id: format!("run-{number}"),
        kind,
        severity: Some(Severity::Warning),
        reason: Some("accept.emfile".to_owned()),
        time_ns: 1_772_507_520_123_456_789,
        line: format!(
            "{{\"schema\":\"turnaway/1\",\"type\":\"{}\",\"time\":\"2026-03-03T03:12:00.123456789Z\",\
             \"host\":\"db1\",\"reason\":\"accept.emfile\",\"process\":{{\"pid\":17,\"comm\":\"nginx\"}},\
             \"count\":{number},\"record_id\":\"run-{number}\"}}",
            kind.name()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for kind in Kind::ALL {
            let mut entry = sample(7, kind);
            for (severity, reason) in [
                (None, None),
                (Some(Severity::Critical), Some("x".to_owned())),
            ] {
                entry.severity = severity;
                entry.reason = reason;
                let mut bytes = Vec::new();
                entry.write(&mut bytes);
                assert_eq!(Entry::read(&bytes), Some(entry.clone()));
            }
        }
        for wrong in [&[][..], &[9; 40], &[0, 0, 255, 0], &[0; 11]] {
            assert_eq!(Entry::read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn no_two_records_have_one_id() {
        let (mut one, mut other) = (Ids::new(), Ids::new());
        let ids = [one.next(), one.next(), other.next(), other.next()];
        let all: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn fields_are_added_at_the_end() {
        let mut line = r#"{"a":1}"#.to_owned();
        add_field(&mut line, "b", "2");
        assert_eq!(line, r#"{"a":1,"b":2}"#);
        let mut line = "{}".to_owned();
        add_field(&mut line, "b", "\"x\"");
        assert_eq!(line, r#"{"b":"x"}"#);
    }
}
