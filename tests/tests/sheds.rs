//! Real servers without room for more clients: they accept, and close at once.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use turnaway_tests::live::Live;
use turnaway_tests::records::Records;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::servers::nginx::{self, Nginx};
use turnaway_tests::{tracer, wait};

const PATIENCE: Duration = Duration::from_secs(30);

fn connect(port: u16, says: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may have been turned away already.
    let _ = client.write_all(says);
    client
}

/// Waits for the end of a connection; what came before it.
fn end_of(mut client: &TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Err(error) = client.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    answer
}

/// How many see the end of their connection by now.
fn turned_away(clients: &[TcpStream]) -> u64 {
    let is_away = |client: &&TcpStream| {
        let mut client = *client;
        client.set_nonblocking(true).unwrap();
        let mut answer = [0; 128];
        loop {
            match client.read(&mut answer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    };
    clients.iter().filter(is_away).count() as u64
}

fn start(port: u16) -> Live {
    let port = port.to_string();
    Live::start(
        &tracer::binary().unwrap(),
        &["--reason", "accept.shed", "-P", &port],
    )
    .unwrap()
}

/// The only total: its count, process and name.
fn total(records: &Records) -> (u64, u32, Option<&str>) {
    let [total] = &records.summary.totals[..] else {
        panic!("{:?}", records.summary.totals);
    };
    assert_eq!(total.reason, "accept.shed");
    (
        total.count.unwrap(),
        total.process.pid,
        total.process.comm.as_deref(),
    )
}

fn nginx(dir: &Path, port: u16) -> Foreground {
    let server = Nginx {
        connections: 16,
        http: &nginx::answers(port, "deferred"),
        ..Nginx::default()
    };
    let mut command = Command::new(nginx::PROGRAM);
    command.args(server.configure(dir).unwrap());
    Foreground::start(&mut command, port).unwrap()
}

#[test]
fn nginx_without_free_worker_connections() {
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let nginx = nginx(dir.path(), port);
    let mut turnaway = start(port);
    // Connections that wait for the rest of a request are kept, not reused. Since nginx does not
    // accept before the first part is there, it has read that when it accepts the next.
    let mut clients: Vec<TcpStream> = (0..30)
        .map(|_| connect(port, b"GET / HTTP/1.1\r\nHost:"))
        .collect();
    // One worker accepts in order: what came before has been dealt with.
    let last = connect(port, b"GET / HTTP/1.1\r\nHost:");
    end_of(&last);
    clients.push(last);
    let away = turned_away(&clients);
    let event = turnaway
        .until("a connection that was shed", |record| {
            record["type"] == "event"
        })
        .unwrap();
    assert_eq!(event["inferred"], true, "{event}");
    assert_eq!(event["listener"]["port"], port);
    let ports: Vec<u16> = clients
        .iter()
        .map(|client| client.local_addr().unwrap().port())
        .collect();
    let peer = u16::try_from(event["peer"]["port"].as_u64().unwrap()).unwrap();
    assert!(ports.contains(&peer), "{event}");

    let worker = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", nginx.0.id()))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let records = turnaway.stop().unwrap();
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let logged = log.matches("worker_connections are not enough").count() as u64;
    assert!(away > 0 && logged == away, "{logged} in the log, {away}");
    assert_eq!(total(&records), (away, worker, Some("nginx")));
}

/// Asks redis until it says that.
fn wait_for_info(mut client: &TcpStream, section: &str, wanted: &str) {
    wait::until_true(wanted, || {
        client.write_all(format!("INFO {section}\r\n").as_bytes())?;
        let mut answer = String::new();
        // `$LENGTH`, and so much text.
        while !answer.ends_with("\r\n\r\n") && answer.matches("\r\n").count() < 3 {
            let mut more = [0; 4096];
            let read = client.read(&mut more)?;
            answer += &String::from_utf8_lossy(&more[..read]);
        }
        Ok(answer.lines().any(|line| line == wanted))
    })
    .unwrap();
}

#[test]
fn redis_with_all_its_clients() {
    const EXTRA: u64 = 7;
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let redis = Foreground::start(
        Command::new("/usr/bin/redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--maxclients", "5"])
            .args(["--port", &port.to_string(), "--dir"])
            .arg(dir.path()),
        port,
    )
    .unwrap();
    let mut turnaway = start(port);
    let first = connect(port, b"");
    // Health checks over new connections: opened, and closed by the client.
    for number in 2..22 {
        drop(connect(port, b""));
        let seen = format!("total_connections_received:{number}");
        wait_for_info(&first, "stats", &seen);
        wait_for_info(&first, "clients", "connected_clients:1");
    }
    let mut clients: Vec<TcpStream> = (0..4).map(|_| connect(port, b"PING\r\n")).collect();
    for client in &mut clients {
        let mut answer = [0; 7];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
    }
    for _ in 0..EXTRA {
        let refused = connect(port, b"");
        let answer = end_of(&refused);
        assert!(answer.starts_with(b"-ERR max number of clients"));
    }
    turnaway
        .until("a connection that was shed", |record| {
            record["type"] == "event"
        })
        .unwrap();
    // Redis counts them too.
    wait_for_info(&first, "stats", &format!("rejected_connections:{EXTRA}"));
    let records = turnaway.stop().unwrap();
    assert_eq!(total(&records), (EXTRA, redis.0.id(), Some("redis-server")));
}
