//! Bytes from outside (process names, paths, container names) as text that is safe to show.
//!
//! Linux names are bytes: a program may call itself anything, escape sequences of a
//! terminal and broken UTF-8 included. Whatever reaches a terminal or a log goes through
//! [`terminal`]; whatever reaches JSON goes through [`json`].

use std::fmt::Write as _;

/// Text for a terminal, a log or a command line to copy.
///
/// Printable characters stay. Everything else is written out: a newline as `\n`, a tab as
/// `\t`, a carriage return as `\r`, and every byte of control characters, of characters
/// that are invisible or reorder text (zero width, bidirectional controls, separators
/// other than the space, combining marks, private use, unassigned) and of invalid UTF-8
/// as `\xNN`. A backslash is doubled, so the result can be turned back into the bytes.
#[must_use]
pub fn terminal(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                _ if is_printable(char) => out.push(char),
                _ => push_hex(&mut out, char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        push_hex(&mut out, chunk.invalid());
    }
    out
}

/// Text for a JSON string: valid UTF-8 stays as it is (the JSON writer escapes control
/// characters), each byte of invalid UTF-8 becomes the four characters `\xNN`.
///
/// A backslash is left alone, so that ordinary text is not changed; a name that holds the
/// very characters `\xNN` therefore looks like one that held the byte.
#[must_use]
pub fn json(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        push_hex(&mut out, chunk.invalid());
    }
    out
}

/// Whether a character shows as itself and moves the cursor by its own width.
fn is_printable(char: char) -> bool {
    // The standard library's Debug escape carries Unicode's table of what is printable;
    // it escapes quotes too, which are.
    matches!(char, '"' | '\'') || char.escape_debug().len() == 1
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// A size as people write it, bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)))
        .unwrap_or((text, 1));
    let size = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(unit));
    size.filter(|size| *size >= 1 << 12)
        .ok_or_else(|| "use a size of at least 4K, such as 512K, 100M or 2G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{json, size, terminal};

    /// Undoes [`terminal`].
    fn parse(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            if first != b'\\' {
                bytes.push(first);
                continue;
            }
            let (&kind, tail) = rest.split_first().expect("a backslash is never last");
            rest = tail;
            bytes.push(match kind {
                b'\\' => b'\\',
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'x' => {
                    let (hex, tail) = rest.split_at(2);
                    rest = tail;
                    let hex = std::str::from_utf8(hex).expect("hex digits");
                    u8::from_str_radix(hex, 16).expect("hex digits")
                }
                other => panic!("unknown escape {other}"),
            });
        }
        bytes
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("512K"), Ok(512 << 10));
        assert_eq!(size("2G"), Ok(2 << 30));
        for bad in ["", "1", "M", "-1M", "1.5M", "4000", "99999999999G", "1T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ordinary_text_stays() {
        for text in ["nginx: worker", "/srv/café/日本", "it's \"quoted\"", "🦀"] {
            assert_eq!(terminal(text.as_bytes()), text);
            assert_eq!(json(text.as_bytes()), text);
        }
    }

    #[test]
    fn a_terminal_never_sees_what_moves_or_hides_text() {
        for (bytes, shown) in [
            (&b"\x1b[2J"[..], "\\x1b[2J"),
            (b"a\nb\tc\rd\0", "a\\nb\\tc\\rd\\x00"),
            (b"\x7f", "\\x7f"),
            ("\u{9b}31m".as_bytes(), "\\xc2\\x9b31m"),
            ("\u{202e}gnp.exe".as_bytes(), "\\xe2\\x80\\xaegnp.exe"),
            ("a\u{200b}b".as_bytes(), "a\\xe2\\x80\\x8bb"),
            ("a\u{2028}b".as_bytes(), "a\\xe2\\x80\\xa8b"),
            ("e\u{301}".as_bytes(), "e\\xcc\\x81"),
            ("\u{e0041}".as_bytes(), "\\xf3\\xa0\\x81\\x81"),
            (b"C:\\x41", "C:\\\\x41"),
            (b"\xff\xc3", "\\xff\\xc3"),
        ] {
            assert_eq!(terminal(bytes), shown);
        }
    }

    #[test]
    fn terminal_text_can_be_turned_back() {
        let mut state = 1_u64;
        for length in 0..500 {
            let bytes: Vec<u8> = (0..length % 40)
                .map(|_| {
                    // Constants of Knuth's MMIX generator.
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            let shown = terminal(&bytes);
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            assert_eq!(parse(&shown), bytes);
        }
    }

    #[test]
    fn json_keeps_valid_text_and_spells_the_rest() {
        assert_eq!(json(b"a\x1b\n\\"), "a\u{1b}\n\\");
        assert_eq!(json(b"ok\xff\xfe"), "ok\\xff\\xfe");
    }
}
