//! From the model to characters (pure).

pub mod cell;
mod columns;
mod detail;
mod head;
mod help;
mod incidents;
mod listeners;
mod reasons;
mod style;
mod table;

#[cfg(test)]
mod tests;

use ratatui::{Frame, buffer::Buffer, layout::Rect, style::Style};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

pub(super) use head::lost;
pub use style::Look;
pub use table::table;

use super::{
    model::Model,
    ui::{Ui, View},
};

/// The least that makes sense.
const LEAST: (u16, u16) = (24, 6);

/// What is drawn, and how.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What is known.
    pub model: &'a Model,
    /// Now, nanoseconds as in samples.
    pub now_ns: u64,
    /// How it may look.
    pub look: Look,
}

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, scene: Scene<'_>, ui: &mut Ui) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let small = format!("{}x{}: too small", area.width, area.height);
        put(buffer, area, 0, 0, &small, Style::new());
        return;
    }
    let top = head::draw(buffer, area, scene, ui);
    let body = Rect {
        y: top,
        height: area.height - top - 1,
        ..area
    };
    if ui.help {
        help::draw(buffer, body, scene, ui);
    } else if ui.detail.is_some() {
        detail::draw(buffer, body, scene, ui);
    } else {
        match ui.view {
            View::Listeners => listeners::draw(buffer, body, scene, ui),
            View::Reasons => reasons::draw(buffer, body, scene, ui),
            View::Incidents => incidents::draw(buffer, body, scene, ui),
        }
    }
    let foot = Rect {
        y: area.height - 1,
        height: 1,
        ..area
    };
    head::foot(buffer, foot, scene, ui);
}

/// Writes text at a column and line of an area, as far as it has room; returns the column after it.
fn put(buffer: &mut Buffer, area: Rect, x: u16, y: u16, text: &str, style: Style) -> u16 {
    if x >= area.width || y >= area.height {
        return x;
    }
    let room = usize::from(area.width - x);
    let (end, _) = buffer.set_stringn(area.x + x, area.y + y, text, room, style);
    end - area.x
}

/// How a cell looks in a row that looks like `row`: one that is selected has no colours, which would be
/// backgrounds there.
fn chosen(cell: Style, row: Style) -> Style {
    if row == Style::new() {
        return cell;
    }
    Style {
        fg: None,
        ..cell.patch(row)
    }
}

/// Text in at most so many columns: what is cut is shown as `…` or `~`.
fn cut(text: &str, width: usize, look: Look) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 0;
    for char in text.chars() {
        let wide = char.width().unwrap_or(0);
        if used + wide + 1 > width {
            break;
        }
        used += wide;
        short.push(char);
    }
    if width > 0 {
        short.push(mark(look));
    }
    short
}

/// The same, and its end stays.
fn cut_left(text: &str, width: usize, look: Look) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let mut kept: Vec<char> = text
        .chars()
        .rev()
        .take_while(|char| {
            used += char.width().unwrap_or(0);
            used <= width
        })
        .collect();
    if width > 0 {
        kept.push(mark(look));
    }
    kept.iter().rev().collect()
}

fn mark(look: Look) -> char {
    if look.unicode { '…' } else { '~' }
}
