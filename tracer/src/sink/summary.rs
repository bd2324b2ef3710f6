//! The terminal's summary of a run.

use std::{cmp::Reverse, collections::HashMap, fmt::Write as _, time::Duration};

use unicode_width::UnicodeWidthStr as _;

use super::{
    name,
    text::{Text, place, printable, span, unknown, who},
};
use crate::{
    errno,
    record::{Clock, Failures, Hook, HookState, Lost, Run},
};

/// From this long a run, times of day are ambiguous: dates are shown too.
const WITH_DATES: Duration = Duration::from_hours(12);
/// From this wait on, a listener is of note.
const LONG: Duration = Duration::from_millis(100);
/// Most listeners of note that are shown.
const LISTENERS: usize = 5;

const COLUMNS: [&str; 8] = [
    "COUNT", "REASON", "ERRNO", "PROCESS", "LISTENER", "FIRST", "LAST", "UNIT",
];

pub(super) fn render(text: &Text, run: &Run<'_>, clock: &Clock) -> String {
    let mut lines = vec![text.heading(&headline(text, run))];
    let groups = group(run.totals);
    let shown = groups.len().min(text.look().rows);
    if shown > 0 {
        table(text, run, clock, &groups[..shown], &mut lines);
    }
    if shown < groups.len() {
        let count: u64 = groups[shown..].iter().map(|group| group.count).sum();
        lines.push(format!(
            "  … and {} more of other processes, listeners or reasons ({})",
            text.number(count),
            text.number((groups.len() - shown) as u64),
        ));
    }
    if run.other > 0 {
        lines.push(format!(
            "  … and {} more of processes and listeners too many to be told apart",
            text.number(run.other)
        ));
    }
    listeners(text, run, &mut lines);
    lost(text, run, &mut lines);
    hooks(text, run.hooks, &mut lines);
    lines.join("\n")
}

fn headline(text: &Text, run: &Run<'_>) -> String {
    let counted: u64 = run.totals.iter().map(|failures| failures.count).sum();
    let count = counted.saturating_add(run.other);
    let duration = format!("{:.1} s", run.duration.as_secs_f64());
    match count {
        0 => format!("No failure was counted in {duration}"),
        1 => format!("1 failure in {duration}"),
        _ => format!("{} failures in {duration}", text.number(count)),
    }
}

/// Totals of one process, listener, reason and errno: ways of calling and tiers, which
/// make keys of their own, are added up. Most failures first.
fn group<'a>(totals: &[Failures<'a>]) -> Vec<Failures<'a>> {
    let mut groups: Vec<Failures<'a>> = Vec::new();
    let mut index = HashMap::new();
    for total in totals {
        let key = total.key;
        let same = (
            key.process,
            key.socket_inode,
            key.target,
            key.reason,
            key.errno,
            key.call,
            key.level,
        );
        // Without a socket, the descriptor is all that tells listeners apart.
        let descriptor = total.listener.fd.filter(|_| key.socket_inode.is_none());
        let at = *index.entry((same, descriptor)).or_insert_with(|| {
            groups.push(Failures { count: 0, ..*total });
            groups.len() - 1
        });
        let group = &mut groups[at];
        group.count = group.count.saturating_add(total.count);
        group.first_ns = group.first_ns.min(total.first_ns);
        group.last_ns = group.last_ns.max(total.last_ns);
        group.waited_max_ns = group.waited_max_ns.max(total.waited_max_ns);
        group.approximate |= total.approximate;
    }
    groups.sort_by_key(|group| (Reverse(group.count), *group.key));
    groups
}

fn table(
    text: &Text,
    run: &Run<'_>,
    clock: &Clock,
    groups: &[Failures<'_>],
    lines: &mut Vec<String>,
) {
    let format = if run.duration < WITH_DATES {
        "%H:%M:%S%.3f"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    let time = |ns| text.local(clock.wall_of_monotonic(ns), format);
    let rows: Vec<[String; COLUMNS.len()]> = groups
        .iter()
        .map(|group| {
            [
                format!(
                    "{}{}",
                    if group.approximate { "~" } else { "" },
                    text.number(group.count)
                ),
                group.key.reason.code().to_owned(),
                group
                    .key
                    .errno
                    .map_or_else(unknown, |errno| errno::name(errno).into_owned()),
                who(group),
                name::about(group.key, group.listener, group.who).unwrap_or_else(unknown),
                time(group.first_ns),
                time(group.last_ns),
                place(group.who),
            ]
        })
        .collect();
    let heads = COLUMNS.map(str::to_owned);
    let mut widths = [0; COLUMNS.len()];
    for row in rows.iter().chain([&heads]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    lines.push(text.heading(&aligned(&heads, widths)));
    lines.extend(rows.iter().map(|row| aligned(row, widths)));
}

/// A row: the count to the right of its column, everything else to the left.
fn aligned(row: &[String; COLUMNS.len()], widths: [usize; COLUMNS.len()]) -> String {
    let mut line = " ".to_owned();
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width - cell.width());
        line.push(' ');
        match column {
            0 => line.extend([padding.as_str(), cell, " "]),
            _ if column == COLUMNS.len() - 1 => line.push_str(cell),
            _ => line.extend([cell.as_str(), &padding, " "]),
        }
    }
    line
}

/// Where connections waited for long or were thrown away, or cookies were sent.
fn listeners(text: &Text, run: &Run<'_>, lines: &mut Vec<String>) {
    let of_note = run
        .listeners
        .iter()
        .filter(|one| {
            [one.cookies, one.shed]
                .into_iter()
                .flatten()
                .any(|count| count > 0)
                || one
                    .waited
                    .as_ref()
                    .is_some_and(|waits| waits.longest >= LONG)
        })
        .take(LISTENERS);
    for one in of_note {
        let name = name::listener(&one.listener).unwrap_or_else(unknown);
        let accepted = one
            .accepted
            .map_or_else(unknown, |accepted| text.number(accepted));
        let mut line = format!("{name}: {accepted} accepted");
        if let Some(waits) = &one.waited {
            let [half, most, longest] = [waits.below(50), waits.below(99), waits.longest]
                .map(|wait| span(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)));
            // Writing to a string cannot fail.
            let _ = write!(
                line,
                "; waits in the queue: half below {half}, 99 % below {most}, longest {longest}"
            );
        }
        if let Some(shed) = one.shed.filter(|shed| *shed > 0) {
            let _ = write!(line, "; {} of them closed at once", text.number(shed));
        }
        if let Some(cookies) = one.cookies.filter(|cookies| *cookies > 0) {
            let _ = write!(line, "; {} SYN cookies sent", text.number(cookies));
        }
        lines.push(line);
    }
}

fn lost(text: &Text, run: &Run<'_>, lines: &mut Vec<String>) {
    let lost: &Lost = &run.lost;
    // What no hook watches is in no total: nothing is claimed for it.
    let blind = run
        .hooks
        .iter()
        .any(|hook| hook.status == HookState::Unavailable);
    let before = lines.len();
    let number = |number| text.number(number);
    if lost.map > 0 {
        let map = number(lost.map);
        lines.push(text.bad(&format!(
            "LOST: {map} failures are in no total: the counter map was full"
        )));
    }
    if let Some(missed) = lost.missed.filter(|missed| *missed > 0) {
        let missed = number(missed);
        lines.push(text.bad(&format!(
            "LOST: the kernel left out {missed} runs of a hook: totals may be too low"
        )));
    }
    if lost.ring > 0 {
        let ring = number(lost.ring);
        lines.push(text.odd(&format!(
            "lost: {ring} failures were not shown one by one: the ring buffer was full \
             (totals have them)"
        )));
    }
    if lost.output > 0 {
        let output = number(lost.output);
        lines.push(text.odd(&format!(
            "lost: {output} lines were not written: the reader was too slow (totals have them)"
        )));
    }
    let few = run.hooks.iter().any(|hook| hook.missed > Some(0));
    if lines.len() == before && lost.missed.is_some() {
        lines.push(if few {
            text.odd(
                "Nothing else was lost than runs of hooks that are named below, nearly all of them \
                 of calls that succeeded.",
            )
        } else if blind {
            text.odd("Nothing was lost of what was watched; what was not is named below.")
        } else {
            text.good("Nothing was lost: the totals are exact.")
        });
    } else if lost.missed.is_none() {
        let nothing = if lines.len() == before {
            "No loss was noticed. "
        } else {
            ""
        };
        lines.push(format!(
            "{nothing}Whether the kernel left out runs of a hook is not known: it does not tell."
        ));
    }
}

fn hooks(text: &Text, hooks: &[Hook], lines: &mut Vec<String>) {
    for hook in hooks {
        let name = printable(&hook.name);
        let detail = hook.detail.as_deref().map(printable);
        match hook.status {
            HookState::Attached => {
                let target = hook.target.as_deref().map_or_else(unknown, printable);
                let tier = hook
                    .tier
                    .map_or(String::new(), |tier| format!(" ({})", tier.name()));
                let mut detail = detail.map_or(String::new(), |detail| format!("; {detail}"));
                if let Some(missed) = hook.missed.filter(|missed| *missed > 0) {
                    // Writing to a string cannot fail.
                    let _ = write!(
                        detail,
                        "; the kernel left out {} of its runs",
                        text.number(missed)
                    );
                }
                lines.push(format!("Hook {name}: {target}{tier}{detail}"));
            }
            HookState::Unavailable => {
                let detail = detail.unwrap_or_else(|| "no hook could be attached".to_owned());
                lines.push(text.bad(&format!("Hook {name}: NOT SEEN: {detail}")));
            }
        }
    }
}
