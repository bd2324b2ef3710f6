//! Logs for OpenTelemetry collectors: protobuf over HTTP. Pure.
//!
//! The few messages that are sent are written down here: the published crate that holds all of them brings a
//! gRPC stack with it. The tests read them with that crate.

use prost::{Message, Oneof};

use super::{
    bodies::{Verdict, shown},
    encode::Encoder,
};
use crate::{alert::Severity, notify::receiver::Failure, stream::store::Numbered};

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct LogRecord {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    severity_number: i32,
    #[prost(string, tag = "3")]
    severity_text: String,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "11")]
    observed_time_unix_nano: u64,
    #[prost(string, tag = "12")]
    event_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    String(String),
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_log_records: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// Numbers of severities, as OpenTelemetry has them.
const INFO: i32 = 9;
const WARN: i32 = 13;
const ERROR: i32 = 17;

/// A request to export logs.
pub(super) fn request(encoder: &Encoder, batch: &[Numbered]) -> Vec<u8> {
    let log_records = batch
        .iter()
        .map(|(_, entry)| {
            let (severity_number, severity_text) = match entry.severity {
                Some(Severity::Critical) => (ERROR, "ERROR"),
                Some(Severity::Warning) => (WARN, "WARN"),
                Some(Severity::Info) | None => (INFO, "INFO"),
            };
            let time = u64::try_from(entry.time_ns).unwrap_or(0);
            let reason = entry.reason.as_ref();
            LogRecord {
                time_unix_nano: time,
                severity_number,
                severity_text: severity_text.to_owned(),
                body: Some(any(&encoder.json(entry))),
                attributes: [
                    Some(attribute("log.record.uid", &entry.id)),
                    Some(attribute("turnaway.type", entry.kind.name())),
                    reason.map(|reason| attribute("turnaway.reason", reason)),
                ]
                .into_iter()
                .flatten()
                .collect(),
                observed_time_unix_nano: time,
                event_name: format!("turnaway.{}", entry.kind.name()),
            }
        })
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    Request {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![
                    attribute("service.name", "turnaway"),
                    attribute("service.version", version),
                    attribute("host.name", &encoder.host),
                ],
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(Scope {
                    name: "turnaway".to_owned(),
                    version: version.to_owned(),
                }),
                log_records,
            }],
        }],
    }
    .encode_to_vec()
}

fn any(text: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::String(text.to_owned())),
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
    }
}

/// What a collector answers to that: an empty message is all right.
pub(super) fn says(answer: &[u8]) -> Result<Verdict, Failure> {
    let answer = Response::decode(answer)
        .map_err(|_| Failure::later("the answer is not the protobuf that was expected"))?;
    let partial = answer.partial_success.unwrap_or_default();
    Ok(Verdict {
        refused: usize::try_from(partial.rejected_log_records).unwrap_or(0),
        why: (!partial.error_message.is_empty()).then(|| shown(&partial.error_message)),
    })
}
