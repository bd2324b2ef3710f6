//! Rules tried on recorded events: what comes of them, and what was expected (docs/rules.md).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use super::{
    ConfigError, Rules,
    config::{self, Time},
};
use crate::{
    alert::{Alert, Severity, Status},
    incident::Change,
    observation::{Code, Fd, Kind, Listener, Observation, Peer, Process, Server},
    replay::{self, Replay},
    text,
};

/// Start of records that are written in the file itself.
const START: i64 = 1_767_225_600;
/// Most records that one entry stands for.
const MAX_TIMES: u32 = 1_000_000;
/// How long after the last record alerts are still waited for, where it does not say.
const AFTER: Duration = Duration::from_hours(1);
/// By how much an alert may come later than expected, where it does not say.
const WITHIN: Duration = Duration::from_secs(3);

/// A file of records and expectations.
pub struct Trial {
    raw: Raw,
    rules: Rules,
    folder: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// Rules to try, beside this file; without it, the default ones.
    config: Option<PathBuf>,
    /// Records, beside this file.
    records: Option<PathBuf>,
    /// How long after the last record to go on.
    after: Option<Time>,
    #[serde(default)]
    record: Vec<Spanned<RawRecord>>,
    #[serde(default)]
    expect: Vec<RawExpected>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecord {
    at: RawTime,
    reason: String,
    count: Option<u64>,
    state: Option<RawState>,
    /// Again so often …
    times: Option<u32>,
    /// … with this between.
    every: Option<RawTime>,
    comm: Option<String>,
    pid: Option<u32>,
    unit: Option<String>,
    cgroup: Option<String>,
    container: Option<String>,
    port: Option<u32>,
    path: Option<String>,
    inode: Option<u64>,
    /// Of a connect: the server's process.
    server: Option<u32>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawState {
    Began,
    Ended,
}

/// A time that can be zero.
#[derive(Clone, Copy)]
struct RawTime(Duration);

impl<'de> Deserialize<'de> for RawTime {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Time::deserialize(from).map(|time| Self(time.0))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpected {
    at: RawTime,
    within: Option<RawTime>,
    status: Status,
    severity: Option<Severity>,
    /// Labels that it must have, among others.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Words of its summary.
    summary: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Expected, and not there.
    missing: Vec<String>,
    /// There, and not expected.
    unexpected: Vec<String>,
    /// As expected.
    good: usize,
    broken: u64,
}

impl Trial {
    /// Reads a trial and its rules.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| {
            format!("cannot read {name}; give a file of records and expected alerts")
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self::read(&text, &name, folder)
    }

    /// Reads a trial and the rules that it names, from this folder; `name` is what errors call it.
    pub(crate) fn read(text: &str, name: &str, folder: PathBuf) -> Result<Self> {
        let raw: Raw = config::from_toml(text, name)?;
        for record in &raw.record {
            record.as_ref().check().map_err(|what| ConfigError {
                file: name.to_owned(),
                line: Some(config::line_of(text, record.span().start)),
                text: what,
            })?;
        }
        if raw.records.is_none() && raw.record.is_empty() {
            bail!("{name}: no records; give records = \"FILE\", or [[record]]");
        }
        if raw.records.is_some() && !raw.record.is_empty() {
            bail!("{name}: give either records = \"FILE\" or [[record]], not both");
        }
        let rules = match &raw.config {
            Some(config) => super::load(&folder.join(config))?.rules,
            None => Rules::default(),
        };
        Ok(Self { raw, rules, folder })
    }

    /// Replays the records and compares.
    pub fn run(self) -> Result<Outcome> {
        let mut replay = Replay::new(self.rules);
        let mut start = None;
        let mut changes = Vec::new();
        if let Some(records) = &self.raw.records {
            let path = self.folder.join(records);
            let what = || format!("cannot read {}", path.display());
            let file = File::open(&path).with_context(what)?;
            replay::lines(BufReader::new(file), |line| {
                if start.is_none()
                    && let Ok(text) = &line
                    && let Ok(crate::observation::Line::Seen(seen)) =
                        crate::observation::parse(text)
                {
                    start = Some(seen.first());
                }
                changes.extend(replay.line(line).1);
                Ok(true)
            })
            .with_context(what)?;
        } else {
            let first = Timestamp::from_second(START)?;
            start = Some(first);
            let mut seen: Vec<Observation> = Vec::new();
            for record in &self.raw.record {
                record.as_ref().observations(first, &mut seen);
            }
            seen.sort_by_key(|seen| seen.time);
            for seen in &seen {
                changes.extend(replay.observe(seen).1);
            }
        }
        changes.extend(replay.pass(self.raw.after.map_or(AFTER, |after| after.0)));
        let (last, _, totals) = replay.finish();
        changes.extend(last);
        let start = start.unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(compare(start, &changes, &self.raw.expect, totals.broken))
    }
}

impl RawRecord {
    fn check(&self) -> Result<(), String> {
        config::known(&self.reason)?;
        if self.reason.ends_with('*') {
            return Err("a record has one reason; write it in full".to_owned());
        }
        if self.times.is_some_and(|times| times > MAX_TIMES) {
            return Err(format!("times is at most {MAX_TIMES}"));
        }
        if self.times.is_some() != self.every.is_some() {
            return Err("times and every go together; give both".to_owned());
        }
        if self.count.is_some() && self.state.is_some() {
            return Err("a record has a count or a state; give one of them".to_owned());
        }
        Ok(())
    }

    fn observations(&self, start: Timestamp, to: &mut Vec<Observation>) {
        let every = self.every.map_or(Duration::ZERO, |every| every.0);
        for index in 0..self.times.unwrap_or(1) {
            let at = self.at.0.saturating_add(every.saturating_mul(index));
            let time = start.checked_add(at).unwrap_or(Timestamp::MAX);
            to.push(self.observation(time));
        }
    }

    fn observation(&self, time: Timestamp) -> Observation {
        let reason = Code::new(&self.reason);
        let of_client = reason.is_of_client();
        let has_process = self.pid.is_some()
            || self.comm.is_some()
            || self.unit.is_some()
            || self.cgroup.is_some()
            || self.container.is_some();
        let cgroup = self.cgroup.clone();
        let unit_cgroup = || Some(format!("/system.slice/{}", self.unit.as_ref()?));
        Observation {
            time,
            host: "localhost".to_owned(),
            kind: match (self.state, self.count.unwrap_or(1)) {
                (Some(RawState::Began), _) => Kind::Began,
                (Some(RawState::Ended), _) => Kind::Ended,
                (None, count) => Kind::Count {
                    count,
                    first: time,
                    last: time,
                },
            },
            process: has_process.then(|| Process {
                pid: self.pid.unwrap_or(1),
                start_time: None,
                comm: self.comm.clone(),
                unit: self.unit.clone(),
                cgroup: cgroup.or_else(unit_cgroup),
                container: self
                    .container
                    .clone()
                    .map(|name| crate::observation::Container {
                        id: name.clone(),
                        name: Some(name),
                        pod: None,
                    }),
            }),
            holders: Vec::new(),
            listener: (!of_client).then(|| Listener {
                inode: self.inode,
                address: self.port.map(|_| "0.0.0.0".to_owned()),
                port: self.port,
                path: self.path.clone(),
                ..Listener::default()
            }),
            peer: of_client.then(|| Peer {
                address: self.port.map(|_| "127.0.0.1".to_owned()),
                port: self.port,
                path: self.path.clone(),
            }),
            server: self.server.map(|pid| Server { pid, comm: None }),
            netns: None,
            fd: Fd::default(),
            waited: None,
            approximate: false,
            waits: None,
            reason,
        }
    }
}

fn compare(start: Timestamp, changes: &[Change], expected: &[RawExpected], broken: u64) -> Outcome {
    let mut alerts: Vec<(Duration, &Alert)> = changes
        .iter()
        .filter_map(|change| change.alert.as_ref())
        .map(|alert| {
            let at = alert.updated_at.duration_since(start);
            (Duration::try_from(at).unwrap_or_default(), alert)
        })
        .collect();
    let mut missing = Vec::new();
    for wanted in expected {
        match alerts.iter().position(|(at, alert)| wanted.is(*at, alert)) {
            Some(found) => {
                alerts.remove(found);
            }
            None => missing.push(wanted.text()),
        }
    }
    Outcome {
        good: expected.len() - missing.len(),
        missing,
        unexpected: alerts
            .into_iter()
            .map(|(at, alert)| described(at, alert))
            .collect(),
        broken,
    }
}

impl RawExpected {
    fn is(&self, at: Duration, alert: &Alert) -> bool {
        let latest = self
            .at
            .0
            .saturating_add(self.within.map_or(WITHIN, |within| within.0));
        (self.at.0..=latest).contains(&at)
            && self.status == alert.status
            && self
                .severity
                .is_none_or(|severity| severity == alert.severity)
            && self
                .labels
                .iter()
                .all(|(label, value)| alert.labels.get(label) == Some(value))
            && self.summary.as_ref().is_none_or(|words| {
                alert
                    .annotations
                    .get("summary")
                    .is_some_and(|summary| summary.contains(words.as_str()))
            })
    }

    fn text(&self) -> String {
        let within = self.within.map_or(WITHIN, |within| within.0);
        let mut out = format!(
            "{:?} (within {within:?}) {}",
            self.at.0,
            status(self.status)
        );
        if let Some(severity) = self.severity {
            let _ = write!(out, " {}", severity.name());
        }
        for (label, value) in &self.labels {
            let _ = write!(out, " {label}={value:?}");
        }
        if let Some(words) = &self.summary {
            let _ = write!(out, " with {words:?}");
        }
        text::terminal(out.as_bytes())
    }
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Firing => "firing",
        Status::Resolved => "resolved",
    }
}

fn described(at: Duration, alert: &Alert) -> String {
    let name = alert.labels.get("alertname").map_or("", String::as_str);
    let summary = alert.annotations.get("summary").map_or("", String::as_str);
    let line = format!(
        "{at:?} {} {} {name}: {summary}",
        status(alert.status),
        alert.severity.name()
    );
    text::terminal(line.as_bytes())
}

impl Outcome {
    /// Whether all that was expected came, and nothing else.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.broken == 0
    }

    /// It in words: the differences, and a verdict.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for line in &self.missing {
            let _ = writeln!(out, "- expected, and not there: {line}");
        }
        for line in &self.unexpected {
            let _ = writeln!(out, "+ there, and not expected: {line}");
        }
        if self.broken > 0 {
            let _ = writeln!(out, "{} records could not be read", self.broken);
        }
        let verdict = if self.is_as_expected() {
            "as expected"
        } else {
            "NOT as expected"
        };
        let _ = writeln!(
            out,
            "{verdict}: {} of {} alerts",
            self.good,
            self.good + self.missing.len()
        );
        out
    }
}
