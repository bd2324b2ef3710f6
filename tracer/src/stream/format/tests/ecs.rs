//! ECS against its published fields.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{Format, converted, published, samples::records};
use crate::stream::format::ecs::VERSION;

/// What is wrong with a record.
fn wrong(record: &Value) -> Vec<String> {
    let facts = published(include_str!("../testdata/ecs-9.4.0.json"));
    let mut said = Vec::new();
    let fields = facts["fields"].as_object().expect("fields");
    walk("", record, fields, &mut said);
    for (name, field) in fields {
        let pointer = format!("/{}", name.replace('.', "/"));
        if field["required"] == true && record.pointer(&pointer).is_none() {
            said.push(format!("{name} is required"));
        }
    }
    let event = &record["event"];
    let list = |name: &str| event[name].as_array().cloned().unwrap_or_default();
    for kind in list("type") {
        let is_expected = list("category").iter().any(|category| {
            let expected = &facts["expected_event_types"][category.as_str().unwrap_or_default()];
            expected
                .as_array()
                .is_some_and(|expected| expected.contains(&kind))
        });
        if !is_expected {
            said.push(format!("{kind} is not expected in {}", event["category"]));
        }
    }
    if record["ecs"]["version"] != facts["version"] {
        said.push("another version".to_owned());
    }
    said
}

fn walk(prefix: &str, value: &Value, fields: &Map<String, Value>, said: &mut Vec<String>) {
    for (name, value) in value.as_object().expect("an object") {
        let name = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        if name == "turnaway" {
            continue;
        }
        let Some(field) = fields.get(&name) else {
            if value.is_object() {
                walk(&name, value, fields, said);
            } else {
                said.push(format!("{name} is no field"));
            }
            continue;
        };
        let values = match (field["array"] == true, value) {
            (true, Value::Array(list)) => list.clone(),
            (true, _) => {
                said.push(format!("{name} is a list"));
                continue;
            }
            (false, value) => vec![value.clone()],
        };
        for value in values {
            let kind = field["type"].as_str().expect("a type");
            if !is_of_type(kind, &value) {
                said.push(format!("{name} is no {kind}: {value}"));
            }
            let allowed = field["allowed"].as_array();
            if allowed.is_some_and(|allowed| !allowed.contains(&value)) {
                said.push(format!("{name} is never {value}"));
            }
        }
    }
}

fn is_of_type(kind: &str, value: &Value) -> bool {
    match kind {
        "keyword" | "wildcard" | "match_only_text" | "constant_keyword" => value.is_string(),
        "long" => value.is_i64(),
        "date" => value
            .as_str()
            .is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok()),
        "ip" => value
            .as_str()
            .is_some_and(|ip| ip.parse::<IpAddr>().is_ok()),
        "boolean" => value.is_boolean(),
        other => panic!("{other}: no record has such a field"),
    }
}

#[test]
fn every_record_has_published_fields_only() {
    for record in records() {
        let ecs = converted(Format::Ecs, &record);
        assert_eq!(wrong(&ecs), Vec::<String>::new(), "{ecs:#}");
        assert!(ecs["message"].is_string(), "{ecs:#}");
        let is_alert = ecs["event"]["kind"] == "alert";
        assert_eq!(is_alert, record["type"] == "incident");
        assert_eq!(ecs["event"].get("id"), record.get("record_id"));
    }
}

#[test]
fn what_is_not_published_is_found() {
    let record = records()
        .into_iter()
        .find(|record| record["type"] == "event");
    let good = converted(Format::Ecs, &record.expect("an event"));
    for (pointer, value, says) in [
        ("/event/kind", "failure".into(), "never"),
        ("/event/category", "network".into(), "a list"),
        ("/event/category", vec!["database"].into(), "not expected"),
        ("/process/pid", "812".into(), "no long"),
        ("/process/comm", "x".into(), "no field"),
        ("/source", serde_json::json!({"ip": "db1"}), "no ip"),
        ("/ecs/version", "8.0.0".into(), "another"),
        ("/@timestamp", Value::from("yesterday"), "no date"),
    ] {
        let mut bad = good.clone();
        let (object, name) = pointer.rsplit_once('/').expect("a pointer");
        bad.pointer_mut(object).expect(object)[name] = value;
        assert!(
            wrong(&bad).iter().any(|said| said.contains(says)),
            "{pointer}: {:?}",
            wrong(&bad)
        );
    }
    let mut bad = good;
    bad.as_object_mut().expect("an object").remove("@timestamp");
    assert_eq!(wrong(&bad), ["@timestamp is required"]);
    assert_eq!(VERSION, "9.4.0");
}
