//! What a program says, line by line, while it runs.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::mpsc::{self, Receiver};

/// Reads lines, of whatever bytes, until the end or until nobody wants them any more.
pub fn of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}

/// The numbers of lines such as `kept 17`, until the end.
pub fn numbered(from: impl Read, word: &str) -> impl Iterator<Item = u64> {
    BufReader::new(from)
        .lines()
        .map_while(Result::ok)
        .filter_map(move |line| line.strip_prefix(word)?.trim().parse().ok())
}
