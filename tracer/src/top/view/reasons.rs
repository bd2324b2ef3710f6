//! Failures by reason.

use std::collections::HashMap;

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    Scene, cell, chosen,
    columns::{Column, fit},
    cut, put,
    table::pad,
};
use crate::top::{
    model::{Row, SECONDS},
    ui::Ui,
};

#[derive(Clone, Copy)]
enum Kind {
    Reason,
    Rate,
    Minute,
    All,
    Last,
    Most,
    Minutes,
}

const COLUMNS: &[Column<Kind>] = &[
    Column::new(Kind::Reason, "REASON", (20, 22), 0, false),
    Column::new(Kind::Rate, "/S", (6, 6), 0, true),
    Column::new(Kind::Minute, "IN 60S", (6, 7), 1, true),
    Column::new(Kind::All, "IN ALL", (7, 8), 2, true),
    Column::new(Kind::Last, "LAST", (4, 5), 3, true),
    Column::new(Kind::Most, "MOST OF THEM", (26, 60), 4, false),
    Column::new(
        Kind::Minutes,
        "THE LAST MINUTE",
        (SECONDS, SECONDS),
        5,
        false,
    ),
];

pub(super) fn draw(buffer: &mut Buffer, area: Rect, scene: Scene<'_>, ui: &mut Ui) {
    let Scene { model, look, .. } = scene;
    let second = model.second();
    let columns = fit(COLUMNS, usize::from(area.width));
    let mut x = 0;
    for (column, wide) in &columns {
        let title = pad(column.title, *wide, column.right);
        put(buffer, area, x, 0, &title, look.heading());
        x += u16::try_from(*wide).unwrap_or(u16::MAX).saturating_add(1);
    }
    if model.reasons.is_empty() {
        put(buffer, area, 2, 2, "no failures so far", look.dim());
        return;
    }
    let most = most(model.rows(), second);
    let room = usize::from(area.height - 1);
    ui.room = room;
    ui.at = ui.at.min(model.reasons.len() - 1);
    let first = (ui.at + 1).saturating_sub(room);
    let shown = model.reasons.iter().enumerate().skip(first).take(room);
    for (line, (index, one)) in (1..).zip(shown) {
        let lately = one.by_second.sum(second, SECONDS);
        let failing = match (one.rate > 0.0, lately > 0) {
            (true, _) => look.bad(),
            (false, true) => look.odd(),
            (false, false) => Style::new(),
        };
        let base = if index == ui.at {
            look.selected()
        } else {
            Style::new()
        };
        if index == ui.at {
            let blank = " ".repeat(usize::from(area.width));
            put(buffer, area, 0, line, &blank, base);
        }
        let mut x = 0;
        for (column, wide) in &columns {
            let (text, style) = match column.kind {
                Kind::Reason => (one.reason.to_string(), failing),
                Kind::Rate => (cell::rate(one.rate), failing),
                Kind::Minute => (cell::number(lately), failing),
                Kind::All => (cell::number(one.count), Style::new()),
                Kind::Last => {
                    let ago = scene.now_ns.saturating_sub(one.last_ns);
                    (cell::age(ago), Style::new())
                }
                Kind::Most => {
                    let row = most.get(one.reason.as_str());
                    let text = row.map_or_else(|| cell::UNKNOWN.to_owned(), |(_, row)| whose(row));
                    (cut(&text, *wide, look), Style::new())
                }
                Kind::Minutes => {
                    let values = || one.by_second.last(second, SECONDS);
                    let highest = values().max().unwrap_or(0);
                    (cell::spark(values(), highest, look), failing)
                }
            };
            let text = pad(&text, *wide, column.right);
            put(buffer, area, x, line, &text, chosen(style, base));
            x += u16::try_from(*wide).unwrap_or(u16::MAX).saturating_add(1);
        }
    }
}

/// The row with most failures of each reason.
fn most<'a>(
    rows: impl Iterator<Item = &'a Row>,
    second: u64,
) -> HashMap<&'a str, ((u64, u64), &'a Row)> {
    let mut most: HashMap<&str, ((u64, u64), &Row)> = HashMap::new();
    for row in rows {
        for one in &row.reasons {
            let count = (one.by_second.sum(second, SECONDS), one.count);
            let entry = most.entry(one.reason.as_str()).or_insert((count, row));
            if count > entry.0 {
                *entry = (count, row);
            }
        }
    }
    most
}

fn whose(row: &Row) -> String {
    match &row.owner {
        Some(owner) if !owner.comm.is_empty() => {
            format!("{}[{}] {}", owner.comm, owner.pid, row.name)
        }
        _ => row.name.to_string(),
    }
}
