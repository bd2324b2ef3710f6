use super::*;
use crate::top::sample::ReasonSample;

const SECOND: u64 = 1_000_000_000;

pub(crate) fn listener(inode: u64, port: u32, accepted: u64) -> ListenerSample {
    ListenerSample {
        inode,
        cookie: inode + 1000,
        name: format!("tcp 127.0.0.1:{port}").into(),
        port: Some(port),
        netns: 7,
        depth: 0,
        limit: 128,
        owners: vec![u32::try_from(inode).unwrap()],
        orphan: false,
        acceptor: None,
        accepted: Some(accepted),
        last_accept_ns: None,
        waits: Vec::new(),
        stalled_ns: None,
    }
}

pub(crate) fn process(pid: u32, comm: &str, used: u64, limit: u64) -> ProcessSample {
    ProcessSample {
        pid,
        comm: comm.into(),
        place: "shop.service".into(),
        cgroup: "/system.slice/shop.service".into(),
        used: Some(used),
        limit: Some(limit),
    }
}

pub(crate) fn failing(inode: Option<u64>, about: &str, reason: &str, count: u64) -> FailureSample {
    FailureSample {
        inode,
        about: about.into(),
        port: None,
        pid: Some(1),
        comm: "pooler".into(),
        place: "shop.service".into(),
        cgroup: "/system.slice/shop.service".into(),
        reason: Code::new(reason),
        errno: Some("EMFILE".into()),
        count,
        last_ns: 100 * SECOND,
        approximate: false,
    }
}

/// So many seconds after counting began.
pub(crate) fn sample(
    seconds: u64,
    listeners: Vec<ListenerSample>,
    failures: Vec<FailureSample>,
) -> Sample {
    let mut reasons: BTreeMap<Code, u64> = BTreeMap::new();
    for one in &failures {
        *reasons.entry(one.reason.clone()).or_default() += one.count;
    }
    let at_ns = (100 + seconds) * SECOND;
    Sample {
        at_ns,
        since_ns: 100 * SECOND,
        host: "db1".to_owned(),
        listeners,
        failures: failures
            .into_iter()
            .map(|one| FailureSample {
                last_ns: at_ns,
                ..one
            })
            .collect(),
        reasons: reasons
            .into_iter()
            .map(|(reason, count)| ReasonSample {
                reason,
                count,
                last_ns: at_ns,
            })
            .collect(),
        processes: vec![
            process(1, "pooler", 32, 32),
            process(2, "web", 7, 1024),
            process(3, "idle", 3, 1024),
        ],
        ..Sample::default()
    }
}

fn row(model: &Model, inode: u64) -> &Row {
    model.row(&RowId::Listener(inode)).expect("a row")
}

#[test]
fn rates_are_what_grew_in_the_interval() {
    let mut model = Model::default();
    model.take(sample(
        1,
        vec![listener(1, 80, 5)],
        vec![failing(Some(1), "", "accept.emfile", 3)],
    ));
    let one = row(&model, 1);
    assert_eq!(
        (one.accept_rate, one.failure_rate, one.failures),
        (Some(5.0), 3.0, 3)
    );
    // A sample was missed: what grew is spread over both seconds.
    model.take(sample(
        3,
        vec![listener(1, 80, 25)],
        vec![failing(Some(1), "", "accept.emfile", 7)],
    ));
    let one = row(&model, 1);
    assert_eq!(
        (one.accept_rate, one.failure_rate, one.failures),
        (Some(10.0), 2.0, 7)
    );
    assert_eq!(one.failures_60s, 7);
    let sums = model.sums();
    assert_eq!(
        (sums.failures_60s, sums.all_failures, sums.listeners),
        (7, 7, 1)
    );
    // Nothing more: no rate, and after a minute not lately.
    let quiet = |seconds| {
        let mut quiet = sample(
            seconds,
            vec![listener(1, 80, 25)],
            vec![failing(Some(1), "", "accept.emfile", 7)],
        );
        quiet.failures[0].last_ns = 103 * SECOND;
        quiet
    };
    model.take(quiet(4));
    assert!(row(&model, 1).failure_rate <= 0.0);
    assert_eq!(row(&model, 1).failures_60s, 7);
    model.take(quiet(70));
    assert_eq!(row(&model, 1).failures_60s, 0);
    assert_eq!(row(&model, 1).failures, 7, "in all they are");
}

#[test]
fn who_looks_on_late_does_not_take_old_sums_for_rates() {
    let mut model = Model::default();
    let all = || vec![failing(Some(1), "", "accept.emfile", 1_000)];
    model.take(sample(3600, vec![listener(1, 80, 9_000)], all()));
    let one = row(&model, 1);
    assert_eq!((one.accept_rate, one.failure_rate), (Some(0.0), 0.0));
    assert_eq!(model.sums().failures_60s, 0);
    assert_eq!(model.sums().all_failures, 1_000);
    // What is new from then on grew from nothing.
    model.take(sample(
        3601,
        vec![listener(1, 80, 9_002), listener(2, 81, 4)],
        all(),
    ));
    assert_eq!(row(&model, 1).accept_rate, Some(2.0));
    assert_eq!(row(&model, 2).accept_rate, Some(4.0));
}

#[test]
fn a_listener_that_is_closed_stays_while_its_failures_are_new() {
    let mut model = Model::default();
    let all = || vec![failing(Some(1), "tcp 127.0.0.1:80", "accept.emfile", 3)];
    model.take(sample(
        1,
        vec![listener(1, 80, 0), listener(2, 81, 0)],
        all(),
    ));
    let mut gone = sample(2, Vec::new(), all());
    gone.failures[0].last_ns = 101 * SECOND;
    model.take(gone.clone());
    assert!(row(&model, 1).closed);
    assert_eq!(row(&model, 1).queue, None);
    assert!(model.row(&RowId::Listener(2)).is_none());
    gone.at_ns = 200 * SECOND;
    model.take(gone);
    assert!(model.row(&RowId::Listener(1)).is_none());
}

#[test]
fn another_socket_of_the_same_inode_begins_anew() {
    let mut model = Model::default();
    model.take(sample(1, vec![listener(1, 80, 50)], Vec::new()));
    let other = ListenerSample {
        cookie: 9,
        ..listener(1, 90, 3)
    };
    model.take(sample(2, vec![other], Vec::new()));
    assert_eq!(row(&model, 1).accept_rate, Some(3.0));
    assert_eq!(&*row(&model, 1).name, "tcp 127.0.0.1:90");
}

#[test]
fn unknown_is_not_none() {
    let mut model = Model::default();
    let unseen = ListenerSample {
        accepted: None,
        owners: Vec::new(),
        ..listener(1, 80, 0)
    };
    model.take(sample(1, vec![unseen], Vec::new()));
    let one = row(&model, 1);
    assert_eq!(
        (one.accept_rate, one.waits, one.descriptors()),
        (None, None, None)
    );
    assert_eq!(model.sums().accepts, None);
}

#[test]
fn what_turns_others_away_comes_first() {
    let mut model = Model::default();
    let refused = |count| FailureSample {
        pid: Some(9),
        ..failing(None, "-> tcp 10.0.0.1:5000", "connect.refused", count)
    };
    let stalled = ListenerSample {
        stalled_ns: Some(5 * SECOND),
        ..listener(2, 81, 0)
    };
    let all = vec![listener(1, 80, 0), stalled, listener(3, 82, 100)];
    let failures = vec![refused(500), failing(Some(1), "", "accept.emfile", 3)];
    model.take(sample(1, all, failures));
    let names = |sort, reverse, text: &str| -> Vec<String> {
        let order = model.order(sort, reverse, text);
        order
            .iter()
            .map(|id| model.row(id).unwrap().name.to_string())
            .collect()
    };
    let (a, b, c) = ("tcp 127.0.0.1:80", "tcp 127.0.0.1:81", "tcp 127.0.0.1:82");
    let far = "-> tcp 10.0.0.1:5000";
    assert_eq!(names(Sort::Worst, false, ""), [a, b, far, c]);
    assert_eq!(
        names(Sort::Accepts, false, ""),
        [c, a, b, far],
        "unknown is last"
    );
    assert_eq!(
        names(Sort::Accepts, true, ""),
        [a, b, c, far],
        "whichever way around"
    );
    assert_eq!(names(Sort::Fds, false, ""), [a, b, c, far]);
    assert_eq!(names(Sort::Name, true, ""), [c, b, a, far]);
    assert_eq!(names(Sort::Name, false, "WEB"), [b], "by its owner");
    assert_eq!(names(Sort::Name, false, "emfile"), [a], "by its reason");
    assert_eq!(names(Sort::Name, false, "3"), [c], "by pid, whole");
}

#[test]
fn the_filter_of_the_command_line_holds_for_listeners_and_failures() {
    let filter = Filter {
        comms: vec![b"pooler".to_vec()],
        ..Filter::default()
    };
    let mut model = Model::new(filter);
    let failures = vec![
        failing(Some(1), "", "accept.emfile", 3),
        FailureSample {
            comm: "web".into(),
            pid: Some(2),
            ..failing(Some(2), "", "accept.emfile", 5)
        },
    ];
    model.take(sample(
        1,
        vec![listener(1, 80, 0), listener(2, 81, 0)],
        failures,
    ));
    assert_eq!(model.rows().count(), 1);
    assert_eq!(model.sums().all_failures, 3);
}

#[test]
fn units_and_containers_are_told_apart() {
    let failures = || {
        [
            ("web.service", "/system.slice/web.service", 1),
            ("web2.service", "/system.slice/web2.service", 10),
            ("shop", "/system.slice/docker-4711abc04711.scope", 100),
        ]
        .map(|(place, cgroup, count)| FailureSample {
            place: place.into(),
            cgroup: cgroup.into(),
            ..failing(None, place, "connect.refused", count)
        })
    };
    let of = |filter: Filter| {
        let mut model = Model::new(filter);
        model.take(sample(1, vec![], failures().into()));
        model.sums().all_failures
    };
    let one = |name: &str| vec![name.to_owned()];
    for (unit, count) in [("web", 1), ("web.service", 1), ("eb", 0)] {
        let units = one(unit);
        assert_eq!(
            of(Filter {
                units,
                ..Filter::default()
            }),
            count,
            "{unit}"
        );
    }
    for (container, count) in [("shop", 100), ("4711", 100), ("web", 0)] {
        let containers = one(container);
        let filter = Filter {
            containers,
            ..Filter::default()
        };
        assert_eq!(of(filter), count, "{container}");
    }
}
