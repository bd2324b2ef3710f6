//! `cargo xtask demo`: a server that is out of descriptors, and turnaway's account of it.

pub mod server;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::command::as_root;
use crate::{build, setup};

/// More than the server's limit lets in.
const CLIENTS: usize = 32;
/// Where fewer fail, since somebody raised the limit.
const LONGEST: &str = "15s";

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub struct Options {
    /// Show what this turnaway says, instead of building one
    #[arg(long, value_name = "PATH")]
    pub turnaway: Option<PathBuf>,
}

/// Builds turnaway, has a small server turn clients away, and traces it for some seconds.
pub fn run(options: &Options) -> Result<()> {
    let turnaway = if let Some(path) = &options.turnaway {
        path.clone()
    } else {
        setup::run(setup::Options::default())?;
        build::turnaway(build::Options { release: true })?
    };
    let mut server = Server::start()?;
    say(&format!(
        "a server, demo-server, pid {}, listens on port {} and may have {} files open",
        server.child.id(),
        server.port,
        server::LIMIT
    ));
    let count = server::FAILURES.to_string();
    let port = server.port.to_string();
    // What follows from it, a queue that nobody serves, would be told too.
    let only = ["--reason", "accept"];
    let arguments = [
        &["trace", "-P", &port][..],
        &only,
        &["-n", &count, "-d", LONGEST],
    ]
    .concat();
    say(&format!(
        "as root: {} {}",
        turnaway.display(),
        arguments.join(" ")
    ));
    let mut command = as_root(&turnaway);
    command.args(arguments).stderr(Stdio::piped());
    let mut tracer = Running(
        command
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?,
    );
    let echo = until_ready(&mut tracer.0)?;
    say(&format!("{CLIENTS} clients come"));
    let clients = (0..CLIENTS)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)))
        .collect::<Result<Vec<_>, _>>()
        .context("cannot connect to the demo's own server")?;
    server.begin()?;
    let status = tracer.0.wait()?;
    let _ = echo.join();
    let (failed, served) = server.end()?;
    drop(clients);
    ensure!(status.success(), "turnaway failed ({status})");
    say(&format!(
        "the server itself counted {failed} accepts that failed, and served {served} of {CLIENTS} clients"
    ));
    if served < CLIENTS as u64 {
        say(
            "run it again and, while it runs, type as root what turnaway says behind `now:`: all are served then",
        );
    }
    Ok(())
}

/// A line of the demo's own: apart from what turnaway says on stdout.
fn say(line: &str) {
    eprintln!("demo: {line}");
}

/// Passes on what it says on stderr; returns once its hooks are in place.
fn until_ready(tracer: &mut Child) -> Result<JoinHandle<()>> {
    let mut lines = BufReader::new(tracer.stderr.take().context("no standard error")?).lines();
    loop {
        let line = lines
            .next()
            .context("turnaway ended before it was ready: see above")??;
        eprintln!("{line}");
        if line.starts_with("tracing ") {
            break;
        }
    }
    Ok(std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            eprintln!("{line}");
        }
    }))
}

/// A process that is ended with the demo, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended, or is another user's and sees its terminal go.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server, from outside.
struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    /// Starts it in a process of its own, without root.
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("demo-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the demo's server")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("no standard output")?;
        let mut server = Self {
            child,
            input,
            output: BufReader::new(output),
            port: 0,
        };
        server.port = u16::try_from(server.number("port")?)?;
        Ok(server)
    }

    /// Has it accept.
    fn begin(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("it was ended")?;
        writeln!(input, "go").context("the demo's server has ended")
    }

    /// Ends it. How many accepts failed, and how many did not.
    fn end(mut self) -> Result<(u64, u64)> {
        self.input = None;
        let told = (self.number("failed")?, self.number("served")?);
        self.child.wait()?;
        Ok(told)
    }

    fn number(&mut self, what: &str) -> Result<u64> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let number = line
            .strip_prefix(what)
            .and_then(|rest| rest.trim().parse().ok());
        number.with_context(|| format!("the demo's server said {line:?} for `{what}`"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
