//! Records against what the owners of formats publish: names, types, enumerations, what is required. Here for
//! the unit tests, and for those that read what real receivers got.

use std::{collections::BTreeMap, net::IpAddr};

use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// An object of published facts.
fn published(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("an object")
}

/// What is wrong with a record in the words of ECS.
pub(crate) fn ecs(record: &Value) -> Vec<String> {
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

/// What is published of OCSF, and how its patterns are checked.
pub(crate) struct Ocsf(Map<String, Value>, BTreeMap<String, Validator>);

impl Ocsf {
    pub(crate) fn read() -> Self {
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

    /// What is wrong with a record in the words of OCSF.
    pub(crate) fn wrong(&self, record: &Value) -> Vec<String> {
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
