//! Lines for people: columns as failures happen, and a summary at the end. Pure: returns
//! text without a final newline, and never a control character but newlines and, if
//! colours are asked for, their escapes.

use std::{fmt::Write as _, time::Duration};

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};
use turnaway_common::Reason;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{name, summary};
use crate::{
    advice::Advice,
    attribute::{Party, Who},
    errno,
    event::{Failure, NofileLimit, Process},
    record::{Clock, Failures, Run},
    text,
};

/// The columns and their least widths; longer cells push the rest to the right.
const COLUMNS: [(&str, usize); 8] = [
    ("TIME", 12),
    ("REASON", 18),
    ("ERRNO", 8),
    ("PID", 7),
    ("COMM", 15),
    ("LISTENER", 20),
    ("QUEUE", 9),
    ("FDS", 11),
];
/// The last column, which is cut to the terminal's width instead.
const LAST: &str = "UNIT";
/// The last column keeps this much, even if the line then wraps.
const LAST_LEAST: usize = 12;
/// The width of the last column where others come after it.
const LAST_MIDDLE: usize = 24;
/// The width of a time with its date and zone.
const DATED: usize = 29;
/// What stands for what is unknown.
const UNKNOWN: &str = "-";

const HEADING: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const BAD: Style = AnsiColor::Red.on_default().bold();
const ODD: Style = AnsiColor::Yellow.on_default();
const GOOD: Style = AnsiColor::Green.on_default();

/// How lines look.
#[derive(Clone, Debug)]
pub struct Look {
    /// With colours.
    pub color: bool,
    /// For a person at a terminal: large numbers have separators.
    pub terminal: bool,
    /// Columns of the terminal, if known.
    pub width: Option<usize>,
    /// Time zone of the times shown.
    pub zone: TimeZone,
    /// Most rows of the summary's table; the rest is one row.
    pub rows: usize,
    /// Times of failures with their date and zone.
    pub dates: bool,
    /// The columns that are shown of failures, by their places among [`Text::columns`]; none is all.
    pub columns: Vec<usize>,
}

impl Default for Look {
    /// Plain text in this host's time zone, without an end to lines.
    fn default() -> Self {
        Self {
            color: false,
            terminal: false,
            width: None,
            zone: TimeZone::system(),
            rows: 20,
            dates: false,
            columns: Vec::new(),
        }
    }
}

/// Renders what happens.
#[derive(Clone, Debug, Default)]
pub struct Text {
    look: Look,
}

impl Text {
    /// A renderer with this look.
    #[must_use]
    pub fn new(look: Look) -> Self {
        Self { look }
    }

    /// How lines look.
    #[must_use]
    pub fn look(&self) -> &Look {
        &self.look
    }

    /// The names of all columns.
    #[must_use]
    pub fn columns() -> [&'static str; COLUMNS.len() + 1] {
        std::array::from_fn(|column| COLUMNS.get(column).map_or(LAST, |(name, _)| *name))
    }

    /// The names of the columns that are shown, above them.
    #[must_use]
    pub fn header(&self) -> String {
        let names = COLUMNS.map(|(name, _)| name.to_owned());
        self.line(&names, LAST, |_| HEADING, HEADING)
    }

    /// One failure. `fd_used` is the number of open descriptors of the process.
    #[must_use]
    pub fn event(
        &self,
        failure: &Failure,
        who: &Who,
        fd_used: Option<u64>,
        clock: &Clock,
    ) -> String {
        let Failure { key, listener, .. } = failure;
        let party = who.party.as_ref();
        let cells = [
            self.time(clock.wall_of_monotonic(failure.monotonic_ns)),
            key.reason.code().to_owned(),
            key.errno
                .map_or_else(unknown, |errno| errno::name(errno).into_owned()),
            party.map_or_else(unknown, pid),
            party.map_or_else(unknown, |party| comm(&party.facts)),
            name::about(key, listener, who).unwrap_or_else(unknown),
            listener.queue.map_or_else(unknown, |queue| {
                format!("{}/{}", queue.depth, queue.backlog)
            }),
            match (party, failure.descriptors) {
                (Some(party), _) => descriptors(fd_used, party.facts.nofile),
                (None, Some(table)) => descriptors(Some(table.used), Some(table.into())),
                (None, None) => unknown(),
            },
        ];
        let mut place = if key.reason == Reason::FdTablePressure {
            "(the whole host)".to_owned()
        } else {
            place(who)
        };
        if key.reason.is_of_descriptors() && failure.ended {
            place.push_str(" has room again");
        }
        if let Some(server) = who.far.as_ref().and_then(|far| far.server.as_ref()) {
            let name = server.comm.as_deref().map_or_else(unknown, text::terminal);
            // Writing to a string cannot fail.
            let _ = write!(place, " served by {name}[{}]", server.pid);
        }
        if let Some(waited) = failure.waited_ns {
            let how = match (key.reason, failure.ended) {
                (_, true) => "ended after",
                (Reason::QueueStalled, false) => "for",
                _ => "waited",
            };
            let _ = write!(place, " {how} {}", span(waited));
        }
        if let Some(peer) = failure.peer {
            let _ = write!(place, " from {peer}");
        }
        let style = |column| match column {
            0 => DIM,
            1 => BAD,
            2 => ODD,
            _ => Style::new(),
        };
        self.line(&cells, &place, style, Style::new())
    }

    /// What was not shown one by one: exactly `more` failures of the last `period`.
    #[must_use]
    pub fn more(&self, failures: &Failures<'_>, more: u64, period: Duration) -> String {
        let what = format!(
            "… and {} more {} by {} {} {}",
            self.number(more),
            failures.key.reason.code(),
            who(failures),
            about(failures),
            in_the_last(period),
        );
        self.paint(DIM, &what)
    }

    /// What a poll found: exactly `count` failures of the last `period`.
    #[must_use]
    pub fn polled(
        &self,
        failures: &Failures<'_>,
        count: u64,
        period: Duration,
        clock: &Clock,
    ) -> String {
        let listener = failures.listener;
        let party = failures.who.party.as_ref();
        let cells = [
            self.time(clock.wall_of_monotonic(failures.last_ns)),
            failures.key.reason.code().to_owned(),
            unknown(),
            party.map_or_else(unknown, pid),
            party.map_or_else(unknown, |party| comm(&party.facts)),
            name::about(failures.key, listener, failures.who).unwrap_or_else(unknown),
            listener.queue.map_or_else(unknown, |queue| {
                format!("{}/{}", queue.depth, queue.backlog)
            }),
            unknown(),
        ];
        let place = format!(
            "{} {} {}",
            place(failures.who),
            self.number(count),
            in_the_last(period)
        );
        let style = |column| match column {
            0 => DIM,
            1 => BAD,
            _ => Style::new(),
        };
        self.line(&cells, &place, style, Style::new())
    }

    /// What to do, one line for each part.
    #[must_use]
    pub fn advice(&self, advice: &Advice) -> String {
        let parts = [
            ("now:    ", &advice.now, GOOD),
            ("lasting:", &advice.lasting, Style::new()),
            ("note:   ", &advice.note, DIM),
        ];
        let lines: Vec<String> = parts
            .into_iter()
            .filter_map(|(label, part, style)| {
                // Advice is safe as it comes; nothing is left to trust.
                let part = printable(part.as_ref()?);
                Some(format!("  {label} {}", self.paint(style, &part)))
            })
            .collect();
        lines.join("\n")
    }

    /// Whose failures they are, in a few words.
    #[must_use]
    pub fn whose(&self, failures: &Failures<'_>) -> String {
        match &failures.who.party {
            Some(party) => format!("process {}", party.id.pid),
            None if failures.key.reason.is_of_descriptors() => "the host".to_owned(),
            None => name::about(failures.key, failures.listener, failures.who)
                .unwrap_or_else(|| "an unknown listener".to_owned()),
        }
    }

    /// The whole run: totals, what was lost, and the hooks.
    #[must_use]
    pub fn summary(&self, run: &Run<'_>, clock: &Clock) -> String {
        summary::render(self, run, clock)
    }

    /// Time of day, milliseconds; with its date and zone where that is asked for.
    fn time(&self, time: Timestamp) -> String {
        self.local(
            time,
            if self.look.dates {
                "%Y-%m-%dT%H:%M:%S%.3f%:z"
            } else {
                "%H:%M:%S%.3f"
            },
        )
    }

    pub(super) fn local(&self, time: Timestamp, format: &str) -> String {
        let zoned = time.to_zoned_datetime(self.look.zone.clone());
        zoned.strftime(format).to_string()
    }

    /// A number; at a terminal with separators, elsewhere as programs can read it.
    pub(super) fn number(&self, number: u64) -> String {
        let digits = number.to_string();
        if !self.look.terminal {
            return digits;
        }
        let mut out = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        out
    }

    pub(super) fn heading(&self, text: &str) -> String {
        self.paint(HEADING, text)
    }

    pub(super) fn bad(&self, text: &str) -> String {
        self.paint(BAD, text)
    }

    pub(super) fn good(&self, text: &str) -> String {
        self.paint(GOOD, text)
    }

    pub(super) fn odd(&self, text: &str) -> String {
        self.paint(ODD, text)
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.look.color && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    fn line(
        &self,
        cells: &[String; COLUMNS.len()],
        last: &str,
        style: impl Fn(usize) -> Style,
        last_style: Style,
    ) -> String {
        let all: Vec<usize> = (0..=COLUMNS.len()).collect();
        let shown = match self.look.columns.as_slice() {
            [] => &all,
            chosen => chosen,
        };
        let mut line = String::new();
        let mut used = 0;
        for (place, &column) in shown.iter().enumerate() {
            let is_end = place + 1 == shown.len();
            let cell = cells.get(column).map(String::as_str);
            let (cell, least, style) = match (cell, COLUMNS.get(column)) {
                (Some(cell), Some(_)) if column == 0 && self.look.dates => (cell, DATED, style(0)),
                (Some(cell), Some((_, least))) => (cell, *least, style(column)),
                _ if is_end => {
                    let room = self.look.width.map_or(usize::MAX, |width| {
                        width.saturating_sub(used).max(LAST_LEAST)
                    });
                    line.push_str(&self.paint(last_style, &cut(last, room)));
                    break;
                }
                _ => (last, LAST_MIDDLE, last_style),
            };
            let width = cell.width();
            let padding = if is_end {
                0
            } else {
                least.saturating_sub(width) + 1
            };
            line.push_str(&self.paint(style, cell));
            line.extend(std::iter::repeat_n(' ', padding));
            used += width + padding;
        }
        line
    }
}

/// `name[pid]`; where nobody's call failed and nobody is known to accept, who might.
pub(super) fn who(failures: &Failures<'_>) -> String {
    let who = failures.who;
    if let Some(party) = &who.party {
        let pid = party.id.pid;
        return if party.facts.comm.is_empty() {
            format!("process {pid}")
        } else {
            format!("{}[{pid}]", comm(&party.facts))
        };
    }
    match &who.holders {
        Some(_) if who.is_orphan() => "nobody".to_owned(),
        Some(holders) if !holders.processes.is_empty() => {
            let first = &holders.processes[0];
            let name = first.comm.as_deref().map_or_else(unknown, text::terminal);
            match holders.processes.len() {
                1 => format!("{name}[{}]", first.pid),
                more => format!("{name}[{}] and {} more", first.pid, more - 1),
            }
        }
        _ => unknown(),
    }
}

/// On what listener, or to what.
fn about(failures: &Failures<'_>) -> String {
    match name::about(failures.key, failures.listener, failures.who) {
        Some(target) if failures.key.reason.is_of_connect() => target,
        Some(call) if failures.key.reason.is_of_descriptors() => call,
        None if failures.key.reason.is_of_descriptors() => "in some call".to_owned(),
        Some(listener) => format!("on {listener}"),
        None if failures.key.reason.is_of_connect() => "to an unknown address".to_owned(),
        None => "on an unknown listener".to_owned(),
    }
}

/// Where the process runs, and what else there is to say of it.
pub(super) fn place(who: &Who) -> String {
    let Some(party) = &who.party else {
        return match &who.holders {
            Some(_) if who.is_orphan() => "(nobody holds it any more)".to_owned(),
            Some(holders) if holders.processes.len() > 1 => {
                format!("(held by {} processes)", holders.processes.len())
            }
            _ => unknown(),
        };
    };
    let mut place = name::place(&party.identity).unwrap_or_else(unknown);
    if party.identity.exited {
        place.push_str(" (exited)");
    }
    place
}

/// A time span to three digits or so.
pub(super) fn span(ns: u64) -> String {
    match ns / 1_000_000 {
        ms @ 0..10_000 => format!("{ms} ms"),
        ms => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
    }
}

pub(super) fn unknown() -> String {
    UNKNOWN.to_owned()
}

/// Text without control characters: what is safe stays as it is.
pub(super) fn printable(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text::terminal(text.as_bytes())
    } else {
        text.to_owned()
    }
}

fn comm(process: &Process) -> String {
    if process.comm.is_empty() {
        unknown()
    } else {
        text::terminal(&process.comm)
    }
}

fn pid(party: &Party) -> String {
    let pid = party.id.pid;
    match party.identity.ns_pid {
        Some(inside) => format!("{pid}({inside})"),
        None => pid.to_string(),
    }
}

/// Used and limit; a limit that io_uring copied when the accept was armed is marked.
fn descriptors(used: Option<u64>, limit: Option<NofileLimit>) -> String {
    if used.is_none() && limit.is_none() {
        return unknown();
    }
    let limit = limit.map_or_else(unknown, |limit| {
        let soft = limit
            .soft
            .map_or_else(|| "unlimited".to_owned(), |soft| soft.to_string());
        soft + if limit.copied { "(armed)" } else { "" }
    });
    let used = used.map_or_else(unknown, |used| used.to_string());
    format!("{used}/{limit}")
}

fn in_the_last(period: Duration) -> String {
    // The second between two readings is never one to the nanosecond.
    match period.as_millis() {
        0..1_500 => "in the last second".to_owned(),
        _ => format!("in the last {} s", (period.as_millis() + 500) / 1_000),
    }
}

/// Text of at most `room` columns, the last of them an ellipsis where some is missing.
fn cut(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut used = 1;
    let kept = text.chars().take_while(|char| {
        used += char.width().unwrap_or(0);
        used <= room
    });
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests;
