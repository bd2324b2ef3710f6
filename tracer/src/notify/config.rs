//! `[[notify]]` of the configuration: as it is written, and as it is understood.
//!
//! Reading and understanding are two steps, so that what is wrong is said in plain words and all at
//! once: [`Config`] is what TOML holds, [`understand`] makes [`Notifier`]s of it.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use jiff::SignedDuration;
use serde::Deserialize;
use turnaway_common::Reason;

use super::address::Address;
use crate::alert::Severity;

/// One attempt to deliver may take so long where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No longer than this: nothing else is delivered to the same receiver meanwhile.
const MAX_TIMEOUT: Duration = Duration::from_mins(10);
/// As Prometheus does.
const RESEND: Duration = Duration::from_mins(1);
/// Alerts that wait at most, where nothing else is said.
const QUEUE: usize = 1_000;
/// Each is a file.
const MAX_QUEUE: usize = 10_000;
/// Characters of a name at most: it is part of file names and of metrics.
const MAX_NAME: usize = 64;
/// Where PagerDuty takes events.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";
/// Where journald listens for records.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where syslog listens.
const SYSLOG: &str = "/dev/log";

/// One `[[notify]]`, as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What kind of receiver it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What it is called in metrics, in messages and in the queue's folder; its type where nothing
    /// is said.
    pub name: Option<String>,
    /// Alerts less severe than this are not sent.
    pub min_severity: Option<Severity>,
    /// Only alerts with these reasons are sent, `accept` stands for all that begin with `accept.`.
    #[serde(default)]
    pub only: Vec<String>,
    /// Alerts with these reasons are not sent.
    #[serde(default)]
    pub except: Vec<String>,
    /// Most alerts that wait for the receiver: more push the oldest out.
    pub queue: Option<usize>,
    /// How long one attempt may take.
    pub timeout: Option<String>,
    /// Address of the receiver (alertmanager, webhook).
    pub url: Option<Url>,
    /// Addresses of all instances of an Alertmanager.
    pub urls: Option<Vec<Url>>,
    /// A file that holds the address, where that is a secret.
    pub url_file: Option<PathBuf>,
    /// A file that holds a token which is sent as `Authorization: Bearer`.
    pub bearer_token_file: Option<PathBuf>,
    /// Certificates to trust besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// How often a firing alert is sent again (alertmanager).
    pub resend: Option<String>,
    /// Where alerts lead to for more (alertmanager).
    pub generator_url: Option<String>,
    /// What a webhook is sent.
    pub body: Option<BodyKind>,
    /// A file that holds the key of the integration (webhook with body `pagerduty`).
    pub routing_key_file: Option<PathBuf>,
    /// Program and arguments (command).
    pub command: Option<Vec<String>>,
    /// Where the receiver listens (journald, syslog).
    pub socket: Option<PathBuf>,
    /// What syslog files it under.
    pub facility: Option<Facility>,
    /// What is written to stdout.
    pub format: Option<Format>,
}

/// An address as it is written. It may hold what is not to be shown, and is not.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Url(String);

impl Url {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// What kind of receiver it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The v2 API of Alertmanager.
    Alertmanager,
    /// Anything that takes JSON over HTTP.
    Webhook,
    /// A program.
    Command,
    /// The journal of systemd.
    Journald,
    /// Syslog on this host.
    Syslog,
    /// Standard output.
    Stdout,
}

impl Kind {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alertmanager => "alertmanager",
            Self::Webhook => "webhook",
            Self::Command => "command",
            Self::Journald => "journald",
            Self::Syslog => "syslog",
            Self::Stdout => "stdout",
        }
    }
}

/// What a webhook is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyKind {
    /// The alert, as JSON.
    #[default]
    Native,
    /// A message for Slack and what understands the same.
    Slack,
    /// An event of `PagerDuty`'s Events API v2.
    Pagerduty,
}

/// What is written to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A few lines for people.
    #[default]
    Text,
    /// A line of JSON.
    Json,
}

/// What syslog files it under, by the numbers of RFC 5424.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are syslog's own")]
pub enum Facility {
    User = 1,
    #[default]
    Daemon = 3,
    Local0 = 16,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

/// One `[[notify]]`, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notifier {
    /// What it is called, unlike all others.
    pub name: String,
    /// What of all alerts it wants.
    pub wants: Wants,
    /// Most alerts that wait for each receiver.
    pub queue: usize,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Where alerts go.
    pub receiver: Receiver,
}

/// What of all alerts is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wants {
    /// The least severity.
    pub min_severity: Severity,
    /// Reasons or families of reasons; empty for all.
    pub only: Vec<String>,
    /// The same, for what is not wanted.
    pub except: Vec<String>,
}

/// Where alerts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The v2 API of Alertmanager.
    Alertmanager {
        /// Its instances: each is sent everything.
        urls: Vec<Place>,
        /// How they are asked.
        access: Access,
        /// How often a firing alert is sent again.
        resend: Duration,
        /// Where alerts lead to for more.
        generator_url: Option<String>,
    },
    /// Anything that takes JSON over HTTP.
    Webhook {
        /// Where it is.
        url: Place,
        /// How it is asked.
        access: Access,
        /// What it is sent.
        body: Body,
    },
    /// A program that is run for each alert.
    Command(Vec<String>),
    /// The journal of systemd.
    Journald(PathBuf),
    /// Syslog on this host.
    Syslog(PathBuf, Facility),
    /// Standard output.
    Stdout(Format),
}

impl Receiver {
    /// Its type, as in the configuration.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Alertmanager { .. } => Kind::Alertmanager,
            Self::Webhook { .. } => Kind::Webhook,
            Self::Command(_) => Kind::Command,
            Self::Journald(_) => Kind::Journald,
            Self::Syslog(..) => Kind::Syslog,
            Self::Stdout(_) => Kind::Stdout,
        }
    }
}

/// Where a receiver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is in the configuration.
    Address(Address),
    /// It is in a file, since it is a secret.
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::File(path) => write!(f, "the address in {}", path.display()),
        }
    }
}

/// What is needed to ask a receiver over HTTP or TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Holds the token that is sent.
    pub bearer_token_file: Option<PathBuf>,
    /// What comes before the token.
    pub scheme: &'static str,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            bearer_token_file: None,
            scheme: "Bearer",
            ca_file: None,
            client: None,
        }
    }
}

/// What a webhook is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The alert.
    Native,
    /// A message.
    Slack,
    /// An event, with the file that holds the key of the integration.
    Pagerduty(PathBuf),
}

/// Understands all `[[notify]]`, or says everything that is wrong with them.
pub fn understand(configs: &[Config]) -> Result<Vec<Notifier>> {
    let name = |config: &Config| config.name.clone();
    understand_each(
        "notify",
        configs,
        |one| (name(one), one.kind.name()),
        notifier,
    )
}

/// Understands all tables of one name in the configuration, or says everything that is wrong with them.
/// `name` gives what one is called, if that is said, and its type; `one` understands one of that name.
pub(crate) fn understand_each<C, T>(
    table: &str,
    configs: &[C],
    name: impl Fn(&C) -> (Option<String>, &'static str),
    one: impl Fn(&C, &str) -> Result<T>,
) -> Result<Vec<T>> {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for (index, config) in configs.iter().enumerate() {
        let (given, kind) = name(config);
        let name = given.unwrap_or_else(|| kind.to_owned());
        let taken = !names.insert(name.clone());
        let understood = check_name(&name)
            .and_then(|()| one(config, &name))
            .and_then(|understood| {
                ensure!(
                    !taken,
                    "another one is called so too: give each a `name` of its own"
                );
                Ok(understood)
            });
        match understood {
            Ok(understood) => all.push(understood),
            Err(error) => wrong.push(format!(
                "{table} {} ({}): {error:#}",
                index + 1,
                crate::text::terminal(name.as_bytes())
            )),
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(all)
}

/// Refuses options that mean nothing to a type. `present` are those that are there, with the types they
/// belong to.
pub(crate) fn check_options<K: Copy + PartialEq>(
    kind: K,
    name: fn(K) -> &'static str,
    present: &[(&str, &[K])],
) -> Result<()> {
    for (option, kinds) in present {
        ensure!(
            kinds.contains(&kind),
            "`{option}` means nothing to type = \"{}\"; it belongs to {}",
            name(kind),
            kinds
                .iter()
                .map(|kind| name(*kind))
                .collect::<Vec<_>>()
                .join(" and ")
        );
    }
    Ok(())
}

/// Refuses names of reasons or families that there are none of.
pub(crate) fn check_reasons<'a>(named: impl IntoIterator<Item = &'a String>) -> Result<()> {
    for reason in named {
        ensure!(
            Reason::ALL
                .iter()
                .any(|known| is_reason(known.code(), reason)),
            "there is no reason {reason:?}: use one such as \"accept.emfile\", or a family such as \
             \"accept\""
        );
    }
    Ok(())
}

fn notifier(config: &Config, name: &str) -> Result<Notifier> {
    check_options(config.kind, Kind::name, &present(config))?;
    check_reasons(config.only.iter().chain(&config.except))?;
    let timeout = duration("timeout", config.timeout.as_deref(), TIMEOUT)?;
    ensure!(
        timeout <= MAX_TIMEOUT,
        "`timeout` is at most {} min",
        MAX_TIMEOUT.as_secs() / 60
    );
    let queue = config.queue.unwrap_or(QUEUE);
    ensure!(
        (1..=MAX_QUEUE).contains(&queue),
        "`queue` is a number from 1 to {MAX_QUEUE}"
    );
    Ok(Notifier {
        name: name.to_owned(),
        wants: Wants {
            min_severity: config.min_severity.unwrap_or(Severity::Info),
            only: config.only.clone(),
            except: config.except.clone(),
        },
        queue,
        timeout,
        receiver: receiver(config)?,
    })
}

/// A name is part of file names and of metrics.
fn check_name(name: &str) -> Result<()> {
    ensure!(
        (1..=MAX_NAME).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
        "`name` is 1 to {MAX_NAME} letters, digits, - and _"
    );
    Ok(())
}

fn receiver(config: &Config) -> Result<Receiver> {
    Ok(match config.kind {
        Kind::Alertmanager => Receiver::Alertmanager {
            urls: instances(config)?,
            access: access(config)?,
            resend: duration("resend", config.resend.as_deref(), RESEND)?,
            generator_url: config
                .generator_url
                .as_deref()
                .map(|url| Address::parse(url).map(|_| url.to_owned()))
                .transpose()?,
        },
        Kind::Webhook => {
            let body = body(config)?;
            let url = match (&config.url, &config.url_file, &body) {
                (Some(_), Some(_), _) => bail!("either `url` or `url_file`, not both"),
                (Some(url), None, _) => Place::Address(Address::parse(&url.0)?),
                (None, Some(path), _) => Place::File(absolute("url_file", path)?),
                (None, None, Body::Pagerduty(_)) => Place::Address(Address::parse(PAGERDUTY)?),
                (None, None, _) => bail!("where to? Give `url`, or `url_file` if it is a secret"),
            };
            Receiver::Webhook {
                url,
                access: access(config)?,
                body,
            }
        }
        Kind::Command => {
            let command = config.command.clone().unwrap_or_default();
            let Some(program) = command.first() else {
                bail!("which program? Give `command = [\"/path/to/program\", \"argument\"]`");
            };
            ensure!(
                Path::new(program).is_absolute(),
                "`command` begins with the whole path of a program, not with {program:?}"
            );
            ensure!(
                !command.iter().any(|word| word.contains('\0')),
                "`command` holds a zero byte"
            );
            Receiver::Command(command)
        }
        Kind::Journald => Receiver::Journald(socket(config, JOURNAL)?),
        Kind::Syslog => {
            Receiver::Syslog(socket(config, SYSLOG)?, config.facility.unwrap_or_default())
        }
        Kind::Stdout => Receiver::Stdout(config.format.unwrap_or_default()),
    })
}

fn instances(config: &Config) -> Result<Vec<Place>> {
    let urls: Vec<&Url> = match (&config.url, &config.urls, &config.url_file) {
        (Some(url), None, None) => vec![url],
        (None, Some(urls), None) => urls.iter().collect(),
        (None, None, Some(path)) => return Ok(vec![Place::File(absolute("url_file", path)?)]),
        (None, None, None) => bail!("where to? Give `url`, `urls` or `url_file`"),
        _ => bail!("one of `url`, `urls` and `url_file`, not several"),
    };
    ensure!(!urls.is_empty(), "`urls` is empty");
    let mut addresses = Vec::new();
    for url in urls {
        let address = Address::parse(&url.0)?;
        ensure!(
            !addresses.contains(&address),
            "{address} is there twice, and would be sent everything twice"
        );
        addresses.push(address);
    }
    Ok(addresses.into_iter().map(Place::Address).collect())
}

fn body(config: &Config) -> Result<Body> {
    let key = &config.routing_key_file;
    Ok(match (config.body.unwrap_or_default(), key) {
        (BodyKind::Pagerduty, Some(path)) => Body::Pagerduty(absolute("routing_key_file", path)?),
        (BodyKind::Pagerduty, None) => bail!(
            "PagerDuty wants the integration's key: write it to a file and give \
             `routing_key_file`"
        ),
        (_, Some(_)) => bail!("`routing_key_file` goes with body = \"pagerduty\""),
        (BodyKind::Slack, None) => Body::Slack,
        (BodyKind::Native, None) => Body::Native,
    })
}

fn access(config: &Config) -> Result<Access> {
    let path = |option, path: &Option<PathBuf>| {
        path.as_deref()
            .map(|path| absolute(option, path))
            .transpose()
    };
    Ok(Access {
        bearer_token_file: path("bearer_token_file", &config.bearer_token_file)?,
        ca_file: path("ca_file", &config.ca_file)?,
        ..Access::default()
    })
}

fn socket(config: &Config, usual: &str) -> Result<PathBuf> {
    config
        .socket
        .as_deref()
        .map_or_else(|| Ok(usual.into()), |path| absolute("socket", path))
}

/// The working directory of a daemon is nobody's choice.
pub(crate) fn absolute(option: &str, path: &Path) -> Result<PathBuf> {
    ensure!(
        path.is_absolute(),
        "`{option}` is a whole path, beginning with /"
    );
    Ok(path.to_owned())
}

pub(crate) fn duration(option: &str, text: Option<&str>, usual: Duration) -> Result<Duration> {
    let Some(text) = text else {
        return Ok(usual);
    };
    let parsed = text.parse::<SignedDuration>().ok();
    match parsed.and_then(|duration| Duration::try_from(duration).ok()) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => bail!("`{option}` is a time such as \"10s\" or \"1m\", not {text:?}"),
    }
}

/// Whether a reason is the one that is named, or of the family that is named.
pub(crate) fn is_reason(reason: &str, named: &str) -> bool {
    reason
        .strip_prefix(named)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The options that are there and do not belong to every type, with the types they belong to.
fn present(config: &Config) -> Vec<(&'static str, &'static [Kind])> {
    use Kind::{Alertmanager, Command, Journald, Stdout, Syslog, Webhook};
    const HTTP: &[Kind] = &[Alertmanager, Webhook];
    let options: [(&str, bool, &[Kind]); 13] = [
        ("url", config.url.is_some(), HTTP),
        ("urls", config.urls.is_some(), &[Alertmanager]),
        ("url_file", config.url_file.is_some(), HTTP),
        (
            "bearer_token_file",
            config.bearer_token_file.is_some(),
            HTTP,
        ),
        ("ca_file", config.ca_file.is_some(), HTTP),
        ("resend", config.resend.is_some(), &[Alertmanager]),
        (
            "generator_url",
            config.generator_url.is_some(),
            &[Alertmanager],
        ),
        ("body", config.body.is_some(), &[Webhook]),
        (
            "routing_key_file",
            config.routing_key_file.is_some(),
            &[Webhook],
        ),
        ("command", config.command.is_some(), &[Command]),
        ("socket", config.socket.is_some(), &[Journald, Syslog]),
        ("facility", config.facility.is_some(), &[Syslog]),
        ("format", config.format.is_some(), &[Stdout]),
    ];
    options
        .into_iter()
        .filter_map(|(option, is_there, kinds)| is_there.then_some((option, kinds)))
        .collect()
}

#[cfg(test)]
mod tests;
