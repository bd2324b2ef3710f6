//! Syslog on this host, in the format of RFC 5424.

use std::{fmt::Write as _, path::PathBuf, process, time::Duration};

use jiff::Timestamp;
use rustix::io::Errno;

use super::{
    config::Facility,
    datagram,
    journald::priority,
    receiver::{Failure, Receiver},
    wording,
};
use crate::alert::{Alert, Status};

/// RFC 5424 wants a number of the enterprise that defines an element; this one is for whoever has
/// none (RFC 5612).
const ELEMENT: &str = "turnaway@32473";
/// What every receiver takes of a message, by RFC 5424 (section 6.1).
const MAX: usize = 2_048;
/// What one value takes of it at most.
const MAX_VALUE: usize = 128;
/// Labels that go into it.
const LABELS: [&str; 8] = [
    "alertname",
    "reason",
    "comm",
    "unit",
    "container",
    "pod",
    "listener",
    "port",
];

/// Syslog.
pub(super) struct Syslog {
    path: PathBuf,
    facility: Facility,
    timeout: Duration,
}

impl Syslog {
    pub(super) fn new(path: PathBuf, facility: Facility, timeout: Duration) -> Self {
        Self {
            path,
            facility,
            timeout,
        }
    }
}

impl Receiver for Syslog {
    fn deliver(&mut self, alert: &Alert) -> Result<(), Failure> {
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy().into_owned();
        let message = line(alert, self.facility, Timestamp::now(), &host, process::id());
        let sent = match datagram::connect(&self.path, self.timeout) {
            // It is a socket of the other kind.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTOTYPE) => {
                datagram::stream(&self.path, self.timeout, message.as_bytes())
            }
            Err(error) => Err(error),
            Ok(socket) => socket.send(message.as_bytes()).map(drop),
        };
        sent.map_err(|error| Failure::later(error.to_string()))
    }
}

fn line(alert: &Alert, facility: Facility, now: Timestamp, host: &str, pid: u32) -> String {
    let number = facility as u8 * 8 + priority(alert);
    let time = now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    let host = name(host);
    let status = match alert.status {
        Status::Firing => "firing",
        Status::Resolved => "resolved",
    };
    let mut data = format!("[{ELEMENT}");
    let own = [
        ("id", alert.id.as_str()),
        ("status", status),
        ("severity", alert.severity.name()),
    ];
    let labels = LABELS
        .iter()
        .filter_map(|name| Some((*name, alert.labels.get(*name)?.as_str())));
    for (name, value) in own.into_iter().chain(labels) {
        // Writing to a string cannot fail.
        let _ = write!(data, " {name}=\"{}\"", escape(value));
    }
    data.push(']');
    let head = format!("<{number}>1 {time} {host} turnaway {pid} alert {data} ");
    let room = MAX.saturating_sub(head.len());
    head + &wording::cut(&wording::headline(alert), room)
}

/// A host's name as a header takes it.
pub(crate) fn name(host: &str) -> String {
    let host: String = host
        .chars()
        .filter(char::is_ascii_graphic)
        .take(255)
        .collect();
    if host.is_empty() {
        "-".to_owned()
    } else {
        host
    }
}

/// Three characters end a value; control characters end the line.
pub(crate) fn escape(value: &str) -> String {
    let value = wording::cut(&wording::line(value), MAX_VALUE);
    let mut out = String::new();
    for char in value.chars() {
        if ['"', '\\', ']'].contains(&char) {
            out.push('\\');
        }
        out.push(char);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        os::unix::net::{UnixDatagram, UnixListener},
        time::Duration,
    };

    use super::{Syslog, line};
    use crate::{
        alert::Status,
        notify::{config::Facility, receiver::Receiver as _, sample},
    };

    #[test]
    fn it_is_as_the_standard_wants_it() {
        let mut alert = sample("a", Status::Firing);
        alert
            .labels
            .insert("comm".to_owned(), "a\"b]c\nd".to_owned());
        let now = "2026-03-03T03:12:00.5Z".parse().unwrap();
        assert_eq!(
            line(&alert, Facility::Daemon, now, "db 1", 17),
            "<26>1 2026-03-03T03:12:00.500000Z db1 turnaway 17 alert [turnaway@32473 id=\"a\" \
             status=\"firing\" severity=\"critical\" alertname=\"TurnawayAcceptEmfile\" \
             reason=\"accept.emfile\" comm=\"a\\\"b\\]c d\" unit=\"pgbouncer.service\" \
             listener=\"0.0.0.0:6432\"] critical: pgbouncer turns clients away: 1024 of 1024 \
             descriptors"
        );
        alert
            .annotations
            .insert("summary".to_owned(), "x".repeat(9_000));
        assert_eq!(line(&alert, Facility::Local7, now, "", 17).len(), 2_048);
    }

    #[test]
    fn both_kinds_of_sockets_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let alert = sample("a", Status::Resolved);
        let syslog = |name: &str| {
            Syslog::new(
                dir.path().join(name),
                Facility::User,
                Duration::from_mins(1),
            )
        };
        let datagrams = UnixDatagram::bind(dir.path().join("datagrams")).unwrap();
        syslog("datagrams").deliver(&alert).unwrap();
        let mut buffer = [0; 4096];
        let length = datagrams.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"<13>1 "));

        let listener = UnixListener::bind(dir.path().join("stream")).unwrap();
        syslog("stream").deliver(&alert).unwrap();
        let mut text = String::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_string(&mut text)
            .unwrap();
        assert!(
            text.starts_with("<13>1 ") && text.ends_with("descriptors\n"),
            "{text}"
        );
        assert!(syslog("none").deliver(&alert).is_err());
    }
}
