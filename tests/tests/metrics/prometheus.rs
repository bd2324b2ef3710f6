//! A real Prometheus.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;
use turnaway::metrics::Moment;
use turnaway_common::Reason;
use turnaway_tests::wait;

use crate::served::{Served, ask, connect, count, empty, full, listener, who};

/// It runs until this is dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        // Somebody else may be quicker to take a port; then there is another.
        (0..5)
            .find_map(|_| Self::try_start(target))
            .expect("Prometheus found no port")
    }

    /// `None` where it ended at once.
    fn try_start(target: SocketAddr) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../packaging/prometheus/turnaway.rules.yml")
            .canonicalize()
            .unwrap();
        let config = dir.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
                 rule_files: ['{}']\n\
                 scrape_configs:\n- job_name: turnaway\n  static_configs: [{{targets: ['{target}']}}]\n",
                rules.display()
            ),
        )
        .unwrap();
        // It takes no port 0.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let data = dir.path().join("data");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .expect("no prometheus: run `cargo xtask setup --tests`");
        let mut this = Self {
            child,
            address,
            dir,
        };
        let up = wait::until("Prometheus starts", || {
            if this.child.try_wait()?.is_some() {
                return Ok(Some(false));
            }
            let ready = this.ask("/-/ready").is_ok_and(|(status, _)| status == 200);
            Ok(ready.then_some(true))
        });
        let up = up.unwrap_or_else(|error| panic!("{error}: {}", this.log()));
        up.then_some(this)
    }

    fn ask(&self, path: &str) -> Result<(u16, String)> {
        let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
        let answer = ask(connect(self.address)?, request.as_bytes())?;
        Ok((answer.status, answer.body))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The value of an expression, where it has one.
    fn value(&self, expression: &str) -> Result<Option<f64>> {
        let mut encoded = String::new();
        for byte in expression.bytes() {
            write!(encoded, "%{byte:02X}")?;
        }
        let (_, body) = self.ask(&format!("/api/v1/query?query={encoded}"))?;
        let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        let value = answer["data"]["result"][0]["value"][1].as_str();
        Ok(value.map(str::parse).transpose()?)
    }

    /// Waits until an expression has that value.
    fn shows(&self, expression: &str, expected: f64) {
        let mut last = None;
        let shown = wait::until_true(expression, || {
            last = self.value(expression)?;
            Ok(last.is_some_and(|value| (value - expected).abs() < 1e-9))
        });
        if let Err(error) = shown {
            panic!("{error}: {last:?} is not {expected}\n{}", self.log());
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_has_the_values_that_were_told() {
    let served = Served::tcp(full());
    let prometheus = Prometheus::start(served.address.unwrap());
    prometheus.shows("up{job='turnaway'}", 1.0);
    let reasons = u32::try_from(Reason::ALL.len()).unwrap();
    prometheus.shows("count(turnaway_failures_total)", f64::from(reasons));
    prometheus.shows("sum(turnaway_failures_total)", f64::from(5 * reasons));
    let pooler = "comm='pgbouncer',unit='pgbouncer.service'";
    for (expression, value) in [
        (
            format!("turnaway_failures_total{{reason='accept.emfile',port='6432',{pooler}}}"),
            5.0,
        ),
        (
            format!("turnaway_listener_queue_depth{{listener='127.0.0.1:6432',{pooler}}}"),
            9.0,
        ),
        (
            "turnaway_listener_queue_limit{socket='31337',netns='4026531840'}".to_owned(),
            128.0,
        ),
        ("turnaway_listener_accepted_total".to_owned(), 100.0),
        ("turnaway_listener_shed_total".to_owned(), 2.0),
        ("turnaway_listener_syn_cookies_total".to_owned(), 3.0),
        (
            "turnaway_listener_queue_wait_seconds_count".to_owned(),
            15.0,
        ),
        (
            "turnaway_listener_queue_wait_seconds_bucket{le='0.032'}".to_owned(),
            10.0,
        ),
        (
            "turnaway_listener_queue_wait_seconds_bucket{le='0.064'}".to_owned(),
            15.0,
        ),
        (
            format!("turnaway_process_open_fds{{pid='812',{pooler}}}"),
            1000.0,
        ),
        ("turnaway_process_max_fds".to_owned(), 1024.0),
        ("turnaway_process_fds_ratio".to_owned(), 1000.0 / 1024.0),
        (
            "turnaway_incidents_firing{severity='critical'}".to_owned(),
            1.0,
        ),
        ("turnaway_incidents_firing{severity='info'}".to_owned(), 0.0),
        (
            "turnaway_incidents_fired_total{severity='critical'}".to_owned(),
            4.0,
        ),
        (
            "turnaway_notifications_delivered_total{notifier='alertmanager'}".to_owned(),
            8.0,
        ),
        ("turnaway_notifications_failed_total".to_owned(), 2.0),
        ("turnaway_notifications_dropped_total".to_owned(), 1.0),
        ("turnaway_events_total".to_owned(), 17.0),
        ("turnaway_drops_total{kind='ring'}".to_owned(), 1.0),
        (
            "turnaway_hook_attached{hook='accept',tier='trampoline'}".to_owned(),
            1.0,
        ),
        ("turnaway_hook_attached{hook='unix_wait'}".to_owned(), 0.0),
        ("turnaway_loop_lag_seconds".to_owned(), 0.003),
        ("count(turnaway_build_info)".to_owned(), 1.0),
    ] {
        prometheus.shows(&expression, value);
    }
    // What changes is seen at the next scrape.
    let more = count(Reason::AcceptEmfile, 6432, 1_000_000);
    served
        .metrics
        .observe_count(&more, &who("pgbouncer", "pgbouncer.service"), Moment::now());
    served
        .metrics
        .set_listeners(&[listener(250, 0)], Moment::now());
    prometheus.shows(
        "turnaway_failures_total{reason='accept.emfile'}",
        1_000_005.0,
    );
    prometheus.shows("turnaway_listener_accepted_total", 250.0);
    prometheus.shows("turnaway_listener_queue_depth", 0.0);
}

#[test]
fn a_shipped_rule_fires_after_one_failure() {
    let served = Served::tcp(empty(10));
    let prometheus = Prometheus::start(served.address.unwrap());
    prometheus.shows("up{job='turnaway'}", 1.0);
    assert_eq!(prometheus.value("ALERTS").unwrap(), None);
    served.metrics.observe_count(
        &count(Reason::AcceptEmfile, 6432, 1),
        &who("pgbouncer", "pgbouncer.service"),
        Moment::now(),
    );
    prometheus.shows(
        "ALERTS{alertname='TurnawayAcceptFailing',alertstate='firing',severity='critical',\
         comm='pgbouncer',unit='pgbouncer.service',port='6432'}",
        1.0,
    );
    assert_eq!(prometheus.value("count(ALERTS)").unwrap(), Some(1.0));
}

#[test]
fn series_are_bounded_and_their_sum_is_right() {
    let served = Served::tcp(empty(50));
    let mut tally = 0;
    for port in 1..=1000 {
        for name in ["nginx", "a\n\"}\\\u{7f}"] {
            let failures = u64::from(port % 7 + 1);
            tally += failures;
            served.metrics.observe_count(
                &count(Reason::AcceptEmfile, port, failures),
                &who(name, "x.service"),
                Moment::now(),
            );
        }
    }
    let prometheus = Prometheus::start(served.address.unwrap());
    let tally = f64::from(u32::try_from(tally).unwrap());
    prometheus.shows("sum(turnaway_failures_total)", tally);
    prometheus.shows("count(turnaway_failures_total)", 51.0);
    prometheus.shows(
        "count(turnaway_failures_total{comm='other',port='other'})",
        1.0,
    );
    prometheus.shows("turnaway_series_dropped_total{family='failures'}", 1950.0);
}
