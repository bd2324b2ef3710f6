//! Incidents in plain words.

use std::{fmt::Write as _, time::Duration};

use super::{cause, episode::Episode};
use crate::{
    observation::{Code, Observation, Process},
    record::Percentiles,
    text,
};

/// Text without what moves a cursor or hides; a backslash stays.
pub(crate) fn plain(from: &str) -> String {
    // Nearly all names are like that.
    if from.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return from.to_owned();
    }
    let parts: Vec<String> = from
        .split('\\')
        .map(|part| text::terminal(part.as_bytes()))
        .collect();
    parts.join("\\")
}

/// A process as it is named in a sentence.
pub(super) fn process(process: &Process) -> String {
    let name = process
        .comm
        .as_deref()
        .map_or("a process".to_owned(), plain);
    let mut about = format!("pid {}", process.pid);
    if let Some(container) = &process.container {
        let name = container.name.as_deref().unwrap_or(&container.id);
        let _ = write!(about, ", container {}", plain(name));
    } else if let Some(unit) = &process.unit {
        let _ = write!(about, ", {}", plain(unit));
    }
    format!("{name} ({about})")
}

fn subject(episode: &Episode) -> String {
    let victim = &episode.victim;
    let Some(first) = &victim.process else {
        return "a program that is not known".to_owned();
    };
    let mut text = process(first);
    if victim.processes.len() > 1 {
        let more = victim.processes.len() - 1;
        let _ = write!(text, " and {more} more like it");
    }
    text
}

fn place(episode: &Episode) -> String {
    let places = episode.places.iter().filter_map(|one| one.listener.place());
    let mut places: Vec<String> = places.map(|place| plain(&place)).collect();
    places.sort();
    places.dedup();
    let more = places.len().saturating_sub(2);
    places.truncate(2);
    let mut text = places.join(" and ");
    if more > 0 {
        let _ = write!(text, " and {more} more listeners");
    }
    if text.is_empty() {
        "a listener that is not known".to_owned()
    } else {
        text
    }
}

fn descriptors(episode: &Episode) -> String {
    match (episode.fd.used, episode.fd.limit) {
        (Some(used), Some(limit)) => format!(" ({used} of {limit})"),
        (None, Some(limit)) => format!(" (its limit is {limit})"),
        _ => String::new(),
    }
}

fn how(code: &Code) -> &str {
    match code.as_str() {
        "connect.refused" => "refused",
        "connect.timeout" => "no answer",
        "connect.unreachable" => "no way there",
        "connect.reset" => "reset",
        "connect.denied" => "not allowed",
        "connect.no_port" => "no local port is left",
        "queue.unix_full" => "its queue is full",
        other => other,
    }
}

/// What it is, in one sentence: the cause, and then what came of it.
pub(super) fn statement(episode: &Episode) -> String {
    let Some(root) = episode.root() else {
        return "nothing is known of it".to_owned();
    };
    let mut text = cause_of(episode, root);
    if episode.victim.is_client {
        return text;
    }
    let stalled = episode.reasons.contains_key(&Code::new("queue.stalled"));
    let longest = episode
        .waited
        .filter(|_| stalled)
        .map(|time| format!("nobody has accepted for {}", time_in_words(time)));
    let fullest = episode
        .places
        .iter()
        .filter_map(|one| Some((one.listener.queue?, one.listener.backlog?)))
        .max()
        .filter(|(queue, _)| *queue > 0)
        .map(|(queue, backlog)| format!("up to {queue} connections waited, of at most {backlog}"));
    let dropped: u64 = episode
        .reasons
        .iter()
        .filter(|(code, _)| code.as_str().ends_with("overflow") || code.as_str() == "queue.dropped")
        .map(|(_, total)| total.failures())
        .fold(0, u64::saturating_add);
    let dropped = (dropped > 0).then(|| format!("{dropped} packets of clients were dropped"));
    for part in [longest, fullest, dropped].into_iter().flatten() {
        let _ = write!(text, "; {part}");
    }
    if let Some(first) = episode.sufferers.first() {
        let _ = write!(text, "; {} did not get through", process(&first.process));
        let more = episode.sufferers.len() - 1;
        if more > 0 {
            let _ = write!(text, ", nor did {more} more clients of this host");
        }
    }
    text
}

fn cause_of(episode: &Episode, root: &Code) -> String {
    let who = subject(episode);
    if episode.victim.is_client {
        let target = episode.victim.target.as_deref().map(plain);
        let target = target.unwrap_or_else(|| "what it wants to reach".to_owned());
        return format!("{who} cannot connect to {target}: {}", how(root));
    }
    let place = place(episode);
    match root.as_str() {
        "accept.emfile" => format!(
            "{who} is out of file descriptors{}: it cannot accept connections on {place}",
            descriptors(episode)
        ),
        "accept.enfile" => {
            format!("the system's file table is full: {who} cannot accept connections on {place}")
        }
        "accept.nomem" => format!("{who} cannot accept connections on {place}: no memory"),
        "accept.shed" => format!("{who} closes connections on {place} at once, for want of room"),
        "queue.stalled" => format!("{who} does not accept connections on {place}"),
        "queue.slow" => format!("{who} accepts connections on {place} late"),
        "queue.abandoned" => format!("{who} closed {place} while connections waited"),
        "queue.syn_flood" => format!("the request queue of {place} of {who} is full"),
        "queue.unix_full" => format!("the queue of {place} of {who} is full"),
        "listener.closed" => format!("{who} closed {place}"),
        "fd.exhausted" => format!("{who} is out of file descriptors{}", descriptors(episode)),
        "fd.pressure" => format!(
            "{who} is near its limit of file descriptors{}",
            descriptors(episode)
        ),
        "fd.table_pressure" => "the system's file table is nearly full".to_owned(),
        "net.conntrack_full" => match episode.victim.netns {
            Some(netns) => format!(
                "the table of tracked connections of network namespace {netns} is full: new connections are dropped"
            ),
            None => {
                "the table of tracked connections is full: new connections are dropped".to_owned()
            }
        },
        code if code.starts_with("queue.") => {
            format!("the accept queue of {place} of {who} is full: connections are dropped")
        }
        code if code.starts_with("accept.") => {
            format!(
                "{who} cannot accept connections on {place} ({})",
                plain(code)
            )
        }
        code if code.starts_with("connect.") => {
            format!("connections to {place} of {who} fail: {}", plain(how(root)))
        }
        code => format!("{who}: {}", plain(code)),
    }
}

/// A reason that appears, in a timeline.
pub(super) fn began(episode: &Episode, seen: &Observation) -> String {
    let place = seen
        .listener
        .as_ref()
        .and_then(crate::observation::Listener::place)
        .map(|place| format!(" on {}", plain(&place)))
        .unwrap_or_default();
    match seen.reason.as_str() {
        "accept.emfile" => format!(
            "the first accept{place} fails for want of a descriptor{}",
            descriptors(episode)
        ),
        "accept.enfile" => {
            format!("the first accept{place} fails: the system's file table is full")
        }
        "fd.pressure" => format!("descriptors run short{}", descriptors(episode)),
        "fd.table_pressure" => "the system's file table runs full".to_owned(),
        "fd.exhausted" => "a call other than accept fails for want of a descriptor".to_owned(),
        "queue.stalled" => format!("connections wait{place} and nobody accepts"),
        "queue.slow" => format!("a connection{place} is accepted late"),
        "queue.abandoned" => "a listener is closed while connections wait".to_owned(),
        "queue.unix_full" => "a client finds the queue full".to_owned(),
        "listener.closed" => "a listener is closed".to_owned(),
        "accept.shed" => "connections are accepted and closed at once".to_owned(),
        code if code.starts_with("queue.") => format!("the first packet{place} is dropped"),
        code if code.starts_with("accept.") => format!("the first accept{place} fails"),
        code if code.starts_with("connect.") => {
            format!("the first connect fails: {}", plain(how(&seen.reason)))
        }
        code => plain(code),
    }
}

/// A state that ended, in a timeline.
pub(super) fn ended(reason: &Code, waited: Option<Duration>) -> String {
    let after = waited
        .map(|time| format!(" after {}", time_in_words(time)))
        .unwrap_or_default();
    match reason.as_str() {
        "queue.stalled" => format!("connections are accepted again{after}"),
        "fd.pressure" => "descriptors are free again".to_owned(),
        _ => "it has passed".to_owned(),
    }
}

/// A time, to what matters of it.
pub(super) fn time_in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 10 {
        format!("{:.1} s", time.as_secs_f64())
    } else if seconds < 120 {
        format!("{seconds} s")
    } else if seconds < 7200 {
        format!("{} min", seconds / 60)
    } else {
        format!("{} h", seconds / 3600)
    }
}

/// How long connections waited in a queue, as far as that is known: bounds.
#[must_use]
pub fn waits(waits: &Percentiles) -> String {
    let below = |ns| {
        let time = Duration::from_nanos(ns);
        if time < Duration::from_secs(1) {
            format!("{} ms", time.as_millis())
        } else {
            time_in_words(time)
        }
    };
    format!(
        "of {} connections that were accepted, half waited less than {}, 95 % less than {}, 99 % less than {}",
        waits.count,
        below(waits.p50_below_ns),
        below(waits.p95_below_ns),
        below(waits.p99_below_ns)
    )
}

/// Its reasons, causes first, each with its exact count.
pub(super) fn reasons(episode: &Episode) -> String {
    let mut text = String::new();
    for code in cause::order(episode.reasons.keys()) {
        if let Some(total) = episode.reasons.get(code) {
            let about = if total.approximate { "about " } else { "" };
            let sep = if text.is_empty() { "" } else { ", " };
            let _ = write!(
                text,
                "{sep}{} {about}{}",
                plain(code.as_str()),
                total.failures()
            );
        }
    }
    text
}
