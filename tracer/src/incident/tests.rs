//! What becomes of an incident, by a clock that the test has.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Change, Engine, Episode, IncidentRecord, Now, State, What, keys::keys};
use crate::{
    alert::{Severity, Status},
    observation::{Code, Container, Fd, Kind, Listener, Observation, Peer, Process, Server},
    rules::{self, Matcher, Rules, Silence},
};

/// 2026-11-24 03:12:00 UTC.
const START: i64 = 1_795_489_920;

pub(crate) fn wall(ms: u64) -> Timestamp {
    Timestamp::from_millisecond(START * 1000 + i64::try_from(ms).unwrap()).unwrap()
}

/// A process in a service of its own name.
pub(crate) fn process(comm: &str, pid: u32) -> Process {
    Process {
        pid,
        start_time: Some(wall(0) - SignedDuration::from_secs(i64::from(pid))),
        comm: Some(comm.to_owned()),
        unit: Some(format!("{comm}.service")),
        cgroup: Some(format!("/system.slice/{comm}.service")),
        container: None,
    }
}

/// Something that was seen at a listener of a process.
pub(crate) fn seen(reason: &str, kind: Kind, ms: u64, process: Process, inode: u64) -> Observation {
    Observation {
        time: wall(ms),
        host: "db1".to_owned(),
        reason: Code::new(reason),
        kind,
        holders: Vec::new(),
        listener: Some(Listener {
            inode: Some(inode),
            family: Some("inet".to_owned()),
            address: Some("0.0.0.0".to_owned()),
            port: Some(6432),
            netns: Some(1),
            queue: Some(129),
            backlog: Some(128),
            ..Listener::default()
        }),
        peer: None,
        server: None,
        netns: None,
        fd: Fd {
            used: Some(1024),
            limit: Some(1024),
        },
        waited: None,
        approximate: false,
        waits: None,
        process: Some(process),
    }
}

pub(crate) fn count(count: u64, ms: u64) -> Kind {
    Kind::Count {
        count,
        first: wall(ms),
        last: wall(ms),
    }
}

fn pooler() -> Process {
    process("pgbouncer", 812)
}

fn emfile(kind: Kind, ms: u64) -> Observation {
    seen("accept.emfile", kind, ms, pooler(), 31_337)
}

fn stall(kind: Kind, ms: u64) -> Observation {
    Observation {
        waited: Some(Duration::from_secs(2)),
        ..seen("queue.stalled", kind, ms, pooler(), 31_337)
    }
}

/// A connect of haproxy to port 6432 of this host.
fn refused(kind: Kind, ms: u64, server: Option<u32>) -> Observation {
    Observation {
        listener: None,
        peer: Some(Peer {
            address: Some("127.0.0.1".to_owned()),
            port: Some(6432),
            path: None,
        }),
        server: server.map(|pid| Server {
            pid,
            comm: Some("pgbouncer".to_owned()),
        }),
        fd: Fd::default(),
        ..seen("connect.refused", kind, ms, process("haproxy", 900), 0)
    }
}

/// An engine and what it said, with times since the start.
pub(crate) struct Run {
    pub(crate) engine: Engine,
    pub(crate) changes: Vec<(u64, Change)>,
    ticks: u64,
    /// What wall time is ahead of the steady clock.
    ahead_ms: i64,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self::with(Rules::default())
    }

    fn with(rules: Rules) -> Self {
        let mut run = Self {
            engine: Engine::new(rules),
            changes: Vec::new(),
            ticks: 0,
            ahead_ms: 0,
        };
        run.tick();
        run
    }

    fn tick(&mut self) {
        let ms = self.ticks * 1000;
        self.ticks += 1;
        let changes = self.engine.tick(Now {
            wall: wall(ms) + SignedDuration::from_millis(self.ahead_ms),
            steady: Duration::from_millis(ms),
        });
        self.changes
            .extend(changes.into_iter().map(|change| (ms, change)));
    }

    /// Goes on until then, a tick each second.
    pub(crate) fn until(&mut self, second: u64) {
        while self.ticks <= second {
            self.tick();
        }
    }

    pub(crate) fn see(&mut self, seen: &Observation) {
        self.until(u64::try_from(seen.time.duration_since(wall(0)).as_secs()).unwrap_or(0));
        self.engine.observe(seen);
    }

    fn whats(&self) -> Vec<(u64, What)> {
        self.changes
            .iter()
            .map(|(ms, change)| (ms / 1000, change.what))
            .collect()
    }

    /// Notifications.
    fn told(&self) -> usize {
        let alerts = self.changes.iter();
        alerts.filter(|(_, change)| change.alert.is_some()).count()
    }

    fn last(&self) -> &Change {
        &self.changes.last().unwrap().1
    }
}

fn failures(change: &Change, reason: &str) -> u64 {
    let reasons = change.record.reasons.iter();
    reasons
        .filter(|one| one.reason.as_str() == reason)
        .map(|one| one.count)
        .sum()
}

/// Incidents of which everything is known, a client's, one of a whole network, and little known.
pub(crate) fn samples() -> Vec<IncidentRecord> {
    let rules = Rules::default();
    let of = |all: &[Observation], as_client| {
        let id = "20261124T031201Z-9f3a11c2".to_owned();
        let mut episode = Episode::new(id, &all[0], as_client, Duration::ZERO);
        for seen in all {
            episode.note(seen, &keys(seen).victim, &rules, Duration::ZERO);
        }
        episode
    };
    let mut first = emfile(count(11, 1_000), 1_000);
    first.process.as_mut().unwrap().container = Some(Container {
        id: "4f5c".to_owned(),
        name: Some("pooler".to_owned()),
        pod: Some("shop/pooler-0".to_owned()),
    });
    first.approximate = true;
    let mut second = stall(Kind::Began, 3_000);
    second.listener = Some(Listener {
        path: Some("/run/pooler.sock".to_owned()),
        ..Listener::default()
    });
    let mut rich = of(
        &[first, second, refused(count(5, 4_000), 4_000, Some(812))],
        false,
    );
    rich.state = State::Resolved;
    rich.fired = Some(wall(2_000));
    rich.again_of = Some("20261124T030000Z-00000001".to_owned());
    rich.waits = crate::record::samples::listening().waited;
    rich.tell(wall(5_000), None, "it is over".to_owned());
    let client = of(&[refused(count(5, 4_000), 4_000, None)], true);
    let network = Observation {
        process: None,
        listener: None,
        netns: Some(4_026_531_840),
        fd: Fd::default(),
        ..seen("net.conntrack_full", count(5, 4_000), 4_000, pooler(), 0)
    };
    let network = of(&[network], false);
    let mut records: Vec<IncidentRecord> = [rich, client, network]
        .iter()
        .map(|episode| IncidentRecord::new(episode, wall(6_000)))
        .collect();
    records[0].explanation = Some(Box::new(crate::context::types::tests::sample()));
    records
}

#[test]
fn one_failure_in_5_s_for_90_s_fires_once_and_resolves_once() {
    let mut run = Run::new();
    for index in 0..=18 {
        run.see(&emfile(
            count(1, 10_000 + index * 5_000),
            10_000 + index * 5_000,
        ));
    }
    run.until(400);
    let whats = run.whats();
    assert_eq!(whats.len(), 2, "{whats:?}");
    assert_eq!(whats[0].1, What::Fired);
    assert!(whats[0].0 <= 13, "within 3 s of the first: {whats:?}");
    assert_eq!(whats[1], (160, What::Resolved));
    let alert = run.last().alert.as_ref().unwrap();
    assert_eq!(alert.status, Status::Resolved);
    assert_eq!(alert.starts_at, wall(10_000));
    assert_eq!(alert.ends_at, Some(wall(100_000)));
    assert_eq!(failures(run.last(), "accept.emfile"), 19);
    assert!(run.engine.is_idle());
}

#[test]
fn an_alert_says_who_where_why_and_how_many() {
    let mut run = Run::new();
    run.see(&emfile(Kind::Exemplar, 1_000));
    run.until(2);
    let change = run.last();
    let alert = change.alert.as_ref().unwrap();
    for (label, value) in [
        ("alertname", "OutOfDescriptors"),
        ("severity", "critical"),
        ("host", "db1"),
        ("reason", "accept.emfile"),
        ("comm", "pgbouncer"),
        ("unit", "pgbouncer.service"),
        ("cgroup", "/system.slice/pgbouncer.service"),
        ("listener", "0.0.0.0:6432"),
        ("pid", "812"),
    ] {
        assert_eq!(alert.labels[label], value, "{label}");
    }
    assert_eq!(alert.annotations["fd_limit"], "1024");
    let summary = &alert.annotations["summary"];
    assert!(
        summary.starts_with("pgbouncer (pid 812, pgbouncer.service) is out of file descriptors (1024 of 1024): it cannot accept connections on 0.0.0.0:6432"),
        "{summary}"
    );
    assert_eq!(failures(change, "accept.emfile"), 1);
}

#[test]
fn one_failure_and_then_silence_does_not_resolve_while_clients_wait() {
    let mut run = Run::new();
    run.see(&emfile(Kind::Exemplar, 5_000));
    run.see(&emfile(count(1, 5_000), 6_000));
    run.see(&stall(Kind::Began, 7_000));
    run.see(&stall(count(1, 7_000), 7_000));
    run.until(3_600);
    assert_eq!(run.whats()[0], (6, What::Fired));
    assert!(
        run.changes
            .iter()
            .all(|(_, one)| one.what != What::Resolved)
    );
    run.see(&stall(Kind::Ended, 3_600_000));
    run.until(4_000);
    assert_eq!(*run.whats().last().unwrap(), (3_660, What::Resolved));
    assert_eq!(run.last().record.ended, Some(wall(3_600_000)));
    let ids: std::collections::BTreeSet<_> =
        run.changes.iter().map(|(_, one)| &one.record.id).collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn a_stall_whose_word_is_repeated_ends_when_that_ends() {
    let mut run = Run::new();
    run.see(&stall(Kind::Began, 1_000));
    for second in 2..100 {
        run.see(&stall(Kind::Lasting, second * 1_000));
    }
    run.until(300);
    let whats = run.whats();
    assert_eq!(*whats.last().unwrap(), (188, What::Resolved), "{whats:?}");
}

#[test]
fn half_a_million_a_second_fire_once_and_are_counted() {
    let mut run = Run::new();
    for second in 1..=10 {
        for _ in 0..10 {
            run.see(&emfile(Kind::Exemplar, second * 1_000));
        }
        run.see(&emfile(count(500_000, second * 1_000), second * 1_000));
    }
    run.until(200);
    let whats = run.whats();
    assert_eq!(whats.len(), 2, "{whats:?}");
    assert_eq!(failures(run.last(), "accept.emfile"), 5_000_000);
    assert_eq!(
        run.engine.totals().by_reason()[&Code::new("accept.emfile")],
        5_000_000
    );
}

#[test]
fn what_is_learned_later_is_told_at_once_and_once() {
    let mut run = Run::new();
    run.see(&emfile(count(3, 1_000), 1_000));
    run.until(5);
    let told = run.told();
    let id = run.last().record.id.clone();
    run.engine.learned("another");
    run.until(7);
    assert_eq!(run.told(), told);
    run.engine.learned(&id);
    run.until(20);
    assert_eq!(run.told(), told + 1, "{:?}", run.whats());
    assert_eq!(run.last().what, What::Updated);
}

#[test]
fn flapping_tells_twice_at_most() {
    let mut run = Run::new();
    for second in (1..=600).filter(|second| (second / 10) % 2 == 0) {
        run.see(&emfile(count(3, second * 1_000), second * 1_000));
    }
    run.until(1_000);
    assert!(run.told() <= 2, "{:?}", run.whats());
    assert_eq!(run.last().what, What::Resolved);
}

#[test]
fn one_that_comes_back_takes_longer_to_be_over_and_is_told_at_once() {
    let mut run = Run::new();
    // Over after a minute, and back: on for a second, off for 70.
    for second in (1..3_600).step_by(70) {
        run.see(&emfile(count(1, second * 1_000), second * 1_000));
    }
    run.until(4_000);
    let whats = run.whats();
    let fired: Vec<u64> = whats
        .iter()
        .filter(|(_, what)| *what == What::Fired)
        .map(|(second, _)| *second)
        .collect();
    assert_eq!(fired, [2, 72], "{whats:?}");
    let second = run.changes.last().unwrap().1.record.again_of.clone();
    assert_eq!(second.as_ref(), Some(&run.changes[0].1.record.id));
}

#[test]
fn the_pooler_is_one_incident_in_order_with_the_sufferer() {
    let mut run = Run::new();
    let pressure = Observation {
        listener: None,
        ..seen("fd.pressure", Kind::Began, 1_000, pooler(), 0)
    };
    run.see(&pressure);
    run.see(&emfile(Kind::Exemplar, 20_000));
    run.see(&emfile(count(1, 20_000), 21_000));
    run.see(&stall(Kind::Began, 22_500));
    // Drops are nobody's call: only the socket says whose they are.
    let overflow = Observation {
        process: None,
        fd: Fd::default(),
        ..seen(
            "queue.syn_overflow",
            count(40, 24_000),
            24_000,
            pooler(),
            31_337,
        )
    };
    run.see(&overflow);
    for second in 25..35 {
        run.see(&refused(
            count(5, second * 1_000),
            second * 1_000,
            Some(812),
        ));
        run.see(&emfile(count(1, second * 1_000), second * 1_000));
    }
    run.see(&stall(Kind::Ended, 40_000));
    run.see(&Observation {
        listener: None,
        ..seen("fd.pressure", Kind::Ended, 41_000, pooler(), 0)
    });
    run.until(300);
    let ids: std::collections::BTreeSet<_> = run
        .changes
        .iter()
        .map(|(_, one)| one.record.id.clone())
        .collect();
    assert_eq!(ids.len(), 1, "{:?}", run.whats());
    let first = &run.changes[0].1;
    assert_eq!(first.record.severity, Severity::Warning);
    let worse = &run.changes[1];
    assert_eq!(
        (worse.0, worse.1.record.severity),
        (21_000, Severity::Critical)
    );
    assert_eq!(
        worse.1.alert.as_ref().unwrap().labels["severity"],
        "critical"
    );
    let last = &run.last().record;
    assert_eq!(last.status, Status::Resolved);
    let reasons: Vec<&str> = last.reasons.iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "fd.pressure",
            "accept.emfile",
            "queue.stalled",
            "queue.syn_overflow",
            "connect.refused"
        ]
    );
    assert_eq!(failures(run.last(), "accept.emfile"), 11);
    assert_eq!(failures(run.last(), "connect.refused"), 50);
    assert_eq!(last.sufferers.len(), 1);
    assert_eq!(last.sufferers[0].process.comm.as_deref(), Some("haproxy"));
    assert_eq!(last.sufferers[0].count, 50);
    assert!(
        last.statement.contains("is out of file descriptors"),
        "{}",
        last.statement
    );
    assert!(last.statement.contains("haproxy"), "{}", last.statement);
    let times: Vec<_> = last.timeline.iter().map(|told| told.time).collect();
    assert!(times.is_sorted());
}

#[test]
fn a_limit_that_stays_near_does_not_keep_up_what_it_led_to() {
    let mut run = Run::new();
    let pressure = |kind, ms| Observation {
        listener: None,
        ..seen("fd.pressure", kind, ms, pooler(), 0)
    };
    run.see(&pressure(Kind::Began, 1_000));
    run.see(&emfile(count(5, 10_000), 10_000));
    for second in 11..200 {
        run.see(&pressure(Kind::Lasting, second * 1_000));
    }
    run.until(300);
    let whats = run.whats();
    assert_eq!(*whats.last().unwrap(), (70, What::Resolved), "{whats:?}");
    assert_eq!(run.last().record.ended, Some(wall(10_000)));

    // Alone, it lasts until it has passed.
    let mut run = Run::new();
    run.see(&pressure(Kind::Began, 1_000));
    run.until(300);
    assert_eq!(run.engine.incidents().len(), 1);
    run.see(&pressure(Kind::Ended, 300_000));
    run.until(400);
    assert!(run.engine.is_idle());
}

#[test]
fn clients_that_failed_before_their_servers_first_failure_are_taken_up() {
    let mut run = Run::new();
    run.see(&refused(count(3, 1_000), 1_000, None));
    run.until(2);
    run.see(&emfile(count(1, 3_000), 3_000));
    run.see(&refused(count(30, 4_000), 4_000, None));
    run.until(200);
    let ids: std::collections::BTreeSet<_> = run
        .changes
        .iter()
        .map(|(_, one)| one.record.id.clone())
        .collect();
    assert_eq!(ids.len(), 1, "{:?}", run.changes);
    let last = &run.last().record;
    assert_eq!(
        last.victim.process.as_ref().unwrap().comm.as_deref(),
        Some("pgbouncer")
    );
    assert_eq!(last.sufferers[0].count, 33);
}

#[test]
fn a_client_whose_server_is_elsewhere_is_an_incident_of_its_own() {
    let mut run = Run::new();
    let mut refused = refused(count(25, 1_000), 1_000, None);
    refused.peer.as_mut().unwrap().address = Some("10.9.9.9".to_owned());
    run.see(&refused);
    run.until(200);
    let whats: Vec<What> = run.whats().into_iter().map(|(_, what)| what).collect();
    assert_eq!(whats, [What::Fired, What::Resolved]);
    let first = &run.changes[0].1.record;
    assert_eq!(
        first.statement,
        "haproxy (pid 900, haproxy.service) cannot connect to 10.9.9.9:6432: refused"
    );
    assert_eq!(first.victim.role, "client");
}

#[test]
fn a_stall_of_unknown_process_becomes_the_processs() {
    let mut run = Run::new();
    run.see(&Observation {
        process: None,
        ..stall(Kind::Began, 1_000)
    });
    run.until(3);
    run.see(&emfile(count(1, 4_000), 4_000));
    run.until(5);
    assert_eq!(run.engine.incidents().len(), 1);
    let victim = &run.engine.incidents()[0].victim;
    assert_eq!(victim.process.as_ref().unwrap().pid, 812);
}

#[test]
fn two_cgroups_with_the_same_program_are_two() {
    let mut run = Run::new();
    for (pid, cgroup, inode) in [
        (10, "/a.slice/web.service", 1),
        (11, "/b.slice/web.service", 2),
    ] {
        let process = Process {
            cgroup: Some(cgroup.to_owned()),
            ..process("web", pid)
        };
        run.see(&seen(
            "accept.emfile",
            count(u64::from(pid), 1_000),
            1_000,
            process,
            inode,
        ));
    }
    run.until(3);
    let incidents = run.engine.incidents();
    assert_eq!(incidents.len(), 2);
    for incident in incidents {
        let pid = incident.victim.process.unwrap().pid;
        assert_eq!(incident.reasons[0].count, u64::from(pid));
    }
}

#[test]
fn workers_of_one_service_are_one() {
    let mut run = Run::new();
    for pid in 10..14 {
        run.see(&seen(
            "accept.emfile",
            count(1, 1_000),
            1_000,
            process("web", pid),
            7,
        ));
    }
    run.until(3);
    let incidents = run.engine.incidents();
    assert_eq!(incidents.len(), 1);
    assert_eq!(incidents[0].victim.processes, Some(4));
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut run = Run::new();
    let session = |start: u64| Process {
        start_time: Some(wall(start)),
        unit: Some("session-3.scope".to_owned()),
        cgroup: Some("/user.slice/session-3.scope".to_owned()),
        ..process("web", 4_000)
    };
    run.see(&seen(
        "accept.emfile",
        count(1, 1_000),
        1_000,
        session(0),
        1,
    ));
    run.see(&seen(
        "accept.emfile",
        count(2, 11_000),
        11_000,
        session(10_000),
        2,
    ));
    run.until(12);
    let counts: Vec<u64> = run
        .engine
        .incidents()
        .iter()
        .map(|incident| incident.reasons[0].count)
        .collect();
    assert_eq!(counts, [1, 2]);
}

#[test]
fn a_clock_that_is_set_back_changes_no_incident() {
    let mut run = Run::new();
    for second in 1..=30 {
        run.see(&emfile(count(1, second * 1_000), second * 1_000));
    }
    run.ahead_ms = -3_600_000;
    for second in 31..=60 {
        run.until(second);
        let mut seen = emfile(count(1, 0), 0);
        seen.time = wall(second * 1_000) - SignedDuration::from_secs(3_600);
        seen.kind = Kind::Count {
            count: 1,
            first: seen.time,
            last: seen.time,
        };
        run.engine.observe(&seen);
    }
    run.until(300);
    let whats = run.whats();
    assert_eq!(whats, [(2, What::Fired), (120, What::Resolved)]);
    assert_eq!(failures(run.last(), "accept.emfile"), 60);
    let alert = run.last().alert.as_ref().unwrap();
    assert!(alert.ends_at.unwrap() >= alert.starts_at);
}

#[test]
fn a_restart_goes_on_with_the_same_incident() {
    let mut run = Run::new();
    run.see(&emfile(count(2, 1_000), 1_000));
    run.see(&stall(Kind::Began, 3_000));
    run.until(5);
    let id = run.changes[0].1.record.id.clone();
    let text = serde_json::to_string(&run.engine.save()).unwrap();
    let saved = serde_json::from_str(&text).unwrap();
    run.engine = Engine::restore(Rules::default(), saved).unwrap();
    // Five seconds of being away; another boot's clock.
    let now = |second: u64| Now {
        wall: wall(second * 1_000),
        steady: Duration::from_secs(second - 5),
    };
    assert!(run.engine.tick(now(10)).is_empty(), "told already");
    let mut again = emfile(count(3, 11_000), 11_000);
    // The start of the process as another reading of the clocks has it.
    again.process.as_mut().unwrap().start_time =
        Some(wall(0) - SignedDuration::from_secs(812) + SignedDuration::from_millis(3));
    run.engine.observe(&again);
    run.engine.observe(&stall(Kind::Began, 12_000));
    assert!(run.engine.tick(now(12)).is_empty());
    let incidents = run.engine.incidents();
    assert_eq!(incidents.len(), 1);
    assert_eq!(incidents[0].id, id);
    assert_eq!(incidents[0].reasons[0].count, 5);
    // The stall was seen again, and lasts.
    assert!(
        run.engine
            .tick(now(500))
            .iter()
            .all(|one| one.what != What::Resolved)
    );
    run.engine.observe(&stall(Kind::Ended, 500_000));
    let mut changes = run.engine.tick(now(510));
    changes.extend(run.engine.tick(now(570)));
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].what, What::Resolved);
    assert_eq!(changes[0].record.id, id);
}

#[test]
fn a_stall_that_ended_while_turnaway_was_away_ends() {
    let mut run = Run::new();
    run.see(&stall(Kind::Began, 1_000));
    run.until(5);
    run.engine.interrupted();
    run.until(200);
    assert_eq!(run.last().what, What::Resolved);
}

#[test]
fn what_is_silenced_is_written_and_told_when_the_silence_ends() {
    let mut run = Run::new();
    run.engine.silence(Silence {
        id: "1".to_owned(),
        matcher: Matcher {
            unit: vec!["pgbouncer*".to_owned()],
            ..Matcher::default()
        },
        until: wall(20_000),
        comment: None,
    });
    for second in 1..=30 {
        run.see(&emfile(count(1, second * 1_000), second * 1_000));
    }
    run.until(200);
    let told: Vec<_> = run
        .changes
        .iter()
        .map(|(ms, one)| (ms / 1000, one.what, one.alert.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            (2, What::Fired, false),
            (20, What::Fired, true),
            (90, What::Resolved, true)
        ]
    );
    assert!(run.engine.silences().is_empty());
}

#[test]
fn one_that_is_silent_to_its_end_is_never_told() {
    let mut run = Run::new();
    run.engine.silence(Silence {
        id: "1".to_owned(),
        matcher: Matcher::default(),
        until: wall(900_000),
        comment: None,
    });
    run.see(&emfile(count(1, 1_000), 1_000));
    run.until(200);
    assert_eq!(run.told(), 0);
    assert_eq!(run.changes.len(), 2);
    assert!(run.engine.unsilence("1"));
    assert!(!run.engine.unsilence("1"));
}

#[test]
fn thresholds_ratios_and_times_to_hold() {
    let rules = rules::parse(
        r#"
defaults = false
[[rule]]
name = "Many"
reason = "queue.*"
count = 10
window = "10s"
for = "5s"
resolve_after = "20s"
[[rule]]
name = "Share"
reason = "accept.shed"
ratio = 0.5
window = "10s"
[[ignore]]
comm = "scanner"
"#,
        "x",
    )
    .unwrap();
    let mut run = Run::with(rules);
    let drop = |n, ms| seen("queue.syn_overflow", count(n, ms), ms, pooler(), 1);
    run.see(&drop(9, 1_000));
    run.until(60);
    assert!(run.changes.is_empty());
    assert!(run.engine.is_idle());
    for second in 61..=70 {
        run.see(&drop(10, second * 1_000));
    }
    run.until(150);
    let whats = run.whats();
    assert_eq!(whats[0], (67, What::Fired), "{whats:?}");
    assert_eq!(whats[1].1, What::Resolved);
    assert_eq!(whats.len(), 2);

    let shed = |n, ms| seen("accept.shed", count(n, ms), ms, process("nginx", 3), 2);
    run.see(&shed(5, 151_000));
    run.until(155);
    assert_eq!(run.changes.len(), 2, "attempts are not known");
    let accepted = |n, ms| {
        seen(
            "accept.shed",
            Kind::Accepted { count: n },
            ms,
            process("nginx", 3),
            2,
        )
    };
    run.see(&accepted(100, 156_000));
    run.see(&shed(5, 156_000));
    run.until(158);
    assert_eq!(run.changes.len(), 2, "few of many");
    run.see(&shed(200, 158_500));
    run.until(160);
    assert_eq!(run.changes.len(), 3, "most of them");

    let ignored = seen(
        "queue.syn_overflow",
        count(99, 161_000),
        161_000,
        process("scanner", 4),
        3,
    );
    run.see(&ignored);
    run.until(170);
    assert_eq!(run.changes.len(), 3);
    assert_eq!(run.engine.ignored(), 99);
    let total = &run.engine.totals().by_reason()[&Code::new("queue.syn_overflow")];
    assert_eq!(*total, 9 + 100 + 99);
}

#[test]
fn other_rules_go_on_with_what_is_there() {
    let mut run = Run::new();
    run.see(&emfile(count(1, 1_000), 1_000));
    run.until(2);
    run.engine
        .set_rules(rules::parse("defaults = false", "x").unwrap());
    run.until(4);
    assert_eq!(run.whats(), [(2, What::Fired), (3, What::Resolved)]);
}

#[test]
fn names_cannot_harm_a_reader() {
    let mut run = Run::new();
    let evil = Process {
        comm: Some("\u{1b}[2J\n\u{202e}x".to_owned()),
        ..pooler()
    };
    run.see(&seen("accept.emfile", count(1, 1_000), 1_000, evil, 1));
    run.until(3);
    let alert = run.last().alert.as_ref().unwrap();
    for value in alert.labels.values().chain(alert.annotations.values()) {
        assert!(!value.contains(['\u{1b}', '\u{202e}']), "{value:?}");
    }
    assert!(!run.last().record.statement.contains('\u{1b}'));
}

#[test]
fn a_share_is_of_what_was_counted_and_of_what_is_known() {
    let rules = rules::parse(
        "defaults = false\n[[rule]]\nname = \"Share\"\nreason = \"accept.*\"\nratio = 0.5\nwindow = \"10s\"",
        "x",
    )
    .unwrap();
    let accepted = |n, ms| Observation {
        process: None,
        ..seen(
            "accepted",
            Kind::Accepted { count: n },
            ms,
            pooler(),
            31_337,
        )
    };
    let mut run = Run::with(rules);
    run.see(&emfile(count(1, 1_000), 1_000));
    run.until(12);
    assert!(run.changes.is_empty(), "attempts are not known");
    run.engine.sees_accepted(true);
    // Seen one by one, and its count and what was accepted meanwhile are still to come.
    run.see(&emfile(Kind::Exemplar, 13_500));
    run.until(14);
    assert!(run.changes.is_empty(), "nothing is counted");
    run.see(&accepted(10, 14_500));
    run.see(&emfile(count(1, 14_500), 14_500));
    run.until(16);
    assert!(run.changes.is_empty(), "one of eleven");
    // What was accepted is long ago.
    run.see(&emfile(count(1, 26_000), 26_000));
    run.until(28);
    assert_eq!(run.changes.len(), 1, "all of them");
    assert_eq!(run.changes[0].1.what, What::Fired);
}

#[test]
fn the_worst_come_first_and_silences_are_told_by_what_they_match() {
    let mut run = Run::new();
    run.see(&seen(
        "queue.syn_overflow",
        count(10, 1_000),
        1_000,
        process("nginx", 3),
        2,
    ));
    run.see(&emfile(count(1, 2_000), 2_000));
    run.until(4);
    let severities = |worst: Vec<(IncidentRecord, bool)>| -> Vec<(Severity, bool)> {
        let of = worst.into_iter();
        of.map(|(record, silenced)| (record.severity, silenced))
            .collect()
    };
    let all = [(Severity::Critical, false), (Severity::Warning, false)];
    assert_eq!(severities(run.engine.worst(9)), all);
    assert_eq!(severities(run.engine.worst(1)), all[..1]);
    assert_eq!(run.engine.firing()[&Severity::Critical], 1);
    let matcher = Matcher {
        comm: vec!["ngin*".to_owned()],
        ..Matcher::default()
    };
    assert_eq!(run.engine.matched(&matcher), 1);
    assert!(run.engine.silence(Silence {
        id: "s-1".to_owned(),
        matcher,
        until: wall(60_000),
        comment: None,
    }));
    let silenced = [(Severity::Critical, false), (Severity::Warning, true)];
    assert_eq!(severities(run.engine.worst(9)), silenced);
}

#[test]
fn a_state_with_rows_of_their_own_is_read_all_the_same() {
    let mut run = Run::new();
    run.see(&emfile(count(7, 1_000), 1_000));
    let mut saved = serde_json::to_value(run.engine.save()).unwrap();
    let mut totals = saved["totals"].take();
    totals["rows"] = serde_json::json!([["key", {"reason": "accept.emfile", "count": 7}]]);
    totals["other"] = serde_json::json!({});
    saved.as_object_mut().unwrap().remove("totals");
    saved["rows"] = totals;
    let saved = serde_json::from_value(saved).unwrap();
    let engine = Engine::restore(Rules::default(), saved).unwrap();
    assert_eq!(engine.totals().sum(), 7);
}
