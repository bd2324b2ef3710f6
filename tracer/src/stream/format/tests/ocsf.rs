//! OCSF against its published classes and objects.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::{Format, converted, published, samples::records};
use crate::stream::format::ocsf::VERSION;

/// What is published, and how its patterns are checked.
struct Facts(Map<String, Value>, BTreeMap<String, Validator>);

impl Facts {
    fn read() -> Self {
        let facts = published(include_str!("../testdata/ocsf-1.8.0.json"));
        let types = facts["types"].as_object().expect("types");
        let patterns = types
            .iter()
            .filter_map(|(name, facts)| Some((name.clone(), facts.get("regex")?)))
            .map(|(name, pattern)| {
                let schema = json!({ "pattern": pattern });
                (name, jsonschema::validator_for(&schema).expect("a pattern"))
            })
            .collect();
        Self(facts, patterns)
    }

    /// What is wrong with a record.
    fn wrong(&self, record: &Value) -> Vec<String> {
        let mut said = Vec::new();
        let class = &self.0["classes"][record["class_uid"].to_string()];
        if class.is_null() {
            return vec![format!("{} is no class", record["class_uid"])];
        }
        let profiles = &record["metadata"]["profiles"];
        self.check("", record, class, profiles, &mut said);
        let number = |name: &str| record[name].as_u64().unwrap_or(u64::MAX);
        if number("type_uid") != number("class_uid") * 100 + number("activity_id") {
            said.push("type_uid is of another class or activity".to_owned());
        }
        if record["metadata"]["version"] != self.0["version"] {
            said.push("another version".to_owned());
        }
        if let (Some(start), Some(end), Some(duration)) = (
            record["start_time"].as_i64(),
            record["end_time"].as_i64(),
            record["duration"].as_i64(),
        ) && end - start != duration
        {
            said.push("duration is of another time".to_owned());
        }
        said
    }

    /// Checks an object against a class or an object that is published.
    fn check(
        &self,
        at: &str,
        value: &Value,
        published: &Value,
        profiles: &Value,
        said: &mut Vec<String>,
    ) {
        let attributes = published["attributes"].as_object().expect("attributes");
        let Some(object) = value.as_object() else {
            said.push(format!("{at} is no object"));
            return;
        };
        for (name, attribute) in attributes {
            if attribute["required"] == true && !object.contains_key(name) {
                said.push(format!("{at}.{name} is required"));
            }
        }
        for (constraint, allows) in [("at_least_one", 1..=usize::MAX), ("just_one", 1..=1)] {
            if let Some(names) = published[constraint].as_array() {
                let there = names.iter().filter_map(Value::as_str);
                if !allows.contains(&there.filter(|name| object.contains_key(*name)).count()) {
                    said.push(format!("{at}: {constraint} of {names:?}"));
                }
            }
        }
        for (name, value) in object {
            let at = format!("{at}.{name}");
            let Some(attribute) = attributes.get(name) else {
                said.push(format!("{at} is no attribute"));
                continue;
            };
            let profile = &attribute["profile"];
            let is_declared = profiles.as_array().is_some_and(|all| all.contains(profile));
            if !profile.is_null() && !is_declared {
                said.push(format!("{at} is of {profile}, which is not declared"));
            }
            match (attribute["array"] == true, value) {
                (true, Value::Array(list)) => {
                    for value in list {
                        self.one(&at, value, attribute, profiles, said);
                    }
                }
                (true, _) => said.push(format!("{at} is a list")),
                (false, value) => self.one(&at, value, attribute, profiles, said),
            }
            // The name of a number is the one that is published for it, unless it is another.
            if let (Some(id), Some(names)) = (value.as_u64(), attribute["enum"].as_object()) {
                let sibling = match &**name {
                    "activity_id" => "activity_name".to_owned(),
                    "class_uid" | "category_uid" => name.replace("_uid", "_name"),
                    name => name.trim_end_matches("_id").to_owned(),
                };
                if let (Some(named), true) = (object.get(&sibling), id != 99)
                    && names.get(&id.to_string()) != Some(named)
                {
                    said.push(format!("{at}: {id} is not named {named}"));
                }
            }
        }
    }

    fn one(
        &self,
        at: &str,
        value: &Value,
        attribute: &Value,
        profiles: &Value,
        said: &mut Vec<String>,
    ) {
        match attribute["object"].as_str() {
            Some("object") => {
                if !value.is_object() {
                    said.push(format!("{at} is no object"));
                }
                return;
            }
            Some(object) => {
                self.check(at, value, &self.0["objects"][object], profiles, said);
                return;
            }
            None => {}
        }
        let kind = attribute["type"].as_str().expect("a type");
        if !self.is_of_type(kind, value) {
            said.push(format!("{at} is no {kind}: {value}"));
        }
        if let Some(names) = attribute["enum"].as_object()
            && !names.contains_key(&value.to_string())
        {
            said.push(format!("{at} is never {value}"));
        }
    }

    fn is_of_type(&self, kind: &str, value: &Value) -> bool {
        let facts = &self.0["types"][kind];
        let is_of_base = match facts["is"].as_str().unwrap_or(kind) {
            "string_t" => value.is_string(),
            "integer_t" => value
                .as_i64()
                .is_some_and(|number| i32::try_from(number).is_ok()),
            "long_t" => value.is_i64(),
            "boolean_t" => value.is_boolean(),
            other => panic!("{other}: no record has such an attribute"),
        };
        let is_in = |range: &Vec<Value>| {
            let ends = (range[0].as_i64(), range[1].as_i64());
            value.as_i64() >= ends.0 && value.as_i64() <= ends.1
        };
        is_of_base
            && self
                .1
                .get(kind)
                .is_none_or(|pattern| pattern.is_valid(value))
            && facts["range"].as_array().is_none_or(is_in)
    }
}

#[test]
fn every_record_is_of_a_published_class() {
    let facts = Facts::read();
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
    let facts = Facts::read();
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
