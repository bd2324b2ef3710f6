//! Webhooks: the alert as it is, or in the words of Slack and `PagerDuty`.

use serde_json::{Value, json};

use super::{
    config::Body,
    http::Client,
    receiver::{Failure, Receiver},
    secret::Secret,
    wording,
};
use crate::alert::{Alert, Severity, Status};

/// Characters that Slack takes in a header and in the text of a section; bytes here, which are
/// never fewer.
const SLACK_HEADER: usize = 150;
const SLACK_TEXT: usize = 3_000;
/// Blocks that Slack takes are 50; nobody reads that many.
const SLACK_DETAILS: usize = 8;
/// What `PagerDuty` takes of a summary and of a key.
const PAGERDUTY_SUMMARY: usize = 1_024;
const PAGERDUTY_KEY: usize = 255;

/// One webhook.
pub(super) struct Webhook {
    client: Client,
    body: Body,
}

impl Webhook {
    pub(super) fn new(client: Client, body: Body) -> Self {
        Self { client, body }
    }
}

impl Receiver for Webhook {
    fn prepare(&mut self) {
        self.client.prepare();
    }

    fn deliver(&mut self, alert: &Alert) -> Result<(), Failure> {
        let body = match &self.body {
            Body::Native => native(alert)?,
            Body::Slack => slack(alert),
            Body::Pagerduty(path) => {
                let key =
                    Secret::read(path).map_err(|error| Failure::later(format!("{error:#}")))?;
                let body = pagerduty(alert, key.reveal());
                return self.client.post("", &[], &body, Some(&key));
            }
        };
        // The same for every attempt, so that a receiver can tell what it already has.
        let key = key(alert);
        let headers = [("idempotency-key", &*key)];
        self.client.post("", &headers, &body, None)
    }
}

fn key(alert: &Alert) -> String {
    let mut key = format!("{}/{}/{}", alert.id, status(alert), alert.updated_at);
    // It becomes a header.
    key.retain(|char| char.is_ascii_graphic());
    key
}

fn status(alert: &Alert) -> &'static str {
    match alert.status {
        Status::Firing => "firing",
        Status::Resolved => "resolved",
    }
}

fn native(alert: &Alert) -> Result<Value, Failure> {
    serde_json::to_value(alert)
        .map_err(|error| Failure::Never(format!("the alert cannot be written: {error}")))
}

/// A message of an incoming webhook: `text` is what notifications and simpler programs show.
fn slack(alert: &Alert) -> Value {
    let headline = wording::headline(alert);
    let section =
        |text: String| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } });
    let mut blocks = vec![json!({
        "type": "header",
        "text": { "type": "plain_text", "text": wording::cut(&headline, SLACK_HEADER) },
    })];
    for (name, text) in wording::details(alert).into_iter().take(SLACK_DETAILS) {
        // Escaping makes it longer, and must not be cut in two.
        let text = escape(&wording::cut(text, SLACK_TEXT / 6));
        blocks.push(section(format!("*{}*: {text}", escape(name))));
    }
    let labels: Vec<String> = alert
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if !labels.is_empty() {
        let labels = escape(&wording::cut(&labels.join("  "), SLACK_TEXT / 6));
        blocks.push(json!({
            "type": "context",
            "elements": [{ "type": "mrkdwn", "text": labels }],
        }));
    }
    json!({ "text": escape(&headline), "blocks": blocks })
}

/// Slack's own three: what else looks like markup is shown as markup, and does no harm.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// An event of the Events API v2. The same key opens, updates and closes one incident.
fn pagerduty(alert: &Alert, routing_key: &str) -> Value {
    let label = |name: &str| alert.labels.get(name);
    let action = match alert.status {
        Status::Firing => "trigger",
        Status::Resolved => "resolve",
    };
    let severity = match alert.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    let mut details = json!({ "labels": alert.labels });
    for (name, text) in wording::details(alert) {
        details[name] = text.into();
    }
    let summary = wording::line(wording::summary(alert));
    let mut payload = json!({
        "summary": wording::cut(&summary, PAGERDUTY_SUMMARY),
        "source": label("host").map_or("unknown", String::as_str),
        "severity": severity,
        "timestamp": alert.starts_at,
        "custom_details": details,
    });
    for (name, of) in [
        ("component", "comm"),
        ("group", "unit"),
        ("class", "reason"),
    ] {
        if let Some(value) = label(of) {
            payload[name] = value.as_str().into();
        }
    }
    json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": dedup_key(&alert.id),
        "client": "turnaway",
        "payload": payload,
    })
}

/// A prefix of a longer one would be another incident's too.
fn dedup_key(id: &str) -> String {
    if id.len() <= PAGERDUTY_KEY {
        return id.to_owned();
    }
    format!(
        "{:08x}-{}",
        crc32fast::hash(id.as_bytes()),
        wording::cut(id, PAGERDUTY_KEY - 9)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{dedup_key, key, native, pagerduty, slack};
    use crate::{
        alert::{Alert, Status},
        notify::sample,
    };

    #[test]
    fn the_native_body_is_the_alert() {
        let alert = sample("a", Status::Resolved);
        let body = native(&alert).unwrap();
        assert_eq!(
            serde_json::from_value::<Alert>(body.clone()).unwrap(),
            alert
        );
        assert_eq!(body["status"], "resolved");
        assert_eq!(key(&alert), "a/resolved/2026-03-03T03:13:30Z");
    }

    #[test]
    fn slack_is_told_in_text_and_in_blocks() {
        let body = slack(&sample("a", Status::Firing));
        assert_eq!(
            body["text"],
            "critical: pgbouncer turns clients away: 1024 of 1024 descriptors"
        );
        let blocks = body["blocks"].as_array().unwrap();
        assert_eq!(blocks[0]["type"], "header");
        assert_eq!(
            blocks[1]["text"]["text"],
            "*description*: Two lines,\nof which &lt;one&gt; &amp; \"quotes\""
        );
        assert_eq!(blocks[4]["type"], "context");
    }

    #[test]
    fn slack_takes_what_is_too_long() {
        let mut alert = sample("a", Status::Firing);
        for name in ["summary", "description", "now"] {
            alert.annotations.insert(name.to_owned(), "&".repeat(9_000));
        }
        let body = slack(&alert);
        for block in body["blocks"].as_array().unwrap() {
            let most = if block["type"] == "header" {
                150
            } else {
                3_000
            };
            if let Some(text) = block["text"]["text"].as_str() {
                assert!(text.len() <= most, "{} > {most}", text.len());
            }
        }
    }

    #[test]
    fn pagerduty_opens_and_closes_the_same_incident() {
        let (firing, resolved) = (sample("a", Status::Firing), sample("a", Status::Resolved));
        let trigger = pagerduty(&firing, "key");
        assert_eq!(trigger["routing_key"], "key");
        assert_eq!(trigger["event_action"], "trigger");
        assert_eq!(trigger["dedup_key"], "a");
        assert_eq!(trigger["payload"]["source"], "db1");
        assert_eq!(trigger["payload"]["severity"], "critical");
        assert_eq!(trigger["payload"]["class"], "accept.emfile");
        let now = &trigger["payload"]["custom_details"]["now"];
        assert_eq!(now, &json!("prlimit --nofile=4096 -p 17"));
        let resolve = pagerduty(&resolved, "key");
        assert_eq!(resolve["event_action"], "resolve");
        assert_eq!(resolve["dedup_key"], trigger["dedup_key"]);
    }

    #[test]
    fn long_keys_stay_apart() {
        let (one, other) = ("x".repeat(300), "x".repeat(301));
        assert!(dedup_key(&one).len() <= 255);
        assert_ne!(dedup_key(&one), dedup_key(&other));
    }
}
