//! Real servers, driven past their limit of descriptors under strace, which says what their
//! accepts returned.

pub mod acceptor;
pub mod alertmanager;
pub mod collector;
pub mod foreground;
pub mod gate;
mod list;
pub mod nginx;
pub mod overflow;
pub mod poster;
pub mod postgres;
mod processes;
pub mod prometheus;
pub mod receiver;
pub mod shop;
pub mod strace;
pub mod tcpdump;

pub use list::ALL;
pub use processes::{as_nobody, comm_of, descendants, lower_limit, state};

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::strace::Trace;
use crate::records::{Key, Records};
use crate::sys::{Errno, SockAddr};
use crate::tracer::{Tracer, wait_for};
use crate::{sys, wait};

/// A command of Podman's that needs no systemd. crun, which Podman prefers, does not run on hosts that have
/// both versions of cgroups; runc runs on all.
#[must_use]
pub fn podman() -> Command {
    let mut command = Command::new("/usr/bin/podman");
    command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
    command.args(["--runtime", "runc"]);
    command
}

/// How many clients come. All limits are below that.
const CLIENTS: usize = 70;
/// Until a server that was killed is gone.
const END: Duration = Duration::from_secs(30);

/// A server, and how it is started so that clients can exhaust its descriptors.
pub struct Server {
    /// Its name.
    pub name: &'static str,
    /// The program that must be there.
    pub program: &'static str,
    /// Name of the process that accepts.
    pub comm: &'static str,
    /// Its soft limit while clients come.
    pub limit: u64,
    /// Whether it gives itself that limit. To others it is given when they are up, since many
    /// raise or check it when they start.
    pub own_limit: bool,
    /// How many failures to wait for.
    pub failures: usize,
    /// Whether it gets rid of clients that it has no descriptors for, so that more must come.
    pub sheds: bool,
    /// What it writes for each failure, to `log` in its folder or to its output, if it does.
    pub logs: Option<&'static str>,
    /// The command that runs it in the foreground. Its files are written to the folder first.
    pub command: fn(&Place) -> Result<Command>,
}

/// Where a server runs.
pub struct Place {
    /// A folder of its own, which everybody may write to.
    pub dir: PathBuf,
    /// A free port of 127.0.0.1.
    pub port: u16,
}

impl Place {
    /// Writes a file and returns its path.
    pub fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        Ok(path)
    }
}

/// Why it cannot run here, or nothing.
#[must_use]
pub fn missing(server: &Server) -> Option<String> {
    [server.program, strace::PROGRAM, "/usr/bin/setpriv"]
        .into_iter()
        .find(|program| !Path::new(program).exists())
        .map(|program| format!("no {program}: run `cargo xtask setup --tests`"))
}

/// Runs a server until its accepts have failed, and compares what turnaway says of it with what
/// strace saw.
pub fn run(server: &Server, turnaway: &Path, tier: &str) -> Result<()> {
    let dir = tempfile::tempdir().context("cannot create a temporary folder")?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777))?;
    let place = Place {
        dir: dir.path().to_owned(),
        port: foreground::free_port()?,
    };
    let port = place.port.to_string();
    let tracer = Tracer::start(turnaway, &["-o", "json", "--tier", tier, "-P", &port])?;
    let trace = place.dir.join("strace");
    let mut running = Running::start(server, &place, &trace)?;
    let driven = running
        .drive(server, &place, &trace)
        .with_context(|| running.last_words(&place));
    // The server first: whatever it does, strace and turnaway both see it.
    running.stop(&trace)?;
    let records = tracer.stop()?.records()?;
    driven?;

    let trace = Trace::read(&trace, &running.threads)?;
    println!("{}: strace saw {:?}", server.name, trace.failures());
    compare(server, &place, &trace, &records)?;
    let shed: u64 = records
        .summary
        .totals
        .iter()
        .filter(|total| total.reason == "accept.shed")
        .filter_map(|total| total.count)
        .sum();
    ensure!(
        shed == running.turned_away && (shed > 0) == server.sheds,
        "{} clients were turned away, {shed} were told",
        running.turned_away
    );
    if let Some(words) = server.logs {
        let logged = running.logged(&place)?.matches(words).count() as u64;
        let failed = trace.total("EMFILE");
        ensure!(
            // It may have been stopped between the failure and the writing.
            logged == failed || logged + 1 == failed,
            "the log has {logged} failures, strace {failed}"
        );
    }
    Ok(())
}

/// Everything that strace saw fail, and nothing else, is in the totals.
fn compare(server: &Server, place: &Place, trace: &Trace, records: &Records) -> Result<()> {
    let mut told: Vec<(u32, String, u64)> = records
        .summary
        .totals
        .iter()
        // When it is stopped, the connections that wait are lost: that is another matter.
        .filter(|total| total.reason.starts_with("accept.") && !total.errno.is_empty())
        .map(|total| {
            let count = total.count.unwrap_or(0);
            (total.process.pid, total.errno.clone(), count)
        })
        .collect();
    told.sort();
    let seen = trace.failures();
    ensure!(told == seen, "strace saw {seen:?}, turnaway {told:?}");
    let lost = records.summary.lost;
    ensure!(
        lost.ring + lost.map + lost.missed.unwrap_or(0) + lost.output == 0,
        "{lost:?}"
    );
    let emfile = |key: &&Key| key.errno == "EMFILE";
    let totals = records.summary.totals.iter().chain(&records.counts);
    for key in totals.chain(&records.events).filter(emfile) {
        let got = (
            key.reason.as_str(),
            key.process.comm.as_deref(),
            key.listener.port,
            key.fd.limit,
        );
        let wanted = (
            "accept.emfile",
            Some(server.comm),
            Some(u32::from(place.port)),
            Some(server.limit),
        );
        ensure!(got == wanted, "{got:?} instead of {wanted:?}");
    }
    ensure!(
        records.events.iter().any(|key| emfile(&key)),
        "no failure was shown"
    );
    Ok(())
}

/// A server under strace. It is killed when this is dropped.
struct Running {
    strace: Child,
    output: PathBuf,
    /// Which process each thread belonged to when it was stopped.
    threads: Vec<(u32, u32)>,
    clients: Vec<TcpStream>,
    /// How many of those the server had closed when it was stopped.
    turned_away: u64,
}

impl Running {
    fn start(server: &Server, place: &Place, trace: &Path) -> Result<Self> {
        let output = place.dir.join("output");
        let file = File::create(&output)?;
        let strace = strace::wrap(&(server.command)(place)?, trace)
            .current_dir(&place.dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot run strace")?;
        Ok(Self {
            strace,
            output,
            threads: Vec::new(),
            clients: Vec::new(),
            turned_away: 0,
        })
    }

    /// Waits until it serves, exhausts it, and waits for failures.
    fn drive(&mut self, server: &Server, place: &Place, trace: &Path) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place.port));
        let first = wait::until("the server to listen", || {
            let ended = self.strace.try_wait()?;
            ensure!(ended.is_none(), "it ended: {ended:?}");
            Ok(TcpStream::connect(address).ok())
        })?;
        self.clients.push(first);
        if !server.own_limit {
            for pid in descendants(self.strace.id())? {
                if comm_of(pid).is_some_and(|comm| comm == server.comm) {
                    lower_limit(pid, server.limit)?;
                }
            }
        }
        for _ in 0..CLIENTS {
            self.clients.push(begin(address)?);
        }
        wait::until_true("accepts to fail with EMFILE", || {
            if server.sheds {
                self.clients.push(begin(address)?);
            }
            Ok(strace::count(trace, "EMFILE")? >= server.failures)
        })
    }

    /// Stops every process of it, then kills them. A process that was killed at once could have
    /// failed one more time without strace having been told.
    fn stop(&mut self, trace: &Path) -> Result<()> {
        let pids = descendants(self.strace.id())?;
        for pid in &pids {
            sys::kill(*pid, libc::SIGSTOP)?;
        }
        let mut threads = Vec::new();
        for pid in &pids {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                let tid = task?.file_name().to_string_lossy().parse()?;
                threads.push((tid, *pid));
            }
        }
        wait::until_true("strace to see all threads stopped", || {
            strace::all_stopped(trace, &threads)
        })?;
        self.threads = threads;
        self.turned_away = self.turned_away()?;
        self.kill();
        wait_for(&mut self.strace, END).context("strace did not end")?;
        Ok(())
    }

    /// How many clients see the end of their connection.
    fn turned_away(&self) -> Result<u64> {
        let mut turned_away = 0;
        for client in &self.clients {
            client.set_nonblocking(true)?;
            match client.peek(&mut [0]) {
                Ok(0) => turned_away += 1,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => turned_away += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(turned_away)
    }

    fn kill(&mut self) {
        // The first process comes first, so that it starts no others.
        for pid in descendants(self.strace.id()).unwrap_or_default() {
            // It fails only for those that have ended.
            let _ = sys::kill(pid, libc::SIGKILL);
        }
    }

    /// What the server wrote to its log or its output.
    fn logged(&self, place: &Place) -> Result<String> {
        let log = place.dir.join("log");
        let path = if log.exists() { &log } else { &self.output };
        Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
    }

    fn last_words(&self, place: &Place) -> String {
        let log = self.logged(place).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

/// A client that does not wait until it is connected: a server that is exhausted may shorten its
/// queue, and then nobody answers.
fn begin(address: SocketAddr) -> Result<TcpStream> {
    let client = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    sys::set_nonblocking(&client)?;
    match sys::connect(&client, &SockAddr::inet(address)) {
        Ok(()) | Err(Errno(libc::EINPROGRESS)) => Ok(client.into()),
        Err(errno) => Err(errno.into()),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.strace.try_wait(), Ok(None)) {
            self.kill();
            // Both fail only if it has ended.
            let _ = self.strace.kill();
            let _ = self.strace.wait();
        }
    }
}
