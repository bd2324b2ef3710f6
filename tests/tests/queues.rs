//! Queues of real servers: reloads and upgrades under load.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use turnaway_tests::live::Live;
use turnaway_tests::records::Records;
use turnaway_tests::scenario::run::Actor;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port, listeners};
use turnaway_tests::servers::nginx::{self, Nginx};
use turnaway_tests::{sys, tracer, wait};

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
    /// Established, and closed without an answer.
    empty: AtomicU64,
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
    let mut stream = match TcpStream::connect(address) {
        Ok(stream) => stream,
        // It was established, and reset before its thread ran again.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return count(&tally.reset),
        Err(_) => return count(&tally.refused),
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
        Ok(()) => count(&tally.empty),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => count(&tally.reset),
        Err(error) => panic!("a client: {error}"),
    }
}

fn watching_for_abandoned(port: u16) -> Live {
    let port = port.to_string();
    let arguments = ["--reason", "queue.abandoned", "-P", &port];
    Live::start(&tracer::binary().unwrap(), &arguments).unwrap()
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

/// Of haproxy, in its test.
const RELOADS: u64 = 10;

/// What came of reloads of haproxy under load.
struct Reloads {
    /// Connections that turnaway says were abandoned.
    told: u64,
    /// Connections that ended without an answer, as their clients say.
    unanswered: u64,
    refused: u64,
    records: Records,
}

/// Reloads haproxy; `hands_over` has the new one take the listening sockets of the old one.
fn reload_haproxy(hands_over: bool) -> Reloads {
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let config = dir.path().join("haproxy.cfg");
    let admin = dir.path().join("admin");
    std::fs::write(
        &config,
        format!(
            "global\n  nbthread 1\n  stats socket {} mode 600 expose-fd listeners\n\
            defaults\n  mode http\n  timeout client 1m\n  timeout connect 1m\n  timeout server 1m\n\
            frontend all\n  bind 127.0.0.1:{port}\n  http-request return status 204\n",
            admin.display()
        ),
    )
    .unwrap();
    let start = |old: Option<u32>| {
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(&config);
        if let Some(old) = old {
            // The new one listens, then tells the old one to finish.
            command.arg("-sf").arg(old.to_string());
            if hands_over {
                command.arg("-x").arg(&admin).stderr(Stdio::null());
                return Foreground(command.spawn().unwrap());
            }
        }
        Foreground::start(&mut command, port).unwrap()
    };
    let mut server = start(None);
    let turnaway = watching_for_abandoned(port);
    let load = Load::start(port);
    for _ in 0..RELOADS {
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
        "{} answered, {reset} reset, {} closed without an answer, {} refused",
        tally.answered.load(Ordering::Relaxed),
        tally.empty.load(Ordering::Relaxed),
        tally.refused.load(Ordering::Relaxed)
    );
    Reloads {
        told: abandoned(&records),
        unanswered: reset + tally.empty.load(Ordering::Relaxed),
        refused: tally.refused.load(Ordering::Relaxed),
        records,
    }
}

#[test]
fn reloads_of_haproxy_lose_no_more_connections_than_their_clients_say() {
    let Reloads {
        told,
        unanswered,
        refused,
        records,
    } = reload_haproxy(false);
    // Whose last packet of the handshake comes just after the listener was closed was not queued yet,
    // and is reset too. That is rare: it takes less than the blink that a reload is.
    assert!(
        told <= unanswered,
        "{told} of {unanswered}: {:?}",
        records.summary.totals
    );
    assert!(unanswered - told <= RELOADS, "{told} of {unanswered}");
    assert_eq!(refused, 0);
}

#[test]
fn reloads_of_haproxy_that_hand_the_listeners_over_lose_nothing_and_both_sides_say_so() {
    let Reloads {
        told,
        unanswered,
        refused,
        records,
    } = reload_haproxy(true);
    assert_eq!(
        (told, unanswered, refused),
        (0, 0, 0),
        "{:?}",
        records.summary
    );
}

#[test]
fn an_upgrade_of_nginx_loses_nothing_and_both_sides_say_so() {
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let server = Nginx {
        main: "worker_processes 2;",
        http: &nginx::answers(port, ""),
        ..Nginx::default()
    };
    let arguments = server.configure(dir.path()).unwrap();
    let pid_in = |name: &str| {
        let text = std::fs::read_to_string(dir.path().join(name)).ok()?;
        text.trim().parse::<u32>().ok()
    };
    let status = Command::new(nginx::PROGRAM)
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success());
    wait::until_true("nginx to listen", || Ok(!listeners(port)?.is_empty())).unwrap();
    let old = wait::until("nginx's pid", || Ok(pid_in("pid"))).unwrap();
    let turnaway = watching_for_abandoned(port);
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

#[test]
fn an_audit_agrees_with_the_kernel_and_with_the_one_who_did_it() {
    let programs = tracer::scenarios().unwrap();
    let mut actor = Actor::start(&programs, "queue_syn_overflow").unwrap();
    let mut doctor = Command::new(tracer::binary().unwrap())
        .args(["doctor", "--json", "--audit", "5s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = BufReader::new(doctor.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("counting ") {
        line.clear();
        assert_ne!(ready.read_line(&mut line).unwrap(), 0, "it ended");
    }
    let tally = actor.act().unwrap();
    let output = doctor.wait_with_output().unwrap();
    actor.finish().unwrap();
    let audit: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let [failures] = &tally.failures[..] else {
        panic!("{tally:?}");
    };
    let netns = failures.listener.netns.unwrap();
    let ours = audit["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["netns"] == netns)
        .unwrap_or_else(|| panic!("{audit}"));
    assert_eq!(ours["counted"]["overflows"], failures.count, "{audit}");
    assert_eq!(ours["kernel"]["overflows"], failures.count, "{audit}");
    assert_eq!(audit["agrees"], true, "{audit}");
    assert!(output.status.success());
}
