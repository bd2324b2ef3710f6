//! Every reason in every type of record, in every format, against what the formats' owners publish.

mod docs;
mod ecs;
mod ocsf;
mod published;
pub(crate) mod samples;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use turnaway_common::Reason;

use super::{Format, convert};
use samples::records;

/// The texts and numbers in a value, as text.
fn leaves(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.values().for_each(|value| leaves(value, into)),
        Value::Array(list) => list.iter().for_each(|value| leaves(value, into)),
        Value::String(text) => {
            into.insert(text.clone());
        }
        other => {
            into.insert(other.to_string());
        }
    }
}

fn converted(format: Format, record: &Value) -> Value {
    // Through text, as it comes and goes.
    let record = serde_json::from_str(&record.to_string()).expect("an object");
    let told = serde_json::to_string(&convert(format, record)).expect("JSON");
    // A field that is there twice would be an error of its own.
    let fields = serde_json::from_str::<super::Object>(&told).expect("JSON");
    let again = serde_json::to_string(&fields).expect("JSON");
    assert_eq!(again.len(), told.len());
    serde_json::from_str(&told).expect("JSON")
}

#[test]
fn the_samples_are_of_every_reason_and_every_type() {
    let records = records();
    for kind in ["event", "count", "incident"] {
        for reason in Reason::ALL {
            let is_of = |record: &Value| {
                let code = json!(reason.code());
                record["type"] == kind
                    && (record["reason"] == code || record["reasons"][0]["reason"] == code)
            };
            assert!(records.iter().any(is_of), "{kind} of {}", reason.code());
        }
    }
    for kind in ["summary", "heartbeat", "accepted", "run", "program"] {
        assert!(
            records.iter().any(|record| record["type"] == kind),
            "{kind}"
        );
    }
}

#[test]
fn nothing_that_a_record_says_is_lost() {
    for record in records() {
        for format in Format::ALL {
            let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
            leaves(&record, &mut before);
            leaves(&converted(format, &record), &mut after);
            let lost: Vec<_> = before.difference(&after).collect();
            assert!(lost.is_empty(), "{format:?}: {lost:?} of {record:#}");
        }
    }
}

#[test]
fn native_is_as_it_is() {
    for record in records() {
        assert_eq!(converted(Format::Native, &record), record);
    }
}

#[test]
fn what_is_no_record_stays_whole() {
    for odd in [
        json!({}),
        json!({"type": 7, "time": "x", "host": [], "process": "y", "listener": 1, "reason": {}}),
        json!({
            "type": "event", "reason": "accept.emfile", "time": "2026-02-30T00:00:00Z", "host": "h",
            "process": {"pid": "812", "uid": -1, "parent": 1, "container": {"pod": 1, "image": 2}},
            "listener": {"port": 4_294_967_296_u64, "address": "nowhere"}, "peer": {"port": -1}
        }),
        json!({"type": "incident", "victim": {"process": {"comm": "x"}}, "reasons": [1], "listeners": [2]}),
        json!({"type": "count", "reason": "quite.new", "count": u64::MAX, "first": 1, "last": "y"}),
    ] {
        for format in Format::ALL {
            let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
            leaves(&odd, &mut before);
            leaves(&converted(format, &odd), &mut after);
            let lost: Vec<_> = before.difference(&after).collect();
            assert!(lost.is_empty(), "{format:?}: {lost:?} of {odd:#}");
        }
    }
}
