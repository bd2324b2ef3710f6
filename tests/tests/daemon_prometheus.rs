//! A real Prometheus scrapes the daemon, and a rule that is shipped fires.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use turnaway_tests::daemon::{Daemon, configure};
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::servers::foreground::folder;
use turnaway_tests::servers::prometheus::Prometheus;
use turnaway_tests::tracer;

#[test]
fn a_shipped_rule_fires() {
    let dir = folder().unwrap();
    let config = configure(dir.path(), "", Duration::from_mins(1)).unwrap();
    let turnaway = tracer::binary().unwrap();
    let mut daemon = Daemon::start(&turnaway, &config, &dir.path().join("state")).unwrap();
    let mut acceptor = Acceptor::run(&tracer::scenarios().unwrap()).unwrap();
    let port = acceptor.port;
    let prometheus = Prometheus::start(([127, 0, 0, 1], daemon.metrics).into()).unwrap();
    let shows = |expression: &str, value: f64| prometheus.shows(expression, value).unwrap();
    shows("up{job='turnaway'}", 1.0);
    let alert = format!(
        "ALERTS{{alertname='TurnawayAcceptFailing',alertstate='firing',severity='critical',\
         comm='turnaway-scenar',reason='accept.emfile',port='{port}'}}"
    );
    assert_eq!(prometheus.value(&alert).unwrap(), None);

    assert_eq!(acceptor.fail(1).unwrap(), 1);
    shows(&alert, 1.0);
    let failures = format!("turnaway_failures_total{{reason='accept.emfile',port='{port}'}}");
    shows(&failures, 1.0);
    daemon.fires(port).unwrap();
    shows(
        "turnaway_incidents_firing{severity='critical'} >= bool 1",
        1.0,
    );
    // What changes is seen at the next scrape, and nothing is lost between two.
    assert_eq!(acceptor.fail(123_456).unwrap(), 123_457);
    shows(&failures, 123_457.0);

    // What is really served is as clean as the samples are.
    let answer = daemon.get("/metrics").unwrap();
    let (_, metrics) = answer.split_once("\r\n\r\n").unwrap();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("no promtool: run `cargo xtask setup --tests`");
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(metrics.as_bytes()).unwrap();
    drop(input);
    let said = promtool.wait_with_output().unwrap();
    assert!(
        said.status.success() && said.stderr.is_empty(),
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    daemon.stop().unwrap();
}
