//! What is posted, against the formats that receivers publish. OTLP is read with OpenTelemetry's own messages.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message as _;
use serde_json::{Value, json};
use turnaway_tests::servers::poster::{Posted, Poster};

use crate::{different, numbers, push, start, until};

const SENT: u64 = 300;

/// Posts to a receiver until everything is delivered or refused.
fn post(
    more: &Value,
    answer: impl Fn(usize, &Posted) -> (u16, Vec<u8>) + Send + Sync + 'static,
) -> (Vec<Posted>, turnaway::stream::Health) {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let poster = Poster::start(answer).unwrap();
    let mut stream = json!({ "type": "http", "url": poster.url(), "batch": 40 });
    for (option, value) in more.as_object().unwrap() {
        stream[option] = value.clone();
        if value == "TOKEN" {
            stream[option] = token.to_str().unwrap().into();
        }
    }
    let mut streams = start(&[stream], &dir.path().join("spool"));
    for number in 1..=SENT {
        push(&mut streams, number);
    }
    let health = until(&streams, "delivery", |health| {
        health.waiting == 0 && health.delivered + health.refused == SENT
    });
    (poster.posted(), health)
}

/// The bodies of requests that were answered well.
fn taken(posted: &[Posted]) -> impl Iterator<Item = &Posted> {
    posted.iter().filter(|one| one.status < 300)
}

fn lines(posted: &Posted) -> Vec<Value> {
    let text = posted.text().unwrap();
    assert!(text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn lines_are_posted_and_tried_again() {
    let (posted, health) = post(
        &json!({ "body": "ndjson", "bearer_token_file": "TOKEN" }),
        |request, _| match request {
            0 => (503, b"not now s3cret".to_vec()),
            _ => (200, Vec::new()),
        },
    );
    assert_eq!((health.failed_attempts, health.refused), (1, 0));
    let records: Vec<Value> = taken(&posted).flat_map(lines).collect();
    assert_eq!(numbers(&records), (1..=SENT).collect::<Vec<_>>());
    for one in &posted {
        assert_eq!(one.target(), "POST /");
        assert_eq!(one.header("authorization"), Some("Bearer s3cret"));
        assert_eq!(one.header("content-type"), Some("application/x-ndjson"));
    }
}

/// One record that the receiver cannot take is found and costs no other.
#[test]
fn one_that_is_refused_costs_no_other() {
    let (posted, health) = post(&json!({}), |_, posted| {
        let bad = posted.text().unwrap().contains("\"count\":123,");
        (if bad { 400 } else { 200 }, Vec::new())
    });
    assert_eq!((health.delivered, health.refused), (SENT - 1, 1));
    let records: Vec<Value> = taken(&posted).flat_map(lines).collect();
    let wanted: BTreeSet<u64> = (1..=SENT).filter(|number| *number != 123).collect();
    assert_eq!(different(&records), wanted);
}

#[test]
fn elasticsearch_is_asked_to_create_each_once() {
    let (posted, health) = post(
        &json!({ "body": "elasticsearch", "index": "logs-turnaway-x" }),
        |request, posted| {
            let records = posted.text().unwrap().lines().count() / 2;
            let status = |index: usize| match (request, index) {
                // Too busy for one of them: all come again, and are there already.
                (0, 3) => 429,
                (1, _) => 409,
                (2, 5) => 400,
                _ => 201,
            };
            let items: Vec<Value> = (0..records)
                .map(|index| json!({ "create": { "status": status(index) } }))
                .collect();
            let errors = request < 3;
            (
                200,
                json!({ "errors": errors, "items": items })
                    .to_string()
                    .into_bytes(),
            )
        },
    );
    assert_eq!((health.delivered, health.refused), (SENT - 1, 1));
    assert_eq!(health.failed_attempts, 1);
    let mut ids = BTreeMap::new();
    for one in &posted {
        assert!(one.target().starts_with("POST /_bulk?filter_path="));
        assert_eq!(one.header("content-type"), Some("application/x-ndjson"));
        for pair in lines(one).chunks(2) {
            let [action, document] = pair else {
                panic!("an action without a document: {pair:?}");
            };
            let create = &action["create"];
            assert_eq!(create["_index"], "logs-turnaway-x");
            assert_eq!(action.as_object().unwrap().len(), 1);
            assert_eq!(create["_id"], document["record_id"]);
            assert!(document["@timestamp"].is_string());
            let number = document["count"].as_u64().unwrap();
            let id = create["_id"].as_str().unwrap().to_owned();
            assert_eq!(*ids.entry(id).or_insert(number), number);
        }
    }
    assert_eq!(ids.len() as u64, SENT);
}

#[test]
fn splunk_says_whether_it_took_them() {
    let (posted, health) = post(
        &json!({ "body": "splunk", "token_file": "TOKEN", "index": "main" }),
        |request, _| match request {
            // It answers 200 and does not take them.
            0 => (200, br#"{"text":"Server is busy","code":9}"#.to_vec()),
            _ => (200, br#"{"text":"Success","code":0}"#.to_vec()),
        },
    );
    assert_eq!((health.delivered, health.failed_attempts), (SENT, 1));
    let mut records = Vec::new();
    for one in &posted[1..] {
        assert_eq!(one.target(), "POST /services/collector/event");
        assert_eq!(one.header("authorization"), Some("Splunk s3cret"));
        for event in lines(one) {
            assert_eq!(event["sourcetype"], "turnaway:native");
            assert_eq!(event["index"], "main");
            let time: f64 = event["time"].as_str().unwrap().parse().unwrap();
            assert!(time > 1.7e9, "{time}");
            assert_eq!(event["fields"]["record_id"], event["event"]["record_id"]);
            records.push(event["event"].clone());
        }
    }
    assert_eq!(numbers(&records), (1..=SENT).collect::<Vec<_>>());
}

#[test]
fn loki_gets_streams_with_few_labels() {
    let (posted, health) = post(&json!({ "body": "loki" }), |_, _| (204, Vec::new()));
    assert_eq!(health.delivered, SENT);
    let mut records = Vec::new();
    for one in &posted {
        assert_eq!(one.target(), "POST /loki/api/v1/push");
        assert_eq!(one.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&one.body).unwrap();
        for stream in body["streams"].as_array().unwrap() {
            let labels: Vec<&String> = stream["stream"].as_object().unwrap().keys().collect();
            assert_eq!(labels, ["host", "reason", "service_name", "type"]);
            for value in stream["values"].as_array().unwrap() {
                let nanoseconds: u64 = value[0].as_str().unwrap().parse().unwrap();
                assert!(nanoseconds > 1_700_000_000_000_000_000);
                let line = value[1].as_str().unwrap();
                records.push(serde_json::from_str(line).unwrap());
            }
        }
    }
    assert_eq!(numbers(&records), (1..=SENT).collect::<Vec<_>>());
}

#[test]
fn a_collector_of_opentelemetry_reads_logs() {
    let (posted, health) = post(&json!({ "body": "otlp" }), |request, _| {
        let partial = ExportLogsPartialSuccess {
            rejected_log_records: 2,
            error_message: "too old".to_owned(),
        };
        let answer = ExportLogsServiceResponse {
            partial_success: (request == 1).then_some(partial),
        };
        (200, answer.encode_to_vec())
    });
    assert_eq!((health.delivered, health.refused), (SENT - 2, 2));
    let mut records = Vec::new();
    for one in &posted {
        assert_eq!(one.target(), "POST /v1/logs");
        assert_eq!(one.header("content-type"), Some("application/x-protobuf"));
        let request = ExportLogsServiceRequest::decode(&one.body[..]).unwrap();
        // All of it was understood: nothing is left out when it is written again.
        assert_eq!(request.encode_to_vec(), one.body);
        let [resource] = &request.resource_logs[..] else {
            panic!("{request:?}");
        };
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        assert!(attributes.iter().any(|one| one.key == "service.name"));
        for log in resource
            .scope_logs
            .iter()
            .flat_map(|scope| &scope.log_records)
        {
            assert_eq!((log.severity_number, &*log.severity_text), (13, "WARN"));
            assert_eq!(log.event_name, "turnaway.count");
            assert!(log.time_unix_nano > 1_700_000_000_000_000_000);
            let text = |any: &Option<opentelemetry_proto::tonic::common::v1::AnyValue>| match any
                .as_ref()
                .and_then(|any| any.value.clone())
            {
                Some(Any::StringValue(text)) => text,
                other => panic!("{other:?}"),
            };
            let record: Value = serde_json::from_str(&text(&log.body)).unwrap();
            let uid = log
                .attributes
                .iter()
                .find(|one| one.key == "log.record.uid");
            assert_eq!(record["record_id"], text(&uid.unwrap().value));
            records.push(record);
        }
    }
    assert_eq!(numbers(&records), (1..=SENT).collect::<Vec<_>>());
}
