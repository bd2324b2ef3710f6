//! Live values and their records say the same.

use turnaway_common::Reason;

use super::{Kind, Line, Observation, parse};
use crate::{
    attribute::Who,
    event::{Count, Failure},
    record::{
        CountRecord, Event, Failures,
        samples::{self, AT_NS, clock},
    },
};

fn samples() -> Vec<(Failure, Who)> {
    let mut all = vec![
        samples::rich(),
        samples::minimal(),
        samples::hostile(),
        samples::of_conntrack(),
    ];
    for reason in [Reason::QueueSynOverflow, Reason::QueueStalled] {
        all.push(samples::of_listener(reason));
    }
    for reason in [Reason::ConnectRefused, Reason::QueueUnixFull] {
        all.push(samples::of_connect(reason));
    }
    let (mut ended, who) = samples::of_listener(Reason::QueueStalled);
    ended.ended = true;
    all.push((ended, who));
    all
}

fn read(line: &str) -> Observation {
    match parse(line) {
        Ok(Line::Seen(seen)) => *seen,
        other => panic!("{other:?} of {line}"),
    }
}

#[test]
fn an_event_and_its_record_are_the_same() {
    for (failure, who) in samples() {
        let live = Observation::of_failure("db1", &failure, &who, Some(1_020), &clock());
        let record = Event::new("db1", &failure, &who, Some(1_020), &clock());
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(read(&line), live, "{line}");
        assert_eq!(live.count(), 0);
    }
}

#[test]
fn a_count_and_its_record_are_the_same() {
    for (failure, who) in samples() {
        let count = Count {
            key: failure.key,
            count: 12_345,
            first_ns: AT_NS - 1_000_000_000,
            last_ns: AT_NS,
            process: failure.process.clone(),
            listener: failure.listener.clone(),
            waited_max_ns: failure.waited_ns,
            approximate: failure.waited_ns.is_some(),
        };
        let time = clock().wall_of_monotonic(AT_NS + 5);
        let live = Observation::of_count("db1", time, &count, &who, &clock());
        let failures = Failures::of_count(&count, &who);
        let record = CountRecord::new("db1", time, &failures, &clock());
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(read(&line), live, "{line}");
        assert_eq!(live.count(), 12_345);
    }
}

#[test]
fn states_begin_and_end() {
    let (mut failure, who) = samples::of_listener(Reason::QueueStalled);
    let kind =
        |failure: &Failure| Observation::of_failure("db1", failure, &who, None, &clock()).kind;
    assert_eq!(kind(&failure), Kind::Began);
    failure.ended = true;
    assert_eq!(kind(&failure), Kind::Ended);
}

#[test]
fn what_is_no_record_is_said_so() {
    for (line, words) in [
        ("nonsense", "expected"),
        ("{}", "schema"),
        ("[1]", "invalid"),
        (r#"{"schema":"turnaway/2","type":"event"}"#, "turnaway/2"),
        (r#"{"schema":"turnaway/1","type":"event"}"#, "time"),
        (
            r#"{"schema":"turnaway/1","type":"count","time":"2026-11-24T03:12:04Z","host":"a","reason":"x"}"#,
            "without count",
        ),
        (
            r#"{"schema":"turnaway/1","type":"count","time":"2026-11-24T03:12:04Z","host":"a","reason":"x","count":-1}"#,
            "-1",
        ),
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.contains(words), "{error} of {line}");
    }
    for line in ["", "  ", r#"{"schema":"turnaway/1","type":"heartbeat"}"#] {
        assert_eq!(parse(line), Ok(Line::Other));
    }
    assert_eq!(
        parse(r#"{"schema":"turnaway/1","type":"summary"}"#),
        Ok(Line::End)
    );
}

#[test]
fn a_code_of_a_later_version_is_kept() {
    let line = r#"{"schema":"turnaway/1","type":"event","time":"2026-11-24T03:12:04Z","host":"a","reason":"queue.brandnew"}"#;
    assert_eq!(read(line).reason.as_str(), "queue.brandnew");
}

#[test]
fn names_are_bounded() {
    let line = format!(
        r#"{{"schema":"turnaway/1","type":"event","time":"2026-11-24T03:12:04Z","host":"{}","reason":"x"}}"#,
        "é".repeat(9_999)
    );
    assert_eq!(read(&line).host.len(), super::MAX_TEXT);
}
