//! ECS against its published fields.

use serde_json::Value;

use super::{Format, converted, published::ecs as wrong, samples::records};
use crate::stream::format::ecs::VERSION;

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
