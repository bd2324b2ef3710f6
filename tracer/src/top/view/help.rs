//! All keys, and what columns mean.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{Scene, detail};
use crate::top::{input::KEYS, ui::Ui};

const COLUMNS: &[(&str, &str)] = &[
    (
        "!  *",
        "it fails or stalls now; it failed in the last minute",
    ),
    ("ACC/S", "connections accepted a second"),
    (
        "FAIL/S",
        "failures a second; IN 60S: in the last minute; REASON: most of them",
    ),
    (
        "QUEUE",
        "connections that wait to be accepted, and how many may",
    ),
    (
        "WAIT50/99",
        "half of the connections, and 99 of 100, waited for less than that",
    ),
    ("LAST", "since the last connection was accepted"),
    ("FDS", "open descriptors of the owner, and its limit"),
    ("-", "not known, which is not 0"),
];

pub(super) fn draw(buffer: &mut Buffer, area: Rect, scene: Scene<'_>, ui: &mut Ui) {
    let look = scene.look;
    let mut lines = Vec::new();
    for (name, what) in KEYS.iter().chain(COLUMNS) {
        lines.push(Line::from(vec![
            Span::styled(format!("{name:12} "), look.heading()),
            Span::styled(*what, Style::new()),
        ]));
    }
    detail::paragraph(buffer, area, lines, ui);
}
