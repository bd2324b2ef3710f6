//! What turnaway costs when much fails, when there is much to look at, and how soon it tells: for `cargo xtask bench`.
//! Counts are compared with what the loads themselves counted.

mod top;

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::servers::acceptor::Acceptor;
use crate::sys;
use crate::tracer::Tracer;
use crate::workload::listening::Listening;
use crate::workload::processes::fail_at_limit;

/// What can be measured.
pub const ALL: &[&str] = &["storms", "scale", "latency", "top"];

/// Processes of the storm of short lives.
const LIVES: u64 = 50_000;
/// How long the other storms last, and how long each scale is looked at.
const WHILE: Duration = Duration::from_secs(10);
/// Listeners that one process holds: its limit of descriptors may not be raised without CAP_SYS_RESOURCE.
const HELD: usize = 10_000;
/// Failures whose way to a line is timed.
const TIMED: usize = 300;

/// A storm: what failed, what turnaway made of it, and what that took.
#[derive(Debug, Serialize)]
struct Storm {
    #[serde(rename = "storm")]
    name: &'static str,
    failures: u64,
    counted: u64,
    lost_map: u64,
    lost_missed: Option<u64>,
    seconds: f64,
    percent_of_a_core: f64,
    rss_mib: f64,
    peak_rss_mib: f64,
}

/// Measures, and prints a line of JSON for each thing that was.
pub fn run(what: &str, turnaway: &Path, scenarios: &Path) -> Result<()> {
    match what {
        "storms" => {
            storm("spin", turnaway, || spin(scenarios))?;
            storm("short lives", turnaway, || short_lives(scenarios))?;
            storm("connects", turnaway, connects)
        }
        "scale" => [1, 100, 10_000, 50_000]
            .into_iter()
            .try_for_each(|count| scale(turnaway, scenarios, count)),
        "latency" => latency(turnaway, scenarios),
        "top" => top::run(turnaway, scenarios),
        _ => bail!(
            "nothing called {what} is measured: there are {}",
            ALL.join(", ")
        ),
    }
}

fn storm(name: &'static str, turnaway: &Path, load: impl FnOnce() -> Result<u64>) -> Result<()> {
    let tracer = Tracer::start(
        turnaway,
        &["--json", "--reason", "accept", "--reason", "connect"],
    )?;
    let before = cpu_time(tracer.pid())?;
    let begun = Instant::now();
    let failures = load()?;
    let seconds = begun.elapsed().as_secs_f64();
    let used = cpu_time(tracer.pid())?.saturating_sub(before);
    let (rss_mib, peak_rss_mib) = (
        memory_mib(tracer.pid(), "VmRSS:")?,
        peak_rss_mib(tracer.pid())?,
    );
    let records = tracer.stop()?.records()?;
    // Those of other programs on this machine are few, and go to other places.
    let expected = if name == "connects" {
        "connect.refused"
    } else {
        "accept.emfile"
    };
    let totals = records.summary.totals.iter();
    let counted = totals
        .filter(|total| total.reason == expected)
        .filter_map(|total| total.count)
        .sum::<u64>()
        + records.summary.other;
    say(&Storm {
        name,
        failures,
        counted,
        lost_map: records.summary.lost.map,
        lost_missed: records.summary.lost.missed,
        seconds,
        percent_of_a_core: 100.0 * used.as_secs_f64() / seconds,
        rss_mib,
        peak_rss_mib,
    })
}

/// Two processes that fail as fast as they can.
fn spin(scenarios: &Path) -> Result<u64> {
    let mut acceptors = [Acceptor::run(scenarios)?, Acceptor::run(scenarios)?];
    thread::scope(|scope| {
        let spinning: Vec<_> = acceptors
            .iter_mut()
            .map(|one| scope.spawn(|| one.spin(WHILE)))
            .collect();
        spinning
            .into_iter()
            .map(|one| {
                one.join()
                    .map_err(|_| anyhow::anyhow!("a thread panicked"))?
            })
            .sum()
    })
}

/// Processes that fail once each and end, children of a process without threads.
fn short_lives(scenarios: &Path) -> Result<u64> {
    let done = Command::new(scenarios)
        .args(["lives", &LIVES.to_string()])
        .status()?;
    ensure!(done.success(), "the processes failed: {done}");
    Ok(LIVES)
}

/// Forks so many processes, one after the other, each of which fails one accept and ends well.
pub fn lives(count: u64) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    for _ in 0..count {
        sys::fork(|| fail_at_limit(&listening, 40, 1))?.wait()?;
    }
    Ok(())
}

/// Connections that are refused, as fast as they are.
fn connects() -> Result<u64> {
    let nobody = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.local_addr()?
    };
    let refused = |_| {
        let mut refused = 0_u64;
        let end = Instant::now() + WHILE;
        while Instant::now() < end {
            refused += u64::from(TcpStream::connect(nobody).is_err());
        }
        refused
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|number| scope.spawn(move || refused(number)))
            .collect();
        threads
            .into_iter()
            .map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked")))
            .sum()
    })
}

/// A process that has listeners. It ends when this is dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Holder {
    /// One that listens so many times, and fails so often a second once it has read a line.
    fn start(scenarios: &Path, group: usize, count: usize, failing: usize) -> Result<Self> {
        let numbers = [group, count].map(|number| number.to_string());
        let child = Command::new(scenarios)
            .arg("listeners")
            .args(numbers)
            .args(["--failing", &failing.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut holder = Self(child.context("cannot run the holder of listeners")?);
        let line = holder.line()?;
        ensure!(line == "ready\n", "the holder of listeners said {line:?}");
        Ok(holder)
    }

    /// The next line; it says no more before it is told something.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().context("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(line)
    }

    /// How often it has failed, once its input has ended.
    fn tally(&mut self) -> Result<u64> {
        let line = self.line()?;
        line.trim()
            .parse()
            .with_context(|| format!("no tally: {line:?}"))
    }
}

/// Listens so many times on addresses of a group's own, until its input ends; fails meanwhile, once a line was read.
pub fn listeners(group: u8, count: usize, failing: usize) -> Result<()> {
    const PORTS: usize = 500;
    let (_, hard) = sys::nofile()?;
    sys::set_nofile(hard, hard)?;
    let mut held = Vec::with_capacity(count);
    for number in 0..count {
        let address = Ipv4Addr::new(127, 9, group, u8::try_from(1 + number / PORTS)?);
        let port = 20_000 + u16::try_from(number % PORTS)?;
        held.push(TcpListener::bind((address, port))?);
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    if failing > 0 {
        println!("{}", top::fail_in_turn(&held, failing)?);
    }
    Ok(())
}

/// What asking for so many listeners takes: processes have them, and nothing happens.
fn scale(turnaway: &Path, scenarios: &Path, count: usize) -> Result<()> {
    #[derive(Serialize)]
    struct Scale {
        listeners: usize,
        seconds_to_ready: f64,
        percent_of_a_core: f64,
        rss_mib: f64,
        peak_rss_mib: f64,
    }
    let mut holders = Vec::new();
    for group in 0..count.div_ceil(HELD) {
        let held = HELD.min(count - group * HELD);
        holders.push(Holder::start(scenarios, group, held, 0)?);
    }
    let tracer = Tracer::start(turnaway, &["--json", "--quiet"])?;
    let seconds_to_ready = tracer.startup.as_secs_f64();
    // The first look at all of them is over by then.
    thread::sleep(Duration::from_secs(3));
    let before = cpu_time(tracer.pid())?;
    let begun = Instant::now();
    thread::sleep(WHILE);
    let used = cpu_time(tracer.pid())?.saturating_sub(before);
    let percent_of_a_core = 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64();
    let (rss_mib, peak_rss_mib) = (
        memory_mib(tracer.pid(), "VmRSS:")?,
        peak_rss_mib(tracer.pid())?,
    );
    tracer.stop()?;
    say(&Scale {
        listeners: count,
        seconds_to_ready,
        percent_of_a_core,
        rss_mib,
        peak_rss_mib,
    })
}

/// From asking for a failure to the line that shows it, and what turnaway takes while nothing happens.
fn latency(turnaway: &Path, scenarios: &Path) -> Result<()> {
    #[derive(Serialize)]
    struct Latency {
        timed: usize,
        to_stdout_p50_ms: f64,
        to_stdout_p99_ms: f64,
        start_to_ready_ms: f64,
        idle_percent_of_a_core: f64,
        idle_rss_mib: f64,
    }
    let mut acceptor = Acceptor::run(scenarios)?;
    let pid = acceptor.pid.to_string();
    let begun = Instant::now();
    let mut child = Command::new(turnaway)
        .args([
            "trace",
            "--json",
            "--exemplars",
            "100000",
            "--reason",
            "accept",
            "-p",
            &pid,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run turnaway")?;
    let mut said = BufReader::new(child.stderr.take().context("no standard error")?).lines();
    while !said.next().context("it ended")??.starts_with("tracing ") {}
    let start_to_ready_ms = begun.elapsed().as_secs_f64() * 1e3;
    let before = cpu_time(child.id())?;
    let idle = Instant::now();
    thread::sleep(WHILE);
    let used = cpu_time(child.id())?.saturating_sub(before);
    let idle_percent_of_a_core = 100.0 * used.as_secs_f64() / idle.elapsed().as_secs_f64();
    let idle_rss_mib = memory_mib(child.id(), "VmRSS:")?;

    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut took = Vec::with_capacity(TIMED);
    while took.len() < TIMED {
        let asked = Instant::now();
        acceptor.fail(1)?;
        loop {
            let record: Value = serde_json::from_str(&lines.next().context("it ended")??)?;
            if record["type"] == "event" {
                break;
            }
        }
        took.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    sys::kill(child.id(), libc::SIGINT)?;
    child.wait()?;
    took.sort_by(f64::total_cmp);
    say(&Latency {
        timed: TIMED,
        to_stdout_p50_ms: took[TIMED / 2],
        to_stdout_p99_ms: took[TIMED * 99 / 100],
        start_to_ready_ms,
        idle_percent_of_a_core,
        idle_rss_mib,
    })
}

fn say(measured: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(measured)?);
    Ok(())
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

/// The most memory that a process had in use at once: more than later, for as long as it starts.
fn peak_rss_mib(pid: u32) -> Result<f64> {
    memory_mib(pid, "VmHWM:")
}

/// A line of /proc/PID/status.
fn memory_mib(pid: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("no {name}"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
