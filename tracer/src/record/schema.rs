//! The JSON Schema of the records, made from their types (docs/schema).
//!
//! Types say what fields there are, which are always there, and what they hold. The rest is said here.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    AcceptedRecord, CountRecord, Event, HeartbeatRecord, ProgramRecord, RunRecord, SCHEMA, Summary,
};
use crate::{incident::IncidentRecord, stream::entry::Kind};

/// The types of records: all that `type` may be.
pub const TYPES: [&str; 8] = [
    "event",
    "count",
    "summary",
    "incident",
    "heartbeat",
    "accepted",
    "run",
    "program",
];

/// Fields that are always there today, and are not in records that were published before they were.
const LATER: [(&str, &str); 2] = [("heartbeat", "ruled_out"), ("heartbeat", "blind")];

/// What records have in a stream alone.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "these are added to the text of a record")]
struct OfStream {
    /// Only in what goes to a stream: unlike that of every other record of any host.
    record_id: String,
    /// Only in what goes to a stream.
    stream: LeftOut,
}

/// What did not go to this stream since the record before.
#[derive(JsonSchema)]
#[schemars(rename = "left_out")]
#[expect(dead_code, reason = "it is added to the text of a record")]
struct LeftOut {
    /// Exemplars above the stream's rate.
    withheld: u64,
    /// Records that there was no room for, or that were damaged.
    lost: u64,
}

/// The schema of all records.
#[must_use]
pub fn all() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    generator.subschema_for::<Event>();
    generator.subschema_for::<CountRecord>();
    generator.subschema_for::<Summary>();
    generator.subschema_for::<IncidentRecord>();
    generator.subschema_for::<HeartbeatRecord>();
    generator.subschema_for::<AcceptedRecord>();
    generator.subschema_for::<RunRecord>();
    generator.subschema_for::<ProgramRecord>();
    let of_stream = generator.root_schema_for::<OfStream>();
    let mut definitions = generator.take_definitions(true);
    // It is in the others, and no record.
    definitions.remove("OfStream");
    for definition in definitions.values_mut() {
        tidy(definition);
    }
    let mut definitions = Value::Object(definitions);
    let mut of_stream = of_stream.to_value();
    tidy(&mut of_stream);
    for name in TYPES {
        let fields = &mut definitions[name]["properties"];
        fields["schema"] = json!({ "const": SCHEMA });
        fields["type"] = json!({ "const": name });
        if Kind::ALL.iter().any(|kind| kind.name() == name) {
            for (field, what) in of_stream["properties"].as_object().into_iter().flatten() {
                fields[field] = what.clone();
            }
        }
    }
    definitions["process"]["properties"]["uid_hash"] = json!({
        "type": "string",
        "pattern": "^hash:[0-9a-f]{32}$",
        "description": "In place of uid, in a stream whose users are hashed.",
    });
    for name in ["event", "count", "total"] {
        of_a_failure(&mut definitions[name]);
    }
    for (name, field) in LATER {
        if let Value::Array(required) = &mut definitions[name]["required"] {
            required.retain(|required| required != field);
        }
    }
    definitions["text"] = json!({ "type": "string", "minLength": 1 });
    definitions["u32"] = whole(0, u32::MAX.into());
    definitions["u64"] = whole(0, u64::MAX);
    let one_of: Vec<Value> = TYPES.iter().map(|name| reference(name)).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        "description": "One line of turnaway's JSON output. What is unknown is absent; lost.missed alone is null.",
        "type": "object",
        "required": ["schema", "type", "time", "host"],
        "oneOf": one_of,
        "$defs": definitions,
    })
}

/// The schema of one type of record by itself; none where there is no such type.
#[must_use]
pub fn of(name: &str) -> Option<Value> {
    let name = TYPES.into_iter().find(|one| *one == name)?;
    let mut schema = all();
    let mut used = Map::new();
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        if let Some(definition) = schema["$defs"].get_mut(&name).map(Value::take)
            && !definition.is_null()
        {
            references(&definition, &mut open);
            used.insert(name, definition);
        }
    }
    schema["title"] = format!("{SCHEMA} {name}").into();
    schema["oneOf"] = json!([reference(name)]);
    schema["$defs"] = used.into();
    Some(schema)
}

/// As it is written to a file.
#[must_use]
pub fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The definitions that a part of the schema refers to.
fn references(part: &Value, into: &mut Vec<String>) {
    match part {
        Value::Object(object) => {
            if let Some(Value::String(to)) = object.get("$ref") {
                into.extend(to.strip_prefix("#/$defs/").map(str::to_owned));
            }
            object.values().for_each(|one| references(one, into));
        }
        Value::Array(list) => list.iter().for_each(|one| references(one, into)),
        _ => {}
    }
}

/// A failure has a listener unless it is of a kind that has none, and never both a system call and another
/// operation.
fn of_a_failure(definition: &mut Value) {
    const WITHOUT: &str = r"^connect\.|^fd\.|^queue\.unix_full$|^net\.";
    definition["not"] = json!({ "required": ["syscall", "op"] });
    definition["anyOf"] = json!([
        { "required": ["listener"] },
        { "properties": { "reason": { "pattern": WITHOUT } } },
    ]);
}

fn whole(least: u64, most: u64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

/// Says what all fields have in common: text is never empty, numbers have bounds, what is unknown is absent
/// and never null, and objects have no other fields than these.
fn tidy(schema: &mut Value) {
    let Value::Object(object) = schema else {
        return;
    };
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    // What a reader of records puts in place of a field says nothing of who writes them.
    object.remove("default");
    names(object);
    if let Some(Value::Array(required)) = object.get("required").cloned()
        && let Some(Value::Object(fields)) = object.get_mut("properties")
    {
        for (name, field) in fields {
            if !required.iter().any(|required| required == name) {
                never_null(field);
            }
        }
    } else if let Some(Value::Object(fields)) = object.get_mut("properties") {
        fields.values_mut().for_each(never_null);
    }
    for (keyword, part) in object.iter_mut() {
        match (keyword.as_str(), part) {
            ("properties", Value::Object(fields)) => fields.values_mut().for_each(tidy),
            ("items" | "additionalProperties", part) => tidy(part),
            ("anyOf" | "oneOf", Value::Array(list)) => list.iter_mut().for_each(tidy),
            _ => {}
        }
    }
    if object.contains_key("properties") {
        object.insert("additionalProperties".to_owned(), false.into());
    }
    bounds(object);
}

/// Values that have a name each, and what each means, as a list of names.
fn names(object: &mut Map<String, Value>) {
    let names: Option<Vec<Value>> = object
        .get("oneOf")
        .and_then(Value::as_array)
        .and_then(|list| list.iter().map(|one| one.get("const").cloned()).collect());
    if let Some(names) = names {
        object.remove("oneOf");
        object.insert("enum".to_owned(), names.into());
    }
}

/// An absent field is left out.
fn never_null(field: &mut Value) {
    let is_null = |one: &Value| one == "null" || one["type"] == "null";
    if let Some(Value::Array(values)) = field.get_mut("enum") {
        values.retain(|one| !one.is_null());
    }
    if let Some(Value::Array(types)) = field.get_mut("type") {
        types.retain(|one| !is_null(one));
        if let [one] = &types[..] {
            field["type"] = one.clone();
        }
    }
    if let Some(Value::Array(any)) = field.get_mut("anyOf") {
        any.retain(|one| !is_null(one));
        if let [Value::Object(one)] = &any[..] {
            let one = one.clone();
            if let Value::Object(field) = field {
                field.remove("anyOf");
                field.extend(one.into_iter().filter(|(name, _)| name != "description"));
            }
        }
    }
}

fn bounds(object: &mut Map<String, Value>) {
    let is_narrower = ["enum", "const", "pattern"]
        .iter()
        .any(|keyword| object.contains_key(*keyword));
    let kind = object.get("type").and_then(Value::as_str);
    let (kind, format) = (
        kind.map(str::to_owned),
        object
            .get("format")
            .and_then(Value::as_str)
            .map(str::to_owned),
    );
    let refer = |object: &mut Map<String, Value>, name: &str| {
        for keyword in ["type", "format", "minimum", "maximum"] {
            object.remove(keyword);
        }
        if let Value::Object(reference) = reference(name) {
            object.extend(reference);
        }
    };
    let is_or_null = object.get("type") == Some(&json!(["integer", "null"]));
    let least = object.get("minimum").and_then(Value::as_u64);
    match (kind.as_deref(), format.as_deref()) {
        _ if is_narrower => {
            object.retain(|keyword, _| {
                !matches!(keyword.as_str(), "minimum" | "maximum")
                    && (keyword != "format" || format.as_deref() == Some("date-time"))
            });
        }
        (Some("string"), None) => refer(object, "text"),
        (Some("integer"), Some("uint32")) if least == Some(0) => refer(object, "u32"),
        (Some("integer"), Some("uint64" | "uint")) if least == Some(0) => refer(object, "u64"),
        (Some("integer"), Some(format)) => {
            let (least, most): (Value, Value) = match format {
                "int32" => (i32::MIN.into(), i32::MAX.into()),
                "uint16" => (least.into(), u16::MAX.into()),
                _ => (least.into(), u64::MAX.into()),
            };
            object.remove("format");
            object.insert("minimum".to_owned(), least);
            object.insert("maximum".to_owned(), most);
        }
        _ if is_or_null => {
            object.remove("format");
            object.insert("maximum".to_owned(), u64::MAX.into());
        }
        (Some("number"), _) => {
            object.remove("format");
            object.insert("minimum".to_owned(), 0.into());
        }
        _ => {}
    }
}
