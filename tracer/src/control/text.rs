//! Answers for people.

use std::{fmt::Write as _, time::Duration};

use jiff::Timestamp;

use super::{
    Incidents, ListedSilence, Silenced, Status, Unsilenced,
    status::{LossFields, NotifierFields, RuleFields, StateFields},
};
use crate::{
    incident,
    replay::text::{details, safe},
    rules::{Matcher, Silence},
    stream,
};

/// Columns of what comes before a line.
const NAMES: usize = 11;

/// How the daemon is.
#[must_use]
pub fn status(status: &Status) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "turnaway {}, pid {} on {}, since {:.0} ({})",
        safe(&status.version),
        status.pid,
        safe(&status.host),
        status.started,
        long(seconds(status.uptime_s))
    );
    hooks(&mut out, status);
    let ignored = match status.ignored {
        0 => String::new(),
        ignored => format!(", {ignored} of them ignored"),
    };
    let seen = format!(
        "{} failures{ignored}; {} exemplars",
        status.failures, status.events
    );
    line(&mut out, "seen", &seen);
    let losses = status.lost.as_ref();
    let losses = losses.map_or_else(|| "not read yet".to_owned(), lost);
    line(&mut out, "lost", &losses);
    let age = match (status.reading_age_s, status.lag_s) {
        (Some(age), Some(lag)) => format!("the last {age:.1} s ago, {lag:.3} s late"),
        _ => "none yet".to_owned(),
    };
    line(&mut out, "readings", &age);
    let incidents = format!(
        "{} firing, {} pending; {} silences",
        status.firing, status.pending, status.silences
    );
    line(&mut out, "incidents", &incidents);
    for one in &status.incidents {
        let silenced = if one.silenced { " (silenced)" } else { "" };
        let text = format!(
            "{} since {:.0} [{}]{silenced} {}",
            one.severity.name(),
            one.started,
            safe(&one.id),
            safe(&one.statement)
        );
        line(&mut out, "", &text);
    }
    rules(&mut out, &status.rules);
    if status.notifiers.is_empty() {
        line(
            &mut out,
            "notifiers",
            "none: incidents are written to stdout only",
        );
    } else {
        let text = format!("{}; {} alerts wait", status.notifiers.len(), status.queued);
        line(&mut out, "notifiers", &text);
        for one in &status.notifiers {
            notifier(&mut out, one);
        }
    }
    if !status.streams.is_empty() {
        line(&mut out, "streams", &status.streams.len().to_string());
        for one in &status.streams {
            records(&mut out, one);
        }
    }
    line(&mut out, "state", &state(&status.state));
    if let Some(recording) = &status.recording {
        let mut text = format!(
            "{}: {} records, {} lost",
            safe(&recording.file.to_string_lossy()),
            recording.written,
            recording.lost
        );
        if let Some(error) = &recording.error {
            let _ = write!(text, "; now: {}", safe(error));
        }
        line(&mut out, "recording", &text);
    }
    let metrics = status.metrics.as_deref();
    line(
        &mut out,
        "metrics",
        &safe(metrics.unwrap_or("served nowhere")),
    );
    if !status.waiting.is_empty() {
        line(&mut out, "waits", "in queues, since hooks are in place:");
        for one in &status.waiting {
            let who = one.comm.as_deref().map_or_else(String::new, |comm| {
                let pid = one.pid.unwrap_or_default();
                format!(" {} (pid {pid})", safe(comm))
            });
            let text = format!(
                "{}{who}: {}",
                safe(&one.listener),
                incident::waits(&one.waits)
            );
            line(&mut out, "", &text);
        }
    }
    out
}

fn line(out: &mut String, name: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = if name.is_empty() {
        writeln!(out, "    {text}")
    } else {
        writeln!(out, "{name:<NAMES$}{text}")
    };
}

fn hooks(out: &mut String, status: &Status) {
    let placed: Vec<String> = status
        .hooks
        .iter()
        .filter_map(|hook| {
            Some(format!(
                "{} ({})",
                safe(&hook.name),
                safe(hook.tier.as_ref()?)
            ))
        })
        .collect();
    let placed = if placed.is_empty() {
        "none in place yet".to_owned()
    } else {
        placed.join(", ")
    };
    line(out, "hooks", &placed);
    for hook in status.hooks.iter().filter(|hook| hook.tier.is_none()) {
        let why = hook.detail.as_deref().unwrap_or("no way to attach it here");
        let text = format!("not in place: {}: {}", safe(&hook.name), safe(why));
        line(out, "", &text);
    }
}

fn rules(out: &mut String, rules: &RuleFields) {
    let from = match &rules.file {
        Some(file) => safe(&file.to_string_lossy()),
        None => "the default ones".to_owned(),
    };
    let text = format!("{}: {from}, read {:.0}", rules.count, rules.read);
    line(out, "rules", &text);
    if let Some(reload) = &rules.reload {
        let text = format!("refused at {:.0}: {}", reload.time, safe(&reload.error));
        line(out, "", &text);
    }
}

fn lost(lost: &LossFields) -> String {
    let mut parts = Vec::new();
    for (count, what) in [
        (lost.map, "failures, counted nowhere"),
        (lost.ring, "exemplars, whose failures are counted"),
        (lost.output, "lines of output"),
        (lost.missed.unwrap_or(0), "runs of hooks"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if parts.is_empty() {
        parts.push("nothing".to_owned());
    }
    if lost.missed.is_none() {
        parts.push("whether runs of hooks were left out is not known".to_owned());
    }
    parts.join("; ")
}

fn records(out: &mut String, one: &stream::Health) {
    let mut text = format!(
        "{} ({}) {}: {} delivered, {} waiting ({} bytes on disk), {} dropped, {} withheld, {} \
         attempts failed",
        safe(&one.name),
        safe(&one.kind),
        safe(&one.target),
        one.delivered,
        one.waiting,
        one.spooled_bytes,
        one.lost(),
        one.withheld,
        one.failed_attempts
    );
    if let Some(error) = &one.last_error {
        let _ = write!(text, "; now: {}", safe(error));
    }
    if let Some(why) = &one.not_stored {
        let _ = write!(text, "; in memory only: {}", safe(why));
    }
    line(out, "", &text);
}

fn notifier(out: &mut String, one: &NotifierFields) {
    let mut text = format!(
        "{} ({}) {}: {} delivered, {} waiting, {} dropped, {} attempts failed",
        safe(&one.name),
        safe(&one.kind),
        safe(&one.target),
        one.delivered,
        one.queued,
        one.dropped,
        one.failed_attempts
    );
    if let Some(error) = &one.last_error {
        let _ = write!(text, "; now: {}", safe(error));
    }
    if let Some(why) = &one.not_stored {
        let _ = write!(text, "; what waits is in memory only: {}", safe(why));
    }
    line(out, "", &text);
}

fn state(state: &StateFields) -> String {
    let Some(folder) = &state.folder else {
        return "in memory only (--no-state)".to_owned();
    };
    let folder = safe(&folder.to_string_lossy());
    match (&state.error, state.written) {
        (Some(error), _) => format!("{folder}: in memory only: {}", safe(error)),
        (None, Some(written)) => format!("{folder}, written {written:.0}"),
        (None, None) => format!("{folder}, not written yet"),
    }
}

/// Incidents that fire.
#[must_use]
pub fn incidents(all: &Incidents) -> String {
    let mut out = String::new();
    for one in &all.incidents {
        let record = &one.record;
        let silenced = if one.silenced { " (silenced)" } else { "" };
        let _ = writeln!(
            out,
            "{} since {:.3} [{}]{silenced} {}",
            record.severity.name(),
            record.started,
            safe(&record.id),
            safe(&record.statement)
        );
        details(&mut out, record);
    }
    if all.more > 0 {
        let _ = writeln!(out, "and {} more", all.more);
    }
    if all.incidents.is_empty() {
        out.push_str("no incident fires\n");
    }
    if all.pending > 0 {
        let _ = writeln!(out, "{} may yet fire", all.pending);
    }
    out
}

/// Silences, as a table.
#[must_use]
pub fn silences(all: &[ListedSilence], now: Timestamp) -> String {
    if all.is_empty() {
        return "no silence\n".to_owned();
    }
    let rows = all.iter().map(|one| {
        let silence = &one.silence;
        let left = silence.until.duration_since(now);
        let left = Duration::try_from(left).unwrap_or_default();
        [
            safe(&silence.id),
            format!("{:.0} (in {})", silence.until, long(left)),
            one.matches.to_string(),
            matcher(&silence.matcher),
            silence.comment.as_deref().map_or_else(String::new, safe),
        ]
    });
    let head = ["ID", "UNTIL", "INCIDENTS", "OF", "COMMENT"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let widths = rows
            .iter()
            .map(|row| unicode_width::UnicodeWidthStr::width(row[column].as_str()));
        widths.max().unwrap_or(0)
    });
    let mut out = String::new();
    for row in &rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let shown = unicode_width::UnicodeWidthStr::width(cell.as_str());
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - shown + 2));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// What it is about, in words.
fn matcher(matcher: &Matcher) -> String {
    let ports: Vec<String> = matcher.port.iter().map(u32::to_string).collect();
    let parts: Vec<String> = [
        ("reason", &matcher.reason),
        ("comm", &matcher.comm),
        ("unit", &matcher.unit),
        ("container", &matcher.container),
        ("port", &ports),
        ("path", &matcher.path),
    ]
    .into_iter()
    .filter(|(_, values)| !values.is_empty())
    .map(|(name, values)| format!("{name} {}", safe(&values.join("|"))))
    .collect();
    if parts.is_empty() {
        "everything".to_owned()
    } else {
        parts.join(", ")
    }
}

/// A silence has begun.
#[must_use]
pub fn silenced(done: &Silenced) -> String {
    let Silence { id, until, .. } = &done.silence;
    format!(
        "{} until {until:.0}: {}; incidents that it is about now: {}{}\n",
        safe(id),
        matcher(&done.silence.matcher),
        done.matches,
        in_memory(done.kept)
    )
}

/// A silence has ended.
#[must_use]
pub fn unsilenced(done: &Unsilenced) -> String {
    format!("{} has ended{}\n", safe(&done.id), in_memory(done.kept))
}

fn in_memory(kept: bool) -> &'static str {
    if kept {
        ""
    } else {
        "\nnot on disk yet: a restart of the daemon now would undo it (turnaway status says why)"
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// A time, to what matters of it.
fn long(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match minutes {
        0 => format!("{} s", time.as_secs()),
        1..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silences_stand_in_columns_and_cannot_harm_a_reader() {
        let now: Timestamp = "2026-11-25T06:00:00Z".parse().unwrap();
        let one = |id: &str, comm: &str, comment: Option<&str>| ListedSilence {
            silence: Silence {
                id: id.to_owned(),
                matcher: Matcher {
                    comm: vec![comm.to_owned()],
                    port: vec![80, 443],
                    ..Matcher::default()
                },
                until: "2026-11-25T08:00:00Z".parse().unwrap(),
                comment: comment.map(str::to_owned),
            },
            configured: false,
            matches: 2,
        };
        let all = [
            one("s-1", "nginx*", Some("moves\u{1b}[2J")),
            one("s-longer", "\u{202e}x\n", None),
        ];
        let text = silences(&all, now);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        assert!(text.contains("2026-11-25T08:00:00Z (in 2 h)"), "{text}");
        assert!(text.contains("comm nginx*, port 80|443"), "{text}");
        let column = |line: &str| line.find("2026").or(line.find("UNTIL")).unwrap();
        let columns: Vec<usize> = text.lines().map(column).collect();
        assert!(columns.iter().all(|at| *at == columns[0]), "{text}");
        assert_eq!(silences(&[], now), "no silence\n");
    }

    #[test]
    fn what_is_lost_is_said_and_what_is_not_known_too() {
        let some = LossFields {
            map: 3,
            ..LossFields::default()
        };
        assert_eq!(
            lost(&some),
            "3 failures, counted nowhere; whether runs of hooks were left out is not known"
        );
        let none = LossFields {
            missed: Some(0),
            ..LossFields::default()
        };
        assert_eq!(lost(&none), "nothing");
    }
}
