//! Requests of all kinds to the server.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use turnaway::metrics::{Listen, Moment, Server};
use turnaway_common::Reason;
use turnaway_tests::wait;

use crate::served::{Served, ask, connect, count, empty, full, healthy, who};

/// A client that says nothing is cut after 5 s; not much later, even where all is slow.
const CUT: std::ops::Range<Duration> = Duration::from_secs(4)..Duration::from_secs(25);

#[test]
fn a_client_gets_the_format_that_it_asks_for() {
    let served = Served::tcp(full());
    let text = served.get("/metrics", "");
    assert_eq!(text.status, 200);
    assert!(
        text.head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        text.head
    );
    assert!(text.body.contains("# TYPE turnaway_failures_total counter"));
    assert!(!text.body.contains("# EOF"));
    let open = served.get(
        "/metrics",
        "Accept: application/openmetrics-text;version=1.0.0\r\n",
    );
    assert!(
        open.head
            .contains("content-type: application/openmetrics-text"),
        "{}",
        open.head
    );
    assert!(open.body.contains("# TYPE turnaway_failures counter"));
    assert!(open.body.ends_with("# EOF\n"));
    let head = ask(
        served.connect(),
        b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn health_and_readiness_differ() {
    let served = Served::tcp(empty(10));
    assert_eq!(served.get("/healthz", "").status, 200);
    let not_yet = served.get("/readyz", "");
    assert_eq!(not_yet.status, 503);
    assert!(
        not_yet.body.contains("hooks are not in place yet"),
        "{}",
        not_yet.body
    );
    healthy(&served.metrics);
    let ready = served.get("/readyz", "");
    assert_eq!(ready.status, 200, "{}", ready.body);
}

#[test]
fn what_is_no_request_for_metrics_is_refused() {
    let served = Served::tcp(full());
    assert_eq!(served.get("/", "").status, 404);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let answer = ask(served.connect(), request.as_bytes()).unwrap();
        assert!(
            matches!(answer.status, 400 | 405),
            "{method}: {}",
            answer.status
        );
    }
    let answer = ask(served.connect(), b"nonsense\r\n\r\n").unwrap();
    assert_eq!(answer.status, 400);
    let many = "A: b\r\n".repeat(100);
    assert_eq!(served.get("/metrics", &many).status, 431);
    assert_eq!(served.get("/metrics", "").status, 200);
}

#[test]
fn an_oversized_request_is_refused_before_it_ends() {
    let served = Served::tcp(full());
    let mut stream = served.connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nA: ").unwrap();
    // It never ends; the server closes, and writing fails.
    let chunk = [b'x'; 4096];
    let mut sent = 0;
    while stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
        // Socket buffers hold that much and no more.
        assert!(sent < 64 << 20, "it reads on and on");
    }
    assert_eq!(served.get("/metrics", "").status, 200);
}

#[test]
fn slow_clients_are_cut_while_others_are_served() {
    let served = Served::tcp(full());
    let begun = Instant::now();
    // More than there is room for: the first ones go.
    let mut slow: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = served.connect();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
            stream
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(served.get("/metrics", "").status, 200);
    }
    for stream in &mut slow {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut rest);
    }
    let took = begun.elapsed();
    assert!(CUT.contains(&took), "{took:?}");
    assert_eq!(served.get("/healthz", "").status, 200);
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let metrics = empty(20_000);
    // More than socket buffers hold.
    for port in 1..=20_000 {
        let name = format!("{port:0>120}");
        let failures = count(Reason::AcceptEmfile, port, 1);
        metrics.observe_count(&failures, &who(&name, &name), Moment::now());
    }
    let served = Served::tcp(metrics);
    let begun = Instant::now();
    let mut stream = served.connect();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    // The answer has begun, and goes no further than the buffers.
    stream.read_exact(&mut [0]).unwrap();
    let socket = socket_of(&stream);
    wait::until_true("the server gives up", || Ok(!is_established(&socket)?)).unwrap();
    assert!(CUT.contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(served.get("/healthz", "").status, 200);
}

/// The server's side of a connection, as /proc/net/tcp has it.
fn socket_of(stream: &TcpStream) -> String {
    let port = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let (server, client) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
    format!("{} {} ", port(server), port(client))
}

fn is_established(socket: &str) -> anyhow::Result<bool> {
    let sockets = std::fs::read_to_string("/proc/net/tcp")?;
    Ok(sockets.contains(&format!("{socket}01 ")))
}

#[test]
fn a_unix_socket_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.sock");
    // One that was left behind.
    drop(UnixListener::bind(&path).unwrap());
    let served = Served::start(full(), Listen::Unix(path.clone()));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let stream = UnixStream::connect(&path).unwrap();
    let answer = ask(stream, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(answer.status, 200);
    // Nobody else takes it, nor a file that is something else.
    let error = Server::bind(&Listen::Unix(path.clone())).unwrap_err();
    assert!(
        error.to_string().contains("another process does"),
        "{error}"
    );
    drop(served);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let error = Server::bind(&Listen::Unix(path.clone())).unwrap_err();
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_server_that_ends_gives_its_port_back() {
    let served = Served::tcp(full());
    let address = served.address.unwrap();
    drop(served);
    wait::until_true("the port is closed", || Ok(connect(address).is_err())).unwrap();
}
