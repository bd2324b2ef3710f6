//! Addresses and users in sentences and paths. Pure.

use std::net::{IpAddr, SocketAddr};

/// Whether a field holds sentences, in which addresses are told.
pub(super) fn is_told(name: &str) -> bool {
    matches!(
        name,
        "statement" | "text" | "again" | "what" | "evidence" | "unavailable" | "detail"
    )
}

/// Replaces what stands for itself: no letter, digit or dot goes on before or after it.
pub(super) fn replace_whole(text: &str, what: &str, by: impl Fn(&str) -> String) -> String {
    let goes_on = |char: char| char.is_ascii_alphanumeric();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // A number alone, such as the address of a virtual machine, may be anything in a sentence.
    if what.len() < 3 {
        return text.to_owned();
    }
    while let Some((before, after)) = rest.split_once(what) {
        out.push_str(before);
        let is_whole = !before.ends_with(goes_on) && !after.starts_with(goes_on);
        if is_whole {
            out.push_str(&by(what));
        } else {
            out.push_str(what);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Replaces every address of the Internet that is some host's; `by` gets it as it is usually written, and
/// says by what.
pub(super) fn replace_addresses(text: &str, by: impl Fn(&str) -> Option<String>) -> String {
    let is_part = |char: char| char.is_ascii_hexdigit() || char == '.' || char == ':';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let (before, word) = rest.split_at(start);
        let end = word.find(|char| !is_part(char)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        out.push_str(before);
        out.push_str(&address(word, &by));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether it has one.
pub(super) fn has_address(text: &str) -> bool {
    let found = std::cell::Cell::new(false);
    replace_addresses(text, |_| {
        found.set(true);
        None
    });
    found.get()
}

fn address(word: &str, by: &impl Fn(&str) -> Option<String>) -> String {
    // A full stop or a colon may end a sentence.
    let bare = word.trim_end_matches(['.', ':']);
    let (ip, tail) = if let Ok(ip) = bare.parse::<IpAddr>() {
        (ip, &word[bare.len()..])
    } else if let Ok(socket) = bare.parse::<SocketAddr>() {
        let port = bare.rfind(':').unwrap_or(bare.len());
        (socket.ip(), &word[port..])
    } else {
        return word.to_owned();
    };
    match by(&ip.to_string()).filter(|_| !ip.is_unspecified()) {
        Some(told) => format!("{told}{tail}"),
        None => word.to_owned(),
    }
}

/// Replaces users where paths and cgroups tell of them: `user-1000.slice`, `user@1000.service`,
/// `/run/user/1000` and `/home/NAME`.
pub(super) fn replace_users(text: &str, by: impl Fn(&str) -> String) -> String {
    let mut out = text.to_owned();
    for (before, is_number) in [
        ("user-", true),
        ("user@", true),
        ("/run/user/", true),
        ("/home/", false),
    ] {
        out = after_each(&out, before, is_number, &by);
    }
    out
}

fn after_each(text: &str, mark: &str, is_number: bool, by: &impl Fn(&str) -> String) -> String {
    let ends = |char: char| {
        if is_number {
            !char.is_ascii_digit()
        } else {
            char == '/' || char.is_whitespace()
        }
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(mark) {
        out.push_str(before);
        out.push_str(mark);
        let (user, after) = after.split_at(after.find(ends).unwrap_or(after.len()));
        if !user.is_empty() {
            out.push_str(&by(user));
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
