//! What is told, of incidents that are known.

use std::io::Cursor;

use jiff::{SignedDuration, Timestamp, civil::date, tz::TimeZone};

use super::{Facts, gather, html, markdown, remedies, tell, text};
use crate::{
    context::{Cause, Explanation, Healthy, Started, Strength},
    history::{
        Caps, Context, History, Incident, Pressure, Reader, Run, Sample, Wanted, Watch,
        tests::incident,
    },
    incident::tests::samples,
    recurrence::Rhythm,
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn at(day: i8, hour: i8, minute: i8) -> Timestamp {
    berlin()
        .to_timestamp(date(2026, 11, day).at(hour, minute, 0, 0))
        .unwrap()
}

fn over(id: &str, started: Timestamp) -> Incident {
    let mut one = incident(id, started);
    one.ended = Some(started + SignedDuration::from_secs(90));
    one
}

/// An incident of somebody else.
fn other(id: &str, comm: &str, started: Timestamp) -> Incident {
    let mut one = over(id, started);
    let process = one.victim.process.as_mut().unwrap();
    process.comm = Some(comm.to_owned());
    process.unit = Some(format!("{comm}.service"));
    one
}

fn run(program: &str, unit: &str, started: Timestamp, minutes: i64) -> Run {
    Run {
        pid: 77,
        started,
        ended: Some(started + SignedDuration::from_mins(minutes)),
        program: program.to_owned(),
        unit: Some(unit.to_owned()),
        exe: None,
        argv: None,
        parent: None,
    }
}

fn explanation(started: Timestamp) -> Explanation {
    let dump = started - SignedDuration::from_mins(27);
    Explanation {
        taken: started + SignedDuration::from_secs(1),
        started: vec![Started {
            pid: 4711,
            comm: "pg_dump".to_owned(),
            started: dump,
            ended: None,
            exe: Some("/usr/bin/pg_dump".to_owned()),
            argv: Some("pg_dump -Fc shop".to_owned()),
            unit: Some("backup.service".to_owned()),
            parent: Some("systemd".to_owned()),
            clock: Some("backup.timer".to_owned()),
        }],
        started_lost: Some(0),
        healthy: Some(Healthy {
            read: started,
            listener: "0.0.0.0:6432".to_owned(),
            open: 1011,
            carried: 47,
            peers: Vec::new(),
        }),
        trigger: vec![Cause {
            what: "pg_dump (pid 4711, backup.service) began 27 min before".to_owned(),
            kind: "program".to_owned(),
            strength: Strength::Strong,
            evidence: vec!["it used most of the disk".to_owned()],
            pid: Some(4711),
        }],
        ..Explanation::default()
    }
}

/// Three Tuesdays among four weeks of other incidents and of nights on which nothing happened.
fn three_tuesdays(path: &std::path::Path) {
    let history = History::start(path, Caps::default()).unwrap();
    history.watch(Watch {
        from: at(1, 0, 0),
        until: at(27, 0, 0),
    });
    for (number, (minute, lag)) in [(11, 25), (12, 27), (14, 29)].into_iter().enumerate() {
        let day = 10 + 7 * i8::try_from(number).unwrap();
        let started = at(day, 3, minute);
        let id = format!("tuesday-{number}");
        history.incident(over(&id, started));
        history.run(run(
            "pg_dump",
            "backup.service",
            started - SignedDuration::from_mins(lag),
            50,
        ));
        history.context(Context {
            incident: id.clone(),
            taken: started,
            context: serde_json::to_value(explanation(started)).unwrap(),
        });
        for second in 0..90 {
            history.sample(
                &id,
                Sample {
                    time: started + SignedDuration::from_secs(second),
                    failures: 5,
                    queue: Some(129),
                    backlog: Some(128),
                    fd_used: Some(1024),
                    fd_limit: Some(1024),
                    cpu: Some(3.0),
                    io: Some(80.0),
                    memory: Some(0.0),
                },
            );
        }
        history.pressure(Pressure {
            time: started - SignedDuration::from_mins(5),
            cpu: Some(1.0),
            io: Some(60.0),
            memory: None,
        });
    }
    for night in 1..27 {
        history.run(run("logrotate", "logrotate.service", at(night, 3, 0), 30));
    }
    for (number, (day, hour, minute)) in [
        (2, 14, 3),
        (4, 9, 41),
        (5, 22, 17),
        (11, 16, 50),
        (19, 7, 8),
    ]
    .into_iter()
    .enumerate()
    {
        history.incident(other(
            &format!("web-{number}"),
            "web",
            at(day, hour, minute),
        ));
    }
    history.incident(over("friday", at(13, 18, 22)));
    assert!(history.stop(PATIENCE));
}

fn told(wanted: &Wanted) -> Facts {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(crate::history::FILE);
    three_tuesdays(&path);
    let reader = Reader::open(&path).unwrap();
    gather::from_history(&reader, wanted, at(26, 9, 0), &berlin()).unwrap()
}

#[test]
fn three_tuesdays_are_told_as_what_they_are() {
    let facts = told(&Wanted::default());
    assert_eq!(facts.incidents.len(), 9);
    let again = &facts.recurrences;
    let pooler = again
        .iter()
        .find(|again| again.subject.contains("pgbouncer"))
        .unwrap();
    let pattern = pooler.recurrence.pattern.as_ref().unwrap();
    assert_eq!(pattern.rhythm, Rhythm::Weekly);
    assert_eq!(
        (pattern.hits.len(), pattern.others, pattern.missed.len()),
        (3, 1, 0)
    );
    let next = berlin().to_timestamp(date(2026, 12, 1).at(3, 13, 0, 0));
    assert_eq!(pattern.next, Some(next.unwrap()));
    let text = text::text(&tell(&facts, &berlin(), false));
    assert!(
        text.contains("weekly, Tuesday 03:13 ± 2 min: 3 times, never missed"),
        "{text}"
    );
    assert!(
        text.contains("pg_dump in backup.service began 25 to 29 min before in 3 of 3, and never without an incident"),
        "{text}"
    );
    assert!(text.contains("next Tuesday 2026-12-01 03:13 CET"), "{text}");
    let dump = pooler.before.first().unwrap();
    assert_eq!((dump.runs, dump.without), (3, 0));
    let nightly = pooler
        .before
        .iter()
        .find(|one| one.program.contains("logrotate"))
        .unwrap();
    assert_eq!((nightly.before, nightly.without), (3, 23));
    let web = again
        .iter()
        .find(|again| again.subject.contains("web"))
        .unwrap();
    assert_eq!(web.recurrence.pattern, None, "{}", web.recurrence.words);
}

#[test]
fn one_is_told_in_full() {
    let facts = told(&Wanted {
        id: Some("tuesday-2".to_owned()),
        ..Wanted::default()
    });
    assert_eq!(facts.incidents.len(), 1);
    let blocks = tell(&facts, &berlin(), false);
    let text = text::text(&blocks);
    for words in [
        "pgbouncer (pid 812, pgbouncer.service)",
        "0.0.0.0:6432",
        "1024 of 1024",
        "pg_dump (pid 4711, backup.service) began 27 min before (strong)",
        "it used most of the disk",
        "1011 open connections of 0.0.0.0:6432, 47 of which carried data meanwhile",
        "systemctl edit pgbouncer.service",
        "risk: ",
        "weekly, Tuesday 03:13",
        "by backup.timer",
        "lasted       1 min 30 s",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("prlimit"), "it is over: {text}");
    let markdown = markdown::markdown(&blocks);
    assert!(
        markdown.contains("```sh\nsystemctl edit pgbouncer.service"),
        "{markdown}"
    );
    assert!(markdown.contains("pg\\_dump"), "{markdown}");
    let html = html::html(&blocks, "made", &berlin());
    for plot in ["Failures", "Accept queue", "Descriptors", "Pressure"] {
        assert!(html.contains(&format!("data-plot=\"{plot}\"")), "{plot}");
    }
    assert!(
        html.contains("data-line=\"open\" data-max=\"1024\""),
        "{html}"
    );
    let json = serde_json::to_value(&facts).unwrap();
    assert_eq!(json["incidents"][0]["incident"]["id"], "tuesday-2");
    assert_eq!(json["recurrences"][0]["before"][0]["lag_min_s"], 25 * 60);
    assert_eq!(
        json["recurrences"][0]["recurrence"]["pattern"]["cron"],
        "13 3 * * 2"
    );
}

#[test]
fn an_id_that_is_none_or_several_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(crate::history::FILE);
    three_tuesdays(&path);
    let reader = Reader::open(&path).unwrap();
    let error = |id: &str| {
        let wanted = Wanted {
            id: Some(id.to_owned()),
            ..Wanted::default()
        };
        let told = gather::from_history(&reader, &wanted, at(26, 9, 0), &berlin());
        format!("{:#}", told.unwrap_err())
    };
    assert!(error("nothing").contains("there is no incident nothing"));
    assert!(error("tuesday").contains("3 incidents begin with tuesday"));
    // An id is no pattern.
    assert!(error("%").contains("there is no incident %"));
}

#[test]
fn recorded_incidents_are_told_as_they_are() {
    let mut lines = String::new();
    for record in samples() {
        lines.push_str(&serde_json::to_string(&record).unwrap());
        lines.push('\n');
    }
    lines.push_str("no record\n");
    let zone = TimeZone::UTC;
    let (facts, totals) = gather::from_lines(
        Cursor::new(lines),
        crate::rules::Rules::default(),
        &Wanted::default(),
        &zone,
    )
    .unwrap();
    assert_eq!(totals.broken, 1);
    let last = samples().pop().unwrap();
    let told = facts
        .incidents
        .iter()
        .find(|one| one.incident.id == last.id)
        .unwrap();
    assert_eq!(told.incident, Incident::of(&last).unwrap());
}

#[test]
fn what_helps_depends_on_what_is_wrong() {
    let mut one = incident("a", at(1, 0, 0));
    one.ended = None;
    let how = |one: &Incident| -> Vec<String> {
        remedies(one, None)
            .into_iter()
            .map(|remedy| remedy.how)
            .collect()
    };
    assert_eq!(how(&one)[0], "prlimit --pid 812 --nofile=65536:65536");
    // What the hard limit allows takes no more.
    let mut explanation = crate::context::types::tests::sample();
    explanation.victim.as_mut().unwrap().hard = Some(20_000);
    let found = remedies(&one, Some(&explanation));
    assert_eq!(found[0].how, "prlimit --pid 812 --nofile=20000:");
    one.reasons.truncate(1);
    one.reasons[0].reason = crate::observation::Code::new("queue.syn_overflow");
    one.victim.process.as_mut().unwrap().comm = Some("redis-server".to_owned());
    let found = how(&one);
    assert!(
        found.contains(&"redis.conf: tcp-backlog 4096".to_owned()),
        "{found:?}"
    );
    assert!(
        found.iter().all(|how| !how.contains("prlimit")),
        "{found:?}"
    );
    for remedy in remedies(&one, None) {
        assert!(!remedy.risk.is_empty());
    }
}

#[test]
fn names_from_outside_are_text_in_every_form() {
    let evil = "</title><script>alert(1)</script>\u{1b}[2J\u{202e}`rm -rf`|x|<img src=//evil>";
    let mut one = over("a\"><script>", at(1, 0, 0));
    one.statement = evil.to_owned();
    one.victim.process.as_mut().unwrap().comm = Some(evil.to_owned());
    one.victim.process.as_mut().unwrap().cgroup = Some(evil.to_owned());
    one.timeline[0].text = evil.to_owned();
    let mut two = one.clone();
    two.started += SignedDuration::from_hours(1);
    let lines = format!(
        "{{\"type\":\"incident\",{}\n{{\"type\":\"incident\",{}\n",
        &serde_json::to_string(&one).unwrap()[1..],
        &serde_json::to_string(&Incident {
            id: "b".to_owned(),
            ..two
        })
        .unwrap()[1..],
    );
    let zone = TimeZone::UTC;
    for wanted in [
        Wanted::default(),
        Wanted {
            newest: Some(1),
            ..Wanted::default()
        },
    ] {
        let (facts, _) = gather::from_lines(
            Cursor::new(&lines),
            crate::rules::Rules::default(),
            &wanted,
            &zone,
        )
        .unwrap();
        assert!(!facts.incidents.is_empty());
        let blocks = tell(&facts, &zone, true);
        let html = html::html(&blocks, evil, &zone);
        assert!(!html.contains("<script"), "{html}");
        assert!(!html.contains("<img"));
        assert!(!html.contains('\u{202e}'));
        let text = text::text(&blocks);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        let markdown = markdown::markdown(&blocks);
        assert!(!markdown.contains("<script>"), "{markdown}");
        assert!(!markdown.contains('\u{1b}'));
    }
}

#[test]
fn nothing_is_no_failure() {
    let zone = TimeZone::UTC;
    let (facts, _) = gather::from_lines(
        Cursor::new(""),
        crate::rules::Rules::default(),
        &Wanted::default(),
        &zone,
    )
    .unwrap();
    assert_eq!(text::text(&tell(&facts, &zone, false)), "No incidents.\n");
}
