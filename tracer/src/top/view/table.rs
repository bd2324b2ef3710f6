//! The table of listeners: which columns it has and what is in them, on the screen and in batches.

use ratatui::style::Style;
use unicode_width::UnicodeWidthStr as _;

use super::{
    Look, Scene,
    cell::{self, UNKNOWN},
    columns::{Column, fit},
    cut, cut_left,
};
use crate::top::{
    model::{Row, Sort},
    sample::RowId,
};

/// A state that another reason may be the cause of.
const STALLED: &str = "queue.stalled";
/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Mark,
    Listener,
    Owner,
    Accepts,
    Failures,
    Minute,
    Reason,
    Queue,
    Wait,
    Last,
    Fds,
    Place,
}

impl Kind {
    /// What it is sorted by.
    pub(super) const fn sort(self) -> Option<Sort> {
        match self {
            Self::Mark => Some(Sort::Worst),
            Self::Listener => Some(Sort::Name),
            Self::Owner => Some(Sort::Owner),
            Self::Accepts => Some(Sort::Accepts),
            Self::Failures => Some(Sort::Failures),
            Self::Queue => Some(Sort::Queue),
            Self::Wait => Some(Sort::Wait),
            Self::Last => Some(Sort::Last),
            Self::Fds => Some(Sort::Fds),
            Self::Minute | Self::Reason | Self::Place => None,
        }
    }
}

/// All of them. Those of rank 3 and below make 80 columns.
const COLUMNS: &[Column<Kind>] = &[
    Column::new(Kind::Mark, "", (1, 1), 0, false),
    Column::new(Kind::Listener, "LISTENER", (15, 40), 0, false),
    Column::new(Kind::Owner, "OWNER", (12, 26), 1, false),
    Column::new(Kind::Accepts, "ACC/S", (5, 6), 2, true),
    Column::new(Kind::Failures, "FAIL/S", (6, 6), 0, true),
    Column::new(Kind::Minute, "IN 60S", (6, 6), 6, true),
    Column::new(Kind::Reason, "REASON", (13, 18), 1, false),
    Column::new(Kind::Queue, "QUEUE", (11, 20), 2, true),
    Column::new(Kind::Wait, "WAIT50/99", (11, 11), 5, true),
    Column::new(Kind::Last, "LAST", (4, 4), 4, true),
    Column::new(Kind::Fds, "FDS", (9, 22), 3, true),
    Column::new(Kind::Place, "UNIT", (14, 48), 7, false),
];

/// The columns that there is room for.
pub(super) fn columns(width: usize) -> Vec<(Column<Kind>, usize)> {
    fit(COLUMNS, width)
}

/// A cell and its look.
pub(super) fn cell(row: &Row, kind: Kind, width: usize, scene: Scene<'_>) -> (String, Style) {
    let look = scene.look;
    let plain = Style::new();
    let unknown = || (UNKNOWN.to_owned(), look.dim());
    match kind {
        Kind::Mark if row.failure_rate > 0.0 => ("!".to_owned(), look.bad()),
        Kind::Mark if row.stalled_ns.is_some() => ("!".to_owned(), look.bad()),
        Kind::Mark if row.failures_60s > 0 => ("*".to_owned(), look.odd()),
        Kind::Mark => (" ".to_owned(), plain),
        Kind::Listener => (listener(row, width, look), plain),
        Kind::Owner => owner(row, width, scene).map_or_else(unknown, |text| (text, plain)),
        Kind::Accepts => match row.accept_rate {
            Some(rate) => (cell::rate(rate), plain),
            None => unknown(),
        },
        Kind::Failures if row.failure_rate > 0.0 => (cell::rate(row.failure_rate), look.bad()),
        Kind::Minute if row.failures_60s > 0 => (cell::number(row.failures_60s), look.odd()),
        Kind::Failures | Kind::Minute => ("0".to_owned(), plain),
        Kind::Reason => reason(row, width, scene),
        Kind::Queue if row.closed => ("closed".to_owned(), look.odd()),
        Kind::Queue => match (row.queue, row.fullness()) {
            (Some((depth, limit)), Some(full)) => {
                let text = format!("{depth}/{limit}");
                (gauge(&text, full, width, look), look.fullness(full))
            }
            _ => unknown(),
        },
        Kind::Wait => match row.waits {
            Some((half, most)) => {
                let text = format!("{}/{}", cell::wait(half), cell::wait(most));
                // Whoever waits for a second may be gone.
                let slow = if most >= 1_000_000_000 {
                    look.odd()
                } else {
                    plain
                };
                (text, slow)
            }
            None => unknown(),
        },
        Kind::Last => match row.last_accept_ns {
            Some(ns) => (cell::age(scene.now_ns.saturating_sub(ns)), plain),
            None => unknown(),
        },
        Kind::Fds => {
            let owner = row.owner.as_ref();
            match owner.and_then(|owner| Some((owner.used?, owner.limit))) {
                Some((used, Some(limit))) => {
                    let full = row.descriptors().unwrap_or(0);
                    let text = format!("{}/{}", cell::number(used), cell::number(limit));
                    (gauge(&text, full, width, look), look.fullness(full))
                }
                // No limit, or one that is not known.
                Some((used, None)) => (format!("{}/-", cell::number(used)), plain),
                None => unknown(),
            }
        }
        Kind::Place => match &row.owner {
            Some(owner) if !owner.place.is_empty() => (cut_left(&owner.place, width, look), plain),
            _ => unknown(),
        },
    }
}

/// A listener's name; where that is long, what tells most of it.
fn listener(row: &Row, width: usize, look: Look) -> String {
    if row.name.is_empty() {
        return match row.id {
            RowId::Other { .. } => "(no listener)".to_owned(),
            RowId::Listener(inode) => format!("socket:[{inode}]"),
        };
    }
    if row.name.width() <= width {
        return row.name.to_string();
    }
    let (arrow, name) = match row.name.strip_prefix("-> ") {
        Some(target) => ("->", target),
        None => ("", &*row.name),
    };
    let name = match name.split_once(' ') {
        Some(("tcp" | "tcp6" | "unix", place)) => place,
        _ => name,
    };
    // The port, and the last part of a path, is at the end.
    format!("{arrow}{}", cut_left(name, width - arrow.len(), look))
}

/// `name[pid]`, with the number of others; `None` where nobody is known.
fn owner(row: &Row, width: usize, scene: Scene<'_>) -> Option<String> {
    let Some(owner) = &row.owner else {
        return row.orphan.then(|| "nobody".to_owned());
    };
    let end = match owner.others {
        0 => format!("[{}]", owner.pid),
        others => format!("[{}]+{others}", owner.pid),
    };
    let comm = if owner.comm.is_empty() {
        "?"
    } else {
        &owner.comm
    };
    let room = width.saturating_sub(end.len()).max(3);
    Some(cut(
        &format!("{}{end}", cut(comm, room, scene.look)),
        width,
        scene.look,
    ))
}

/// Why it fails; that nobody accepts only where nothing else says why.
fn reason(row: &Row, width: usize, scene: Scene<'_>) -> (String, Style) {
    let look = scene.look;
    let cause = row.main_reason(scene.model.second());
    if let Some(ns) = row.stalled_ns
        && cause.is_none_or(|one| one.reason.as_str() == STALLED)
    {
        return (format!("stalled {}", cell::age(ns)), look.bad());
    }
    match cause {
        Some(one) if row.failures_60s > 0 => {
            let style = if row.failure_rate > 0.0 {
                look.bad()
            } else {
                look.odd()
            };
            (cut_left(one.reason.as_str(), width, look), style)
        }
        _ => (String::new(), Style::new()),
    }
}

/// A bar, and the numbers behind it; of a column that has no room for both, the numbers.
fn gauge(text: &str, full: u64, width: usize, look: Look) -> String {
    /// Of the numbers, so that bars of one column are alike.
    const NUMBERS: usize = 7;
    let bar = width.saturating_sub(text.len().max(NUMBERS) + 1);
    if bar < 2 {
        return text.to_owned();
    }
    let pad = NUMBERS.saturating_sub(text.len());
    format!("{} {}{text}", cell::bar(full, bar, look), " ".repeat(pad))
}

/// Pads a cell to its column.
pub(super) fn pad(text: &str, width: usize, right: bool) -> String {
    let space = " ".repeat(width.saturating_sub(text.width()));
    if right {
        format!("{space}{text}")
    } else {
        format!("{text}{space}")
    }
}

/// The table as text, for scripts: a line of names, and one for each row.
#[must_use]
pub fn table<'a>(rows: impl Iterator<Item = &'a Row>, width: usize, scene: Scene<'_>) -> String {
    let columns = columns(width);
    let mut text = String::new();
    let mut line = |cells: Vec<String>| {
        text.push_str(cells.join(" ").trim_end());
        text.push('\n');
    };
    line(
        columns
            .iter()
            .map(|(it, wide)| pad(it.title, *wide, it.right))
            .collect(),
    );
    for row in rows {
        line(
            columns
                .iter()
                .map(|(it, wide)| {
                    let (text, _) = cell(row, it.kind, *wide, scene);
                    pad(&text, *wide, it.right)
                })
                .collect(),
        );
    }
    text
}
