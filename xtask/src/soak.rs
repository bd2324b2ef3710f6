//! `cargo xtask soak`: servers fail for hours, and what turnaway takes meanwhile must not grow, nor may its counts
//! differ from theirs.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::bench;

/// Options of `cargo xtask soak`.
#[derive(Args)]
pub struct Options {
    /// How long it runs
    #[arg(long = "for", default_value = "2h", value_name = "TIME")]
    length: String,
    /// How often is looked at what turnaway takes
    #[arg(long, default_value = "30s", value_name = "TIME")]
    every: String,
    /// Write all looks and the verdict here, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Builds, runs it and prints the table and the verdict; fails where that is not good.
pub fn run(options: &Options) -> Result<()> {
    let (turnaway, scenarios) = bench::programs("soak", false)?;
    let machine = bench::machine()?;
    println!("{machine}\n{HEADER}");
    let mut child = Command::new(scenarios)
        .args(["soak", "--for", &options.length, "--every", &options.every])
        .arg("--turnaway")
        .arg(turnaway)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run turnaway-scenarios")?;
    let (mut samples, mut verdict) = (Vec::new(), Value::Null);
    let output = child.stdout.take().context("no output")?;
    for line in BufReader::new(output).lines() {
        let value: Value = serde_json::from_str(&line?).context("it printed no JSON")?;
        if value["holds"].is_boolean() {
            verdict = value;
        } else {
            println!("{}", row(&value));
            samples.push(value);
        }
    }
    let status = child.wait()?;
    if verdict.is_object() {
        print!("\n{}", words(&verdict));
    }
    if let Some(path) = &options.json {
        let all = json!({"machine": machine, "samples": samples, "verdict": verdict});
        fs::write(path, format!("{all:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(status.success(), "the soak ended with {status}");
    Ok(())
}

const HEADER: &str =
    "  SECONDS    RSS KIB   ANON KIB   FDS  THREADS  ENTRIES  STATE KIB  STREAM KIB  CPU S";

/// One look, as `turnaway-scenarios soak` says it.
fn row(sample: &Value) -> String {
    let number = |name: &str| sample[name].as_f64().unwrap_or(f64::NAN);
    format!(
        "{:>9.0} {:>10.0} {:>10.0} {:>5} {:>8} {:>8} {:>10} {:>11} {:>6.1}",
        number("seconds"),
        number("rss_kib"),
        number("anon_kib"),
        number("fds"),
        number("threads"),
        number("entries"),
        number("state_kib"),
        number("stream_kib"),
        number("cpu_seconds"),
    )
}

/// What came of it.
fn words(verdict: &Value) -> String {
    let mut text = String::new();
    let list = |name: &str| verdict[name].as_array().into_iter().flatten();
    let well = |is_good: bool| if is_good { "ok" } else { "NOT OK" };
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut line = |one: String| {
        text.push_str(&one);
        text.push('\n');
    };
    for one in list("growth") {
        let number = |name: &str| one[name].as_f64().unwrap_or(f64::NAN);
        line(format!(
            "{:<8} second quarter {:.0}, last {:.0} (may be {:.0} more), {:+.1} an hour in the second half: {}",
            string(&one["name"]),
            number("second_quarter"),
            number("last_quarter"),
            number("allowed"),
            number("per_hour"),
            well(one["holds"] == true)
        ));
    }
    for one in list("counts") {
        let counted = &one["counted"];
        let beside = match one["failed"].as_u64() {
            Some(failed) => format!("{failed} failed: {}", well(*counted == failed)),
            None => "nobody else counts".to_owned(),
        };
        line(format!(
            "{} {}: {counted} counted, {beside}",
            string(&one["reason"]),
            string(&one["comm"])
        ));
    }
    line(format!("lost: {}", verdict["lost"]));
    for one in list("wrong") {
        line(string(one));
    }
    line(format!(
        "{} rounds, {} incidents: {}",
        verdict["rounds"],
        verdict["incidents"],
        well(verdict["holds"] == true)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_seen_at_a_glance() {
        let mut verdict = json!({
            "holds": true, "rounds": 3, "incidents": 4, "lost": {}, "wrong": [],
            "growth": [{"name": "fds", "second_quarter": 85.0, "last_quarter": 85.0, "allowed": 0.0, "per_hour": 0.0, "holds": true}],
            "counts": [
                {"reason": "accept.emfile", "comm": "nginx", "failed": 5, "counted": 5},
                {"reason": "queue.slow", "comm": "nginx", "failed": null, "counted": 9},
            ],
        });
        assert!(!words(&verdict).contains("NOT OK"));
        verdict["counts"][0]["counted"] = 6.into();
        verdict["growth"][0]["holds"] = false.into();
        let text = words(&verdict);
        let wrong: Vec<&str> = text
            .lines()
            .filter(|line| line.ends_with("NOT OK"))
            .collect();
        assert!(
            matches!(wrong[..], [fds, nginx] if fds.starts_with("fds") && nginx.contains("6 counted, 5 failed")),
            "{text}"
        );
    }
}
