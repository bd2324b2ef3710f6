//! Faults as they were reported in public, with the programs that had them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use turnaway_tests::live::Live;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::servers::nginx::{self, Nginx};
use turnaway_tests::{tracer, wait};

const PATIENCE: Duration = Duration::from_secs(30);
/// What nginx logs.
const NOT_ACCEPTED: &str = "accept4() failed (24: Too many open files)";
const NOT_CONNECTED: &str = "socket() failed (24: Too many open files)";

/// A proxy out of descriptors fails twice: clients that are connected get errors, since it cannot
/// connect to what is behind it, and those that come are not accepted. It is one process, and
/// each call is named.
#[test]
fn a_proxy_can_neither_accept_nor_connect() {
    let dir = folder().unwrap();
    let port = free_port().unwrap();
    let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let behind = backend.local_addr().unwrap().port();
    let server = Nginx {
        main: "daemon off; worker_processes 1; worker_rlimit_nofile 32;",
        http: &format!(
            "server {{
                listen 127.0.0.1:{port};
                location / {{ proxy_pass http://127.0.0.1:{behind}; }}
            }}"
        ),
        ..Nginx::default()
    };
    let log = dir.path().join(nginx::LOG);
    let mut command = Command::new(nginx::PROGRAM);
    command.args(server.configure(dir.path()).unwrap());
    let nginx = Foreground::start(&mut command, port).unwrap();
    let logged = |words: &str| fs::read_to_string(&log).unwrap().matches(words).count() as u64;
    let worker: u32 = fs::read_to_string(format!("/proc/{0}/task/{0}/children", nginx.0.id()))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let pid = worker.to_string();
    let mut turnaway = Live::start(&tracer::binary().unwrap(), &["-p", &pid]).unwrap();

    // More than it has descriptors for; the first few are accepted.
    let clients: Vec<TcpStream> = (0..40)
        .map(|_| {
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
        })
        .collect();
    wait::until_true("accept to fail", || Ok(logged(NOT_ACCEPTED) > 0)).unwrap();
    // Then it closes that connection, which leaves room for one more.
    let mut client = &clients[0];
    client
        .write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    turnaway
        .until("a socket that it could not have", |record| {
            record["type"] == "event" && record["syscall"] == "socket"
        })
        .unwrap();
    // While it is stopped, its log and what turnaway has counted say the same.
    turnaway_tests::sys::kill(worker, libc::SIGSTOP).unwrap();
    let records = turnaway.stop().unwrap();
    let (accepts, sockets) = (logged(NOT_ACCEPTED), logged(NOT_CONNECTED));
    turnaway_tests::sys::kill(worker, libc::SIGCONT).unwrap();
    let counted = |reason: &str, call: &str| -> u64 {
        records
            .summary
            .totals
            .iter()
            .filter(|total| total.reason == reason && total.call() == call)
            .inspect(|total| assert_eq!(total.process.pid, worker))
            .filter_map(|total| total.count)
            .sum()
    };
    assert_eq!(sockets, 1);
    assert!(accepts > 0);
    assert_eq!(counted("fd.exhausted", "socket"), sockets);
    assert_eq!(counted("accept.emfile", "accept4"), accepts);
}
