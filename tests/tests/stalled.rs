//! A real server that stops accepting. On its own, since times are compared.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use turnaway_tests::disk::Disk;
use turnaway_tests::live::Live;
use turnaway_tests::records::Records;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::servers::state;
use turnaway_tests::{tracer, wait};

/// Held by each test: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn redis(port: u16, dir: &Path, options: &[&str]) -> Foreground {
    Foreground::start(
        Command::new("/usr/bin/redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(dir)
            .args(options),
        port,
    )
    .unwrap()
}

fn watching(port: u16) -> Live {
    let port = port.to_string();
    let arguments = ["--reason", "queue.stalled", "-P", &port];
    Live::start(&tracer::binary().unwrap(), &arguments).unwrap()
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()
}

fn hears(client: &mut TcpStream, wanted: &[u8]) {
    let mut answer = vec![0; wanted.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, wanted);
}

fn ping(client: &mut TcpStream) {
    client.write_all(b"PING\r\n").unwrap();
    hears(client, b"+PONG\r\n");
}

fn stalls(records: &Records) -> u64 {
    let counts = records.summary.totals.iter();
    counts.filter_map(|total| total.count).sum()
}

/// The stall ends, and was the only one.
fn ends(mut turnaway: Live, pid: u32) {
    let ended = turnaway
        .until("its end", |record| record["state"] == "ended")
        .unwrap();
    assert_eq!(ended["process"]["pid"], pid);
    assert_eq!(stalls(&turnaway.stop().unwrap()), 1);
}

fn time(record: &serde_json::Value) -> jiff::Timestamp {
    record["time"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_stopped_redis_is_stalled_until_it_goes_on() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let redis = redis(port, dir.path(), &[]);
    let pid = redis.0.id();
    let mut turnaway = watching(port);

    // A connection that is open stays so: that is what a health check sees.
    let mut healthy = connect(port);
    ping(&mut healthy);

    redis.signal(libc::SIGSTOP).unwrap();
    let stopped = jiff::Timestamp::now();
    let mut clients = [connect(port), connect(port)];
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

    redis.signal(libc::SIGCONT).unwrap();
    clients.iter_mut().for_each(ping);
    ends(turnaway, pid);
}

#[test]
fn a_redis_whose_disk_hangs_is_stalled_until_it_does_not() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let port = free_port().unwrap();
    let disk = Disk::ext4(64).unwrap();
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let redis = redis(port, &disk.mounted, &durable);
    let pid = redis.0.id();
    let mut turnaway = watching(port);
    let mut writer = connect(port);
    ping(&mut writer);

    // However this ends, the disk goes on before redis is told to end, which could not.
    let frozen = disk.freeze().unwrap();
    writer.write_all(b"SET a b\r\n").unwrap();
    wait::until_true("redis to wait for its disk", || Ok(state(pid)? == 'D')).unwrap();
    let mut clients = [connect(port), connect(port)];
    let began = turnaway
        .until("the stall", |record| record["state"] == "began")
        .unwrap();
    assert_eq!(state(pid).unwrap(), 'D');
    assert_eq!(began["process"]["pid"], pid, "{began}");
    assert_eq!(began["process"]["comm"], "redis-server");
    assert_eq!(began["listener"]["port"], port);

    drop(frozen);
    hears(&mut writer, b"+OK\r\n");
    clients.iter_mut().for_each(ping);
    ends(turnaway, pid);
}
