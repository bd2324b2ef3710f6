//! Facts in, risks out.

use super::*;
use crate::{
    attribute::NofileLimits,
    event::Address,
    sockets::{Conntrack, Settings},
};

const OWN: u32 = 1;
const OTHER: u32 = 2;

fn listener(inode: u64, depth: u32, limit: u32) -> Listener {
    Listener {
        inode,
        cookie: inode,
        family: 2,
        socket_type: 1,
        protocol: 6,
        address: Some(Address::Inet(([127, 0, 0, 1], 80).into())),
        depth,
        limit,
        drops: None,
    }
}

fn namespace(inode: u32, listeners: Vec<Listener>) -> Namespace {
    Namespace {
        inode,
        settings: Some(Settings {
            somaxconn: Some(4096),
            abort_on_overflow: Some(0),
            syncookies: Some(1),
        }),
        listeners,
        complete: true,
        ..Namespace::default()
    }
}

fn process(pid: u32, used: u64, soft: u64, holds: &[u64]) -> Surveyed {
    Surveyed {
        pid,
        comm: Some(b"server".to_vec()),
        netns: Some(OWN),
        nofile: Some(NofileLimits {
            soft: Some(soft),
            hard: Some(1 << 20),
        }),
        used: Some(used),
        holds: holds.to_vec(),
    }
}

/// A host where nothing is at risk.
fn good() -> Facts {
    Facts {
        namespaces: vec![namespace(OWN, vec![listener(11, 64, 128)])],
        survey: Survey {
            processes: vec![process(7, 800, 2000, &[11])],
            unread: 0,
            complete: true,
        },
        all_processes: true,
        open_files: Some(800),
        system: System {
            file_max: Some(1000),
            nr_open: Some(1 << 20),
        },
        ..Facts::default()
    }
}

/// The only risk there is.
fn only(facts: &Facts) -> Risk {
    let found = risks(facts);
    assert_eq!(found.unknown, [""; 0]);
    let [risk] = &found.risks[..] else {
        panic!("{found:?}");
    };
    assert!(!risk.text.contains('\n'));
    assert!(risk.advice.is_some(), "{risk:?}");
    risk.clone()
}

fn numbers(risk: &Risk) -> (Option<u64>, Option<u64>) {
    (risk.value, risk.limit)
}

#[test]
fn where_nothing_is_at_risk_nothing_is_found() {
    assert_eq!(risks(&good()), Found::default());
}

#[test]
fn a_limit_that_is_nearly_used_up() {
    let mut facts = good();
    facts.survey.processes[0] = process(7, 1601, 2000, &[]);
    let risk = only(&facts);
    assert_eq!(risk.code, Code::FdPressure);
    assert_eq!(numbers(&risk), (Some(1601), Some(2000)));
    assert_eq!(risk.process.as_ref().unwrap().pid, 7);
    assert!(risk.text.starts_with("server[7]: 1601 of 2000"), "{risk:?}");
    assert!(
        risk.advice
            .unwrap()
            .starts_with("prlimit --pid 7 --nofile=")
    );
    facts.survey.processes[0] = process(7, 1600, 2000, &[]);
    assert_eq!(risks(&facts), Found::default(), "80 % is not over 80 %");
}

#[test]
fn a_low_limit_of_one_that_listens() {
    let mut facts = good();
    facts.survey.processes[0] = process(7, 5, 1024, &[11]);
    let risk = only(&facts);
    assert_eq!(
        (risk.code, risk.severity),
        (Code::NofileLow, Severity::Hint)
    );
    assert_eq!(numbers(&risk), (Some(5), Some(1024)));
    assert!(matters(&facts.survey.processes[0]));
    for harmless in [
        process(7, 5, 1025, &[11]),
        // It does not listen.
        process(7, 5, 1024, &[]),
    ] {
        facts.survey.processes[0] = harmless;
        assert_eq!(risks(&facts), Found::default());
    }
    facts.survey.processes[0].nofile = Some(NofileLimits {
        soft: None,
        hard: None,
    });
    assert_eq!(risks(&facts), Found::default(), "unlimited");
}

#[test]
fn a_queue_that_fills() {
    let mut facts = good();
    facts.namespaces[0].listeners = vec![listener(11, 65, 128)];
    let risk = only(&facts);
    assert_eq!(risk.code, Code::QueueFilling);
    assert_eq!(numbers(&risk), (Some(65), Some(128)));
    assert_eq!(risk.listener.as_ref().unwrap().inode, Some(11));
    assert!(!risk.text.contains("full"));
    facts.namespaces[0].listeners = vec![listener(11, 129, 128)];
    assert!(only(&facts).text.ends_with("full"));
    // The least queue there is lets one in.
    facts.namespaces[0].listeners = vec![listener(11, 0, 0)];
    assert_eq!(risks(&facts), Found::default());
    facts.namespaces[0].listeners = vec![listener(11, 1, 0)];
    assert_eq!(only(&facts).code, Code::QueueFilling);
}

#[test]
fn of_several_holders_one_is_named() {
    let mut facts = good();
    facts.namespaces[0].listeners = vec![listener(11, 65, 128)];
    facts.survey.processes = vec![
        process(1, 5, 2000, &[11]),
        process(8, 5, 2000, &[11]),
        process(9, 5, 2000, &[11]),
    ];
    let risk = only(&facts);
    assert_eq!(
        risk.process.unwrap().pid,
        8,
        "not the one that starts others"
    );
    assert!(
        risk.text
            .starts_with("server[8] and 2 more: tcp 127.0.0.1:80")
    );
    facts.survey.processes.clear();
    let risk = only(&facts);
    assert_eq!(risk.process, None);
    assert_eq!(risk.advice.unwrap(), "ss -ltnpe 'sport = :80'");
}

#[test]
fn a_backlog_that_may_have_been_cut() {
    let mut facts = good();
    facts.namespaces[0].listeners = vec![listener(11, 0, 4096)];
    let risk = only(&facts);
    assert_eq!(risk.code, Code::BacklogCut);
    assert_eq!(numbers(&risk), (Some(4096), Some(4096)));
    assert!(risk.text.contains("may have been cut"));
    assert!(risk.text.contains("is not known"));
    // Lowered later.
    facts.namespaces[0].listeners = vec![listener(11, 0, 4097)];
    assert_eq!(risks(&facts), Found::default());
}

#[test]
fn settings_of_a_namespace_where_somebody_listens() {
    let mut facts = good();
    facts
        .namespaces
        .push(namespace(OTHER, vec![listener(12, 0, 128)]));
    facts.survey.processes.push(Surveyed {
        netns: Some(OTHER),
        ..process(9, 5, 2000, &[12])
    });
    facts.namespaces[1].settings = Some(Settings {
        somaxconn: Some(4096),
        abort_on_overflow: Some(1),
        syncookies: Some(0),
    });
    let found = risks(&facts);
    let codes: Vec<Code> = found.risks.iter().map(|risk| risk.code).collect();
    assert_eq!(codes, [Code::SyncookiesOff, Code::AbortOnOverflow]);
    for risk in &found.risks {
        assert_eq!(risk.netns, Some(OTHER));
        assert!(risk.text.contains("in net:[2]"), "{risk:?}");
        let advice = risk.advice.as_ref().unwrap();
        assert!(advice.starts_with("nsenter -t 9 -n sysctl -w "), "{advice}");
    }
    assert_eq!(numbers(&found.risks[0]), (Some(0), None));
    assert_eq!(numbers(&found.risks[1]), (Some(1), None));

    facts.namespaces[1].listeners.clear();
    assert_eq!(risks(&facts), Found::default(), "nobody listens there");
}

#[test]
fn a_listener_of_nobody() {
    let mut facts = good();
    facts.survey.processes.clear();
    facts.held_by_nobody.insert(11);
    let risk = only(&facts);
    assert_eq!(risk.code, Code::HeldByNobody);
    assert!(
        risk.text.starts_with("tcp 127.0.0.1:80: no process"),
        "{risk:?}"
    );
}

#[test]
fn tables_that_fill() {
    let mut facts = good();
    facts.namespaces[0].conntrack = Some(Conntrack {
        count: 81,
        max: Some(100),
        processors: None,
    });
    let risk = only(&facts);
    assert_eq!(risk.code, Code::ConntrackFilling);
    assert_eq!(numbers(&risk), (Some(81), Some(100)));
    let mut other = namespace(OTHER, Vec::new());
    other.conntrack = Some(Conntrack {
        count: 90,
        max: Some(1000),
        processors: None,
    });
    facts.namespaces.push(other);
    let found = risks(&facts);
    assert_eq!(found.risks.len(), 2, "the host's limit holds for all");
    assert_eq!(numbers(&found.risks[1]), (Some(90), Some(100)));
    facts.namespaces.pop();
    facts.namespaces[0].conntrack.as_mut().unwrap().max = None;
    assert_eq!(risks(&facts), Found::default(), "no limit");

    facts.open_files = Some(801);
    let risk = only(&facts);
    assert_eq!(risk.code, Code::FilesFilling);
    assert_eq!(numbers(&risk), (Some(801), Some(1000)));
    assert_eq!(risk.advice.unwrap(), "sysctl -w fs.file-max=2000");
}

#[test]
fn what_could_not_be_read_is_said_and_no_risk() {
    let mut facts = good();
    facts.open_files = None;
    facts.namespaces[0].settings = Some(Settings::default());
    facts.namespaces[0].problem = Some("\x1b no".to_owned());
    facts.survey.processes[0].used = None;
    facts.all_processes = false;
    facts.survey.complete = false;
    facts.survey.unread = 1;
    let found = risks(&facts);
    assert_eq!(found.risks, []);
    assert_eq!(found.unknown.len(), 9, "{found:#?}");
    assert!(found.unknown.iter().all(|line| !line.contains('\x1b')));
}

#[test]
fn the_nearest_come_first_and_names_are_safe_to_show() {
    let mut facts = good();
    facts.survey.processes[0] = Surveyed {
        comm: Some(b"\x1b[2J".to_vec()),
        ..process(7, 1000, 1024, &[11])
    };
    facts.namespaces[0].listeners = vec![listener(11, 4000, 4096)];
    let found = risks(&facts);
    let codes: Vec<Code> = found.risks.iter().map(|risk| risk.code).collect();
    assert_eq!(
        codes,
        [
            Code::QueueFilling,
            Code::FdPressure,
            Code::NofileLow,
            Code::BacklogCut
        ]
    );
    assert!(found.risks.iter().all(|risk| !risk.text.contains('\x1b')));
}

#[test]
fn codes_are_the_same_in_text_and_json() {
    for code in [
        Code::QueueFilling,
        Code::FdPressure,
        Code::ConntrackFilling,
        Code::FilesFilling,
        Code::HeldByNobody,
        Code::NofileLow,
        Code::SyncookiesOff,
        Code::AbortOnOverflow,
        Code::BacklogCut,
    ] {
        assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        let docs = include_str!("../../../../docs/doctor.md");
        assert!(docs.contains(&format!("| `{}`", code.name())), "{code:?}");
    }
}
