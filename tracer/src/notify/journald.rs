//! The journal of systemd, by its native protocol: fields that can be searched for.
//!
//! Crates that speak it send the records of a logging library to a fixed path; the protocol is a few
//! lines: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.

use std::{path::PathBuf, time::Duration};

use rustix::io::Errno;

use super::{
    datagram,
    receiver::{Failure, Receiver},
    wording,
};
use crate::alert::{Alert, Severity, Status};

/// Identifies alerts among all records: `journalctl MESSAGE_ID=…`.
const MESSAGE_ID: &str = "6f6b1d7c3f0e4a0b9b8f0d2b1f6f3a57";
/// Bytes of a field's name at most, by the protocol.
const MAX_NAME: usize = 64;

/// The journal.
pub(super) struct Journald {
    path: PathBuf,
    timeout: Duration,
}

impl Journald {
    pub(super) fn new(path: PathBuf, timeout: Duration) -> Self {
        Self { path, timeout }
    }
}

impl Receiver for Journald {
    fn deliver(&mut self, alert: &Alert) -> Result<(), Failure> {
        let message = encode(&fields(alert));
        let send = || {
            let socket = datagram::connect(&self.path, self.timeout)?;
            match socket.send(&message) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                    datagram::send_as_file(&socket, &message)
                }
                sent => sent.map(drop),
            }
        };
        send().map_err(|error: std::io::Error| Failure::later(error.to_string()))
    }
}

/// How bad it is, by syslog's numbers.
pub(super) fn priority(alert: &Alert) -> u8 {
    match (alert.status, alert.severity) {
        (Status::Resolved, _) => 5,
        (Status::Firing, Severity::Critical) => 2,
        (Status::Firing, Severity::Warning) => 4,
        (Status::Firing, Severity::Info) => 6,
    }
}

fn fields(alert: &Alert) -> Vec<(String, String)> {
    let status = match alert.status {
        Status::Firing => "firing",
        Status::Resolved => "resolved",
    };
    let mut fields: Vec<(String, String)> = [
        ("MESSAGE", wording::headline(alert)),
        ("PRIORITY", priority(alert).to_string()),
        ("SYSLOG_IDENTIFIER", "turnaway".to_owned()),
        ("MESSAGE_ID", MESSAGE_ID.to_owned()),
        ("TURNAWAY_ID", alert.id.clone()),
        ("TURNAWAY_STATUS", status.to_owned()),
        ("TURNAWAY_SEVERITY", alert.severity.name().to_owned()),
        ("TURNAWAY_STARTS_AT", alert.starts_at.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    for (prefix, pairs) in [
        ("TURNAWAY_LABEL_", &alert.labels),
        ("TURNAWAY_NOTE_", &alert.annotations),
    ] {
        for (name, value) in pairs {
            fields.push((field_name(prefix, name), value.clone()));
        }
    }
    fields
}

/// Names are capital letters, digits and underscores.
fn field_name(prefix: &str, name: &str) -> String {
    let name = name.chars().map(|char| match char.to_ascii_uppercase() {
        char if char.is_ascii_alphanumeric() => char,
        _ => '_',
    });
    prefix.chars().chain(name).take(MAX_NAME).collect()
}

/// `NAME=value`, or the name, a length and the value where that has several lines.
fn encode(fields: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.extend(name.as_bytes());
        if value.contains('\n') {
            out.push(b'\n');
            out.extend((value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend(value.as_bytes());
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs::File,
        io::{IoSliceMut, Read as _, Seek as _},
        os::unix::net::UnixDatagram,
        time::Duration,
    };

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::Journald;
    use crate::{
        alert::Status,
        notify::{receiver::Receiver as _, sample},
    };

    /// Reads a message as the protocol's description says.
    fn parse(mut bytes: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| b"=\n".contains(byte)).unwrap();
            let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
            assert!(name.len() <= 64 && name.starts_with(|char: char| char.is_ascii_uppercase()));
            let (value, rest) = if bytes[end] == b'=' {
                let rest = &bytes[end + 1..];
                rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap())
            } else {
                let length = u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap());
                bytes[end + 9..].split_at(usize::try_from(length).unwrap())
            };
            fields.insert(name, String::from_utf8(value.to_vec()).unwrap());
            assert_eq!(rest[0], b'\n');
            bytes = &rest[1..];
        }
        fields
    }

    #[test]
    fn journald_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut journald = Journald::new(path.clone(), Duration::from_mins(1));
        let alert = sample("a", Status::Firing);
        assert!(journald.deliver(&alert).is_err());
        let socket = UnixDatagram::bind(&path).unwrap();
        journald.deliver(&alert).unwrap();
        let mut buffer = vec![0; 65536];
        let length = socket.recv(&mut buffer).unwrap();
        let fields = parse(&buffer[..length]);
        assert_eq!(fields["PRIORITY"], "2");
        assert_eq!(fields["TURNAWAY_LABEL_COMM"], "pgbouncer");
        assert_eq!(
            fields["TURNAWAY_NOTE_DESCRIPTION"],
            alert.annotations["description"]
        );
        assert!(fields["MESSAGE"].starts_with("critical: pgbouncer"));
    }

    #[test]
    fn what_is_too_large_for_a_datagram_is_sent_as_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut alert = sample("a", Status::Firing);
        let long = "x".repeat(1_000_000);
        alert
            .annotations
            .insert("description".to_owned(), long.clone());
        Journald::new(path, Duration::from_mins(1))
            .deliver(&alert)
            .unwrap();

        let mut byte = [0; 1];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::empty(),
        )
        .unwrap();
        let mut fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let mut file = File::from(fds.next().unwrap());
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(parse(&bytes)["TURNAWAY_NOTE_DESCRIPTION"], long);
    }
}
