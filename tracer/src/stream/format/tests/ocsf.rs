//! OCSF against its published classes and objects.

use serde_json::{Value, json};

use super::{Format, converted, published::Ocsf, samples::records};
use crate::stream::format::ocsf::VERSION;

#[test]
fn every_record_is_of_a_published_class() {
    let facts = Ocsf::read();
    for record in records() {
        let ocsf = converted(Format::Ocsf, &record);
        assert_eq!(facts.wrong(&ocsf), Vec::<String>::new(), "{ocsf:#}");
        assert!(ocsf["message"].is_string(), "{ocsf:#}");
        assert_eq!(ocsf["metadata"].get("uid"), record.get("record_id"));
        let reason = record["reason"]
            .as_str()
            .or(record["reasons"][0]["reason"].as_str());
        let class = match (record["type"].as_str(), reason) {
            (Some("incident"), _) => 2_004,
            (_, Some(reason)) if reason.starts_with("fd.") => 6_008,
            (_, Some(_)) => 4_001,
            _ => 0,
        };
        assert_eq!(ocsf["class_uid"], class);
    }
}

#[test]
fn what_is_not_published_is_found() {
    let facts = Ocsf::read();
    let record = records()
        .into_iter()
        .find(|record| record["type"] == "event");
    let good = converted(Format::Ocsf, &record.expect("an event"));
    assert_eq!(facts.wrong(&good), Vec::<String>::new());
    for (pointer, value, says) in [
        ("/class_uid", Value::from(7), "no class"),
        ("/activity_id", 44.into(), "never 44"),
        ("/activity_id", 1.into(), "another class or activity"),
        ("/activity_name", "Open".into(), "not named"),
        ("/status_id", "2".into(), "no integer_t"),
        ("/time", "2026-11-24T03:12:04Z".into(), "no timestamp_t"),
        ("/time_dt", "yesterday".into(), "no datetime_t"),
        ("/src_endpoint/ip", "db1".into(), "no ip_t"),
        ("/src_endpoint/port", 65_536.into(), "no port_t"),
        ("/actor/process", json!({"name": "x"}), "at_least_one"),
        ("/actor/process/comm", "x".into(), "no attribute"),
        ("/metadata/profiles", vec!["host"].into(), "not declared"),
        ("/metadata/version", "1.0.0".into(), "another version"),
        ("/unmapped", "x".into(), "no object"),
    ] {
        let mut bad = good.clone();
        let (object, name) = pointer.rsplit_once('/').expect("a pointer");
        bad.pointer_mut(object).expect(object)[name] = value;
        let said = facts.wrong(&bad);
        assert!(
            said.iter().any(|said| said.contains(says)),
            "{pointer}: {said:?}"
        );
    }
    for required in [
        "metadata",
        "time",
        "severity_id",
        "type_uid",
        "category_uid",
    ] {
        let mut bad = good.clone();
        bad.as_object_mut().expect("an object").remove(required);
        let said = format!(".{required} is required");
        assert!(facts.wrong(&bad).contains(&said), "{required}");
    }
    let mut bad = good;
    for end in ["src_endpoint", "dst_endpoint"] {
        bad.as_object_mut().expect("an object").remove(end);
    }
    assert!(
        facts.wrong(&bad)[0].contains("at_least_one"),
        "{:?}",
        facts.wrong(&bad)
    );
    assert_eq!(VERSION, "1.8.0");
}
