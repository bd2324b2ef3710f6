//! Requests over HTTP, with nothing in errors that is a secret.

use std::{fs, io::Read as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use ureq::{
    Agent, Body, Error,
    http::{Response, header::RETRY_AFTER},
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};

use super::{
    address::Address,
    config::{Access, Place},
    receiver::Failure,
    secret::Secret,
    wording,
};
use crate::text;

/// Bytes of an answer that are read, to say why it refused, and that are shown. Secrets are hidden in
/// between, so that none is cut and then not recognised.
const MAX_ANSWER: u64 = 64 * 1024;
const MAX_SHOWN: usize = 300;
/// Bytes of an answer that it was taken: it may tell of each record.
const MAX_TAKEN: u64 = 16 << 20;
/// Bytes of a file of certificates at most.
const MAX_CERTIFICATES: u64 = 4 * 1024 * 1024;

/// Asks one receiver.
pub(crate) struct Client {
    place: Place,
    access: Access,
    timeout: Duration,
    /// Connections that are kept for the next request.
    idle: usize,
    /// Made once, with the certificates of that time.
    agent: Option<(Needs, Agent)>,
}

/// What an address needs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Needs {
    proxy: bool,
    certificates: bool,
}

impl Client {
    pub(crate) fn new(place: Place, access: &Access, timeout: Duration) -> Self {
        Self {
            place,
            access: access.clone(),
            timeout,
            // Alerts are rare: a connection kept open would be stale by the next.
            idle: 0,
            agent: None,
        }
    }

    /// For whoever asks often: a connection is kept.
    pub(crate) fn keeping(self) -> Self {
        Self { idle: 1, ..self }
    }

    /// Sends `body`, which may hold a `secret`, to the receiver's address with `path` added.
    pub(super) fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
        secret: Option<&Secret>,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Failure::Never(format!("the alert cannot be written: {error}")))?;
        self.send(path, "application/json", headers, &body, secret)
            .map(drop)
    }

    /// Sends bytes of a type; returns what the receiver said to it.
    pub(crate) fn send(
        &mut self,
        path: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        secret: Option<&Secret>,
    ) -> Result<Vec<u8>, Failure> {
        let (address, mut secrets) = self.address(path)?;
        let token = match &self.access.bearer_token_file {
            Some(file) => Some(Secret::read(file).map_err(|error| wrong(&error))?),
            None => None,
        };
        let scheme = self.access.scheme;
        let agent = self.agent(&address)?;
        let mut request = agent
            .post(address.reveal())
            .header("content-type", content_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &token {
            request = request.header("authorization", format!("{scheme} {}", token.reveal()));
        }
        secrets.extend(token);
        secrets.extend(secret.map(|secret| Secret::part(secret.reveal().to_owned())));
        match request.send(body) {
            Ok(answer) => understand(answer, &secrets),
            Err(error) => Err(Failure::later(say(&error, self.timeout))),
        }
    }

    /// The whole address, and what of it must not come back in messages.
    fn address(&self, path: &str) -> Result<(Address, Vec<Secret>), Failure> {
        let (address, is_secret) = match &self.place {
            Place::Address(address) => (address.clone(), false),
            Place::File(file) => {
                let secret = Secret::read(file).map_err(|error| wrong(&error))?;
                let address =
                    Address::parse(secret.reveal()).with_context(|| format!("{}", file.display()));
                (address.map_err(|error| wrong(&error))?, true)
            }
        };
        // A server's answer likes to repeat the path that it does not know.
        let secrets = address.secrets(is_secret).into_iter().map(Secret::part);
        let secrets = secrets.collect();
        let address = if path.is_empty() {
            address
        } else {
            address.join(path).map_err(|error| wrong(&error))?
        };
        Ok((address, secrets))
    }

    /// Reads the system's certificates while its disk is well, not when alerts come.
    pub(super) fn prepare(&mut self) {
        if let Place::Address(address) = &self.place {
            let address = address.clone();
            // What is wrong is said when there is something to deliver.
            let _ = self.agent(&address);
        }
    }

    fn agent(&mut self, address: &Address) -> Result<&Agent, Failure> {
        let needs = Needs {
            proxy: !address.is_local(),
            certificates: address.is_https(),
        };
        // Where the address is in a file, it may have changed.
        let agent = match self.agent.take() {
            Some((made_for, agent)) if made_for == needs => agent,
            _ => self.make_agent(needs).map_err(|error| wrong(&error))?,
        };
        Ok(&self.agent.insert((needs, agent)).1)
    }

    fn make_agent(&self, needs: Needs) -> Result<Agent> {
        let roots = if needs.certificates {
            roots(self.access.ca_file.as_deref())?
        } else {
            Vec::new()
        };
        let client = match &self.access.client {
            Some((certificates, key)) => {
                let (certificates, key) = identity(certificates, key)?;
                Some(ClientCert::new_with_certs(&certificates, key))
            }
            None => None,
        };
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::from(roots))
            .client_cert(client)
            .build();
        let mut config = Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("turnaway/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(self.timeout))
            .http_status_as_error(false)
            // A redirect would take the alert, and the token, elsewhere.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(self.idle)
            .max_idle_connections_per_host(self.idle);
        if !needs.proxy {
            config = config.proxy(None);
        }
        Ok(config.build().new_agent())
    }
}

/// What is trusted: the system's certificates and those in a file.
pub(crate) fn roots(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>> {
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        log::debug!("a certificate of the system cannot be used: {error}");
    }
    let mut all: Vec<Certificate<'static>> = system
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    if let Some(path) = ca_file {
        all.extend(certificates(path)?);
    }
    Ok(all)
}

/// The client's own certificate with those that vouch for it, and its key.
pub(crate) fn identity(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<Certificate<'static>>, PrivateKey<'static>)> {
    let found = pem(key)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let key = found.with_context(|| format!("{} holds no private key", key.display()))?;
    Ok((certificates(certificate)?, key))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let found: Vec<_> = pem(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    ensure!(!found.is_empty(), "{} holds no certificate", path.display());
    Ok(found)
}

fn pem(path: &Path) -> Result<Vec<PemItem<'static>>> {
    let shown = path.display();
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_CERTIFICATES).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {shown}"))?;
    parse_pem(&bytes)
        .map(|item| item.with_context(|| format!("{shown} is not PEM")))
        .collect()
}

/// Something here is wrong, which somebody may mend.
fn wrong(error: &anyhow::Error) -> Failure {
    Failure::later(format!("{error:#}"))
}

fn understand(mut answer: Response<Body>, secrets: &[Secret]) -> Result<Vec<u8>, Failure> {
    let status = answer.status();
    let after = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let mut said = Vec::new();
    // Half an answer says something too.
    let _ = answer
        .body_mut()
        .as_reader()
        .take(if status.is_success() {
            MAX_TAKEN
        } else {
            MAX_ANSWER
        })
        .read_to_end(&mut said);
    if status.is_success() {
        return Ok(said);
    }
    let mut said = String::from_utf8_lossy(&said).trim().to_owned();
    for secret in secrets {
        said = secret.hide_in(&said);
    }
    let said = text::terminal(wording::cut(&said, MAX_SHOWN).as_bytes());
    let colon = if said.is_empty() { "" } else { ": " };
    let why = format!("answered {}{colon}{said}", status.as_u16());
    match status.as_u16() {
        // Bad request, too large, unprocessable: about what was sent, not about who or when.
        400 | 413 | 422 => Err(Failure::Never(format!("the receiver {why}"))),
        300..=399 => Err(Failure::later(format!(
            "{why} (redirects are not followed)"
        ))),
        _ => Err(Failure::Later { why, after }),
    }
}

/// Why there was no answer. Some errors of the library carry the address, and are not passed on.
fn say(error: &Error, timeout: Duration) -> String {
    match error {
        Error::Io(error) => error.to_string(),
        Error::Timeout(_) => format!("no answer within {} s", timeout.as_secs_f32()),
        Error::HostNotFound => "the host's name is not known".to_owned(),
        Error::ConnectionFailed => "cannot connect".to_owned(),
        Error::Rustls(error) => format!("TLS: {error}"),
        Error::Tls(what) => format!("TLS: {what}"),
        Error::Protocol(_) => "the answer is not HTTP".to_owned(),
        Error::ConnectProxyFailed(_) => "the proxy refused".to_owned(),
        Error::InvalidProxyUrl => "the proxy in the environment is not a URL".to_owned(),
        Error::LargeResponseHeader(..) => "the answer's header is too large".to_owned(),
        Error::Http(_) => "the token cannot be sent in a header".to_owned(),
        _ => "the request failed".to_owned(),
    }
}
