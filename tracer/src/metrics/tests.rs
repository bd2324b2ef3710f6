use std::collections::BTreeMap;

use super::*;
use crate::{
    event::{Address, Failure, Queue},
    record::{Waits, samples},
};

fn metrics(max_series: usize) -> Metrics {
    Metrics::new(Config {
        max_series,
        jiffy: Some(Duration::from_millis(4)),
        ..Config::default()
    })
}

fn count(failure: &Failure, count: u64) -> Count {
    Count {
        key: failure.key,
        count,
        first_ns: failure.monotonic_ns,
        last_ns: failure.monotonic_ns,
        process: failure.process.clone(),
        listener: failure.listener.clone(),
        waited_max_ns: None,
        approximate: false,
    }
}

fn of_port(port: u16) -> Count {
    let (mut failure, _) = samples::rich();
    failure.listener.address = Some(Address::Inet(([127, 0, 0, 1], port).into()));
    count(&failure, u64::from(port))
}

/// Samples of a family, by what names them.
fn samples_of(metrics: &Metrics, name: &str) -> BTreeMap<String, f64> {
    let text = metrics.render(Format::Text, Moment::now()).unwrap();
    text.lines()
        .filter(|line| line.starts_with(name))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn listener(inode: u64, accepted: u64) -> ListenerState {
    ListenerState {
        inode,
        address: Some(Address::Inet(([127, 0, 0, 1], 80).into())),
        netns: Some(1),
        who: Who::default(),
        queue: Some(Queue {
            depth: 3,
            backlog: 128,
        }),
        since_accept: Some(Duration::from_secs(7)),
        accepted: Some(accepted),
        shed: None,
        cookies: Some(0),
        waited: Some(Waits {
            slots: vec![
                (Duration::from_millis(4), 2),
                (Duration::from_millis(16), 1),
                (Duration::from_secs(131) + Duration::from_millis(72), 1),
            ],
            longest: Duration::from_secs(100),
        }),
    }
}

#[test]
fn counts_add_up_by_reason_process_unit_and_port() {
    let metrics = metrics(10);
    let (failure, who) = samples::rich();
    let now = Moment::now();
    metrics.observe_count(&count(&failure, 3), &who, now);
    metrics.observe_count(&count(&failure, 4), &who, now);
    let found = samples_of(&metrics, "turnaway_failures_total");
    let [(series, value)] = &found.into_iter().collect::<Vec<_>>()[..] else {
        panic!("one series");
    };
    assert!((value - 7.0).abs() < f64::EPSILON, "{value}");
    for part in [
        "reason=\"accept.emfile\"",
        "comm=\"pgbouncer\"",
        "port=\"6432\"",
    ] {
        assert!(series.contains(part), "{series}");
    }
}

#[test]
fn what_there_is_no_room_for_is_in_the_sum() {
    let metrics = metrics(5);
    let (_, who) = samples::rich();
    let ports = 1..=100_u16;
    let truth: u64 = ports.clone().map(u64::from).sum();
    for port in ports {
        metrics.observe_count(&of_port(port), &who, Moment::now());
    }
    let found = samples_of(&metrics, "turnaway_failures_total");
    assert_eq!(found.len(), 6);
    let sum: f64 = found.values().sum();
    assert!((sum - 5050.0).abs() < 1e-9, "{sum} is not {truth}");
    let dropped = samples_of(
        &metrics,
        "turnaway_series_dropped_total{family=\"failures\"}",
    );
    assert_eq!(dropped.into_values().collect::<Vec<_>>(), [95.0]);
}

#[test]
fn what_fails_no_more_is_forgotten_in_time() {
    let metrics = metrics(5);
    let (failure, who) = samples::rich();
    let now = Moment::now();
    metrics.observe_count(&count(&failure, 3), &who, now);
    let after = |more| Moment {
        monotonic: now.monotonic + Duration::from_hours(24) + more,
        ..now
    };
    let there = |at| {
        let text = metrics.render(Format::Text, at).unwrap();
        text.contains("turnaway_failures_total")
    };
    assert!(there(after(Duration::ZERO)));
    assert!(!there(after(Duration::from_secs(1))));
}

#[test]
fn counters_of_listeners_never_go_down() {
    let metrics = metrics(5);
    let accepted = |metrics: &Metrics| -> f64 {
        samples_of(metrics, "turnaway_listener_accepted_total")
            .values()
            .sum()
    };
    let mut before = 0.0;
    // The kernel's table lost it and began anew.
    for read in [5, 9, 2, 3] {
        metrics.set_listeners(&[listener(1, read)], Moment::now());
        let now = accepted(&metrics);
        assert!(now >= before);
        before = now;
    }
    assert!((before - 12.0).abs() < f64::EPSILON, "{before}");
    // It is closed: no queue, but what was counted.
    metrics.set_listeners(&[], Moment::now());
    assert!(samples_of(&metrics, "turnaway_listener_queue_depth").is_empty());
    assert!((accepted(&metrics) - 12.0).abs() < f64::EPSILON);
    let later = Moment {
        monotonic: Instant::now() + Duration::from_mins(6),
        ..Moment::now()
    };
    metrics.set_listeners(&[], later);
    assert!(samples_of(&metrics, "turnaway_listener_accepted_total").is_empty());
}

#[test]
fn listeners_that_have_no_room_are_in_the_sum() {
    let metrics = metrics(3);
    let all = |accepted| -> Vec<ListenerState> {
        (1..=10).map(|inode| listener(inode, accepted)).collect()
    };
    for accepted in [4, 6, 6] {
        metrics.set_listeners(&all(accepted), Moment::now());
    }
    let found = samples_of(&metrics, "turnaway_listener_accepted_total");
    assert_eq!(found.len(), 4);
    assert!((found.values().sum::<f64>() - 60.0).abs() < f64::EPSILON);
    let depth = samples_of(&metrics, "turnaway_listener_queue_depth");
    assert!((depth.values().sum::<f64>() - 30.0).abs() < f64::EPSILON);
    let dropped = samples_of(
        &metrics,
        "turnaway_series_dropped_total{family=\"listeners\"}",
    );
    assert_eq!(dropped.into_values().collect::<Vec<_>>(), [7.0]);
}

#[test]
fn waits_are_in_buckets_of_jiffies() {
    let metrics = metrics(3);
    metrics.set_listeners(&[listener(1, 4)], Moment::now());
    let at = |le: &str| -> f64 {
        let found = samples_of(&metrics, "turnaway_listener_queue_wait_seconds_bucket");
        let bucket = found
            .iter()
            .find(|(series, _)| series.contains(&format!("le=\"{le}\"")));
        *bucket.unwrap_or_else(|| panic!("no {le} in {found:?}")).1
    };
    assert_eq!(
        ["0.004", "0.008", "0.016", "+Inf"].map(|le| at(le).to_string()),
        ["2", "2", "3", "4"]
    );
    let count = samples_of(&metrics, "turnaway_listener_queue_wait_seconds_count");
    assert_eq!(count.into_values().collect::<Vec<_>>(), [4.0]);
}

#[test]
fn what_is_not_known_is_not_shown() {
    let metrics = metrics(3);
    metrics.set_listeners(&[listener(1, 4)], Moment::now());
    let text = metrics.render(Format::Text, Moment::now()).unwrap();
    for absent in [
        "turnaway_failures",
        "listener_shed",
        "incidents",
        "notifications",
        "turnaway_drops",
        "turnaway_hook",
    ] {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
    assert!(text.contains("turnaway_build_info{version="));
    assert!(text.contains("turnaway_listener_syn_cookies_total"));
}

#[test]
fn hostile_names_stay_within_their_label() {
    let metrics = metrics(3);
    let (failure, _) = samples::rich();
    let who = samples::who(b"a\"} 1\nevil 2\n\x1b\xff\\", None);
    metrics.observe_count(&count(&failure, 3), &who, Moment::now());
    for format in [Format::Text, Format::OpenMetrics] {
        let text = metrics.render(format, Moment::now()).unwrap();
        assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}

#[test]
fn it_is_ready_when_hooks_are_in_place_and_read() {
    let hook = |hook, attached: bool| HookStatus {
        hook,
        attached: attached.then(|| (Tier::Trampoline, Vec::new())),
        refused: vec![(Tier::Kprobe, "no tracefs".to_owned())],
    };
    let metrics = metrics(3);
    let now = Moment::now();
    let tell = |hooks: &[HookStatus]| {
        metrics.set_health(
            &Health {
                events: 0,
                losses: Losses::default(),
                output: 0,
                recording: Some(3),
                lag: Duration::ZERO,
                hooks,
            },
            now,
        );
    };
    let why = |after: u64| {
        metrics
            .readiness(now.monotonic + Duration::from_secs(after))
            .err()
            .unwrap_or_default()
    };
    assert!(why(0).contains("not in place yet"));
    tell(&[hook(HookName::Accept, true), hook(HookName::Shed, false)]);
    assert_eq!(why(10), "");
    assert!(why(11).contains("11.0 s ago"), "{}", why(11));
    tell(&[hook(HookName::Accept, false), hook(HookName::Shed, true)]);
    assert!(why(0).contains("accept is not in place: kprobe: no tracefs"));
    tell(&[hook(HookName::Shed, false)]);
    assert!(why(0).contains("shed"));
    // Nothing is hooked where only what is polled is wanted.
    tell(&[]);
    assert_eq!(why(0), "");
}
