//! A report as text for a terminal.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

use super::document::{Block, Table};
use crate::text;

/// The report as text. What comes from outside cannot move the cursor.
#[must_use]
pub fn text(blocks: &[Block]) -> String {
    let mut out = String::new();
    write(&mut out, blocks);
    out
}

fn plain(from: &str) -> String {
    // A backslash stays: paths and escaped unit names are to be copied.
    let parts: Vec<String> = from
        .split('\\')
        .map(|part| text::terminal(part.as_bytes()))
        .collect();
    parts.join("\\")
}

fn write(out: &mut String, blocks: &[Block]) {
    for block in blocks {
        match block {
            Block::Title(1, title) => {
                let _ = writeln!(out, "{}\n", plain(title));
            }
            Block::Title(_, title) => {
                let _ = writeln!(out, "\n{}", plain(title));
            }
            Block::Text(text) => {
                let _ = writeln!(out, "{}", plain(text));
            }
            Block::Facts(facts) => {
                for (name, value) in facts {
                    let _ = writeln!(out, "  {name:<12} {}", plain(value));
                }
            }
            Block::List(lines) => {
                for line in lines {
                    let _ = writeln!(out, "  {}", plain(line));
                }
            }
            Block::Code(code) => {
                for line in code.lines() {
                    let _ = writeln!(out, "    {}", plain(line));
                }
            }
            Block::Table(table) => columns(out, table),
            Block::Figure(_) => {}
            Block::Incident(_, title, blocks) => {
                let _ = writeln!(out, "{}\n", plain(title));
                write(out, blocks);
                out.push('\n');
            }
        }
    }
}

fn columns(out: &mut String, table: &Table) {
    let head = table.head.iter().map(|one| (*one).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(
            table
                .rows
                .iter()
                .map(|row| row.iter().map(|cell| plain(cell)).collect()),
        )
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.head.len()).map(width).collect();
    out.push('\n');
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
