//! What is chosen to be shown: fields, columns, users.

use std::path::Path;

use serde_json::Value;
use turnaway_tests::scenario::run::Actor;
use turnaway_tests::tracer::{self, Tracer};

fn start(arguments: &[&str]) -> Tracer {
    Tracer::start(&tracer::binary().unwrap(), arguments).unwrap()
}

#[test]
fn fields_columns_and_users_that_are_asked_for_are_shown_and_no_others() {
    let program = Path::new(env!("CARGO_BIN_EXE_turnaway-scenarios"));
    let mut actor = Actor::start(program, "emfile").unwrap();
    let pid = actor.pid().to_string();
    let of = |more: &[&'static str]| {
        let mut arguments = vec!["-p", pid.as_str(), "--reason", "accept.emfile"];
        arguments.extend(more);
        start(&arguments)
    };
    let records = of(&[
        "--json",
        "--fields",
        "reason,process.pid,count",
        "-U",
        "root",
    ]);
    let strangers = of(&["--json", "-U", "4321"]);
    let columns = of(&["-T", "--fields", "errno,pid,time"]);
    let tally = actor.act().unwrap();
    let failures: u64 = tally.failures.iter().map(|one| one.count).sum();
    assert!(failures > 0);
    actor.finish().unwrap();
    let [records, strangers, columns] =
        [records, strangers, columns].map(|tracer| tracer.stop().unwrap());

    let mut counted = 0;
    for line in String::from_utf8(records.output).unwrap().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["reason"], "accept.emfile", "{line}");
        assert_eq!(record["process"], serde_json::json!({"pid": tally.pids[0]}));
        let count = record.get("count").and_then(Value::as_u64);
        assert_eq!(
            record.as_object().unwrap().len(),
            if count.is_some() { 3 } else { 2 },
            "{line}"
        );
        counted += count.unwrap_or(0);
    }
    assert_eq!(counted, failures);

    let nobody: Value = serde_json::from_slice(&strangers.output).unwrap();
    assert_eq!(nobody["type"], "summary");
    assert_eq!(nobody["totals"], serde_json::json!([]), "root is not 4321");

    let text = String::from_utf8(columns.output).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap().trim_end(), "ERRNO    PID     TIME");
    let first: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(first[..2], ["EMFILE", pid.as_str()], "{text}");
    let time: jiff::Timestamp = first[2].parse().unwrap();
    let ago = jiff::Timestamp::now().duration_since(time);
    assert!(ago.as_secs() < 3600, "{time}");
}
