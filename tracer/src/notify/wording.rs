//! An alert in words, for receivers that show text. Pure.

use crate::{
    alert::{Alert, Status},
    text,
};

/// What happened, in one line: `critical: pgbouncer turns clients away`.
pub(crate) fn headline(alert: &Alert) -> String {
    let summary = line(summary(alert));
    match alert.status {
        Status::Firing => format!("{}: {summary}", alert.severity.name()),
        Status::Resolved => format!("resolved: {summary}"),
    }
}

/// The summary, or the next best.
pub(crate) fn summary(alert: &Alert) -> &str {
    let named = |name: &str| alert.annotations.get(name).filter(|text| !text.is_empty());
    named("summary")
        .or_else(|| named("description"))
        .or_else(|| alert.labels.get("alertname"))
        .map_or("an incident", String::as_str)
}

/// Text on one line, without control characters.
pub(crate) fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    if text.chars().any(char::is_control) {
        text::terminal(text.as_bytes())
    } else {
        text
    }
}

/// What else there is to read, in the order in which it helps: what, now, for good, the rest.
pub(crate) fn details(alert: &Alert) -> Vec<(&str, &str)> {
    const FIRST: [&str; 3] = ["description", "now", "lasting"];
    let all = &alert.annotations;
    let first = FIRST.iter().filter_map(|name| all.get_key_value(*name));
    let rest = all
        .iter()
        .filter(|(name, _)| *name != "summary" && !FIRST.contains(&name.as_str()));
    first
        .chain(rest)
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect()
}

/// At most `most` bytes of text, marked where some is missing.
pub(crate) fn cut(text: &str, most: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::{cut, details, headline};
    use crate::{alert::Status, notify::sample};

    #[test]
    fn a_headline_is_one_line_whatever_the_summary_holds() {
        let mut alert = sample("a", Status::Firing);
        alert
            .annotations
            .insert("summary".to_owned(), "two\nlines \u{1b}[2J".to_owned());
        assert_eq!(headline(&alert), "critical: two lines \\x1b[2J");
        alert.annotations.clear();
        alert.status = Status::Resolved;
        assert_eq!(headline(&alert), "resolved: TurnawayAcceptEmfile");
    }

    #[test]
    fn details_come_in_the_order_in_which_they_help() {
        let mut alert = sample("a", Status::Firing);
        alert
            .annotations
            .insert("also".to_owned(), "pg_dump".to_owned());
        let names: Vec<&str> = details(&alert).iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["description", "now", "lasting", "also"]);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcdef", 5), "ab…");
        assert_eq!(cut("ééé", 5), "é…");
    }
}
