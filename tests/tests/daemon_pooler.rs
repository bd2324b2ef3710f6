//! The pooler that reaches its limit of descriptors, between a proxy and a database: everything that
//! comes of it is one incident, told in the order in which one thing led to the next. What pgbouncer, haproxy,
//! the kernel and the clients themselves say is the truth.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use turnaway_tests::daemon::{Daemon, configure, failures};
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::servers::postgres::{self, Session};
use turnaway_tests::servers::{as_nobody, lower_limit};
use turnaway_tests::workload::listening::queued_connections;
use turnaway_tests::workload::queue::Counters;
use turnaway_tests::{apart, tracer, wait};

/// The pooler's limit of descriptors …
const LIMIT: u64 = 60;
/// … of which so many are in use when it comes near: more than 80 % and less than 95 %.
const NEAR: usize = 52;
/// The pooler's backlog; the kernel lets one more in.
const BACKLOG: u32 = 8;
/// Clients for whom there is no room in the queue.
const TURNED_AWAY: u64 = 6;
/// No client waits longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What pgbouncer writes for each failed accept.
const NOT_ACCEPTED: &str = "accept() failed: Too many open files";
/// What haproxy writes of a session whose connection to the server failed.
const NOT_CONNECTED: &str = " SC ";

/// pgbouncer between haproxy and PostgreSQL.
struct Story {
    haproxy: Foreground,
    pgbouncer: Foreground,
    _postgres: Foreground,
    front: u16,
    pooler: u16,
}

impl Story {
    fn start(dir: &Path) -> Result<Self> {
        let (front, pooler, database) = (free_port()?, free_port()?, free_port()?);
        let postgres = postgres::start(dir, database)?;
        let config = dir.join("pgbouncer.ini");
        let user = postgres::USER;
        fs::write(
            &config,
            format!(
                "[databases]\npostgres = host=127.0.0.1 port={database} user={user}\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {pooler}\n\
                 listen_backlog = {BACKLOG}\nunix_socket_dir =\nauth_type = any\n\
                 max_client_conn = 500\ndefault_pool_size = 5\npool_mode = transaction\n\
                 logfile = {}\n",
                dir.join("pgbouncer.log").display()
            ),
        )?;
        let pgbouncer = Foreground::start(as_nobody("/usr/sbin/pgbouncer").arg(config), pooler)?;
        lower_limit(pgbouncer.0.id(), LIMIT)?;
        let config = dir.join("haproxy.cfg");
        fs::write(
            &config,
            format!(
                "global\n  maxconn 500\n  nbthread 1\n  log stderr format raw local0\n\
                 defaults\n  mode tcp\n  log global\n  option tcplog\n  retries 0\n  \
                 timeout client 1m\n  timeout connect 30s\n  timeout server 1m\n\
                 frontend front\n  bind 127.0.0.1:{front}\n  default_backend poolers\n\
                 backend poolers\n  server pooler 127.0.0.1:{pooler}\n"
            ),
        )?;
        let mut command = as_nobody("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(config);
        command.stderr(File::create(dir.join("haproxy.log"))?);
        let haproxy = Foreground::start_heard(&mut command, front)?;
        Ok(Self {
            haproxy,
            pgbouncer,
            _postgres: postgres,
            front,
            pooler,
        })
    }

    /// Descriptors that the pooler has open.
    fn open(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pgbouncer.0.id()))?.count())
    }

    /// Connections that wait in its queue.
    fn waiting(&self) -> Result<u32> {
        queued_connections(self.pooler.into())
    }

    /// A client that has said something: the pooler has the kernel wait for that
    /// (TCP_DEFER_ACCEPT).
    fn client(&self) -> Result<TcpStream> {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, self.front))?;
        client.write_all(&postgres::SSL_REQUEST)?;
        client.set_read_timeout(Some(PATIENCE))?;
        Ok(client)
    }
}

fn logged(path: &Path, words: &str) -> Result<u64> {
    Ok(fs::read_to_string(path)?.matches(words).count() as u64)
}

/// Whether the other end closes a connection without a word.
fn is_turned_away(mut client: &TcpStream) -> Result<bool> {
    match client.read(&mut [0]) {
        Ok(read) => Ok(read == 0),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn the_pooler_is_one_incident_in_causal_order() {
    let dir = folder().unwrap();
    apart::in_netns(|| {
        // Who asks is told after two SYNs, not after seven.
        apart::set("ipv4/tcp_syn_retries", "1")?;
        tell(dir.path())
    })
    .unwrap();
}

fn tell(dir: &Path) -> Result<()> {
    let story = Story::start(dir)?;
    let (pooler, haproxy) = (story.pgbouncer.0.id(), story.haproxy.0.id());
    let config = configure(dir, "", Duration::from_secs(8))?;
    let mut daemon = Daemon::start(&tracer::binary()?, &config, &dir.join("state"))?;
    let log = dir.join("pgbouncer.log");

    // Descriptors run short. Those who are connected stay so: that is what a health check sees.
    let mut sessions = vec![Session::begin(story.front).context("the first session")?];
    sessions[0].ask().context("it asks")?;
    while story.open()? < NEAR {
        sessions.push(Session::begin(story.front).context("another session")?);
        ensure!(sessions.len() < 60, "no end of sessions");
    }
    let near = daemon.until("the pooler to be near its limit", |record| {
        record["victim"]["process"]["pid"] == pooler
    })?;
    ensure!(near["severity"] == "warning", "{near}");
    ensure!(logged(&log, NOT_ACCEPTED)? == 0, "it was quicker than that");

    // They are gone, and a few clients wait.
    let mut clients = Vec::new();
    while story.waiting()? == 0 {
        let before = story.open()?;
        clients.push(story.client()?);
        ensure!(clients.len() < 60, "no end of clients");
        wait::until_true("a client to get to the pooler", || {
            Ok(story.open()? > before || story.waiting()? > 0)
        })?;
    }
    wait::until_true("an accept to fail", || Ok(logged(&log, NOT_ACCEPTED)? > 0))?;
    daemon.until("the pooler to be out of descriptors", |record| {
        record["id"] == near["id"] && record["severity"] == "critical"
    })?;
    daemon.until_counted("queue.stalled", story.pooler, 1)?;

    // The queue is full, and the proxy cannot connect any more.
    while story.waiting()? <= BACKLOG {
        let before = story.waiting()?;
        clients.push(story.client()?);
        wait::until_true("a client to be in the queue", || {
            Ok(story.waiting()? > before)
        })?;
    }
    let before = Counters::read()?;
    let late: Vec<TcpStream> = (0..TURNED_AWAY)
        .map(|_| story.client())
        .collect::<Result<_>>()?;
    let mut turned_away = 0;
    for client in &late {
        turned_away += u64::from(is_turned_away(client)?);
    }
    let dropped = Counters::read()?.since(before).overflows;
    ensure!(turned_away == TURNED_AWAY, "{turned_away} were turned away");
    let proxy_log = dir.join("haproxy.log");
    wait::until_true("haproxy's log", || {
        Ok(logged(&proxy_log, NOT_CONNECTED)? == TURNED_AWAY)
    })?;
    // Who was connected before is served all the while.
    sessions[0].ask().context("who is connected asks")?;

    // Clients go, and all is well.
    drop(clients);
    drop(sessions.split_off(1));
    let over = daemon.until("the end", |record| {
        record["id"] == near["id"] && record["status"] == "resolved"
    })?;
    let mut after = Session::begin(story.front).context("a session after the end")?;
    after.ask().context("it asks after the end")?;
    println!("{over:#}");
    let accepts = logged(&log, NOT_ACCEPTED)?;
    compare(&over, &story, accepts, dropped)?;

    let ended = daemon.stop()?;
    for record in &ended.records {
        let victim = &record["victim"]["process"]["pid"];
        if *victim == pooler || *victim == haproxy {
            ensure!(record["id"] == near["id"], "another incident: {record:#}");
        }
    }
    Ok(())
}

/// The incident, as it is told when it is over.
fn compare(over: &Value, story: &Story, accepts: u64, dropped: u64) -> Result<()> {
    let (pooler, haproxy) = (story.pgbouncer.0.id(), story.haproxy.0.id());
    let named = |value: &Value, pid: u32, comm: &str| value["pid"] == pid && value["comm"] == comm;
    // Those who waited are served in the end: late, and no part of the story.
    let is_late = |reason: &&str| *reason == "queue.slow";
    let reasons: Vec<&str> = over["reasons"]
        .as_array()
        .context("no reasons")?
        .iter()
        .filter_map(|one| one["reason"].as_str())
        .filter(|reason| !is_late(reason))
        .collect();
    let (Some(overflow), 5) = (reasons.get(3), reasons.len()) else {
        bail!("not five reasons: {reasons:?}");
    };
    let chain = [
        "fd.pressure",
        "accept.emfile",
        "queue.stalled",
        overflow,
        "connect.timeout",
    ];
    ensure!(
        reasons == chain && ["queue.overflow", "queue.syn_overflow"].contains(overflow),
        "{reasons:?}"
    );
    for (reason, count) in [
        ("accept.emfile", accepts),
        ("queue.stalled", 1),
        (overflow, dropped),
        ("connect.timeout", TURNED_AWAY),
    ] {
        ensure!(
            failures(over, reason) == Some(count),
            "{reason} is not {count}: {over:#}"
        );
    }
    ensure!(
        named(&over["victim"]["process"], pooler, "pgbouncer"),
        "{over:#}"
    );
    let sufferers = over["sufferers"].as_array().context("no sufferers")?;
    let [sufferer] = &sufferers[..] else {
        bail!("not one sufferer: {sufferers:#?}");
    };
    ensure!(
        named(&sufferer["process"], haproxy, "haproxy") && sufferer["count"] == TURNED_AWAY,
        "{sufferer:#}"
    );
    ensure!(over["fd"]["limit"] == LIMIT, "{}", over["fd"]);

    // What happened, in order: each reason when it first came.
    let timeline = over["timeline"].as_array().context("no timeline")?;
    let mut order: Vec<&str> = Vec::new();
    for reason in timeline.iter().filter_map(|line| line["reason"].as_str()) {
        if !order.contains(&reason) && !is_late(&reason) {
            order.push(reason);
        }
    }
    ensure!(order == chain, "{timeline:#?}");
    let times: Vec<&str> = timeline
        .iter()
        .filter_map(|one| one["time"].as_str())
        .collect();
    ensure!(times.is_sorted(), "{times:?}");
    let statement = over["statement"].as_str().context("no statement")?;
    for words in [
        format!("pgbouncer (pid {pooler}"),
        "is out of file descriptors".to_owned(),
        format!("haproxy (pid {haproxy}"),
        format!("127.0.0.1:{}", story.pooler),
    ] {
        ensure!(statement.contains(&words), "no {words:?} in {statement}");
    }
    Ok(())
}
