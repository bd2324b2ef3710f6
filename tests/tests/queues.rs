//! Queues of real servers: a server that is stopped, reloads and upgrades under load.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use turnaway_tests::live::Live;
use turnaway_tests::records::Records;
use turnaway_tests::{sys, tracer, wait};

/// A server in the foreground. It is ended when this is dropped.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, port: u16) -> Self {
        let server = Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?}: {error}")),
        );
        wait_for_listener(port);
        server
    }

    fn signal(&self, signal: i32) {
        sys::kill(self.0.id(), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // All fail only if it has ended.
        let _ = sys::kill(self.0.id(), libc::SIGCONT);
        let _ = sys::kill(self.0.id(), libc::SIGTERM);
        let _ = self.0.wait();
    }
}

fn wait_for_listener(port: u16) {
    wait::until("the server to listen", || {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
    })
    .unwrap();
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

fn time(record: &serde_json::Value) -> jiff::Timestamp {
    record["time"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_stopped_redis_is_stalled_until_it_goes_on() {
    let port = free_port();
    let dir = folder();
    let redis = Server::start(
        Command::new("/usr/bin/redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(dir.path()),
        port,
    );
    let pid = redis.0.id();
    let words = port.to_string();
    let arguments = ["--reason", "queue.stalled", "-P", &words];
    let mut turnaway = Live::start(&tracer::binary().unwrap(), &arguments).unwrap();

    // A connection that is open stays so: that is what a health check sees.
    let mut healthy = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut answer = [0; 7];
    healthy.write_all(b"PING\r\n").unwrap();
    healthy.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");

    redis.signal(libc::SIGSTOP);
    let stopped = jiff::Timestamp::now();
    let mut clients: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap())
        .collect();
    let began = turnaway
        .until("the stall", |record| record["state"] == "began")
        .unwrap();
    let after = time(&began).duration_since(stopped);
    assert!(
        after >= jiff::SignedDuration::from_millis(1_900)
            && after <= jiff::SignedDuration::from_millis(2_500),
        "{after:?}"
    );
    assert_eq!(began["process"]["pid"], pid, "{began}");
    assert_eq!(began["process"]["comm"], "redis-server");
    assert_eq!(began["listener"]["queue"], 2);
    let oldest = clients[0].local_addr().unwrap();
    let second = clients[1].local_addr().unwrap();
    let peer = began["peer"]["port"].as_u64().unwrap();
    assert!(
        [oldest, second]
            .iter()
            .any(|one| u64::from(one.port()) == peer),
        "{began}"
    );

    redis.signal(libc::SIGCONT);
    for client in &mut clients {
        client.write_all(b"PING\r\n").unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
    }
    let ended = turnaway
        .until("its end", |record| record["state"] == "ended")
        .unwrap();
    assert_eq!(ended["process"]["pid"], pid);
    let records = turnaway.stop().unwrap();
    let stalls: u64 = records
        .summary
        .totals
        .iter()
        .filter_map(|total| total.count)
        .sum();
    assert_eq!(stalls, 1);
}

/// Clients that come one after the other, ask and wait for the answer.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    /// Established, and reset before an answer.
    reset: AtomicU64,
    /// Not established.
    refused: AtomicU64,
}

impl Load {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Tally::default());
        let threads = (0..4)
            .map(|_| {
                let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        ask(port, &tally);
                    }
                })
            })
            .collect();
        Self {
            stop,
            threads,
            tally,
        }
    }

    /// Waits until so many more have been answered.
    fn wait_for(&self, more: u64) {
        let answered = || self.tally.answered.load(Ordering::Relaxed);
        let enough = answered() + more;
        wait::until_true("answers", || Ok(answered() >= enough)).unwrap();
    }

    fn finish(self) -> Arc<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.tally
    }
}

fn ask(port: u16, tally: &Tally) {
    let count = |counter: &AtomicU64| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect(address) else {
        return count(&tally.refused);
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut answer = Vec::new();
    let asked = stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .and_then(|()| stream.read_to_end(&mut answer).map(drop));
    match asked {
        Ok(()) if answer.starts_with(b"HTTP/1") => count(&tally.answered),
        _ => count(&tally.reset),
    }
}

fn abandoned(records: &Records) -> u64 {
    records
        .summary
        .totals
        .iter()
        .filter(|total| total.reason == "queue.abandoned")
        .filter_map(|total| total.count)
        .sum()
}

#[test]
fn reloads_of_haproxy_lose_as_many_connections_as_their_clients_say() {
    let port = free_port();
    let dir = folder();
    let config = dir.path().join("haproxy.cfg");
    std::fs::write(
        &config,
        format!(
            "global\n  nbthread 1\n\
            defaults\n  mode http\n  timeout client 1m\n  timeout connect 1m\n  timeout server 1m\n\
            frontend all\n  bind 127.0.0.1:{port}\n  http-request return status 204\n"
        ),
    )
    .unwrap();
    let start = |old: Option<u32>| {
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(&config);
        if let Some(old) = old {
            // The new one listens beside the old one, then tells it to finish.
            command.arg("-sf").arg(old.to_string());
        }
        Server::start(&mut command, port)
    };
    let mut server = start(None);
    let words = port.to_string();
    let turnaway = Live::start(
        &tracer::binary().unwrap(),
        &["--reason", "queue.abandoned", "-P", &words],
    )
    .unwrap();
    let load = Load::start(port);
    for _ in 0..10 {
        load.wait_for(200);
        let next = start(Some(server.0.id()));
        let mut old = std::mem::ManuallyDrop::new(std::mem::replace(&mut server, next));
        // It ends by itself.
        tracer::wait_for(&mut old.0, Duration::from_secs(30)).unwrap();
    }
    load.wait_for(200);
    let tally = load.finish();
    let records = turnaway.stop().unwrap();
    let reset = tally.reset.load(Ordering::Relaxed);
    println!(
        "{} answered, {reset} reset, {} refused",
        tally.answered.load(Ordering::Relaxed),
        tally.refused.load(Ordering::Relaxed)
    );
    assert_eq!(abandoned(&records), reset);
    assert_eq!(tally.refused.load(Ordering::Relaxed), 0);
}

#[test]
fn an_upgrade_of_nginx_loses_nothing_and_both_sides_say_so() {
    let port = free_port();
    let dir = folder();
    let path = dir.path().display();
    let config = dir.path().join("nginx.conf");
    std::fs::write(
        &config,
        format!(
            "worker_processes 2; pid {path}/pid; error_log {path}/log;
            events {{ worker_connections 512; }}
            http {{
                access_log off;
                client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
                fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi;
                scgi_temp_path {path}/scgi;
                server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} }}
            }}\n"
        ),
    )
    .unwrap();
    let pid_in = |name: &str| {
        let text = std::fs::read_to_string(dir.path().join(name)).ok()?;
        text.trim().parse::<u32>().ok()
    };
    let status = Command::new("/usr/sbin/nginx")
        .arg("-e")
        .arg(dir.path().join("log"))
        .arg("-c")
        .arg(&config)
        .status()
        .unwrap();
    assert!(status.success());
    wait_for_listener(port);
    let old = wait::until("nginx's pid", || Ok(pid_in("pid"))).unwrap();
    let words = port.to_string();
    let turnaway = Live::start(
        &tracer::binary().unwrap(),
        &["--reason", "queue.abandoned", "-P", &words],
    )
    .unwrap();
    let load = Load::start(port);
    load.wait_for(500);
    sys::kill(old, libc::SIGUSR2).unwrap();
    let new = wait::until("the new nginx", || {
        Ok(pid_in("pid.oldbin")
            .and(pid_in("pid"))
            .filter(|pid| *pid != old))
    })
    .unwrap();
    load.wait_for(500);
    sys::kill(old, libc::SIGQUIT).unwrap();
    wait::until_true("the end of the old nginx", || {
        Ok(!Path::new(&format!("/proc/{old}")).exists())
    })
    .unwrap();
    load.wait_for(500);
    let tally = load.finish();
    let records = turnaway.stop().unwrap();
    sys::kill(new, libc::SIGTERM).unwrap();
    wait::until_true("the end of nginx", || {
        Ok(!Path::new(&format!("/proc/{new}")).exists())
    })
    .unwrap();
    assert_eq!(tally.reset.load(Ordering::Relaxed), 0);
    assert_eq!(tally.refused.load(Ordering::Relaxed), 0);
    assert_eq!(abandoned(&records), 0);
}
