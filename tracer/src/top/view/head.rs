//! The lines above and below.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    Scene,
    cell::{self, UNKNOWN},
    put,
};
use crate::top::{
    sample::LostSample,
    ui::{Ui, View},
};

/// Draws them; returns the line after them.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, scene: Scene<'_>, ui: &Ui) -> u16 {
    let Scene { model, look, .. } = scene;
    let sums = model.sums();
    let mut x = put(buffer, area, 0, 0, "turnaway", look.heading());
    if !model.host.is_empty() {
        x = put(buffer, area, x + 1, 0, &model.host, Style::new());
        x = put(
            buffer,
            area,
            x + 1,
            0,
            &cell::clock(model.time),
            Style::new(),
        );
    }
    x += 1;
    for (number, view) in (1..).zip(View::ALL) {
        let mut name = format!("{number}:{}", view.name());
        if view == View::Incidents && !model.incidents.is_empty() {
            name = format!("{name}({})", model.incidents.len());
        }
        let style = match view == ui.view {
            true => look.selected(),
            false if view == View::Incidents && !model.incidents.is_empty() => look.bad(),
            false => Style::new(),
        };
        x = put(buffer, area, x + 1, 0, &name, style);
    }
    if ui.paused {
        put(buffer, area, x + 2, 0, "PAUSED", look.odd());
    }
    let accepts = sums.accepts.map_or_else(|| UNKNOWN.to_owned(), cell::rate);
    let listeners = match model.more {
        0 => sums.listeners.to_string(),
        more => format!("{} and {more} other", sums.listeners),
    };
    let mut x = put(
        buffer,
        area,
        0,
        1,
        &format!("{listeners} listeners, accepts {accepts}/s, "),
        Style::new(),
    );
    let failing = if sums.failures > 0.0 {
        look.bad()
    } else {
        Style::new()
    };
    let failures = format!(
        "failures {}/s, {} in 60 s, {} in all",
        cell::rate(sums.failures),
        cell::number(sums.failures_60s),
        cell::number(sums.all_failures),
    );
    x = put(buffer, area, x, 1, &failures, failing);
    if sums.stalled > 0 {
        put(
            buffer,
            area,
            x,
            1,
            &format!(", {} stalled", sums.stalled),
            look.bad(),
        );
    }
    let (kept, style) = match lost(&model.lost) {
        Some(lost) => (lost, look.bad()),
        None => ("nothing lost".to_owned(), look.good()),
    };
    let mut x = put(buffer, area, 0, 2, &kept, style);
    let kinds = [
        // It is so on this kernel, and will be.
        ("not seen", &model.unseen, look.dim()),
        ("not looked at", &model.problems, look.odd()),
    ];
    for (what, all, style) in kinds {
        if !all.is_empty() {
            let text = format!("; {what}: {}", all.join(", "));
            x = put(buffer, area, x, 2, &text, style);
        }
    }
    let mut chosen = format!("sort {}", ui.sort.name());
    if ui.reverse {
        chosen.push_str(" reversed");
    }
    if ui.only_failing {
        chosen.push_str(", failing only");
    }
    if !ui.filter.is_empty() && !ui.typing {
        chosen = format!("{chosen}, filter {}", ui.filter);
    }
    if ui.view == View::Listeners && ui.detail.is_none() && !ui.help {
        let room = usize::from(area.width.saturating_sub(x + 2));
        let wide = unicode_width::UnicodeWidthStr::width(chosen.as_str());
        if wide <= room {
            let start = area.width - u16::try_from(wide).unwrap_or(0);
            put(buffer, area, start, 2, &chosen, look.bold());
        }
    }
    3
}

/// What was lost, in words; `None` if nothing was, as far as is known.
pub(in crate::top) fn lost(lost: &LostSample) -> Option<String> {
    let parts: Vec<String> = [
        (lost.map, "failures (map full)"),
        (lost.missed.unwrap_or(0), "runs of hooks (missed)"),
        (lost.ring, "exemplars (ring full)"),
        (lost.samples, "updates (slow terminal)"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    (!parts.is_empty()).then(|| format!("LOST: {}", parts.join(", ")))
}

/// Draws the keys, or the filter that is typed.
pub(super) fn foot(buffer: &mut Buffer, area: Rect, scene: Scene<'_>, ui: &Ui) {
    let look = scene.look;
    if ui.typing {
        let x = put(buffer, area, 0, 0, "filter: ", look.heading());
        let x = put(buffer, area, x, 0, &ui.filter, look.bold());
        let x = put(buffer, area, x, 0, " ", look.selected());
        put(
            buffer,
            area,
            x + 1,
            0,
            "Enter keeps it, Esc shows all",
            look.dim(),
        );
        return;
    }
    let keys: &[(&str, &str)] = match (ui.help, ui.detail.is_some(), ui.view) {
        (true, _, _) => &[("Esc", "back"), ("up/down", "scroll"), ("q", "quit")],
        (_, true, _) => &[
            ("Esc", "back"),
            ("up/down", "scroll"),
            ("space", "pause"),
            ("?", "help"),
            ("q", "quit"),
        ],
        (_, _, View::Listeners) => &[
            ("?", "help"),
            ("q", "quit"),
            ("Enter", "more"),
            ("/", "filter"),
            ("s", "sort"),
            ("r", "reverse"),
            ("f", "failing"),
            ("space", "pause"),
            ("Tab", "view"),
        ],
        (_, _, View::Reasons) => &[
            ("?", "help"),
            ("q", "quit"),
            ("Enter", "its listeners"),
            ("space", "pause"),
            ("Tab", "view"),
        ],
        (_, _, View::Incidents) => &[
            ("?", "help"),
            ("q", "quit"),
            ("up/down", "select"),
            ("space", "pause"),
            ("Tab", "view"),
        ],
    };
    let mut x = 0;
    for (key, what) in keys {
        x = put(buffer, area, x, 0, key, look.heading());
        x = put(buffer, area, x + 1, 0, what, Style::new()) + 2;
    }
}
