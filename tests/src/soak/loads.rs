//! Servers that stay and servers that come and go, and what fails at each: a round at a time.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::books::{Ours, Tally};
use crate::cgroup::{self, Cgroup, Hierarchy};
use crate::measure::short_lives;
use crate::servers::acceptor::Acceptor;
use crate::servers::foreground::{Foreground, free_port, open_to_all};
use crate::servers::nginx::{self, Nginx};
use crate::servers::overflow::overflow;
use crate::servers::shop::{answer, buyer};
use crate::servers::{as_nobody, comm_of, lower_limit};
use crate::sys::{self, Errno, SockAddr};
use crate::truth::own_netns;
use crate::wait;
use crate::workload::listening::Listening;
use crate::workload::queue::Counters;

/// Clients that come to a server at once, more than it may have descriptors.
const CLIENTS: usize = 48;
/// Descriptors that redis may have, as soon as it runs; nginx gives itself fewer than that.
const LIMIT: u64 = 40;
/// What they write for each failed accept, and how often they fail at least before their clients go.
const NGINX: (&str, usize) = ("accept4() failed (24: Too many open files)", 2);
const REDIS: (&str, usize) = (
    "Accepting client connection: accept: Too many open files",
    5,
);
/// Servers of a round's own, and processes that fail once each.
const ACCEPTORS: usize = 4;
const LIVES: u64 = 10;
/// Connects that are refused in a round, and where nobody listens.
const REFUSED: u64 = 25;
const NOBODY: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 77, 0, 1), 9);
/// Places where nobody listens that are connected to in the first round, one after the other: more kinds of failures
/// than a daemon tells apart at its end, so that no more room is taken for those from then on.
const PLACES: u32 = 4000;
const PACE: Duration = Duration::from_millis(1);
/// Clients for which the full queue has room.
const BACKLOG: u32 = 4;

/// Everything that fails, in the calling thread's network namespace.
pub(super) struct Loads<'a> {
    scenarios: &'a Path,
    /// The hierarchy that the kernel's programs tell ids of.
    unified: Hierarchy,
    home: PathBuf,
    servers: Option<Cgroup>,
    nginx: Foreground,
    nginx_port: u16,
    nginx_log: PathBuf,
    redis: Foreground,
    redis_port: u16,
    redis_log: PathBuf,
    /// The name of this process.
    comm: String,
    before: Counters,
    pub(super) failed: Tally,
    pub(super) ours: Ours,
}

impl<'a> Loads<'a> {
    /// Starts the servers that stay.
    pub(super) fn start(scenarios: &'a Path, dir: &Path) -> Result<Self> {
        let unified = cgroup::hierarchies()?
            .into_iter()
            .find(|one| one.name == "unified")
            .context("no cgroup hierarchy of version 2 is mounted")?;
        let home = own_cgroup(&unified)?;
        let servers = Cgroup::make(&unified, "soak-servers")?;
        servers.take(sys::own_pid())?;
        let folder = dir.join("nginx");
        fs::create_dir(&folder)?;
        open_to_all(&folder)?;
        let nginx_port = free_port()?;
        let arguments = Nginx {
            main: "daemon off; worker_processes 1; worker_rlimit_nofile 32;",
            http: &nginx::answers(nginx_port, ""),
            ..Nginx::default()
        }
        .configure(&folder)?;
        let nginx = Foreground::start(as_nobody(nginx::PROGRAM).args(arguments), nginx_port)?;
        let redis_port = free_port()?;
        let redis_log = dir.join("redis.log");
        let mut command = as_nobody("/usr/bin/redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--maxclients", "500"])
            .args(["--port", &redis_port.to_string(), "--dir"])
            .arg(dir);
        let redis = Foreground::start_logged(&mut command, redis_port, &redis_log)?;
        lower_limit(redis.0.id(), LIMIT)?;
        let ours = Ours {
            cgroups: [servers.id()?].into(),
            netns: own_netns()?,
        };
        Ok(Self {
            scenarios,
            unified,
            home,
            servers: Some(servers),
            nginx,
            nginx_port,
            nginx_log: folder.join(nginx::LOG),
            redis,
            redis_port,
            redis_log,
            comm: comm_of(sys::own_pid()).context("no name")?,
            before: Counters::read()?,
            failed: Tally::default(),
            ours,
        })
    }

    /// Fails in all ways, from a cgroup of this round's own, and comes to rest.
    pub(super) fn round(&mut self, number: u64) -> Result<()> {
        let cgroup = Cgroup::make(&self.unified, &format!("soak-{number}"))?;
        self.ours.cgroups.insert(cgroup.id()?);
        cgroup.take(sys::own_pid())?;
        // First, and alone: it waits until no packet is under way.
        let queue = Listening::tcp4(BACKLOG)?;
        overflow(queue.port()?, BACKLOG)?;
        drop(queue);
        let (scenarios, nginx, redis) = (self.scenarios, self.nginx_port, self.redis_port);
        let (nginx_log, redis_log) = (&self.nginx_log, &self.redis_log);
        let (accepts, lives, refused) = thread::scope(|scope| {
            let nginx = scope.spawn(|| exhaust(nginx, nginx_log, NGINX));
            let redis = scope.spawn(|| exhaust(redis, redis_log, REDIS));
            let acceptors: Vec<_> = (1..=ACCEPTORS)
                .map(|number| scope.spawn(move || come_and_go(scenarios, 20 * number as u64)))
                .collect();
            let lives = scope.spawn(|| short_lives(scenarios, LIVES));
            let refused = scope.spawn(if number == 0 { refused_all } else { refused });
            let accepts = acceptors.into_iter().map(joined).sum::<Result<u64>>()?;
            joined(nginx)?;
            joined(redis)?;
            anyhow::Ok((accepts, joined(lives)?, joined(refused)?))
        })?;
        pong(self.redis_port)?;
        ensure!(
            answer(buyer(self.nginx_port)?)? == 204,
            "nginx does not answer"
        );
        let own = self.comm.as_str();
        self.failed.add("accept.emfile", own, accepts + lives);
        // Each of them found its limit by a call that failed.
        self.failed.add("fd.exhausted", own, lives);
        self.failed.add("connect.refused", own, refused);
        let logged = shorten(&self.redis_log, REDIS.0)?;
        self.failed.add("accept.emfile", "redis-server", logged);
        if let Some(servers) = &self.servers {
            servers.take(sys::own_pid())?;
        }
        cgroup.remove()
    }

    /// Ends the servers; what failed, and whose that was.
    pub(super) fn end(mut self) -> Result<(Tally, Ours)> {
        let logged = count(&self.nginx_log, NGINX.0)? as u64;
        self.failed.add("accept.emfile", "nginx", logged);
        let dropped = Counters::read()?.since(self.before).drops;
        self.failed.dropped(dropped);
        fs::write(self.home.join("cgroup.procs"), sys::own_pid().to_string())?;
        drop(self.nginx);
        drop(self.redis);
        if let Some(servers) = self.servers.take() {
            servers.remove()?;
        }
        Ok((self.failed, self.ours))
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

/// The cgroup that this process is in.
fn own_cgroup(unified: &Hierarchy) -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let name = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(unified
        .mounted
        .join(name.context("no cgroup of version 2")?))
}

/// More clients than a server has descriptors for, until it has said so; then they go.
fn exhaust(port: u16, log: &Path, (words, least): (&str, usize)) -> Result<()> {
    let before = count(log, words)?;
    let clients = (0..CLIENTS)
        .map(|_| begin(port))
        .collect::<Result<Vec<_>>>()?;
    wait::until_true("a server to be out of descriptors", || {
        Ok(count(log, words)? >= before + least)
    })?;
    drop(clients);
    Ok(())
}

/// A client that does not wait until it is connected.
fn begin(port: u16) -> Result<OwnedFd> {
    let client = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    sys::set_nonblocking(&client)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match sys::connect(&client, &SockAddr::inet(address)) {
        Ok(()) | Err(Errno(libc::EINPROGRESS)) => Ok(client),
        Err(errno) => Err(errno.into()),
    }
}

/// A server that is new, fails so often while clients wait, recovers and ends.
fn come_and_go(scenarios: &Path, failures: u64) -> Result<u64> {
    let mut acceptor = Acceptor::run(scenarios)?;
    let clients = [acceptor.client()?, acceptor.client()?];
    let failed = acceptor.fail(failures)?;
    ensure!(acceptor.recover()? == 2, "a client was not accepted");
    drop(clients);
    acceptor.finish()?;
    Ok(failed)
}

/// Connects to where nobody listens.
fn refused() -> Result<u64> {
    (0..REFUSED).try_for_each(|_| refuse(NOBODY.0))?;
    Ok(REFUSED)
}

/// The same, to many places.
fn refused_all() -> Result<u64> {
    for number in 0..PLACES {
        refuse((u32::from(NOBODY.0) + number).into())?;
        thread::sleep(PACE);
    }
    Ok(PLACES.into())
}

fn refuse(address: Ipv4Addr) -> Result<()> {
    let got = TcpStream::connect((address, NOBODY.1)).map_err(|error| error.kind());
    ensure!(
        matches!(got, Err(ErrorKind::ConnectionRefused)),
        "connecting to nobody: {got:?}"
    );
    Ok(())
}

/// redis has come to this client, and so to all before it.
fn pong(port: u16) -> Result<()> {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.write_all(b"PING\r\n")?;
    let mut said = [0; 7];
    client.read_exact(&mut said)?;
    ensure!(&said == b"+PONG\r\n", "redis said {said:?}");
    Ok(())
}

/// How often a server has written that.
fn count(log: &Path, words: &str) -> Result<usize> {
    let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&text).matches(words).count())
}

/// The same of a server that writes nothing now; the file is empty afterwards.
fn shorten(log: &Path, words: &str) -> Result<u64> {
    let counted = count(log, words)? as u64;
    OpenOptions::new().write(true).open(log)?.set_len(0)?;
    Ok(counted)
}
