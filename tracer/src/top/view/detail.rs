//! More of one row.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Paragraph, Widget as _, Wrap},
};
use unicode_width::UnicodeWidthStr as _;

use super::{
    Scene,
    cell::{self, UNKNOWN},
    put,
};
use crate::top::{
    model::{Ring, Row, SECONDS},
    sample::{Detail, Peer},
    ui::Ui,
};

/// Columns of a bar.
const BAR: usize = 20;
/// Owners that are told one by one.
const OWNERS: usize = 8;
/// Columns before the lines of a part.
const LABEL: usize = 10;

pub(super) fn draw(buffer: &mut Buffer, area: Rect, scene: Scene<'_>, ui: &mut Ui) {
    let row = ui.detail.as_ref().and_then(|id| scene.model.row(id));
    let Some(row) = row else {
        put(
            buffer,
            area,
            2,
            1,
            "it is gone, and has not failed lately (Esc: back)",
            scene.look.dim(),
        );
        return;
    };
    let detail = scene
        .model
        .detail
        .as_ref()
        .filter(|detail| detail.row.as_ref() == Some(&row.id));
    let lines = lines(row, detail, usize::from(area.width), scene);
    paragraph(buffer, area, lines, ui);
}

/// Draws lines, the first of them at `ui.scroll`: no further than that the last is seen.
pub(super) fn paragraph(buffer: &mut Buffer, area: Rect, lines: Vec<Line<'_>>, ui: &mut Ui) {
    let width = usize::from(area.width).max(1);
    let high: usize = lines
        .iter()
        .map(|line| line.width().div_ceil(width).max(1))
        .sum();
    let most = high.saturating_sub(usize::from(area.height));
    ui.scroll = ui.scroll.min(most);
    Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .scroll((u16::try_from(ui.scroll).unwrap_or(u16::MAX), 0))
        .render(area, buffer);
}

fn lines(row: &Row, detail: Option<&Detail>, width: usize, scene: Scene<'_>) -> Vec<Line<'static>> {
    let look = scene.look;
    let mut lines = vec![Line::from(vec![
        Span::styled(row.name.to_string(), look.bold()),
        Span::raw(
            row.netns
                .map_or_else(String::new, |netns| format!("  net:[{netns}]")),
        ),
        Span::styled(if row.closed { "  closed" } else { "" }, look.odd()),
    ])];
    lines.extend(owners(row, scene));
    lines.extend(fds(row, scene));
    if !row.is_other() {
        lines.push(queue(row, scene));
        lines.push(accepts(row, scene));
    }
    lines.extend(failures(row, scene));
    lines.extend(advice(detail, width, scene));
    lines.extend(minute(row, scene));
    if let Some(detail) = detail {
        for (at, line) in detail.holdings.iter().enumerate() {
            let label = if at == 0 { "holds" } else { "" };
            let line = line.trim().trim_start_matches("held:").trim().to_owned();
            lines.push(part(label, Span::raw(line), scene));
        }
        lines.extend(peers(detail, row, scene));
    } else {
        lines.push(part(
            "",
            Span::styled("looking at clients and descriptors", look.dim()),
            scene,
        ));
    }
    lines
}

fn part(label: &str, text: Span<'static>, scene: Scene<'_>) -> Line<'static> {
    Line::from(vec![
        Span::styled(format!("{label:LABEL$}"), scene.look.heading()),
        text,
    ])
}

fn owners(row: &Row, scene: Scene<'_>) -> Vec<Line<'static>> {
    let look = scene.look;
    let mut pids: Vec<u32> = row.owner.iter().map(|owner| owner.pid).collect();
    pids.extend(
        row.owners
            .iter()
            .filter(|pid| !pids.contains(pid))
            .copied()
            .collect::<Vec<_>>(),
    );
    if pids.is_empty() {
        return vec![part("owner", Span::styled(UNKNOWN, look.dim()), scene)];
    }
    let more = pids.len().saturating_sub(OWNERS);
    let mut lines: Vec<Line<'_>> = pids
        .iter()
        .take(OWNERS)
        .enumerate()
        .map(|(at, pid)| {
            let process = scene.model.processes.get(pid);
            let known = row.owner.as_ref().filter(|owner| owner.pid == *pid);
            let comm = process.map(|it| &it.comm).or(known.map(|it| &it.comm));
            let place = process.map(|it| &it.place).or(known.map(|it| &it.place));
            let used = process.map_or_else(|| known.and_then(|it| it.used), |it| it.used);
            let limit = process.map_or_else(|| known.and_then(|it| it.limit), |it| it.limit);
            let label = if at == 0 { "owner" } else { "" };
            let name = format!("{}[{pid}]", comm.map_or("?", |it| it));
            let mut line = part(label, Span::raw(name), scene);
            if at > 0 {
                let shown = |number: Option<u64>| {
                    number.map_or_else(|| UNKNOWN.to_owned(), |number| number.to_string())
                };
                let text = format!("  {}/{} fds", shown(used), shown(limit));
                line.push_span(Span::raw(text));
            }
            if let Some(place) = place.filter(|place| !place.is_empty()) {
                line.push_span(Span::raw(format!("  {place}")));
            }
            if process.is_none() {
                line.push_span(Span::styled("  (not there any more)", look.dim()));
            }
            line
        })
        .collect();
    if more > 0 {
        lines.push(part("", Span::raw(format!("and {more} others")), scene));
    }
    lines
}

/// Advice on causes; on what follows from them only where no cause is known.
fn advice(detail: Option<&Detail>, width: usize, scene: Scene<'_>) -> Vec<Line<'static>> {
    let look = scene.look;
    let all = || {
        detail
            .iter()
            .flat_map(|detail| &detail.advice)
            .filter(|(_, lines)| !lines.is_empty())
    };
    let has_cause = all().any(|(reason, _)| !reason.lasts());
    let mut lines = Vec::new();
    for (reason, advice) in all().filter(|(reason, _)| !(has_cause && reason.lasts())) {
        let about = Span::styled(format!("for {reason}"), look.bold());
        lines.push(part("advice", about, scene));
        for line in advice {
            let style = if line.starts_with("now:") {
                look.good()
            } else {
                Style::new()
            };
            for line in wrap(line, width.saturating_sub(LABEL)) {
                lines.push(part("", Span::styled(line, style), scene));
            }
        }
    }
    lines
}

/// A text in lines of so many columns; what comes after the first begins where its words do.
fn wrap(text: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "         ";
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let Some(line) = lines.last_mut() else {
            break;
        };
        let used = line.width();
        if used > INDENT.len() && used + word.trim_end().width() > width {
            lines.push(format!("{INDENT}{word}"));
        } else {
            line.push_str(word);
        }
    }
    lines
}

/// Descriptors of the first owner.
fn fds(row: &Row, scene: Scene<'_>) -> Option<Line<'static>> {
    let owner = row.owner.as_ref()?;
    let used = owner.used?;
    let Some(limit) = owner.limit else {
        return Some(part("fds", Span::raw(format!("{used} open")), scene));
    };
    let full = row.descriptors()?;
    let text = format!("{} {used}/{limit} open", cell::bar(full, BAR, scene.look));
    let style = scene.look.fullness(full);
    Some(part("fds", Span::styled(text, style), scene))
}

fn queue(row: &Row, scene: Scene<'_>) -> Line<'static> {
    let look = scene.look;
    let (Some((depth, limit)), Some(full)) = (row.queue, row.fullness()) else {
        return part("queue", Span::styled(UNKNOWN, look.dim()), scene);
    };
    let text = format!("{} {depth}/{limit} wait", cell::bar(full, BAR, look));
    let mut line = part("queue", Span::styled(text, look.fullness(full)), scene);
    if let Some(ns) = row.stalled_ns {
        let text = format!(", nobody has accepted for {}", cell::age(ns));
        line.push_span(Span::styled(text, look.bad()));
    }
    line
}

fn accepts(row: &Row, scene: Scene<'_>) -> Line<'static> {
    let Some(accepted) = row.accepted else {
        return part("accepts", Span::styled(UNKNOWN, scene.look.dim()), scene);
    };
    let mut text = format!(
        "{}/s, {} in all",
        row.accept_rate
            .map_or_else(|| UNKNOWN.to_owned(), cell::rate),
        cell::number(accepted)
    );
    if let Some(ns) = row.last_accept_ns {
        let ago = cell::age(scene.now_ns.saturating_sub(ns));
        text = format!("{text}, the last {ago} ago");
    }
    if let Some((half, most)) = row.waits {
        text = format!(
            "{text}; half waited < {}, 99 % < {}",
            cell::wait(half),
            cell::wait(most)
        );
    }
    part("accepts", Span::raw(text), scene)
}

fn failures(row: &Row, scene: Scene<'_>) -> Vec<Line<'static>> {
    let look = scene.look;
    let second = scene.model.second();
    if row.reasons.is_empty() {
        return vec![part("failures", Span::raw("none"), scene)];
    }
    row.reasons
        .iter()
        .enumerate()
        .map(|(at, one)| {
            let lately = one.by_second.sum(second, SECONDS);
            let errno = one
                .errno
                .as_deref()
                .map(|errno| format!(" {errno}"))
                .unwrap_or_default();
            let ago = cell::age(scene.now_ns.saturating_sub(one.last_ns));
            let about = if row.approximate { " (about)" } else { "" };
            let style = if lately > 0 { look.bad() } else { Style::new() };
            let label = if at == 0 { "failures" } else { "" };
            let mut line = part(
                label,
                Span::styled(format!("{}{errno}", one.reason), style),
                scene,
            );
            line.push_span(Span::raw(format!(
                "  {lately} in 60 s, {} in all{about}, the last {ago} ago",
                one.count
            )));
            line
        })
        .collect()
}

/// The last minute: accepts, failures, and how many waited.
fn minute(row: &Row, scene: Scene<'_>) -> Vec<Line<'static>> {
    let look = scene.look;
    let second = scene.model.second();
    let line = |label: &str, ring: &Ring, style: Style| {
        let values = || ring.last(second, SECONDS);
        let most = values().max().unwrap_or(0);
        let spark = cell::spark(values(), most, look);
        let mut line = part(label, Span::styled(format!("{spark}|"), style), scene);
        line.push_span(Span::raw(format!(
            " most {}",
            cell::number(u64::from(most))
        )));
        line
    };
    let mut lines = vec![line("60s fail", &row.failures_by_second, look.bad())];
    if !row.is_other() {
        if row.accepted.is_some() {
            lines.push(line("60s acc", &row.accepts_by_second, look.good()));
        }
        lines.push(line("60s queue", &row.depth_by_second, look.odd()));
    }
    lines
}

fn peers(detail: &Detail, row: &Row, scene: Scene<'_>) -> Vec<Line<'static>> {
    if row.is_other() {
        return Vec::new();
    }
    if detail.peers.is_empty() {
        let none = if detail.peers_complete {
            "none now"
        } else {
            UNKNOWN
        };
        return vec![part("clients", Span::raw(none), scene)];
    }
    let line = |(at, peer): (usize, &Peer)| {
        let label = if at == 0 { "clients" } else { "" };
        let mut text = format!("{}  {} open", peer.address, peer.open);
        if peer.waiting > 0 {
            text = format!(
                "{text}, {} wait for up to {}",
                peer.waiting,
                cell::wait(peer.longest_ns)
            );
        }
        part(label, Span::raw(text), scene)
    };
    detail.peers.iter().enumerate().map(line).collect()
}
