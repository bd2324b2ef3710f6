//! Values of labels: names from outside, made fit for them.

use std::sync::Arc;

use crate::{
    attribute::Who,
    event::{Address, Listener},
    record::unix_name,
    text,
};

/// Most characters of a value.
const LONGEST: usize = 128;
/// Stands for what was left off.
const MORE: char = '…';

/// A name as the value of a label: printable, valid UTF-8, no longer than 128 characters. A
/// backslash stays as it is, as in the names of units; what cannot be shown is written out as
/// `\xNN`.
pub(super) fn clean(name: &[u8]) -> Arc<str> {
    // No more bytes than can matter: each becomes a quarter of a character at least.
    let name = &name[..name.len().min(4 * LONGEST)];
    let parts: Vec<String> = name
        .split(|byte| *byte == b'\\')
        .map(text::terminal)
        .collect();
    let value = parts.join("\\");
    if value.chars().nth(LONGEST).is_none() {
        return value.into();
    }
    let mut short: String = value.chars().take(LONGEST - 1).collect();
    short.push(MORE);
    short.into()
}

/// The name of the process; where several may be the one, the name that they share. Empty where
/// that is not known, which is the same as no label.
pub(super) fn comm(who: &Who) -> Arc<str> {
    if let Some(party) = &who.party {
        return clean(&party.facts.comm);
    }
    let mut names = who
        .holders
        .iter()
        .flat_map(|holders| &holders.processes)
        .map(|holder| holder.comm.as_deref().unwrap_or_default());
    let first = names.next().unwrap_or_default();
    if names.all(|name| name == first) {
        clean(first)
    } else {
        clean(b"")
    }
}

/// The systemd unit of the process.
pub(super) fn unit(who: &Who) -> Arc<str> {
    let unit = who
        .party
        .as_ref()
        .and_then(|party| party.identity.unit.as_deref());
    clean(unit.unwrap_or_default().as_bytes())
}

/// Where a socket listens, such as `0.0.0.0:6432`, `/run/app.sock`, `@name`, `vsock:2:1234`.
pub(super) fn address(address: Option<&Address>) -> Arc<str> {
    match address {
        None => clean(b""),
        Some(Address::Inet(address)) => address.to_string().into(),
        Some(Address::Vsock { cid, port }) => format!("vsock:{cid}:{port}").into(),
        Some(Address::Unix(name)) => clean(&unix_name(name)),
    }
}

/// The port of a listener, in families that have them.
pub(super) fn port(listener: &Listener) -> Option<u32> {
    match listener.address.as_ref()? {
        Address::Inet(address) => Some(u32::from(address.port())),
        Address::Vsock { port, .. } => Some(*port),
        Address::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay() {
        for name in ["nginx", "dev-disk\\x2dby.mount", "/srv/café.sock", "a\"b"] {
            assert_eq!(&*clean(name.as_bytes()), name);
        }
    }

    #[test]
    fn what_cannot_be_shown_is_written_out() {
        assert_eq!(&*clean(b"a\x1b[2J\n\xff"), "a\\x1b[2J\\n\\xff");
        assert_eq!(&*clean("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
    }

    #[test]
    fn names_are_no_longer_than_a_label_may_be() {
        for name in [
            vec![b'x'; 5000],
            vec![0xff; 5000],
            "é".repeat(300).into_bytes(),
        ] {
            let value = clean(&name);
            assert_eq!(value.chars().count(), LONGEST, "{value}");
            assert!(value.ends_with(MORE));
        }
        assert_eq!(clean(&[b'x'; LONGEST]).chars().count(), LONGEST);
    }

    #[test]
    fn names_of_sockets_are_those_of_the_records() {
        assert_eq!(&*address(Some(&Address::Unix(b"\0app".to_vec()))), "@app");
        assert_eq!(&*address(Some(&Address::Unix(b"@app".to_vec()))), "./@app");
        let inet = Address::Inet("[::1]:80".parse().unwrap());
        assert_eq!(&*address(Some(&inet)), "[::1]:80");
    }
}
