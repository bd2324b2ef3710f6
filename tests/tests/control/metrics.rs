//! Metrics that the configuration moves.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;
use turnaway_tests::servers::foreground::free_port;
use turnaway_tests::wait;

use crate::daemon::{Daemon, get};
use crate::server::{Role, Server, until_descriptors};

#[test]
fn a_reload_moves_metrics_and_one_that_cannot_leaves_them() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (free_port().unwrap(), free_port().unwrap());
    let config = |port| format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n");
    let daemon = Daemon::start(dir.path(), &config(first), &[]);
    let file = dir.path().join("turnaway.toml");
    assert!(get(first, "/healthz").unwrap().contains("200 OK"));

    fs::write(&file, config(second)).unwrap();
    daemon.signal(libc::SIGHUP);
    wait::until_true("metrics to be elsewhere", || {
        Ok(get(second, "/readyz").is_some_and(|answer| answer.contains("200 OK")))
    })
    .unwrap();
    wait::until_true("nobody where they were", || {
        Ok(get(first, "/healthz").is_none())
    })
    .unwrap();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    fs::write(&file, config(port)).unwrap();
    daemon.signal(libc::SIGHUP);
    let status = daemon.until_status("a refusal", |status: &Value| {
        !status["rules"]["reload"].is_null()
    });
    let error = status["rules"]["reload"]["error"].as_str().unwrap();
    let words = format!("metrics stay where they were: cannot serve metrics at 127.0.0.1:{port}");
    assert!(error.contains(&words), "{error}");
    assert_eq!(status["metrics"], format!("127.0.0.1:{second}"));
    assert!(get(second, "/healthz").unwrap().contains("200 OK"));
}

#[test]
fn a_process_that_is_short_of_descriptors_is_shown_until_it_has_enough() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let mut server = Server::start(Role::default());
    let _daemon = Daemon::start(dir.path(), "", &["--metrics", &format!("127.0.0.1:{port}")]);
    let shown = |name: &str| {
        let metrics = get(port, "/metrics").unwrap();
        let name = format!("{name}{{");
        metrics
            .lines()
            .filter(|line| line.starts_with(&name))
            .map(str::to_owned)
            .collect::<Vec<String>>()
    };
    let pid = format!("pid=\"{}\"", server.pid());
    let value = |name: &str| -> Option<f64> {
        let lines = shown(name);
        let line = lines.iter().find(|line| line.contains(&pid))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let before = server.descriptors();
    server.act("limit", 100);
    server.act("open", 85);
    let open = wait::until("it to be shown", || Ok(value("turnaway_process_open_fds"))).unwrap();
    assert_eq!(open.to_string(), server.descriptors().to_string());
    assert_eq!(value("turnaway_process_max_fds"), Some(100.0));
    // As it is now, not as it was when it became short.
    server.act("open", 88);
    let now = server.descriptors().to_string();
    wait::until_true("what it has now", || {
        Ok(value("turnaway_process_open_fds").is_some_and(|open| open.to_string() == now))
    })
    .unwrap();
    server.act("close", 0);
    until_descriptors(&server, before);
    wait::until_true("it to be shown no more", || {
        Ok(value("turnaway_process_open_fds").is_none())
    })
    .unwrap();
}

#[test]
fn of_many_listeners_each_is_counted_once() {
    const MANY: usize = 700;
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let mut server = Server::start(Role::default());
    let _daemon = Daemon::start(dir.path(), "", &["--metrics", &format!("127.0.0.1:{port}")]);
    server.act("limit", 4096);
    server.act("listeners", MANY as u64);
    let comm = fs::read_to_string(format!("/proc/{}/comm", server.pid())).unwrap();
    let label = format!("comm=\"{}\"", comm.trim_end());
    // Other tests have servers of this name, too, with a listener that accepts more or nothing.
    wait::until_true("all listeners", || {
        let metrics = get(port, "/metrics").unwrap();
        let once = metrics
            .lines()
            .filter(|line| line.starts_with("turnaway_listener_accepted_total{"))
            .filter(|line| line.contains(&label) && line.ends_with(" 1"))
            .count();
        Ok(once >= MANY)
    })
    .unwrap();
    let metrics = get(port, "/metrics").unwrap();
    let mut sockets: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("turnaway_listener_accepted_total{"))
        .filter_map(|line| line.split("socket=\"").nth(1)?.split('"').next())
        .collect();
    let all = sockets.len();
    sockets.sort_unstable();
    sockets.dedup();
    assert_eq!(sockets.len(), all);
}
