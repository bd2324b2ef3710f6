//! Listeners and their owners.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{Scene, chosen, put, table};
use crate::top::ui::Ui;

pub(super) fn draw(buffer: &mut Buffer, area: Rect, scene: Scene<'_>, ui: &mut Ui) {
    let look = scene.look;
    let columns = table::columns(usize::from(area.width));
    let mut x = 0;
    for (column, wide) in &columns {
        let is_sorted = column.kind.sort() == Some(ui.sort);
        let style = if is_sorted {
            look.heading()
                .add_modifier(ratatui::style::Modifier::UNDERLINED)
        } else {
            look.heading()
        };
        let title = table::pad(column.title, *wide, column.right);
        put(buffer, area, x, 0, &title, style);
        x += u16::try_from(*wide).unwrap_or(u16::MAX).saturating_add(1);
    }
    ui.fit(area.y + 1, usize::from(area.height - 1));
    if ui.order.is_empty() {
        let why = if !scene.model.has_begun() {
            "one moment: numbers come after the first second"
        } else if ui.filter.is_empty() && !ui.only_failing {
            "no listeners"
        } else {
            "nothing that matches (Esc shows all)"
        };
        put(buffer, area, 2, 2, why, look.dim());
        return;
    }
    let at = ui.position();
    let shown = ui.order.iter().enumerate().skip(ui.first).take(ui.room);
    for (line, (index, id)) in (1..).zip(shown) {
        let Some(row) = scene.model.row(id) else {
            continue;
        };
        let selected = index == at;
        let base = if selected {
            look.selected()
        } else {
            Style::new()
        };
        if selected {
            let blank = " ".repeat(usize::from(area.width));
            put(buffer, area, 0, line, &blank, base);
        }
        let mut x = 0;
        for (column, wide) in &columns {
            let (text, style) = table::cell(row, column.kind, *wide, scene);
            let text = table::pad(&text, *wide, column.right);
            put(buffer, area, x, line, &text, chosen(style, base));
            x += u16::try_from(*wide).unwrap_or(u16::MAX).saturating_add(1);
        }
    }
}
