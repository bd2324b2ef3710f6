//! Text from outside, made safe.

/// Bytes as terminal-safe text.
#[must_use]
pub fn terminal(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
