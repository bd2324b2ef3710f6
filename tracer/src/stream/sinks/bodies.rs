//! What is posted in JSON, and what is answered to that. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::encode::Encoder;
use crate::{
    notify::{receiver::Failure, wording},
    stream::{entry::add_field, format::Format, store::Numbered},
    text,
};

/// Bytes of what a receiver says that are shown.
const MAX_SHOWN: usize = 300;

/// What a receiver says of a batch that it took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Records that it will never take.
    pub(super) refused: usize,
    /// Why, for one of them.
    pub(super) why: Option<String>,
}

/// A line for each record.
pub(super) fn ndjson(encoder: &Encoder, batch: &[Numbered]) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, entry) in batch {
        line(&mut out, &encoder.json(entry));
    }
    out
}

fn line(out: &mut Vec<u8>, text: &str) {
    out.extend(text.as_bytes());
    out.push(b'\n');
}

/// `_bulk`: each record is created under its own id, so that one that comes twice is there once.
pub(super) fn elasticsearch(encoder: &Encoder, index: &str, batch: &[Numbered]) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, entry) in batch {
        let action = json!({ "create": { "_index": index, "_id": entry.id } });
        line(&mut out, &action.to_string());
        let mut record = encoder.json(entry).into_owned();
        // A data stream wants a time of this name, which ECS has.
        if encoder.format != Format::Ecs
            && let Ok(time) = jiff::Timestamp::from_nanosecond(entry.time_ns.into())
        {
            add_field(&mut record, "@timestamp", &format!("\"{time:.9}\""));
        }
        line(&mut out, &record);
    }
    out
}

/// Each record has an answer of its own. One that is there already has arrived before.
pub(super) fn elasticsearch_says(answer: &[u8], records: usize) -> Result<Verdict, Failure> {
    let answer: Value = understand(answer)?;
    if answer["errors"] == false {
        return Ok(Verdict::default());
    }
    let items = answer["items"].as_array();
    let items = items.filter(|items| items.len() == records);
    let items = items.ok_or_else(|| odd(&answer))?;
    let mut verdict = Verdict::default();
    for item in items {
        let item = &item["create"];
        match item["status"].as_u64() {
            Some(200..=299 | 409) => {}
            Some(429 | 500..) | None => {
                let why = shown(&item["error"].to_string());
                return Err(Failure::later(format!(
                    "the receiver takes none now: {why}"
                )));
            }
            Some(_) => {
                verdict.refused += 1;
                verdict.why.get_or_insert(shown(&item["error"].to_string()));
            }
        }
    }
    Ok(verdict)
}

/// Events of Splunk's HTTP event collector, one after the other.
pub(super) fn splunk(encoder: &Encoder, index: Option<&str>, batch: &[Numbered]) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, entry) in batch {
        let (seconds, rest) = (
            entry.time_ns.div_euclid(1_000_000_000),
            entry.time_ns.rem_euclid(1_000_000_000),
        );
        let mut event = json!({
            "time": format!("{seconds}.{rest:09}"),
            "host": encoder.host,
            "source": "turnaway",
            "sourcetype": format!("turnaway:{}", encoder.format.name()),
            "fields": { "record_id": entry.id, "type": entry.kind.name() },
        });
        if let Some(index) = index {
            event["index"] = index.into();
        }
        let mut event = event.to_string();
        add_field(&mut event, "event", &encoder.json(entry));
        line(&mut out, &event);
    }
    out
}

/// Code 0 is success, whatever else it says.
pub(super) fn splunk_says(answer: &[u8]) -> Result<Verdict, Failure> {
    let answer: Value = understand(answer)?;
    match answer["code"].as_i64() {
        Some(0) => Ok(Verdict::default()),
        _ => Err(odd(&answer)),
    }
}

/// Streams for Loki, with labels of few values: whatever else is in the lines.
pub(super) fn loki(encoder: &Encoder, batch: &[Numbered]) -> Vec<u8> {
    let mut streams: BTreeMap<(&str, Option<&str>), Vec<Value>> = BTreeMap::new();
    for (_, entry) in batch {
        streams
            .entry((entry.kind.name(), entry.reason.as_deref()))
            .or_default()
            .push(json!([entry.time_ns.to_string(), encoder.json(entry)]));
    }
    let streams: Vec<Value> = streams
        .into_iter()
        .map(|((kind, reason), values)| {
            let mut labels =
                json!({ "service_name": "turnaway", "host": encoder.host, "type": kind });
            if let Some(reason) = reason {
                labels["reason"] = reason.into();
            }
            json!({ "stream": labels, "values": values })
        })
        .collect();
    json!({ "streams": streams }).to_string().into_bytes()
}

fn understand(answer: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(answer)
        .map_err(|_| Failure::later("the answer is not the JSON that was expected"))
}

fn odd(answer: &Value) -> Failure {
    Failure::later(format!("answered {}", shown(&answer.to_string())))
}

/// What a receiver says, fit to be shown.
pub(super) fn shown(said: &str) -> String {
    text::terminal(wording::cut(said, MAX_SHOWN).as_bytes())
}
