//! Rules from a file of TOML (docs/rules.md).

use std::{collections::BTreeMap, fmt, fs, mem, path::Path, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;
use turnaway_common::Reason;

use super::{Matcher, Rule, Rules, Silence, Trigger, defaults};
use crate::{alert::Severity, metrics, notify, observation::Code, stream};

/// Longest window: what is counted in it is kept for as long.
const MAX_WINDOW: Duration = Duration::from_hours(24);
/// Largest file.
const MAX_BYTES: u64 = 4 << 20;
/// Labels that turnaway sets itself.
const OWN_LABELS: [&str; 3] = ["alertname", "severity", "host"];
/// Codes that records may have beside those of this version's hooks.
const MORE_CODES: [&str; 3] = ["fd.exhausted", "fd.pressure", "fd.table_pressure"];

/// What is wrong with a file: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// Line, from 1, where it is about one.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.text)
    }
}

impl std::error::Error for ConfigError {}

/// The whole configuration of the daemon.
#[derive(Debug, Default)]
pub struct Configuration {
    /// What becomes an alert.
    pub rules: Rules,
    /// Who is told.
    pub notifiers: Vec<notify::config::Notifier>,
    /// Where records go.
    pub streams: Vec<stream::config::Stream>,
    /// How often a record says that turnaway lives, if not as often as by default.
    pub heartbeat: Option<Duration>,
    /// Where metrics are served, if not where they are by default.
    pub listen: Option<metrics::Listen>,
    /// Most series in a family of metrics, if not as many as by default.
    pub max_series: Option<usize>,
}

/// Reads a file of rules.
pub fn load(path: &Path) -> Result<Configuration, ConfigError> {
    let file = path.display().to_string();
    let failed = |text: String| ConfigError {
        file: file.clone(),
        line: None,
        text,
    };
    let size = fs::metadata(path)
        .map_err(|error| failed(format!("cannot read it: {error}; give a file of rules")))?
        .len();
    if size > MAX_BYTES {
        return Err(failed(format!(
            "larger than {MAX_BYTES} bytes; is it a file of rules?"
        )));
    }
    let text = fs::read_to_string(path)
        .map_err(|error| failed(format!("cannot read it: {error}; it must be TOML in UTF-8")))?;
    configuration(&text, &file)
}

/// Reads rules and nothing else of a configuration; `file` is what errors call it.
#[cfg(any(test, fuzzing))]
pub(crate) fn parse(text: &str, file: &str) -> Result<Rules, ConfigError> {
    configuration(text, file).map(|all| all.rules)
}

/// Reads a configuration; `file` is what errors call it.
pub(super) fn configuration(text: &str, file: &str) -> Result<Configuration, ConfigError> {
    let mut raw: RawFile = from_toml(text, file)?;
    let failed = |text: String| ConfigError {
        file: file.to_owned(),
        line: None,
        text,
    };
    let notifiers = notify::config::understand(&mem::take(&mut raw.notify))
        .map_err(|error| failed(format!("{error:#}")))?;
    let streams = raw
        .privacy
        .understand()
        .and_then(|privacy| stream::config::understand(&mem::take(&mut raw.stream), &privacy))
        .map_err(|error| failed(format!("{error:#}")))?;
    let heartbeat = raw.heartbeat.take();
    let heartbeat = heartbeat
        .map(|every| notify::config::duration("heartbeat", Some(&every), Duration::ZERO))
        .transpose()
        .map_err(|error| failed(format!("{error:#}")))?;
    let metrics = mem::take(&mut raw.metrics);
    let listen = match metrics.listen {
        Some(listen) => Some(
            listen
                .parse()
                .map_err(|why| failed(format!("metrics.listen: {why}")))?,
        ),
        None => None,
    };
    let rules = raw.rules().map_err(|(at, what)| ConfigError {
        file: file.to_owned(),
        line: Some(line_of(text, at)),
        text: what,
    })?;
    Ok(Configuration {
        rules,
        notifiers,
        streams,
        heartbeat,
        listen,
        max_series: metrics.max_series,
    })
}

/// Reads TOML of any shape, with errors that say the line.
pub(super) fn from_toml<T: de::DeserializeOwned>(text: &str, file: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError {
        file: file.to_owned(),
        line: error.span().map(|span| line_of(text, span.start)),
        text: error.message().replace('\n', "; "),
    })
}

/// The line of a byte.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    memchr::memchr_iter(b'\n', before).count() + 1
}

/// What is wrong, and at which byte.
type Wrong = (usize, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    /// Whether the default rules hold, too.
    #[serde(default = "yes")]
    defaults: bool,
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    ignore: Vec<Spanned<RawIgnore>>,
    #[serde(default)]
    silence: Vec<Spanned<RawSilence>>,
    /// Who is told (docs/notify.md).
    #[serde(default)]
    notify: Vec<notify::config::Config>,
    /// Where records go (docs/stream.md).
    #[serde(default)]
    stream: Vec<stream::config::Config>,
    /// What of records is nobody's business.
    #[serde(default)]
    privacy: stream::privacy::Config,
    /// How often a record says that turnaway lives.
    heartbeat: Option<String>,
    #[serde(default)]
    metrics: RawMetrics,
}

/// Where metrics are served (docs/metrics.md).
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMetrics {
    listen: Option<String>,
    max_series: Option<usize>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: Spanned<String>,
    /// `false` takes a default rule away.
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    reason: Reasons,
    #[serde(default)]
    comm: Texts,
    #[serde(default)]
    unit: Texts,
    #[serde(default)]
    container: Texts,
    #[serde(default)]
    port: Ports,
    #[serde(default)]
    path: Texts,
    count: Option<Spanned<u64>>,
    ratio: Option<Spanned<f64>>,
    duration: Option<Spanned<Time>>,
    window: Option<Spanned<Time>>,
    r#for: Option<Time>,
    resolve_after: Option<Time>,
    severity: Option<Severity>,
    #[serde(default)]
    labels: BTreeMap<Spanned<String>, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIgnore {
    #[serde(default)]
    reason: Reasons,
    #[serde(default)]
    comm: Texts,
    #[serde(default)]
    unit: Texts,
    #[serde(default)]
    container: Texts,
    #[serde(default)]
    port: Ports,
    #[serde(default)]
    path: Texts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSilence {
    until: Until,
    comment: Option<String>,
    #[serde(default)]
    reason: Reasons,
    #[serde(default)]
    comm: Texts,
    #[serde(default)]
    unit: Texts,
    #[serde(default)]
    container: Texts,
    #[serde(default)]
    port: Ports,
    #[serde(default)]
    path: Texts,
}

/// One text or several.
#[derive(Default, Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
enum Texts {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn list(self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// One port or several.
#[derive(Default, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a port from 1 to 65535, or a list of ports"
)]
enum Ports {
    #[default]
    None,
    One(u32),
    Many(Vec<u32>),
}

impl Ports {
    fn list(self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::One(port) => vec![port],
            Self::Many(ports) => ports,
        }
    }
}

/// Reason codes, each of which there is.
#[derive(Default)]
struct Reasons(Vec<String>);

impl<'de> Deserialize<'de> for Reasons {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let reasons = Texts::deserialize(from)?.list();
        for reason in &reasons {
            known(reason).map_err(de::Error::custom)?;
        }
        Ok(Self(reasons))
    }
}

/// Whether there is a reason of this name, or one that begins like it.
pub fn known(pattern: &str) -> Result<(), String> {
    let codes = || {
        Reason::ALL
            .iter()
            .map(|reason| reason.code())
            .chain(MORE_CODES)
    };
    let is = |code: &str| match pattern.strip_suffix('*') {
        Some(start) => code.starts_with(start),
        None => code == pattern,
    };
    if codes().any(is) {
        return Ok(());
    }
    let family = pattern.split('.').next().unwrap_or_default();
    let mut near: Vec<&str> = codes().filter(|code| code.starts_with(family)).collect();
    if near.is_empty() {
        near = vec!["accept.emfile", "queue.*", "connect.*"];
    }
    Err(format!(
        "there is no reason {pattern:?}; use one of docs/records.md, such as {}",
        near.join(", ")
    ))
}

/// A time as people write it.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let help = || {
            de::Error::custom(format!(
                "{text:?} is no time; write one such as \"30s\", \"5m\" or \"1h\""
            ))
        };
        let time: jiff::SignedDuration = text.parse().map_err(|_| help())?;
        Duration::try_from(time).map(Self).map_err(|_| help())
    }
}

/// A moment, RFC 3339.
struct Until(Timestamp);

impl<'de> Deserialize<'de> for Until {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a time such as 2026-11-25T06:00:00Z")]
        enum Raw {
            Date(toml::value::Datetime),
            Text(String),
        }
        let text = match Raw::deserialize(from)? {
            Raw::Date(date) => date.to_string(),
            Raw::Text(text) => text,
        };
        text.parse().map(Self).map_err(|_| {
            de::Error::custom(format!(
                "{text:?} is no moment; write one such as 2026-11-25T06:00:00Z, with its zone"
            ))
        })
    }
}

impl RawFile {
    pub(super) fn rules(self) -> Result<Rules, Wrong> {
        let mut rules = if self.defaults {
            defaults::rules()
        } else {
            Vec::new()
        };
        let mut named = Vec::new();
        for raw in self.rule {
            let at = raw.span().start;
            let raw = raw.into_inner();
            let name = raw.name.as_ref().clone();
            if named.contains(&name) {
                return Err((
                    raw.name.span().start,
                    format!("a rule {name:?} is above already; give this one another name"),
                ));
            }
            named.push(name.clone());
            let before = rules.iter().position(|rule| rule.name == name);
            if !raw.enabled {
                let Some(before) = before else {
                    return Err((
                        at,
                        format!("there is no default rule {name:?} to take away; remove this rule"),
                    ));
                };
                rules.remove(before);
                continue;
            }
            let rule = raw.rule(at, before.map(|before| &rules[before]))?;
            match before {
                Some(before) => rules[before] = rule,
                None => rules.push(rule),
            }
        }
        let mut ignore = if self.defaults {
            defaults::ignored()
        } else {
            Vec::new()
        };
        for raw in self.ignore {
            let at = raw.span().start;
            let raw = raw.into_inner();
            let matcher = matcher(
                at,
                raw.reason,
                [raw.comm, raw.unit, raw.container, raw.path],
                raw.port,
            )?;
            if matcher.is_empty() {
                return Err((
                    at,
                    "this would ignore everything; give reason, comm, unit, container, port or path"
                        .to_owned(),
                ));
            }
            ignore.push(matcher);
        }
        let mut silences = Vec::new();
        for (index, raw) in self.silence.into_iter().enumerate() {
            let at = raw.span().start;
            let raw = raw.into_inner();
            silences.push(Silence {
                id: format!("config-{}", index + 1),
                matcher: matcher(
                    at,
                    raw.reason,
                    [raw.comm, raw.unit, raw.container, raw.path],
                    raw.port,
                )?,
                until: raw.until.0,
                comment: raw.comment,
            });
        }
        Ok(Rules {
            rules,
            ignore,
            silences,
        })
    }
}

fn matcher(at: usize, reason: Reasons, texts: [Texts; 4], port: Ports) -> Result<Matcher, Wrong> {
    let [comm, unit, container, path] = texts.map(Texts::list);
    let port = port.list();
    let texts = comm.iter().chain(&unit).chain(&container).chain(&path);
    if texts.into_iter().any(String::is_empty) {
        return Err((at, "an empty text matches nothing; leave it out".to_owned()));
    }
    if let Some(bad) = port.iter().find(|port| !(1..=65_535).contains(*port)) {
        return Err((at, format!("{bad} is no port; use 1 to 65535")));
    }
    Ok(Matcher {
        reason: reason.0,
        comm,
        unit,
        container,
        port,
        path,
    })
}

impl RawRule {
    /// The rule; what it does not say is as in the default rule of its name.
    fn rule(mut self, at: usize, base: Option<&Rule>) -> Result<Rule, Wrong> {
        let name = self.name.as_ref().clone();
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err((
                self.name.span().start,
                "a rule's name is what its alerts are called; give it one".to_owned(),
            ));
        }
        let mut matcher = matcher(
            at,
            mem::take(&mut self.reason),
            [
                mem::take(&mut self.comm),
                mem::take(&mut self.unit),
                mem::take(&mut self.container),
                mem::take(&mut self.path),
            ],
            mem::take(&mut self.port),
        )?;
        if matcher.reason.is_empty() {
            matcher.reason = base.map(|rule| rule.matcher.reason.clone()).ok_or((
                at,
                format!("rule {name:?} has no reason; give one, such as reason = \"accept.*\""),
            ))?;
        }
        let trigger = self.trigger(at, base, &matcher)?;
        self.check_labels()?;
        let time = |own: Option<Time>, base: Option<Duration>, default: Duration| {
            own.map(|time| time.0).or(base).unwrap_or(default)
        };
        Ok(Rule {
            name,
            matcher,
            trigger,
            hold: time(self.r#for, base.map(|rule| rule.hold), Duration::ZERO),
            resolve_after: time(
                self.resolve_after,
                base.map(|rule| rule.resolve_after),
                defaults::RESOLVE_AFTER,
            ),
            severity: self
                .severity
                .or(base.map(|rule| rule.severity))
                .unwrap_or(Severity::Warning),
            labels: self
                .labels
                .into_iter()
                .map(|(label, value)| (label.into_inner(), value))
                .collect(),
        })
    }

    fn trigger(&self, at: usize, base: Option<&Rule>, matcher: &Matcher) -> Result<Trigger, Wrong> {
        let trigger = Trigger {
            count: self
                .count
                .as_ref()
                .map(|count| *count.as_ref())
                .or(base.map(|rule| rule.trigger.count))
                .unwrap_or(1),
            window: self
                .window
                .as_ref()
                .map(|window| window.as_ref().0)
                .or(base.map(|rule| rule.trigger.window))
                .unwrap_or(defaults::WINDOW),
            ratio: self.ratio.as_ref().map(|ratio| *ratio.as_ref()),
            duration: self.duration.as_ref().map(|time| time.as_ref().0),
        };
        let at_of = |span: Option<std::ops::Range<usize>>| span.map_or(at, |span| span.start);
        if trigger.count == 0 {
            return Err((
                at_of(self.count.as_ref().map(Spanned::span)),
                "count is at least 1".to_owned(),
            ));
        }
        if trigger.window.is_zero() || trigger.window > MAX_WINDOW {
            return Err((
                at_of(self.window.as_ref().map(Spanned::span)),
                "window is more than 0s and at most 24h".to_owned(),
            ));
        }
        if let Some(ratio) = &self.ratio
            && !(*ratio.as_ref() > 0.0 && *ratio.as_ref() <= 1.0)
        {
            return Err((
                ratio.span().start,
                "ratio is a share of all attempts: more than 0 and at most 1".to_owned(),
            ));
        }
        if let Some(duration) = &self.duration {
            let lasts = |reason: &String| Code::new(reason).lasts();
            if !matcher.reason.iter().all(lasts) {
                return Err((
                    duration.span().start,
                    "only queue.stalled, fd.pressure and fd.table_pressure last; use for = \"…\" instead of duration".to_owned(),
                ));
            }
            if self.count.is_some() || self.ratio.is_some() {
                return Err((
                    duration.span().start,
                    "duration stands alone; remove count and ratio".to_owned(),
                ));
            }
        }
        Ok(trigger)
    }

    fn check_labels(&self) -> Result<(), Wrong> {
        for label in self.labels.keys() {
            let text = label.as_ref();
            let good = text.chars().enumerate().all(|(index, char)| {
                char == '_' || char.is_ascii_alphabetic() || (index > 0 && char.is_ascii_digit())
            });
            if text.is_empty() || !good || OWN_LABELS.contains(&text.as_str()) {
                return Err((
                    label.span().start,
                    format!(
                        "{text:?} cannot be a label; use letters, digits and _, and none of alertname, severity and host"
                    ),
                ));
            }
        }
        Ok(())
    }
}
