//! What a process takes, as /proc has it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// What a process took over some time.
#[derive(Debug, Serialize)]
pub(super) struct Used {
    pub(super) seconds: f64,
    pub(super) percent_of_a_core: f64,
    pub(super) rss_mib: f64,
    pub(super) peak_rss_mib: f64,
}

/// A process that is looked at from now on.
pub(super) struct Usage {
    pid: u32,
    before: Duration,
    begun: Instant,
}

impl Usage {
    /// Begins to look.
    pub(super) fn of(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            before: cpu_time(pid)?,
            begun: Instant::now(),
        })
    }

    /// What it took since then.
    pub(super) fn until_now(&self) -> Result<Used> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let used = cpu_time(self.pid)?.saturating_sub(self.before);
        Ok(Used {
            seconds,
            percent_of_a_core: 100.0 * used.as_secs_f64() / seconds,
            rss_mib: memory_mib(self.pid, "VmRSS:")?,
            // More than later, for as long as it starts.
            peak_rss_mib: memory_mib(self.pid, "VmHWM:")?,
        })
    }
}

/// Processor time of all threads of a process: finer than the ticks of /proc/PID/stat.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text
            .split_whitespace()
            .next()
            .map_or(Ok(0), str::parse::<u64>)?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn memory_mib(pid: u32, name: &str) -> Result<f64> {
    Ok(memory_kib(pid, name)? / 1024.0)
}

/// A line of /proc/PID/status.
pub fn memory_kib(pid: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
