//! Incidents that fire.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{Scene, cell, chosen, cut, detail, put, table::pad};
use crate::top::ui::Ui;

/// Of the height, so much is for the list: a third.
const SHARE: u16 = 3;

pub(super) fn draw(buffer: &mut Buffer, area: Rect, scene: Scene<'_>, ui: &mut Ui) {
    let Scene { model, look, .. } = scene;
    put(buffer, area, 0, 0, "SEVERITY  SINCE  WHAT", look.heading());
    if model.incidents.is_empty() {
        put(buffer, area, 2, 2, "no incidents", look.good());
        return;
    }
    ui.at = ui.at.min(model.incidents.len() - 1);
    let count = u16::try_from(model.incidents.len()).unwrap_or(u16::MAX);
    let room = count.min((area.height / SHARE).max(1));
    let first = (ui.at + 1).saturating_sub(usize::from(room));
    ui.room = usize::from(room);
    let shown = model.incidents.iter().enumerate().skip(first);
    for (line, (index, one)) in (1..=room).zip(shown) {
        let selected = index == ui.at;
        let base = if selected {
            look.selected()
        } else {
            Style::new()
        };
        let blank = " ".repeat(usize::from(area.width));
        put(buffer, area, 0, line, &blank, base);
        let style = match one.severity.as_str() {
            "critical" => look.bad(),
            "warning" => look.odd(),
            _ => Style::new(),
        };
        put(
            buffer,
            area,
            0,
            line,
            &pad(&one.severity, 9, false),
            chosen(style, base),
        );
        let since = model.time.duration_since(one.started).as_nanos();
        let since = cell::age(u64::try_from(since).unwrap_or(0));
        put(buffer, area, 10, line, &pad(&since, 5, true), base);
        let silent = if one.silenced { "(silenced) " } else { "" };
        let room = usize::from(area.width).saturating_sub(17);
        let what = cut(&format!("{silent}{}", one.statement), room, look);
        put(buffer, area, 17, line, &what, base);
    }
    let Some(one) = model.incidents.get(ui.at) else {
        return;
    };
    let begin = room + 2;
    if area.height <= begin {
        return;
    }
    let mut lines = vec![Line::from(one.statement.clone())];
    lines.extend(one.reasons.iter().map(|(reason, count)| {
        Line::from(vec![
            Span::styled(format!("  {reason}"), look.bad()),
            Span::raw(format!("  {}", cell::number(*count))),
        ])
    }));
    lines.extend(one.timeline.iter().map(|(time, what)| {
        let time = cell::clock(*time);
        Line::from(vec![
            Span::styled(format!("{time}  "), look.dim()),
            Span::raw(what.clone()),
        ])
    }));
    let below = Rect {
        y: area.y + begin,
        height: area.height - begin,
        ..area
    };
    ui.scroll = 0;
    detail::paragraph(buffer, below, lines, ui);
}
