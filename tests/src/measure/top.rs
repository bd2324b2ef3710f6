//! What `turnaway top` takes on a screen, with many listeners of which many fail.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::Result;
use serde::Serialize;

use super::holder::Holder;
use super::usage::{Usage, Used};
use super::{HELD, listeners, say};
use crate::sys::{self, Call};
use crate::terminal::Terminal;
use crate::workload::fail;
use crate::workload::full::Full;

/// Failures a second, each at another listener than the one before.
const RATE: usize = 2_000;
/// They come in so many steps.
const STEPS: u32 = 20;
/// Until all that is kept has been filled, and how long is measured then.
const FILLING: Duration = Duration::from_secs(15);
const WHILE: Duration = Duration::from_secs(30);

/// Fails at each listener in turn, so many times a second, until the input ends. Returns how often.
pub(super) fn fail_in_turn(listeners: &[TcpListener], a_second: usize) -> Result<u64> {
    // The next descriptor that there is none of.
    let next = sys::dup(listeners[0].as_raw_fd())?.as_raw_fd();
    let _full = Full::at(u64::try_from(next)?)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let read = io::stdin().read_line(&mut String::new());
            over.store(true, Ordering::Relaxed);
            read
        });
        let mut failed = 0;
        let step = Duration::from_secs(1) / STEPS;
        let mut due = Instant::now();
        let mut turn = listeners.iter().cycle();
        while !over.load(Ordering::Relaxed) {
            for listener in turn.by_ref().take(a_second / STEPS as usize) {
                fail(Call::Accept, listener.as_raw_fd(), libc::EMFILE, 1)?;
                failed += 1;
            }
            due += step;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(failed)
    })
}

/// Measures it.
pub(super) fn run(turnaway: &Path, scenarios: &Path) -> Result<()> {
    #[derive(Serialize)]
    struct Top {
        #[serde(rename = "top_listeners")]
        listeners: usize,
        failures_a_second: f64,
        #[serde(flatten)]
        used: Used,
    }
    let mut holder = Holder::start(&mut listeners::command(scenarios, 0, HELD, RATE))?;
    let terminal = Terminal::open(120, 40, &[])?;
    terminal.shell(&format!("exec {} top", turnaway.display()))?;
    terminal.until("top", |screen| screen.contains("LISTENER"))?;
    // The shell has become it.
    let pid = terminal.shell_pid()?;
    holder.go()?;
    let failing = Instant::now();
    thread::sleep(FILLING);
    let usage = Usage::of(pid)?;
    thread::sleep(WHILE);
    let used = usage.until_now()?;
    holder.end();
    let seconds = failing.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate is no exact count")]
    let failures_a_second = holder.tally::<u64>()? as f64 / seconds;
    say(&Top {
        listeners: HELD,
        failures_a_second,
        used,
    })
}
