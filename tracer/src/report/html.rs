//! A report as one HTML file that needs nothing else: no script, no network, light and dark, printable.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::{
    document::{Block, Table},
    plot,
};

/// Nothing may be loaded, and nothing may run, whatever a name holds.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #fff; --rule: #d1d9e0;
  --box: #f6f8fa; --one: #0969da; --two: #bc4c00; --three: #8250df; --limit: #cf222e; --mark: #1a7f37;
  --s0: #eff2f5; --s1: #ffd8b5; --s2: #fb8f44; --s3: #e16f24; --s4: #953800; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117;
  --rule: #3d444d; --box: #151b23; --one: #4493f8; --two: #db6d28; --three: #ab7df8; --limit: #f85149;
  --mark: #3fb950; --s0: #1f262e; --s1: #5a2d0c; --s2: #9b4a13; --s3: #db6d28; --s4: #ffb77c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 980px; margin: 2em auto; padding: 0 1.2em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.15em; margin: 1.6em 0 .4em; }
table { border-collapse: collapse; width: 100%; margin: 1em 0; font-size: .92em; }
th, td { text-align: left; padding: .25em .7em .25em 0; border-bottom: 1px solid var(--rule); vertical-align: top;
  overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
dl { display: grid; grid-template-columns: 9em 1fr; gap: .15em 1em; margin: 1em 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--box); border: 1px solid var(--rule); border-radius: 6px; padding: .6em .9em;
  white-space: pre-wrap; overflow-wrap: anywhere; }
a { color: var(--one); } ul { padding-left: 1.2em; } li { overflow-wrap: anywhere; }
details { border-top: 1px solid var(--rule); padding: .6em 0; }
summary { font-weight: 600; cursor: pointer; overflow-wrap: anywhere; }
figure { margin: .8em 0; overflow-x: auto; } figure.plot svg { width: 100%; height: auto; display: block; }
figure.calendar { display: flex; gap: 2em; flex-wrap: wrap; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; } svg .name { fill: var(--ink); font-weight: 600; }
svg .grid { stroke: var(--rule); } svg .line { fill: none; stroke-width: 1.8; }
svg .l0 { stroke: var(--one); } svg .l1 { stroke: var(--two); } svg .l2 { stroke: var(--three); }
svg .limit { fill: none; stroke: var(--limit); stroke-dasharray: 6 4; stroke-width: 1.5; }
svg .mark line { stroke: var(--mark); stroke-width: 1.5; } svg .began line { stroke: var(--limit); stroke-width: 2; }
.s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); } .s3 { fill: var(--s3); } .s4 { fill: var(--s4); }
footer { color: var(--soft); margin: 2em 0; font-size: .9em; }
@media print { :root { color-scheme: light; } body { max-width: none; margin: 0; } details { break-inside: avoid-page; }
  figure, pre, tr { break-inside: avoid; } }
";

/// The report as a whole file.
#[must_use]
pub fn html(blocks: &[Block], made: &str, zone: &TimeZone) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"icon\" href=\"data:,\"><title>turnaway report</title><style>{STYLE}</style></head><body>\n"
    );
    let is_one = blocks.len() == 1;
    write(&mut out, blocks, zone, is_one);
    let _ = writeln!(out, "<footer>{}</footer></body></html>", escape(made));
    out
}

/// Text in which nothing is markup.
#[must_use]
pub(super) fn escape(from: &str) -> String {
    let mut out = String::with_capacity(from.len());
    for char in from.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // HTML has no way to write them, and those that reorder text would mislead.
            char if char.is_control() && char != '\n' => out.push('\u{fffd}'),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

fn write(out: &mut String, blocks: &[Block], zone: &TimeZone, open: bool) {
    for block in blocks {
        match block {
            Block::Title(rank, title) => {
                let _ = writeln!(out, "<h{rank}>{}</h{rank}>", escape(title));
            }
            Block::Text(text) => {
                let _ = writeln!(out, "<p>{}</p>", escape(text));
            }
            Block::Facts(facts) => {
                out.push_str("<dl>");
                for (name, value) in facts {
                    let _ = write!(
                        out,
                        "<dt>{name}</dt><dd data-fact=\"{name}\">{}</dd>",
                        escape(value)
                    );
                }
                out.push_str("</dl>\n");
            }
            Block::List(lines) => {
                out.push_str("<ul>");
                for line in lines {
                    let _ = write!(out, "<li>{}</li>", escape(line));
                }
                out.push_str("</ul>\n");
            }
            Block::Code(code) => {
                let _ = writeln!(out, "<pre><code>{}</code></pre>", escape(code));
            }
            Block::Table(table) => rows(out, table),
            Block::Figure(figure) => out.push_str(&plot::draw(figure, zone)),
            Block::Incident(id, title, blocks) => {
                let id = escape(id);
                if open {
                    let _ = writeln!(
                        out,
                        "<section id=\"i-{id}\" data-incident=\"{id}\"><h1>{}</h1>",
                        escape(title)
                    );
                    write(out, blocks, zone, open);
                    out.push_str("</section>\n");
                } else {
                    let _ = writeln!(
                        out,
                        "<details id=\"i-{id}\" data-incident=\"{id}\"><summary>{}</summary>",
                        escape(title)
                    );
                    write(out, blocks, zone, open);
                    out.push_str("</details>\n");
                }
            }
        }
    }
}

fn rows(out: &mut String, table: &Table) {
    out.push_str("<table><thead><tr>");
    for name in &table.head {
        let _ = write!(out, "<th>{name}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for (row, id) in table.rows.iter().zip(&table.incidents) {
        let id = escape(id);
        let _ = write!(out, "<tr data-row=\"{id}\">");
        for (cell, name) in row.iter().zip(&table.head) {
            let cell = escape(cell);
            if *name == "id" {
                let _ = write!(out, "<td><a href=\"#i-{id}\">{cell}</a></td>");
            } else {
                let _ = write!(out, "<td data-fact=\"{name}\">{cell}</td>");
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
}
