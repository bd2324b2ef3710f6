//! Requests of redis's own benchmark, to a redis of our own.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::apart;
use crate::servers::foreground::{Foreground, free_port};

/// Whether its clients keep their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connections {
    /// All requests of a client go over one.
    Kept,
    /// Each request has one of its own.
    New,
}

impl Connections {
    /// What redis-benchmark calls it, and requests that take it about a second.
    fn arguments(self) -> (&'static str, u64) {
        match self {
            Self::Kept => ("1", 80_000),
            Self::New => ("0", 20_000),
        }
    }
}

/// Requests a second, by the benchmark's own clock.
pub(super) fn run(connections: Connections, duration: Duration) -> Result<f64> {
    apart::in_netns(|| {
        apart::set("ipv4/tcp_max_tw_buckets", "0")?;
        let dir = tempfile::tempdir()?;
        let port = free_port()?;
        let number = port.to_string();
        let server = Foreground::start(
            Command::new("/usr/bin/redis-server")
                .args(["--bind", "127.0.0.1", "--save", "", "--port", &number])
                .arg("--dir")
                .arg(dir.path()),
            port,
        )?;
        let (keep, a_second) = connections.arguments();
        let requests = a_second * duration.as_secs().max(1);
        let output = Command::new("/usr/bin/redis-benchmark")
            .args(["-p", &number, "-t", "get", "-c", "20", "--csv", "-k", keep])
            .args(["-n", &requests.to_string()])
            .output()
            .context("cannot run redis-benchmark")?;
        drop(server);
        ensure!(output.status.success(), "redis-benchmark: {output:?}");
        rate(&String::from_utf8(output.stdout)?)
    })
}

/// The benchmark prints `"GET","33602.15",…`.
fn rate(csv: &str) -> Result<f64> {
    let field = csv
        .lines()
        .find_map(|line| line.strip_prefix("\"GET\",\""))
        .and_then(|rest| rest.split('"').next())
        .with_context(|| format!("redis-benchmark printed {csv:?}"))?;
    Ok(field.parse()?)
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn the_rate_is_the_second_field() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET\",\"33602.15\",\"0.470\"\n";
        assert!((rate(csv).unwrap() - 33602.15).abs() < 0.001);
        assert!(rate("\"SET\",\"1\"\n").is_err());
    }
}
