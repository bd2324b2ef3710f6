//! A real Prometheus.

use turnaway::metrics::Moment;
use turnaway_common::Reason;
use turnaway_tests::servers::prometheus::Prometheus;

use crate::served::{Served, count, empty, full, listener, who};

fn start(served: &Served) -> Prometheus {
    Prometheus::start(served.address.unwrap()).unwrap()
}

fn shows(prometheus: &Prometheus, expression: &str, expected: f64) {
    prometheus.shows(expression, expected).unwrap();
}

#[test]
fn prometheus_has_the_values_that_were_told() {
    let served = Served::tcp(full());
    let prometheus = start(&served);
    shows(&prometheus, "up{job='turnaway'}", 1.0);
    let reasons = u32::try_from(Reason::ALL.len()).unwrap();
    shows(
        &prometheus,
        "count(turnaway_failures_total)",
        f64::from(reasons),
    );
    shows(
        &prometheus,
        "sum(turnaway_failures_total)",
        f64::from(5 * reasons),
    );
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
        shows(&prometheus, &expression, value);
    }
    // What changes is seen at the next scrape.
    let more = count(Reason::AcceptEmfile, 6432, 1_000_000);
    served
        .metrics
        .observe_count(&more, &who("pgbouncer", "pgbouncer.service"), Moment::now());
    served
        .metrics
        .set_listeners(&[listener(250, 0)], Moment::now());
    shows(
        &prometheus,
        "turnaway_failures_total{reason='accept.emfile'}",
        1_000_005.0,
    );
    shows(&prometheus, "turnaway_listener_accepted_total", 250.0);
    shows(&prometheus, "turnaway_listener_queue_depth", 0.0);
}

#[test]
fn a_shipped_rule_fires_after_one_failure() {
    let served = Served::tcp(empty(10));
    let prometheus = start(&served);
    shows(&prometheus, "up{job='turnaway'}", 1.0);
    assert_eq!(prometheus.value("ALERTS").unwrap(), None);
    served.metrics.observe_count(
        &count(Reason::AcceptEmfile, 6432, 1),
        &who("pgbouncer", "pgbouncer.service"),
        Moment::now(),
    );
    shows(
        &prometheus,
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
    let prometheus = start(&served);
    let tally = f64::from(u32::try_from(tally).unwrap());
    shows(&prometheus, "sum(turnaway_failures_total)", tally);
    shows(&prometheus, "count(turnaway_failures_total)", 51.0);
    shows(
        &prometheus,
        "count(turnaway_failures_total{comm='other',port='other'})",
        1.0,
    );
    shows(
        &prometheus,
        "turnaway_series_dropped_total{family='failures'}",
        1950.0,
    );
}
