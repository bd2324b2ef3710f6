//! Batches over HTTP: a receiver has them when it says so.

use std::time::Duration;

use super::{
    Outcome, Sink,
    bodies::{self, Verdict},
    encode::Encoder,
    otlp,
};
use crate::{
    notify::{http::Client, receiver::Failure},
    stream::{
        config::{Body, Http},
        store::Numbered,
    },
};

/// Posts batches.
pub(super) struct Poster {
    client: Client,
    body: Body,
    encoder: Encoder,
}

impl Poster {
    pub(super) fn new(http: &Http, timeout: Duration, encoder: Encoder) -> Self {
        Self {
            client: Client::new(http.url.clone(), &http.access, timeout).keeping(),
            body: http.body.clone(),
            encoder,
        }
    }
}

impl Sink for Poster {
    fn deliver(&mut self, batch: &[Numbered]) -> Result<Outcome, Failure> {
        let encoder = &self.encoder;
        let (path, kind, body) = match &self.body {
            Body::Ndjson => ("", "application/x-ndjson", bodies::ndjson(encoder, batch)),
            Body::Elasticsearch { index } => (
                "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason",
                "application/x-ndjson",
                bodies::elasticsearch(encoder, index, batch),
            ),
            Body::Splunk { index } => (
                "/services/collector/event",
                "application/json",
                bodies::splunk(encoder, index.as_deref(), batch),
            ),
            Body::Loki => (
                "/loki/api/v1/push",
                "application/json",
                bodies::loki(encoder, batch),
            ),
            Body::Otlp => (
                "/v1/logs",
                "application/x-protobuf",
                otlp::request(encoder, batch),
            ),
        };
        let answer = self.client.send(path, kind, &[], &body, None)?;
        let verdict = match &self.body {
            Body::Ndjson | Body::Loki => Verdict::default(),
            Body::Elasticsearch { .. } => bodies::elasticsearch_says(&answer, batch.len())?,
            Body::Splunk { .. } => bodies::splunk_says(&answer)?,
            Body::Otlp => otlp::says(&answer)?,
        };
        if let Some(why) = &verdict.why {
            log::debug!("{} records are refused: {why}", verdict.refused);
        }
        Ok(Outcome::Took {
            records: batch.len(),
            refused: verdict.refused.min(batch.len()),
        })
    }
}
