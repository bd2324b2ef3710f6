//! `[[stream]]` of the configuration: as it is written, and as it is understood (docs/stream.md).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::{entry, format::Format, privacy::Privacy};
use crate::{
    alert::Severity,
    notify::{
        Address,
        config::{
            Access, Facility, Place, Url, absolute, check_options, check_reasons, duration,
            is_reason, understand_each,
        },
    },
    text,
};

/// Records that wait in memory at most, where nothing else is said.
const QUEUE: usize = 10_000;
const MAX_QUEUE: usize = 1_000_000;
/// Records that are sent at once at most.
const BATCH: usize = 1_000;
const MAX_BATCH: usize = 100_000;
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_TIMEOUT: Duration = Duration::from_mins(10);
/// What waits on disk, bytes.
const SPOOL: u64 = 256 << 20;
/// A smaller one would be no more than a few records.
const MIN_SPOOL: u64 = 64 << 10;
/// So long a connection has to go on after its receiver's kernel has the bytes.
const SETTLE: Duration = Duration::from_secs(2);
/// The number for whoever has none (RFC 5612).
const ENTERPRISE: u32 = 32_473;
/// A file that is full.
const SIZE: u64 = 100 << 20;
const KEEP: u32 = 4;
const MAX_KEEP: u32 = 1_000;

/// One `[[stream]]`, as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What kind of receiver it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What it is called in metrics, in messages and in the spool's folder.
    pub name: Option<String>,
    /// In whose words records are told.
    #[serde(default)]
    pub format: Format,
    /// What each record is put into.
    pub envelope: Option<Envelope>,
    /// How records are told apart in a stream of bytes.
    pub framing: Option<Framing>,
    /// What syslog files it under.
    pub facility: Option<Facility>,
    /// Whose structured data it is: a private enterprise number.
    pub enterprise: Option<u32>,
    /// Types of records that are sent; all where nothing is said.
    pub types: Option<Vec<entry::Kind>>,
    /// Only records with these reasons are sent, beside those that have none.
    #[serde(default)]
    pub only: Vec<String>,
    /// Records with these reasons are not sent.
    #[serde(default)]
    pub except: Vec<String>,
    /// Records less severe than this are not sent.
    pub min_severity: Option<Severity>,
    /// Records a second at most: exemplars above that are withheld and counted.
    pub rate: Option<u32>,
    /// Records that wait in memory at most.
    pub queue: Option<usize>,
    /// Records that are sent at once at most.
    pub batch: Option<usize>,
    /// How long one attempt may take.
    pub timeout: Option<String>,
    /// Most that waits on disk.
    pub spool: Option<String>,
    /// How long a connection must go on after its receiver has the bytes for them to have arrived.
    pub settle: Option<String>,
    /// A file, or a socket of this host.
    pub path: Option<PathBuf>,
    /// What kind of socket it is.
    pub socket: Option<SocketKind>,
    /// HOST:PORT.
    pub address: Option<String>,
    /// The name in the receiver's certificate, if not the host's.
    pub server_name: Option<String>,
    /// A file is full from this size.
    pub size: Option<String>,
    /// So many full files are kept.
    pub keep: Option<u32>,
    /// A file is full after this time.
    pub every: Option<String>,
    /// When the disk itself is asked to keep a file.
    pub fsync: Option<Fsync>,
    /// Where records are posted.
    pub url: Option<Url>,
    /// A file that holds the address, where that is a secret.
    pub url_file: Option<PathBuf>,
    /// What is posted.
    pub body: Option<BodyKind>,
    /// The index or data stream (elasticsearch), or the index (splunk).
    pub index: Option<String>,
    /// A file that holds a token which is sent as `Authorization: Bearer`.
    pub bearer_token_file: Option<PathBuf>,
    /// A file that holds the token of Splunk's HTTP event collector.
    pub token_file: Option<PathBuf>,
    /// Certificates to trust besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
}

/// What kind of receiver it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Kind {
    Stdout,
    File,
    Unix,
    Tcp,
    Tls,
    Udp,
    Http,
}

impl Kind {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File => "file",
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
            Self::Http => "http",
        }
    }
}

/// What each record is put into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    /// Nothing.
    #[default]
    None,
    /// A syslog message.
    Rfc5424,
}

/// How records are told apart in a stream of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// A line feed ends each.
    #[default]
    Ndjson,
    /// Its length comes before each (RFC 6587).
    OctetCounted,
}

/// Kinds of sockets of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum SocketKind {
    #[default]
    Stream,
    Datagram,
}

/// When the disk itself is asked to keep a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// When the kernel likes.
    Never,
    /// Once a second.
    #[default]
    Second,
    /// After each batch.
    Always,
}

/// What is posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are the receivers' own names")]
pub enum BodyKind {
    #[default]
    Ndjson,
    Elasticsearch,
    Splunk,
    Loki,
    Otlp,
}

/// One `[[stream]]`, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// What it is called, unlike all others.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// What of all records it wants.
    pub wants: Wants,
    /// What of them is nobody's business.
    pub privacy: Privacy,
    /// In whose words they are told.
    pub format: Format,
    /// Records a second at most.
    pub rate: Option<u32>,
    /// Records that wait in memory at most.
    pub queue: usize,
    /// Records that are sent at once at most.
    pub batch: usize,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// The syslog message around each, if any.
    pub envelope: Option<Syslog>,
    /// Most bytes that wait on disk; `None` for what has no spool.
    pub spool: Option<u64>,
    /// Where records go.
    pub target: Target,
}

/// A syslog message around each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// What it is filed under.
    pub facility: Facility,
    /// Whose structured data it is.
    pub enterprise: u32,
}

/// What of all records is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wants {
    types: Vec<entry::Kind>,
    min_severity: Severity,
    only: Vec<String>,
    except: Vec<String>,
}

impl Wants {
    /// Whether a record is wanted. What has no reason or no severity is not judged by it: that turnaway
    /// lives is told to everybody who does not leave out the type.
    #[must_use]
    pub fn accept(&self, entry: &entry::Entry) -> bool {
        let is_any =
            |named: &[String], reason: &str| named.iter().any(|named| is_reason(reason, named));
        self.types.contains(&entry.kind)
            && entry
                .severity
                .is_none_or(|severity| severity >= self.min_severity)
            && entry.reason.as_ref().is_none_or(|reason| {
                (self.only.is_empty() || is_any(&self.only, reason))
                    && !is_any(&self.except, reason)
            })
    }
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file.
    File(FileTarget),
    /// Datagrams to a socket of this host.
    Datagrams(PathBuf),
    /// Datagrams to a host.
    Udp(String),
    /// A connection.
    Connection(Connection),
    /// Posted.
    Http(Http),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(file) => write!(f, "{}", file.path.display()),
            Self::Datagrams(path) => write!(f, "{}", path.display()),
            Self::Udp(address) => f.write_str(address),
            Self::Connection(connection) => match &connection.to {
                To::Unix(path) => write!(f, "{}", path.display()),
                To::Tcp(address) | To::Tls(address, _) => f.write_str(address),
            },
            Self::Http(http) => http.url.fmt(f),
        }
    }
}

/// A file that is rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTarget {
    /// Where it is.
    pub path: PathBuf,
    /// It is full from this size, bytes.
    pub size: u64,
    /// It is full after this time.
    pub every: Option<Duration>,
    /// So many full ones are kept.
    pub keep: u32,
    /// When the disk itself is asked to keep it.
    pub fsync: Fsync,
}

/// A stream of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// To where.
    pub to: To,
    /// How records are told apart.
    pub framing: Framing,
    /// See [`Config::settle`].
    pub settle: Duration,
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// A socket of this host.
    Unix(PathBuf),
    /// HOST:PORT.
    Tcp(String),
    /// The same, encrypted.
    Tls(String, Tls),
}

/// Who is trusted, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The name in the receiver's certificate.
    pub server_name: String,
    /// Certificates to trust besides the system's, and the client's own.
    pub access: Access,
}

/// Where records are posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where.
    pub url: Place,
    /// How.
    pub access: Access,
    /// What.
    pub body: Body,
}

/// What is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the receivers' own names")]
pub enum Body {
    Ndjson,
    Elasticsearch { index: String },
    Splunk { index: Option<String> },
    Loki,
    Otlp,
}

/// Understands all `[[stream]]`, or says everything that is wrong with them.
pub fn understand(configs: &[Config], privacy: &Privacy) -> Result<Vec<Stream>> {
    let name = |config: &Config| config.name.clone();
    understand_each(
        "stream",
        configs,
        |one| (name(one), one.kind.name()),
        |config, name| stream(config, name, privacy),
    )
}

fn stream(config: &Config, name: &str, privacy: &Privacy) -> Result<Stream> {
    check_options(config.kind, Kind::name, &present(config))?;
    check_reasons(config.only.iter().chain(&config.except))?;
    let timeout = duration("timeout", config.timeout.as_deref(), TIMEOUT)?;
    ensure!(timeout <= MAX_TIMEOUT, "`timeout` is at most 10 min");
    let queue = config.queue.unwrap_or(QUEUE);
    ensure!(
        (1..=MAX_QUEUE).contains(&queue),
        "`queue` is a number from 1 to {MAX_QUEUE}"
    );
    let batch = config.batch.unwrap_or(BATCH);
    ensure!(
        (1..=MAX_BATCH).contains(&batch),
        "`batch` is a number from 1 to {MAX_BATCH}"
    );
    ensure!(config.rate != Some(0), "`rate` is at least 1");
    let target = target(config)?;
    let has_spool = matches!(target, Target::Connection(_) | Target::Http(_));
    let spool = size("spool", config.spool.as_deref(), SPOOL)?;
    ensure!(
        spool >= MIN_SPOOL,
        "`spool` is at least {}K",
        MIN_SPOOL >> 10
    );
    ensure!(
        has_spool || config.spool.is_none(),
        "`spool` is for connections: nothing of datagrams is known to arrive"
    );
    let envelope = match config.envelope.unwrap_or_default() {
        Envelope::Rfc5424 => Some(Syslog {
            facility: config.facility.unwrap_or_default(),
            enterprise: config.enterprise.unwrap_or(ENTERPRISE),
        }),
        Envelope::None => {
            ensure!(
                config.facility.is_none() && config.enterprise.is_none(),
                "`facility` and `enterprise` go with envelope = \"rfc5424\""
            );
            None
        }
    };
    Ok(Stream {
        name: name.to_owned(),
        kind: config.kind,
        wants: Wants {
            types: config
                .types
                .clone()
                .unwrap_or_else(|| entry::Kind::ALL.to_vec()),
            min_severity: config.min_severity.unwrap_or(Severity::Info),
            only: config.only.clone(),
            except: config.except.clone(),
        },
        privacy: privacy.clone(),
        format: config.format,
        rate: config.rate,
        queue,
        batch,
        timeout,
        envelope,
        spool: has_spool.then_some(spool),
        target,
    })
}

fn target(config: &Config) -> Result<Target> {
    let path = || {
        let path = config.path.as_deref();
        absolute("path", path.context("where to? Give `path`")?)
    };
    Ok(match config.kind {
        Kind::Stdout => Target::Stdout,
        Kind::File => Target::File(file(config, path()?)?),
        Kind::Unix => match config.socket.unwrap_or_default() {
            SocketKind::Stream => connection(config, To::Unix(path()?))?,
            SocketKind::Datagram => {
                ensure!(
                    config.framing.is_none() && config.settle.is_none(),
                    "`framing` and `settle` are for streams of bytes"
                );
                Target::Datagrams(path()?)
            }
        },
        Kind::Udp => Target::Udp(address(config)?),
        Kind::Tcp => connection(config, To::Tcp(address(config)?))?,
        Kind::Tls => {
            let address = address(config)?;
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            let host = host.trim_matches(['[', ']']).to_owned();
            let server_name = config.server_name.clone().unwrap_or(host);
            ensure!(
                rustls::pki_types::ServerName::try_from(server_name.as_str()).is_ok(),
                "{server_name:?} is no name that a certificate could have: give `server_name`"
            );
            let access = access(config)?;
            let tls = Tls {
                server_name,
                access,
            };
            connection(config, To::Tls(address, tls))?
        }
        Kind::Http => Target::Http(http(config)?),
    })
}

fn file(config: &Config, path: PathBuf) -> Result<FileTarget> {
    let keep = config.keep.unwrap_or(KEEP);
    ensure!(keep <= MAX_KEEP, "`keep` is at most {MAX_KEEP}");
    Ok(FileTarget {
        path,
        size: size("size", config.size.as_deref(), SIZE)?,
        every: config
            .every
            .as_deref()
            .map(|every| duration("every", Some(every), Duration::ZERO))
            .transpose()?,
        keep,
        fsync: config.fsync.unwrap_or_default(),
    })
}

fn connection(config: &Config, to: To) -> Result<Target> {
    Ok(Target::Connection(Connection {
        to,
        framing: config.framing.unwrap_or_default(),
        settle: duration("settle", config.settle.as_deref(), SETTLE)?,
    }))
}

fn address(config: &Config) -> Result<String> {
    let address = config.address.as_deref();
    let address = address.context("where to? Give `address = \"HOST:PORT\"`")?;
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .and_then(|(_, port)| port.parse::<u16>().ok());
    ensure!(
        port.is_some_and(|port| port > 0),
        "`address` is HOST:PORT, such as \"logs.example:6514\" or \"[::1]:514\", not {address:?}"
    );
    Ok(address.to_owned())
}

fn http(config: &Config) -> Result<Http> {
    let url = match (&config.url, &config.url_file) {
        (Some(_), Some(_)) => bail!("either `url` or `url_file`, not both"),
        (Some(url), None) => Place::Address(Address::parse(url.reveal())?),
        (None, Some(path)) => Place::File(absolute("url_file", path)?),
        (None, None) => bail!("where to? Give `url`, or `url_file` if it is a secret"),
    };
    let body = config.body.unwrap_or_default();
    let index = config.index.clone();
    if let Some(index) = &index {
        let good = |byte: u8| byte.is_ascii_graphic() && !b"\\/*?\"<>|#,:".contains(&byte);
        ensure!(
            matches!(body, BodyKind::Elasticsearch | BodyKind::Splunk),
            "`index` goes with body = \"elasticsearch\" or \"splunk\""
        );
        ensure!(
            (1..=255).contains(&index.len()) && index.bytes().all(good),
            "{index:?} cannot be the name of an index"
        );
    }
    ensure!(
        config.token_file.is_none() || body == BodyKind::Splunk,
        "`token_file` goes with body = \"splunk\"; others take `bearer_token_file`"
    );
    ensure!(
        config.token_file.is_none() || config.bearer_token_file.is_none(),
        "either `token_file` or `bearer_token_file`, not both"
    );
    ensure!(
        config.envelope.unwrap_or_default() == Envelope::None,
        "`envelope` is for syslog, which does not go over HTTP"
    );
    Ok(Http {
        url,
        access: access(config)?,
        body: match body {
            BodyKind::Ndjson => Body::Ndjson,
            BodyKind::Elasticsearch => Body::Elasticsearch {
                index: index.unwrap_or_else(|| "logs-turnaway-default".to_owned()),
            },
            BodyKind::Splunk => Body::Splunk { index },
            BodyKind::Loki => Body::Loki,
            BodyKind::Otlp => Body::Otlp,
        },
    })
}

fn access(config: &Config) -> Result<Access> {
    let path = |option, path: &Option<PathBuf>| {
        path.as_deref()
            .map(|path: &Path| absolute(option, path))
            .transpose()
    };
    let splunk = path("token_file", &config.token_file)?;
    ensure!(
        config.cert_file.is_some() == config.key_file.is_some(),
        "`cert_file` and `key_file` go together"
    );
    Ok(Access {
        scheme: if splunk.is_some() { "Splunk" } else { "Bearer" },
        bearer_token_file: splunk.or(path("bearer_token_file", &config.bearer_token_file)?),
        ca_file: path("ca_file", &config.ca_file)?,
        client: path("cert_file", &config.cert_file)?.zip(path("key_file", &config.key_file)?),
    })
}

fn size(option: &str, text: Option<&str>, usual: u64) -> Result<u64> {
    match text {
        None => Ok(usual),
        Some(text) => text::size(text).map_err(|why| anyhow::anyhow!("`{option}`: {why}")),
    }
}

/// The options that are there and do not belong to every type, with the types they belong to.
fn present(config: &Config) -> Vec<(&'static str, &'static [Kind])> {
    use Kind::{File, Http, Stdout, Tcp, Tls, Udp, Unix};
    const STREAM: &[Kind] = &[Unix, Tcp, Tls];
    const HOST: &[Kind] = &[Tcp, Tls, Udp];
    const TRUST: &[Kind] = &[Tls, Http];
    let options: [(&str, bool, &[Kind]); 22] = [
        (
            "envelope",
            config.envelope.is_some(),
            &[Stdout, File, Unix, Tcp, Tls, Udp],
        ),
        ("framing", config.framing.is_some(), STREAM),
        ("settle", config.settle.is_some(), STREAM),
        ("spool", config.spool.is_some(), &[Unix, Tcp, Tls, Http]),
        ("path", config.path.is_some(), &[File, Unix]),
        ("socket", config.socket.is_some(), &[Unix]),
        ("address", config.address.is_some(), HOST),
        ("server_name", config.server_name.is_some(), &[Tls]),
        ("size", config.size.is_some(), &[File]),
        ("keep", config.keep.is_some(), &[File]),
        ("every", config.every.is_some(), &[File]),
        ("fsync", config.fsync.is_some(), &[File]),
        ("url", config.url.is_some(), &[Http]),
        ("url_file", config.url_file.is_some(), &[Http]),
        ("body", config.body.is_some(), &[Http]),
        ("index", config.index.is_some(), &[Http]),
        ("token_file", config.token_file.is_some(), &[Http]),
        (
            "bearer_token_file",
            config.bearer_token_file.is_some(),
            &[Http],
        ),
        ("ca_file", config.ca_file.is_some(), TRUST),
        ("cert_file", config.cert_file.is_some(), TRUST),
        ("key_file", config.key_file.is_some(), TRUST),
        (
            "timeout",
            config.timeout.is_some(),
            &[Unix, Tcp, Tls, Udp, Http],
        ),
    ];
    options
        .into_iter()
        .filter_map(|(option, is_there, kinds)| is_there.then_some((option, kinds)))
        .collect()
}

#[cfg(test)]
mod tests;
