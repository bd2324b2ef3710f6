//! strace: what accept returned, from somebody else than turnaway.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

/// The program.
pub const PROGRAM: &str = "/usr/bin/strace";

/// What is no failure: docs/limitations.md.
const NORMAL: [&str; 6] = [
    "EAGAIN",
    "EINTR",
    "ERESTARTSYS",
    "ERESTARTNOINTR",
    "ERESTARTNOHAND",
    "ERESTART_RESTARTBLOCK",
];

/// The command, under strace, which writes to a file.
#[must_use]
pub fn wrap(command: &Command, output: &Path) -> Command {
    let mut strace = Command::new(PROGRAM);
    strace
        .args(["-f", "-qq", "-e", "trace=accept,accept4"])
        .args(["-e", "signal=SIGSTOP", "-o"])
        .arg(output)
        .arg(command.get_program())
        .args(command.get_args());
    strace
}

/// How many calls returned an errno so far.
pub fn count(output: &Path, errno: &str) -> Result<usize> {
    let text = fs::read(output).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    Ok(text
        .lines()
        .filter(|line| returned(line) == Some(errno))
        .count())
}

/// Whether strace was told that every thread has stopped.
pub fn all_stopped(output: &Path, threads: &[(u32, u32)]) -> Result<bool> {
    let text = fs::read(output)?;
    let text = String::from_utf8_lossy(&text);
    let stopped: Vec<u32> = text
        .lines()
        .filter(|line| line.contains("--- stopped by SIGSTOP ---"))
        .filter_map(thread)
        .collect();
    Ok(threads.iter().all(|(tid, _)| stopped.contains(tid)))
}

/// The thread that a line is of.
fn thread(line: &str) -> Option<u32> {
    line.split_whitespace().next()?.parse().ok()
}

/// The errno that the call of a line returned, if it did return and failed.
fn returned(line: &str) -> Option<&str> {
    let (call, result) = line.rsplit_once(" = ")?;
    if !call.contains("accept") {
        return None;
    }
    // Restart codes are shown as `? ERESTARTSYS (To be restarted …)`.
    let errno = result.strip_prefix("-1 ").or(result.strip_prefix("? "))?;
    errno.split_whitespace().next()
}

/// What strace saw fail.
#[derive(Debug)]
pub struct Trace {
    failures: BTreeMap<(u32, String), u64>,
}

impl Trace {
    /// Reads what strace wrote. `threads` says which process each thread belongs to.
    pub fn read(output: &Path, threads: &[(u32, u32)]) -> Result<Self> {
        let text = fs::read(output)?;
        Self::parse(&String::from_utf8_lossy(&text), threads)
    }

    fn parse(text: &str, threads: &[(u32, u32)]) -> Result<Self> {
        let mut failures = BTreeMap::new();
        for line in text.lines() {
            let Some(errno) = returned(line).filter(|errno| !NORMAL.contains(errno)) else {
                continue;
            };
            let tid = thread(line).with_context(|| format!("no thread in {line:?}"))?;
            let pid = threads
                .iter()
                .find(|(thread, _)| *thread == tid)
                .with_context(|| format!("thread {tid} is not known: {line:?}"))?
                .1;
            *failures.entry((pid, errno.to_owned())).or_insert(0) += 1;
        }
        Ok(Self { failures })
    }

    /// Process, errno and how often, in this order.
    #[must_use]
    pub fn failures(&self) -> Vec<(u32, String, u64)> {
        self.failures
            .iter()
            .map(|((pid, errno), count)| (*pid, errno.clone(), *count))
            .collect()
    }

    /// Failures of all processes with an errno.
    #[must_use]
    pub fn total(&self, errno: &str) -> u64 {
        self.failures
            .iter()
            .filter(|((_, name), _)| name == errno)
            .map(|(_, count)| count)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
7 accept4(6, 0x7ffd, [112], SOCK_NONBLOCK) = -1 EMFILE (Too many open files)
7 accept4(6, {sa_family=AF_INET}, [112 => 16], SOCK_NONBLOCK) = 9
7 accept4(6, 0x7ffd, [112], SOCK_NONBLOCK) = -1 EAGAIN (Resource temporarily unavailable)
8 accept(3, NULL, NULL <unfinished ...>
9 accept(3, NULL, NULL) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)
8 <... accept resumed>) = -1 EMFILE (Too many open files)
9 --- stopped by SIGSTOP ---
";

    #[test]
    fn failures_are_those_of_processes() {
        let threads = [(7, 7), (8, 7), (9, 9)];
        let trace = Trace::parse(TEXT, &threads).unwrap();
        assert_eq!(trace.failures(), [(7, "EMFILE".to_owned(), 2)]);
        assert_eq!(trace.total("EMFILE"), 2);
        assert!(Trace::parse(TEXT, &[]).is_err());
    }
}
