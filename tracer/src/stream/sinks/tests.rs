//! Whatever names hold, every envelope and framing is what its standard says.

use std::sync::Arc;

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};
use syslog_rfc5424::{SyslogMessage, parse_message};

use super::{bodies, encode::Encoder, otlp};
use crate::{
    alert::Severity,
    stream::{
        config::{Config, Framing, Stream, understand},
        entry::{Entry, Kind, add_field},
        format::{Format, convert},
        privacy::Privacy,
        store::Numbered,
    },
    text,
};

fn stream(more: &Value) -> Stream {
    let mut config = json!({ "type": "tcp", "address": "localhost:1", "envelope": "rfc5424" });
    for (option, value) in more.as_object().unwrap() {
        config[option] = value.clone();
    }
    let config: Config = serde_json::from_value(config).unwrap();
    understand(&[config], &Privacy::default())
        .unwrap()
        .remove(0)
}

/// A record of a process and a listener that are called whatever they like.
fn entry(comm: &[u8], path: &[u8], kind: Kind) -> Entry {
    let mut line = json!({
        "schema": "turnaway/1",
        "type": kind.name(),
        "time": "2026-03-03T03:12:00.123456789Z",
        "host": "db1",
        "reason": "accept.emfile",
        "process": { "pid": 17, "comm": text::json(comm), "unit": text::json(path) },
        "listener": { "path": text::json(path) },
    })
    .to_string();
    add_field(&mut line, "record_id", "\"r-1\"");
    Entry {
        id: "r-1".to_owned(),
        kind,
        severity: Some(Severity::Warning),
        reason: Some("accept.emfile".to_owned()),
        time_ns: 1_772_507_520_123_456_789,
        line,
    }
}

/// The record of an entry as it is told in a format.
fn told(format: Format, entry: &Entry) -> Value {
    let record = serde_json::from_str(&entry.line).unwrap();
    serde_json::to_value(convert(format, record)).unwrap()
}

fn has_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(one) => one == text,
        Value::Array(list) => list.iter().any(|one| has_text(one, text)),
        Value::Object(object) => object.values().any(|one| has_text(one, text)),
        _ => false,
    }
}

fn parsed(message: &str) -> SyslogMessage {
    parse_message(message).unwrap_or_else(|error| panic!("{error}: {message:?}"))
}

/// What ends a message, a value or an element, and what is not to be in any.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![
        Just(b'"'),
        Just(b'\\'),
        Just(b']'),
        Just(b'\n'),
        Just(0),
        Just(b' '),
        Just(0xff),
        any::<u8>()
    ];
    proptest::collection::vec(bytes, 0..200)
}

proptest! {
    #[test]
    fn names_of_any_bytes_make_valid_messages(
        comm in hostile(), path in hostile(), kind in select(&Kind::ALL[..]), format in select(&Format::ALL[..]),
    ) {
        let entry = entry(&comm, &path, kind);
        let expected = told(format, &entry);
        let encoder = Encoder::new(&stream(&json!({ "format": format.name() })));
        let message = encoder.message(&entry);
        prop_assert!(!message.bytes().any(|byte| byte < b' '), "{message:?}");
        let parsed = parsed(&message);
        prop_assert_eq!(serde_json::from_str::<Value>(&parsed.msg).unwrap(), expected);
        // Whatever the format is, this is of the native record.
        let fields = parsed.sd.find_sdid("turnaway@32473").unwrap();
        prop_assert_eq!(&fields["reason"], "accept.emfile");
        prop_assert_eq!(&fields["id"], "r-1");
        prop_assert_eq!(&fields["pid"], "17");

        // Two in a stream can be told apart, in both framings.
        let mut lines = Vec::new();
        let mut counted = Vec::new();
        for _ in 0..2 {
            encoder.frame(&entry, Framing::Ndjson, &mut lines);
            encoder.frame(&entry, Framing::OctetCounted, &mut counted);
        }
        let text = std::str::from_utf8(&lines).unwrap();
        prop_assert_eq!(text.lines().collect::<Vec<_>>(), vec![&*message; 2]);
        let mut rest = &counted[..];
        for _ in 0..2 {
            let space = rest.iter().position(|byte| *byte == b' ').unwrap();
            let length: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
            prop_assert_eq!(&rest[space + 1..space + 1 + length], message.as_bytes());
            rest = &rest[space + 1 + length..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn names_of_any_bytes_make_valid_bodies(
        comm in hostile(), path in hostile(), format in select(&Format::ALL[..]),
    ) {
        let entry = entry(&comm, &path, Kind::Event);
        let expected = told(format, &entry);
        // Names are as they were, wherever the format has them.
        let mut names = vec![text::json(&comm), text::json(&path)];
        names.retain(|name| !has_text(&expected, name));
        prop_assert_eq!(names, Vec::<String>::new());
        let encoder = Encoder::new(&stream(&json!({ "format": format.name() })));
        let batch: Vec<Numbered> = vec![(1, Arc::new(entry))];
        let lines = |body: Vec<u8>| -> Vec<Value> {
            let text = String::from_utf8(body).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        prop_assert_eq!(&lines(bodies::ndjson(&encoder, &batch)), std::slice::from_ref(&expected));
        let mut bulk = lines(bodies::elasticsearch(&encoder, "x", &batch));
        prop_assert!(bulk[1]["@timestamp"].is_string());
        if format != Format::Ecs {
            bulk[1].as_object_mut().unwrap().remove("@timestamp");
        }
        prop_assert_eq!(&bulk[1], &expected);
        let splunk = lines(bodies::splunk(&encoder, None, &batch));
        prop_assert_eq!(&splunk[0]["event"], &expected);
        prop_assert_eq!(&splunk[0]["sourcetype"], &format!("turnaway:{}", format.name()));
        let loki = lines(bodies::loki(&encoder, &batch));
        let line = loki[0]["streams"][0]["values"][0][1].as_str().unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(line).unwrap(), expected.clone());
        let request = otlp::request(&encoder, &batch);
        let body = encoder.json(&batch[0].1).into_owned();
        prop_assert!(request.windows(body.len()).any(|window| window == body.as_bytes()));
    }
}

#[test]
fn a_message_is_as_the_standard_wants_it() {
    let options = json!({ "facility": "local3", "enterprise": 4711 });
    let encoder = Encoder::new(&stream(&options));
    let entry = entry(b"a\"b]c\\d", b"x", Kind::Incident);
    let message = encoder.message(&entry);
    // 19 * 8 + 4.
    assert!(
        message.starts_with("<156>1 2026-03-03T03:12:00.123456Z "),
        "{message}"
    );
    assert!(message.contains(" turnaway "), "{message}");
    assert!(message.contains("comm=\"a\\\"b\\]c\\\\d\""), "{message}");
    assert!(message.contains(" incident [turnaway@4711 id=\"r-1\" type=\"incident\""));
    // No byte order mark: what follows is JSON.
    assert!(message.contains("] {\"host\":"), "{message}");
}
