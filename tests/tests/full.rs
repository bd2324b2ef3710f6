//! Servers as people run them, too busy to accept: their queues fill up, and turnaway says whose.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use turnaway_tests::apart;
use turnaway_tests::live::Live;
use turnaway_tests::records::Peer;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::servers::gate::Gate;
use turnaway_tests::servers::nginx::{self, Nginx};
use turnaway_tests::servers::overflow::{
    DROPS, Overflowed, address, client, compare, overflow, totals,
};
use turnaway_tests::servers::postgres::{self, Session};
use turnaway_tests::servers::{as_nobody, comm_of, descendants, lower_limit};
use turnaway_tests::workload::listening::queued_connections;
use turnaway_tests::{tracer, wait};

/// An answer is not waited for longer than this.
const PATIENCE: Duration = Duration::from_mins(1);

fn watch(port: u16, reasons: &[&str]) -> Result<Live> {
    let port = port.to_string();
    let mut arguments = vec!["-P", &port];
    for reason in reasons {
        arguments.extend(["--reason", reason]);
    }
    Live::start(&tracer::binary()?, &arguments)
}

/// The only php-fpm that is installed.
fn php_fpm() -> Result<PathBuf> {
    fs::read_dir("/usr/sbin")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("php-fpm")
        })
        .context("no php-fpm: run `cargo xtask setup --tests`")
}

/// php-fpm with one child and the shortest queue, and nginx before it.
struct Fpm {
    php: Foreground,
    nginx: Foreground,
    front: PathBuf,
    socket: PathBuf,
    log: PathBuf,
}

impl Fpm {
    /// Its only script waits at the gate.
    fn start(dir: &Path) -> Result<Self> {
        let path = dir.display();
        let (front, socket) = (dir.join("front"), dir.join("fpm.sock"));
        let config = dir.join("fpm.conf");
        fs::write(
            &config,
            format!(
                "[global]\nerror_log = {path}/fpm.log\n[www]\nlisten = {path}/fpm.sock\n\
                listen.backlog = 1\npm = static\npm.max_children = 1\n"
            ),
        )?;
        let script = dir.join("index.php");
        let (gate, began) = (Gate::NAME, Gate::BEGAN);
        fs::write(
            &script,
            format!(
                "<?php file_put_contents('{path}/{began}', getmypid());\n\
                flock(fopen('{path}/{gate}', 'r'), LOCK_SH); echo 'done';\n"
            ),
        )?;
        let program = php_fpm()?;
        let mut command = as_nobody(&program.to_string_lossy());
        command.args(["--nodaemonize", "-n", "--fpm-config"]);
        let php = Foreground::start_at(command.arg(config), &socket)?;
        let server = Nginx {
            http: &format!(
                "server {{
                    listen unix:{path}/front;
                    location / {{
                        fastcgi_pass unix:{path}/fpm.sock;
                        fastcgi_param SCRIPT_FILENAME {path}/index.php;
                        fastcgi_param REQUEST_METHOD GET;
                    }}
                }}"
            ),
            ..Nginx::default()
        };
        let log = dir.join(nginx::LOG);
        let mut command = as_nobody(nginx::PROGRAM);
        command.args(server.configure(dir)?);
        let nginx = Foreground::start_at(&mut command, &front)?;
        Ok(Self {
            php,
            nginx,
            front,
            socket,
            log,
        })
    }

    fn begin(&self) -> Result<UnixStream> {
        let mut client = UnixStream::connect(&self.front)?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        Ok(client)
    }

    /// How often nginx could not connect because the queue was full.
    fn logged(&self) -> Result<u64> {
        const FULL: &str = "failed (11: Resource temporarily unavailable) while connecting";
        let log = fs::read_to_string(&self.log)?;
        Ok(u64::try_from(log.matches(FULL).count())?)
    }
}

fn status(mut client: UnixStream) -> Result<String> {
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1);
    Ok(status.with_context(|| format!("{answer:?}"))?.to_owned())
}

#[test]
fn nginx_finds_the_queue_of_php_fpm_full() {
    const CLIENTS: usize = 40;
    let dir = folder().unwrap();
    let gate = Gate::closed(dir.path()).unwrap();
    let server = Fpm::start(dir.path()).unwrap();
    let worker = wait::until("nginx's worker", || {
        Ok(descendants(server.nginx.0.id())?.first().copied())
    })
    .unwrap();
    let words = worker.to_string();
    let arguments = [
        "-p",
        &words,
        "--reason",
        "queue.unix_full",
        "--reason",
        "connect",
    ];
    let turnaway = Live::start(&tracer::binary().unwrap(), &arguments).unwrap();

    let busy_with = server.begin().unwrap();
    let child = gate.wait_for(None).unwrap();
    let clients: Vec<UnixStream> = (0..CLIENTS).map(|_| server.begin().unwrap()).collect();
    // One more than the backlog fits, and all others are turned away at once.
    let refused = u64::try_from(CLIENTS).unwrap() - 2;
    wait::until_true("nginx to log them", || Ok(server.logged()? >= refused)).unwrap();
    drop(gate);
    let mut answers: Vec<String> = clients
        .into_iter()
        .map(|client| status(client).unwrap())
        .collect();
    assert_eq!(status(busy_with).unwrap(), "200");
    let records = turnaway.stop().unwrap();
    answers.retain(|answer| answer == "502");

    let logged = server.logged().unwrap();
    println!("nginx logged {logged}, {} were told so", answers.len());
    assert_eq!(logged, refused);
    assert_eq!(u64::try_from(answers.len()).unwrap(), refused);
    let [total] = &records.summary.totals[..] else {
        panic!("not one total: {:?}", records.summary.totals);
    };
    assert_eq!(total.count, Some(logged));
    let counted: u64 = records.counts.iter().filter_map(|key| key.count).sum();
    assert_eq!(counted, logged);
    assert!(!records.events.is_empty());
    let path = server.socket.to_string_lossy();
    let master = server.php.0.id();
    for key in records.events.iter().chain(&records.counts).chain([total]) {
        assert_eq!(key.reason, "queue.unix_full");
        assert_eq!(key.errno, "EAGAIN");
        assert_eq!(key.process.pid, worker);
        assert_eq!(key.process.comm.as_deref(), Some("nginx"));
        assert_eq!(key.listener.path.as_deref(), Some(&*path));
        assert_eq!(key.peer.as_ref().map(Peer::name).as_deref(), Some(&*path));
        // Both hold it.
        if let Some(named) = &key.server {
            assert!([master, child].contains(&named.pid), "{named:?}");
            assert_eq!(named.comm, comm_of(master));
        }
    }
    // On a busy machine there is not always time to look for it.
    let mut keys = records.events.iter().chain(&records.counts).chain([total]);
    assert!(keys.any(|key| key.server.is_some()), "{total:?}");
}

/// The master listens; two workers accept, each until it is busy.
#[test]
fn the_worker_of_gunicorn_is_named_not_its_master() {
    const BACKLOG: u32 = 2;
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let turnaway = watch(port, &["queue"]).unwrap();
    apart::in_netns(|| {
        let (gate, began) = (Gate::NAME, Gate::BEGAN);
        fs::write(
            dir.path().join("busy.py"),
            format!(
                "import fcntl, os\n\
                def app(environ, start):\n\
                \x20   start('200 OK', [])\n\
                \x20   with open('{began}', 'w') as file: file.write(str(os.getpid()))\n\
                \x20   with open('{gate}') as file: fcntl.flock(file, fcntl.LOCK_SH)\n\
                \x20   return [b'done']\n"
            ),
        )?;
        let gate = Gate::closed(dir.path())?;
        let master = Foreground::start(
            as_nobody("/usr/bin/gunicorn")
                .args(["--bind", &address(port).to_string()])
                .args(["--backlog", &BACKLOG.to_string()])
                .args(["--workers", "2", "--timeout", "0", "--chdir"])
                .arg(dir.path())
                .arg("--worker-tmp-dir")
                .arg(dir.path())
                .arg("busy:app")
                .env("PYTHONDONTWRITEBYTECODE", "1"),
            port,
        )?;
        let ask = || -> Result<TcpStream> {
            let mut client = TcpStream::connect(address(port))?;
            client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            Ok(client)
        };
        let clients = [ask()?];
        let first = gate.wait_for(None)?;
        let more = [ask()?];
        let second = gate.wait_for(Some(first))?;
        let drops = overflow(port, BACKLOG)?;
        let records = turnaway.stop()?;
        let master_pid = master.0.id();
        println!("{drops} drops; master {master_pid}, workers {first}, {second}");
        ensure!(![first, second].contains(&master_pid), "the master accepts");
        let truth = Overflowed {
            // The one that accepted last.
            acceptor: second,
            holders: vec![master_pid, first, second],
            drops,
        };
        compare(&records, port, &truth)?;
        // Now they may end.
        drop((gate, clients, more));
        drop(master);
        Ok(())
    })
    .unwrap();
}

/// pgbouncer before PostgreSQL, at its limit of descriptors.
#[test]
fn pgbouncer_at_its_limit_fails_stalls_and_overflows() {
    const LIMIT: u64 = 40;
    const BACKLOG: u32 = 4;
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let reasons = ["accept", "queue"];
    let mut turnaway = watch(port, &reasons).unwrap();
    apart::in_netns(|| {
        // Nobody else is in this network.
        let behind = if port == 5432 { 5433 } else { 5432 };
        let _postgres = postgres::start(dir.path(), behind)?;
        let config = dir.path().join("pgbouncer.ini");
        let user = postgres::USER;
        fs::write(
            &config,
            format!(
                "[databases]\npostgres = host=127.0.0.1 port={behind} user={user}\n[pgbouncer]\n\
                listen_addr = 127.0.0.1\nlisten_port = {port}\nlisten_backlog = {BACKLOG}\n\
                unix_socket_dir =\nauth_type = any\nmax_client_conn = 500\n"
            ),
        )?;
        let log = dir.path().join("pgbouncer.log");
        let server = Foreground::start_heard(
            as_nobody("/usr/sbin/pgbouncer")
                .arg(config)
                .stderr(File::create(&log)?),
            port,
        )?;
        let pid = server.0.id();
        let logged = || -> Result<u64> {
            let log = fs::read_to_string(&log)?;
            let failed = log.matches("accept() failed: Too many open files");
            Ok(u64::try_from(failed.count())?)
        };
        let mut healthy = Session::begin(port)?;
        healthy.ask()?;
        lower_limit(pid, LIMIT)?;
        let mut clients = Vec::new();
        wait::until_true("accept to fail", || {
            // One at a time, so that the queue does not overflow before it is to.
            if queued_connections(port.into())? == 0 {
                clients.push(client(port)?);
            }
            Ok(logged()? > 0)
        })?;
        let drops = overflow(port, BACKLOG)?;
        let began = turnaway.until("the stall", |record| record["state"] == "began")?;
        // It tries again every few seconds.
        wait::until_true("accept to fail again", || Ok(logged()? >= 2))?;
        server.signal(libc::SIGSTOP)?;
        let records = turnaway.stop()?;
        let failed = logged()?;
        println!("{failed} accepts failed, {drops} drops of {pid}");

        let truth = Overflowed {
            acceptor: pid,
            holders: vec![pid],
            drops,
        };
        compare(&records, port, &truth)?;
        let [dropped] = totals(&records, &DROPS)[..] else {
            anyhow::bail!("no drops");
        };
        let inode = dropped.listener.inode;
        let of_it = |reason: &str, count: u64| {
            let told = totals(&records, &[reason]);
            let [total] = told[..] else {
                anyhow::bail!("not one total of {reason}: {told:?}");
            };
            ensure!(
                total.count == Some(count)
                    && total.process.pid == pid
                    && total.listener.inode == inode
                    && total.listener.port == Some(port.into()),
                "{count} {reason} of {pid} on {inode:?}: {total:?}"
            );
            Ok(total)
        };
        let emfile = of_it("accept.", failed)?;
        ensure!(
            emfile.reason == "accept.emfile" && emfile.fd.limit == Some(LIMIT),
            "{emfile:?}"
        );
        of_it("queue.stalled", 1)?;
        ensure!(
            began["process"]["pid"] == pid
                && began["process"]["comm"] == "pgbouncer"
                && began["listener"]["inode"].as_u64() == inode,
            "{began}"
        );
        // Whoever is connected sees nothing of it.
        server.signal(libc::SIGCONT)?;
        healthy.ask()
    })
    .unwrap();
}
