//! Alertmanager's v2 API, spoken as Prometheus speaks it: an alert that fires is sent again and
//! again, each time with an end a few rounds ahead, so that Alertmanager resolves it by itself if
//! turnaway is no more. The end is sent again too, for Alertmanagers that restart.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    http::Client,
    receiver::{Failure, Receiver},
};
use crate::alert::{Alert, Status};

/// A firing alert ends so many rounds ahead, as with Prometheus.
const ROUNDS: u32 = 4;
/// The end is told again for so long, as with Prometheus.
const REMIND_OF_END: Duration = Duration::from_mins(15);
/// Incidents that are told again at most.
const MAX_ACTIVE: usize = 10_000;
/// Alerts in one request.
const BATCH: usize = 64;

/// One instance of Alertmanager.
pub(super) struct Alertmanager {
    client: Client,
    resend: Duration,
    generator_url: Option<String>,
    /// What it has been told, by incident.
    told: BTreeMap<String, Told>,
}

struct Told {
    alert: Alert,
    next: Instant,
    /// For an incident that has ended: until when that is said again.
    until: Option<Instant>,
}

impl Alertmanager {
    pub(super) fn new(client: Client, resend: Duration, generator_url: Option<String>) -> Self {
        Self {
            client,
            resend,
            generator_url,
            told: BTreeMap::new(),
        }
    }

    fn post(&mut self, alerts: &[Value]) -> Result<(), Failure> {
        self.client
            .post("/api/v2/alerts", &[], &Value::from(alerts), None)
    }

    fn entry(&self, alert: &Alert, now: Timestamp) -> Value {
        entry(alert, now, self.resend, self.generator_url.as_deref())
    }
}

impl Receiver for Alertmanager {
    fn prepare(&mut self) {
        self.client.prepare();
    }

    fn deliver(&mut self, alert: &Alert) -> Result<(), Failure> {
        let wall = Timestamp::now();
        let mut alerts = Vec::new();
        // To Alertmanager, other labels are another alert: the one before must not stay.
        let before = self.told.get(&alert.id).map(|told| &told.alert);
        let replaced = before.filter(|before| labels(before) != labels(alert));
        if let Some(before) = replaced.filter(|before| before.status == Status::Firing) {
            let mut over = before.clone();
            over.status = Status::Resolved;
            over.ends_at = Some(wall);
            alerts.push(self.entry(&over, wall));
        }
        alerts.push(self.entry(alert, wall));
        self.post(&alerts)?;

        let now = Instant::now();
        if self.told.len() >= MAX_ACTIVE && !self.told.contains_key(&alert.id) {
            self.told.pop_first();
        }
        let told = Told {
            alert: alert.clone(),
            next: now + self.resend,
            until: (alert.status == Status::Resolved).then(|| now + REMIND_OF_END),
        };
        self.told.insert(alert.id.clone(), told);
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        self.told.values().map(|told| told.next).min()
    }

    fn refresh(&mut self) -> Result<(), Failure> {
        let (now, wall) = (Instant::now(), Timestamp::now());
        self.told
            .retain(|_, told| told.until.is_none_or(|until| until > now));
        let due: Vec<(String, Value)> = self
            .told
            .iter()
            .filter(|(_, told)| told.next <= now)
            .take(BATCH)
            .map(|(id, told)| (id.clone(), self.entry(&told.alert, wall)))
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let (ids, alerts): (Vec<_>, Vec<_>) = due.into_iter().unzip();
        let result = self.post(&alerts);
        // It took them before, and is not asked again at once what is wrong with them now.
        if !matches!(result, Err(Failure::Later { .. })) {
            for id in ids {
                if let Some(told) = self.told.get_mut(&id) {
                    told.next = now + self.resend;
                }
            }
        }
        result
    }
}

/// An alert as the API takes it.
fn entry(alert: &Alert, now: Timestamp, resend: Duration, generator_url: Option<&str>) -> Value {
    let ends_at = match alert.status {
        Status::Firing => now
            .checked_add(resend.saturating_mul(ROUNDS))
            .unwrap_or(Timestamp::MAX),
        // An end that is ahead, because the clock was set back since, would be no end.
        Status::Resolved => alert.ends_at.unwrap_or(now).min(now),
    };
    let mut entry = json!({
        // For the same reason, a start may be ahead of the end, which the API refuses.
        "startsAt": alert.starts_at.min(ends_at),
        "endsAt": ends_at,
        "labels": labels(alert),
        "annotations": names(&alert.annotations),
    });
    if let Some(url) = generator_url {
        entry["generatorURL"] = url.into();
    }
    entry
}

fn labels(alert: &Alert) -> BTreeMap<String, &str> {
    let mut labels = names(&alert.labels);
    // Without a label there is no alert, and empty ones do not count.
    labels.retain(|_, value| !value.is_empty());
    labels.entry("alertname".to_owned()).or_insert("turnaway");
    labels
}

/// Names that every Alertmanager takes: letters, digits and underscores.
fn names(pairs: &BTreeMap<String, String>) -> BTreeMap<String, &str> {
    pairs
        .iter()
        .map(|(name, value)| {
            let mut name: String = name
                .chars()
                .map(|char| {
                    if char.is_ascii_alphanumeric() {
                        char
                    } else {
                        '_'
                    }
                })
                .collect();
            if !name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_') {
                name.insert(0, '_');
            }
            (name, value.as_str())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::entry;
    use crate::{alert::Status, notify::sample};

    const RESEND: Duration = Duration::from_mins(1);

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_firing_alert_ends_a_few_rounds_ahead() {
        let now = time("2026-03-03T03:12:10Z");
        let told = entry(&sample("a", Status::Firing), now, RESEND, Some("http://x/"));
        assert_eq!(told["startsAt"], "2026-03-03T03:12:00.123456789Z");
        assert_eq!(told["endsAt"], "2026-03-03T03:16:10Z");
        assert_eq!(told["generatorURL"], "http://x/");
        assert_eq!(told["labels"]["comm"], "pgbouncer");
        assert_eq!(told["annotations"]["now"], "prlimit --nofile=4096 -p 17");
    }

    #[test]
    fn a_clock_that_was_set_back_leaves_no_alert_behind() {
        let now = time("2026-03-03T02:12:10Z");
        let firing = entry(&sample("a", Status::Firing), now, RESEND, None);
        assert_eq!(firing["startsAt"], firing["endsAt"]);
        assert_eq!(firing["endsAt"], "2026-03-03T02:16:10Z");
        let resolved = entry(&sample("a", Status::Resolved), now, RESEND, None);
        assert_eq!(resolved["endsAt"], "2026-03-03T02:12:10Z");
        assert_eq!(resolved["startsAt"], resolved["endsAt"]);
        assert!(resolved.get("generatorURL").is_none());
    }

    #[test]
    fn an_end_is_told_as_it_was() {
        let now = time("2026-03-03T03:20:00Z");
        let told = entry(&sample("a", Status::Resolved), now, RESEND, None);
        assert_eq!(told["endsAt"], "2026-03-03T03:13:30Z");
    }

    #[test]
    fn names_are_such_as_alertmanager_takes() {
        let mut alert = sample("a", Status::Firing);
        alert.labels.clear();
        for (name, value) in [("a.b-c", "x"), ("9", "y"), ("empty", ""), ("é", "z")] {
            alert.labels.insert(name.to_owned(), value.to_owned());
        }
        let told = entry(&alert, Timestamp::now(), RESEND, None);
        let names: Vec<&str> = told["labels"]
            .as_object()
            .unwrap()
            .keys()
            .map(|name| &**name)
            .collect();
        assert_eq!(names, ["_", "_9", "a_b_c", "alertname"]);
    }
}
