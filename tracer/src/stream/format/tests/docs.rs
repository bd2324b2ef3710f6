//! What the documentation says is so, and it says all.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Format, converted, samples::records};
use crate::stream::format::{ecs, ocsf};

const DOCUMENT: &str = include_str!("../../../../../docs/formats.md");
const RECORDS: &str = include_str!("../../../../../docs/records.md");

/// The fields of a record, but for those of our own.
fn fields(prefix: &str, value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let place = match prefix {
                    "" => name.clone(),
                    // The same object in two places is documented once.
                    "evidences[].process" => format!("actor.process.{name}"),
                    _ => format!("{prefix}.{name}"),
                };
                if !matches!(&*place, "turnaway" | "unmapped") {
                    fields(&place, value, into);
                }
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for value in list {
                fields(&format!("{prefix}[]"), value, into);
            }
        }
        _ => {
            into.insert(prefix.to_owned());
        }
    }
}

#[test]
fn every_field_is_documented() {
    let mut all = BTreeSet::new();
    for record in records() {
        for format in [Format::Ecs, Format::Ocsf] {
            fields("", &converted(format, &record), &mut all);
        }
    }
    let undocumented: Vec<_> = all
        .iter()
        .filter(|field| !DOCUMENT.contains(&format!("`{field}`")))
        .collect();
    assert_eq!(undocumented, Vec::<&String>::new());
    // And nothing that is not there: what looks like a field is one.
    let words = DOCUMENT.split('`').skip(1).step_by(2);
    let columns = [
        "event.",
        "actor.",
        "finding_info.",
        "orchestrator.",
        "connection_info.",
        "device.",
    ];
    for word in words.filter(|word| columns.iter().any(|column| word.starts_with(column))) {
        let within = format!("{word}.");
        let is_there = all
            .iter()
            .any(|field| field == word || field.starts_with(&within));
        assert!(is_there, "{word} is documented and never there");
    }
    for version in [ecs::VERSION, ocsf::VERSION] {
        assert!(DOCUMENT.contains(&format!("({version})")), "{version}");
    }
}

fn block<'a>(text: &'a str, begins: &str) -> &'a str {
    let (_, block) = text.split_once(begins).expect(begins);
    block.split_once("```").expect("a closed block").0
}

#[test]
fn the_documents_examples_are_what_is_told() {
    let mut record: Value = serde_json::from_str(block(RECORDS, "```json\n")).expect("JSON");
    record["record_id"] = json!("1b4e28ba2fa111d2883f0016d3cca427-481");
    for (format, begins) in [
        (Format::Ecs, "```json ecs\n"),
        (Format::Ocsf, "```json ocsf\n"),
    ] {
        let mut example: Value = serde_json::from_str(block(DOCUMENT, begins)).expect("JSON");
        if let Some(version) = example.pointer_mut("/metadata/product/version") {
            *version = env!("CARGO_PKG_VERSION").into();
        }
        assert_eq!(example, converted(format, &record), "{format:?}");
    }
}
