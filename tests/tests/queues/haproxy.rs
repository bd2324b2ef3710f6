//! Reloads of haproxy under load.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port, listener_of, listeners};
use turnaway_tests::servers::state;
use turnaway_tests::servers::tcpdump::Tcpdump;
use turnaway_tests::workload::listening::queued_connections;
use turnaway_tests::{sys, tracer, wait};

use super::load::{CLIENTS, Load, Tally};
use super::{abandoned, watching_for_abandoned};

const RELOADS: u32 = 5;
/// At each of them, clients whose last packet of the handshake comes when the listener is closed.
const LATE: u32 = 2;

/// A haproxy that is reloaded.
struct Haproxy {
    port: u16,
    dir: TempDir,
    config: PathBuf,
    running: Foreground,
}

impl Haproxy {
    fn start() -> Self {
        let port = free_port().unwrap();
        let dir = folder().unwrap();
        let config = dir.path().join("haproxy.cfg");
        std::fs::write(
            &config,
            format!(
                "global\n  nbthread 1\n  stats socket {} mode 600 expose-fd listeners\n\
                defaults\n  mode http\n  timeout client 1m\n  timeout connect 1m\n  timeout server 1m\n\
                frontend all\n  bind 127.0.0.1:{port}\n  http-request return status 204\n",
                admin(dir.path()).display()
            ),
        )
        .unwrap();
        let running = Foreground::start(&mut command(&config), port).unwrap();
        Self {
            port,
            dir,
            config,
            running,
        }
    }

    /// Starts the next one, which listens and then tells this one to finish. Returns this one.
    fn reload(&mut self) -> Foreground {
        let mut command = command(&self.config);
        command.arg("-sf").arg(self.running.0.id().to_string());
        let next = Foreground::start(&mut command, self.port).unwrap();
        std::mem::replace(&mut self.running, next)
    }

    /// The same for one that takes the listening sockets of this one.
    fn reload_handing_over(&mut self) -> Foreground {
        let mut command = command(&self.config);
        command.arg("-sf").arg(self.running.0.id().to_string());
        command.arg("-x").arg(admin(self.dir.path()));
        let next = Foreground(command.stderr(Stdio::null()).spawn().unwrap());
        std::mem::replace(&mut self.running, next)
    }
}

fn command(config: &Path) -> Command {
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(config);
    command
}

fn admin(dir: &Path) -> PathBuf {
    dir.join("admin")
}

/// It ends by itself.
fn wait_for_end_of(old: Foreground) {
    let mut old = std::mem::ManuallyDrop::new(old);
    tracer::wait_for(&mut old.0, Duration::from_secs(30)).unwrap();
}

/// Whether a signal waits for a process, which is stopped.
fn is_pending(pid: u32, signal: i32) -> anyhow::Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let pending = status
        .lines()
        .find_map(|line| line.strip_prefix("ShdPnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    Ok(pending.is_some_and(|mask| mask & 1 << (signal - 1) != 0))
}

fn read(tally: &Tally) -> [u64; 4] {
    println!("{tally:?}");
    [&tally.answered, &tally.reset, &tally.empty, &tally.refused]
        .map(|counter| counter.load(Ordering::Relaxed))
}

/// All clients wait in the queue of a haproxy that is held up, when it is told to close it.
fn reload_held_up(haproxy: &mut Haproxy, load: &Load) {
    let port = haproxy.port;
    let old = haproxy.running.0.id();
    let before = listeners(port).unwrap();
    let paused = load.pause();
    // From now on a handshake ends with what the client says, however long that takes.
    sys::defer_accept(&listener_of(old, port).unwrap(), 600).unwrap();
    let late: Vec<_> = (0..LATE).map(|_| load.connected(port)).collect();
    // Nothing is under way: it waits for connections, and sees a signal before the next one.
    wait::until_true("haproxy to wait", || Ok(state(old)? == 'S')).unwrap();
    haproxy.running.signal(libc::SIGSTOP).unwrap();
    wait::until_true("haproxy to stop", || Ok(state(old)? == 'T')).unwrap();
    drop(paused);
    wait::until_true("clients to be queued", || {
        Ok(queued_connections(u32::from(port))? == CLIENTS)
    })
    .unwrap();
    let old_one = haproxy.reload();
    wait::until_true("haproxy to be told to finish", || {
        is_pending(old, libc::SIGUSR1)
    })
    .unwrap();
    old_one.signal(libc::SIGCONT).unwrap();
    wait::until_true("the listener to be closed", || {
        Ok(listeners(port)?.is_disjoint(&before))
    })
    .unwrap();
    for client in late {
        client.ask();
    }
    wait_for_end_of(old_one);
}

#[test]
fn reloads_of_haproxy_abandon_as_many_connections_as_it_resets() {
    let mut haproxy = Haproxy::start();
    let turnaway = watching_for_abandoned(haproxy.port);
    let tcpdump = Tcpdump::start(haproxy.port).unwrap();
    let load = Load::start(haproxy.port);
    for _ in 0..RELOADS {
        load.wait_for(200);
        reload_held_up(&mut haproxy, &load);
    }
    load.wait_for(200);
    let tally = load.finish();
    let resets = tcpdump.stop().unwrap();
    let records = turnaway.stop().unwrap();
    let [_, reset, empty, refused] = read(&tally);
    println!("{resets:?}");
    // What waited was reset by its socket, and what came too late by none.
    assert!(resets.from_sockets > 0, "nobody waited");
    assert_eq!(
        abandoned(&records),
        resets.from_sockets,
        "{:?}",
        records.summary.totals
    );
    assert_eq!(resets.from_none, u64::from(RELOADS * LATE));
    assert_eq!(reset, resets.from_sockets + resets.from_none);
    assert_eq!((empty, refused), (0, 0));
}

#[test]
fn reloads_of_haproxy_that_hand_the_listeners_over_lose_nothing_and_both_sides_say_so() {
    let mut haproxy = Haproxy::start();
    let turnaway = watching_for_abandoned(haproxy.port);
    let load = Load::start(haproxy.port);
    for _ in 0..RELOADS {
        load.wait_for(200);
        wait_for_end_of(haproxy.reload_handing_over());
    }
    load.wait_for(200);
    let tally = load.finish();
    let records = turnaway.stop().unwrap();
    let [_, reset, empty, refused] = read(&tally);
    assert_eq!(
        (abandoned(&records), reset, empty, refused),
        (0, 0, 0, 0),
        "{:?}",
        records.summary
    );
}
