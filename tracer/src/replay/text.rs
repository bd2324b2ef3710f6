//! A replay for people.

use std::fmt::Write as _;

use super::Totals;
use crate::{
    incident::{self, Change, IncidentRecord, What},
    text,
};

/// Words that were made from what came from outside, safe to show.
pub(crate) fn safe(words: &str) -> String {
    text::terminal(words.as_bytes()).replace("\\\\", "\\")
}

/// One change: a line when an incident fires or gets worse, its timeline when it is over.
#[must_use]
pub fn change(change: &Change) -> String {
    let record = &change.record;
    let word = match change.what {
        What::Fired => "FIRING",
        What::Updated => "update",
        What::Resolved => "resolved",
    };
    let mut out = String::new();
    let silenced = if change.alert.is_none() {
        " (silenced)"
    } else {
        ""
    };
    let _ = writeln!(
        out,
        "{:.3} {word} {}{silenced} [{}] {}",
        record.time(),
        record.severity.name(),
        safe(&record.id),
        safe(&record.statement)
    );
    if change.what == What::Resolved {
        details(&mut out, record);
    }
    out
}

/// What happened, what failed and who suffered, indented.
pub(crate) fn details(out: &mut String, record: &IncidentRecord) {
    for told in &record.timeline {
        let reason = told.reason.as_ref().map_or("", |reason| reason.as_str());
        let _ = writeln!(
            out,
            "    {:.3} {:<20} {}",
            told.time,
            safe(reason),
            safe(&told.text)
        );
    }
    if record.untold > 0 {
        let _ = writeln!(out, "    and {} more lines", record.untold);
    }
    let counts: Vec<String> = record
        .reasons
        .iter()
        .map(|one| format!("{} {}", safe(one.reason.as_str()), one.count))
        .collect();
    let _ = writeln!(out, "    failures: {}", counts.join(", "));
    if let Some(waits) = &record.waits {
        let _ = writeln!(out, "    {}", incident::waits(waits));
    }
    for one in &record.sufferers {
        let comm = one.process.comm.as_deref().unwrap_or("a process");
        let _ = writeln!(
            out,
            "    did not get through: {} (pid {}), {} failures",
            safe(comm),
            one.process.pid,
            one.count
        );
    }
    if record.others_suffered > 0 {
        let more = record.others_suffered;
        let _ = writeln!(out, "    did not get through: others, {more} failures");
    }
}

/// What comes last: incidents that have no end in the records, and totals.
#[must_use]
pub fn end(firing: &[IncidentRecord], totals: &Totals) -> String {
    let mut out = String::new();
    for record in firing {
        let _ = writeln!(
            out,
            "still firing at the end: {} [{}] {}",
            record.severity.name(),
            safe(&record.id),
            safe(&record.statement)
        );
        details(&mut out, record);
    }
    let plural = |count: u64, word: &str| {
        let s = if count == 1 { "" } else { "s" };
        format!("{count} {word}{s}")
    };
    let _ = writeln!(
        out,
        "{} of {}",
        plural(totals.fired, "incident"),
        plural(totals.records, "record")
    );
    for (code, count) in &totals.failures {
        let _ = writeln!(out, "    {:<20} {count}", safe(code.as_str()));
    }
    if totals.ignored > 0 {
        let _ = writeln!(out, "    {} of these ignored by rules", totals.ignored);
    }
    out
}
