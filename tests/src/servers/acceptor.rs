//! A server that fails when a test wants it to.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lines;
use crate::tracer::wait_for;

/// How long it may take to do as it is told.
const PATIENCE: Duration = Duration::from_mins(2);

/// `turnaway-scenarios driven`, which has a listener of 127.0.0.1. It is killed when this is
/// dropped.
pub struct Acceptor {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Its process, as it sees itself.
    pub pid: u32,
    /// Its port.
    pub port: u16,
}

impl Acceptor {
    /// Starts it as it is.
    pub fn run(scenarios: &Path) -> Result<Self> {
        Self::start(Command::new(scenarios).arg("driven"))
    }

    /// Starts it, by a command that runs `turnaway-scenarios driven` in some way, and waits until
    /// it listens.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let input = child.stdin.take();
        let lines = lines::of(child.stdout.take().context("no output")?);
        let mut acceptor = Self {
            child,
            input,
            lines,
            pid: 0,
            port: 0,
        };
        let line = acceptor.answer()?;
        let numbers = || {
            let (pid, port) = line.strip_prefix("ready ")?.split_once(' ')?;
            Some((pid.parse().ok()?, port.parse().ok()?))
        };
        (acceptor.pid, acceptor.port) = numbers().with_context(|| format!("it said {line:?}"))?;
        Ok(acceptor)
    }

    fn answer(&mut self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).map_err(|_| {
            let status = self.child.try_wait();
            anyhow::anyhow!("the acceptor says nothing (its status: {status:?})")
        })
    }

    fn told(&mut self, words: &str) -> Result<u64> {
        writeln!(self.input.as_ref().context("no input")?, "{words}")?;
        let answer = self.answer()?;
        answer
            .parse()
            .with_context(|| format!("{words:?}: {answer:?}"))
    }

    /// Fails so many accepts, and says how many it has failed so far.
    pub fn fail(&mut self, count: u64) -> Result<u64> {
        self.told(&format!("fail {count}"))
    }

    /// Fails as fast as it can, and says how many it has failed so far.
    pub fn spin(&mut self, duration: Duration) -> Result<u64> {
        self.told(&format!("spin {}", duration.as_millis()))
    }

    /// Accepts all who wait, and says how many those were.
    pub fn recover(&mut self) -> Result<u64> {
        self.told("recover")
    }

    /// A client of it, which waits in its queue.
    pub fn client(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?)
    }

    /// Lets it end.
    pub fn finish(mut self) -> Result<()> {
        drop(self.input.take());
        let status = wait_for(&mut self.child, PATIENCE)?;
        ensure!(status.success(), "the acceptor ended badly: {status}");
        Ok(())
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
