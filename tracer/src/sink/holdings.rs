//! What a process's descriptors are, in a few lines for people. Pure: lines without
//! newlines, and never a control character.

use std::{cmp::Reverse, collections::BTreeMap};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::text::Text;
use crate::{
    attribute::holdings::{Family, Holdings, Kind, SocketGroup},
    record::unix_name,
    text,
};

/// Before the first line's text, and before that of all others.
const LABEL: &str = "  held:    ";
const INDENT: &str = "           ";
/// Most kinds that are named.
const MAX_KINDS: usize = 4;
/// Most groups of sockets that have a line, where there are others.
const MAX_GROUPS: usize = 3;
/// Most states that sockets of further groups are told apart by.
const MAX_STATES: usize = 3;
/// Columns of a path at most: its end tells most.
const PATH_WIDTH: usize = 60;
/// A path is worth a line if one in so many descriptors has it.
const FILES_SHARE: u64 = 20;
/// What a state means that does not go away by itself.
const CLOSE_WAIT: &str = "CLOSE_WAIT";
const LEAK: &str = "  (closed by the peer, not by the program: a leak if it lasts)";

/// One to six lines: kinds, the largest groups of sockets, the states of all others, and
/// the most opened path if it is a notable part of all.
#[must_use]
pub fn lines(text: &Text, holdings: &Holdings) -> Vec<String> {
    let mut lines = vec![format!("{LABEL}{}", kinds(text, holdings))];
    let told = match holdings.groups.len() {
        // One more takes the line that would say that there is one more.
        groups if groups <= MAX_GROUPS + 1 => groups,
        _ => MAX_GROUPS,
    };
    let (told, rest) = holdings.groups.split_at(told);
    let mut details: Vec<(String, bool)> = told
        .iter()
        .map(|group| {
            let count = text.number(group.count);
            let leaks = group.state == Some(CLOSE_WAIT);
            (format!("{count} {}", describe(group)), leaks)
        })
        .collect();
    details.extend(others(text, rest));
    details.extend(file(text, holdings).map(|line| (line, false)));
    let mut explained = false;
    for (detail, leaks) in details {
        let note = if leaks && !explained { LEAK } else { "" };
        explained |= leaks;
        lines.push(format!("{INDENT}{detail}{note}"));
    }
    lines
}

fn kinds(text: &Text, holdings: &Holdings) -> String {
    let (mut named, mut other) = (Vec::new(), 0);
    for (kind, count) in &holdings.kinds {
        if *kind == Kind::Other || named.len() == MAX_KINDS {
            other += count;
        } else {
            let plural = if *count == 1 { "" } else { "s" };
            named.push(format!("{} {}{plural}", text.number(*count), word(*kind)));
        }
    }
    if other > 0 {
        named.push(format!("{} other", text.number(other)));
    }
    let looked_at = holdings.looked_at();
    let kinds = named.join(", ");
    if looked_at < holdings.total {
        let (some, all) = (text.number(looked_at), text.number(holdings.total));
        if kinds.is_empty() {
            return format!("{all} descriptors; there was no time to look at them");
        }
        return format!("{kinds}  (of the first {some}; {all} in all)");
    }
    match (kinds.is_empty(), holdings.complete) {
        (true, true) => "nothing".to_owned(),
        (true, false) => "not known".to_owned(),
        (false, true) => kinds,
        (false, false) => format!("{kinds}  (not all could be looked at)"),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Socket => "socket",
        Kind::File => "file",
        Kind::Pipe => "pipe",
        Kind::EventFd => "eventfd",
        Kind::EventPoll => "epoll",
        Kind::TimerFd => "timerfd",
        Kind::SignalFd => "signalfd",
        Kind::Inotify => "inotify instance",
        Kind::IoUring => "io_uring",
        Kind::Device => "device",
        Kind::Memfd => "memfd",
        Kind::PidFd => "pidfd",
        Kind::BpfObject => "BPF object",
        Kind::Other => "other",
    }
}

/// `to 10.1.2.3:5432 ESTABLISHED`, `on :6432 from 3 peers CLOSE_WAIT`, ….
fn describe(group: &SocketGroup) -> String {
    let mut words: Vec<String> = Vec::new();
    match (group.family, group.protocol) {
        // Nearly all are TCP.
        (Family::Inet | Family::Inet6, Some("tcp")) if group.state.is_some() => {}
        (Family::Inet | Family::Inet6, Some(protocol)) => words.push(protocol.to_owned()),
        (Family::Other, _) => words.push("sockets of an unknown kind".to_owned()),
        (family, _) => words.push(family.name().to_owned()),
    }
    if let Some(remote) = group.remote {
        words.push(format!("to {remote}"));
    }
    if let Some(port) = group.local_port {
        words.push(format!("on :{port}"));
    }
    if let Some(path) = &group.path {
        words.push(shown(&unix_name(path)));
    }
    match group.peers {
        0 => {}
        1 => words.push("from 1 peer".to_owned()),
        peers => words.push(format!("from {peers} peers")),
    }
    match (group.family, group.state) {
        (_, Some(state)) => words.push(state.to_owned()),
        (Family::Inet | Family::Inet6, None) => {
            words.push("not connected, or of another network namespace".to_owned());
        }
        _ => {}
    }
    words.join(" ")
}

/// `900 in 870 more groups: 880 CLOSE_WAIT, 20 ESTABLISHED`.
fn others(text: &Text, rest: &[SocketGroup]) -> Option<(String, bool)> {
    let mut states: BTreeMap<_, u64> = BTreeMap::new();
    for group in rest {
        *states.entry(group.state).or_default() += group.count;
    }
    let all: u64 = states.values().sum();
    if all == 0 {
        return None;
    }
    let mut stated: Vec<_> = states
        .into_iter()
        .filter_map(|(state, count)| Some((state?, count)))
        .collect();
    stated.sort_by_key(|(_, count)| Reverse(*count));
    stated.truncate(MAX_STATES);
    let leaks = stated.iter().any(|(state, _)| *state == CLOSE_WAIT);
    let mut parts: Vec<String> = stated
        .iter()
        .map(|(state, count)| format!("{} {state}", text.number(*count)))
        .collect();
    let left = all - stated.iter().map(|(_, count)| count).sum::<u64>();
    if left > 0 {
        parts.push(format!("{} other", text.number(left)));
    }
    let line = format!(
        "{} in {} more groups: {}",
        text.number(all),
        text.number(rest.len() as u64),
        parts.join(", "),
    );
    Some((line, leaks))
}

fn file(text: &Text, holdings: &Holdings) -> Option<String> {
    let (path, count) = holdings.files.first()?;
    let notable = *count > 1 && count.saturating_mul(FILES_SHARE) >= holdings.looked_at();
    notable.then(|| format!("{} of {}", text.number(*count), shown(path)))
}

/// A path that is safe to show, its beginning left out where it is long.
fn shown(path: &[u8]) -> String {
    let path = text::terminal(path);
    if path.width() <= PATH_WIDTH {
        return path;
    }
    let mut used = 1;
    let kept = path
        .char_indices()
        .rev()
        .take_while(|(_, char)| {
            used += char.width().unwrap_or(0);
            used <= PATH_WIDTH
        })
        .last();
    format!("…{}", kept.map_or("", |(start, _)| &path[start..]))
}

#[cfg(test)]
mod tests;
