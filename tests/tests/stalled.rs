//! A real server that stops accepting. On its own, since times are compared.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use turnaway_tests::live::Live;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::tracer;

fn time(record: &serde_json::Value) -> jiff::Timestamp {
    record["time"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_stopped_redis_is_stalled_until_it_goes_on() {
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let redis = Foreground::start(
        Command::new("/usr/bin/redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(dir.path()),
        port,
    )
    .unwrap();
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

    redis.signal(libc::SIGSTOP).unwrap();
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

    redis.signal(libc::SIGCONT).unwrap();
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
