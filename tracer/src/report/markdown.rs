//! A report as Markdown, to paste into a post-mortem.

use std::fmt::Write as _;

use super::document::{Block, Table};

/// The report as Markdown. What comes from outside stays text.
#[must_use]
pub fn markdown(blocks: &[Block]) -> String {
    let mut out = String::new();
    write(&mut out, blocks, 0);
    out
}

/// Text in which nothing is markup.
fn plain(from: &str) -> String {
    let mut out = String::with_capacity(from.len());
    for char in from.chars() {
        match char {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '~' | '&' => {
                out.push('\\');
                out.push(char);
            }
            char if char.is_control() => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

/// A fence that is longer than any in the text.
fn fenced(out: &mut String, code: &str) {
    let longest = code
        .split(|char| char != '`')
        .map(str::len)
        .max()
        .unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let code: String = code
        .chars()
        .map(|char| {
            if char.is_control() && char != '\n' {
                '\u{fffd}'
            } else {
                char
            }
        })
        .collect();
    let _ = writeln!(out, "{fence}sh\n{code}\n{fence}\n");
}

fn write(out: &mut String, blocks: &[Block], deeper: usize) {
    for block in blocks {
        match block {
            Block::Title(rank, title) => {
                let _ = writeln!(
                    out,
                    "{} {}\n",
                    "#".repeat(usize::from(*rank) + deeper),
                    plain(title)
                );
            }
            Block::Text(text) => {
                let _ = writeln!(out, "{}\n", plain(text));
            }
            Block::Facts(facts) => {
                out.push_str("| | |\n|---|---|\n");
                for (name, value) in facts {
                    let _ = writeln!(out, "| {name} | {} |", plain(value));
                }
                out.push('\n');
            }
            Block::List(lines) => {
                for line in lines {
                    let _ = writeln!(out, "- {}", plain(line));
                }
                out.push('\n');
            }
            Block::Code(code) => fenced(out, code),
            Block::Table(table) => rows(out, table),
            Block::Figure(_) => {}
            Block::Incident(_, title, blocks) => {
                let _ = writeln!(out, "{} {}\n", "#".repeat(1 + deeper.max(1)), plain(title));
                write(out, blocks, deeper.max(1));
            }
        }
    }
}

fn rows(out: &mut String, table: &Table) {
    let _ = writeln!(out, "| {} |", table.head.join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(table.head.len()));
    for row in &table.rows {
        let row: Vec<String> = row.iter().map(|cell| plain(cell)).collect();
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out.push('\n');
}
