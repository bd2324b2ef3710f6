//! One of each.

use serde_json::{Value, json};
use turnaway_common::Reason;

use crate::record::{samples, tests as native};

/// Records of every reason and every type, rich and poor, each with an id.
pub(crate) fn records() -> Vec<Value> {
    let mut records = native::all_records();
    for reason in Reason::ALL.iter().copied() {
        let (failure, who) = match reason {
            Reason::NetConntrackFull => samples::of_conntrack(),
            _ if reason.is_of_connect() => samples::of_connect(reason),
            _ if reason.is_of_descriptors() => samples::of_descriptors(reason),
            _ if reason.is_of_listener() => samples::of_listener(reason),
            _ => {
                let (mut failure, who) = samples::rich();
                failure.key.reason = reason;
                (failure, who)
            }
        };
        records.push(native::event(&failure, &who, Some(1_024)));
        records.push(native::count(&failure, &who));
        for sample in crate::incident::tests::samples() {
            let mut incident = native::value(sample);
            incident["reasons"][0]["reason"] = json!(reason.code());
            records.push(incident.clone());
            incident["status"] = json!("firing");
            records.push(incident.clone());
            incident["time"] = incident["fired"].clone();
            if incident["time"].is_string() {
                records.push(incident);
            }
        }
    }
    // What is in recordings alone goes to no stream.
    let streamed = |record: &&mut Value| {
        !matches!(
            record["type"].as_str(),
            Some("accepted" | "run" | "program")
        )
    };
    for (number, record) in records.iter_mut().filter(streamed).enumerate() {
        record["record_id"] = json!(format!("4f2a09c1-{number}"));
    }
    records
}
