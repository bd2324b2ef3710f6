//! The address of a receiver, of which only what is no secret is ever shown.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use ureq::http::Uri;

/// An `http` or `https` URL. Shown and debugged without user info and query.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Uri);

impl Address {
    /// Understands a URL. What is wrong with it is said without repeating it.
    pub fn parse(text: &str) -> Result<Self> {
        let uri: Uri = text
            .trim()
            .parse()
            .ok()
            .context("the address is not a URL such as https://host/path")?;
        ensure!(
            matches!(uri.scheme_str(), Some("http" | "https")),
            "the address does not begin with http:// or https://"
        );
        let authority = uri.authority().context("the address names no host")?;
        ensure!(!authority.host().is_empty(), "the address names no host");
        ensure!(
            !authority.as_str().contains('@'),
            "user and password do not belong into an address: use `bearer_token_file`"
        );
        Ok(Self(uri))
    }

    /// The whole of it, secrets included.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.0.to_string()
    }

    /// The parts of it that may be secrets, longest first: of one from a file (`all`), whatever comes
    /// after the host, else what comes after the question mark.
    #[must_use]
    pub fn secrets(&self, all: bool) -> Vec<String> {
        let path = self.0.path().trim_end_matches('/');
        let parts = [
            all.then(|| self.0.path_and_query().map_or("", |both| both.as_str())),
            all.then_some(path),
            self.0.query(),
        ];
        let parts = parts.into_iter().flatten();
        parts
            .filter(|part| part.len() > 1)
            .map(str::to_owned)
            .collect()
    }

    /// It with `path` added.
    pub fn join(&self, path: &str) -> Result<Self> {
        let base = format!("{self}");
        Self::parse(&format!("{}{path}", base.trim_end_matches('/')))
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Whether it is on this host, for certain.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let host = self.0.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let authority = self
            .0
            .authority()
            .map_or("", |authority| authority.as_str());
        write!(f, "{scheme}://{authority}{}", self.0.path())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn only_what_is_no_secret_is_shown() {
        let address = Address::parse("https://hooks.example/services/x?token=s3cret").unwrap();
        assert_eq!(address.to_string(), "https://hooks.example/services/x");
        assert_eq!(format!("{address:?}"), "https://hooks.example/services/x");
        assert!(address.reveal().ends_with("?token=s3cret"));
        for wrong in [
            "https://me:s3cret@host/",
            "s3cret",
            "ftp://s3cret",
            "http://?s3cret",
            "http://s3cret o",
        ] {
            let error = format!("{:#}", Address::parse(wrong).unwrap_err());
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn what_comes_after_the_host_may_be_a_secret() {
        let address = Address::parse("https://host/T0/s3cret?q=1").unwrap();
        assert_eq!(
            address.secrets(true),
            ["/T0/s3cret?q=1", "/T0/s3cret", "q=1"]
        );
        assert_eq!(address.secrets(false), ["q=1"]);
        let address = Address::parse("https://host").unwrap();
        assert!(address.secrets(true).is_empty());
    }

    #[test]
    fn paths_are_joined_with_one_slash() {
        for (base, joined) in [
            ("http://am:9093", "http://am:9093/api/v2/alerts"),
            ("http://am:9093/", "http://am:9093/api/v2/alerts"),
            ("http://[::1]/am/", "http://[::1]/am/api/v2/alerts"),
        ] {
            let address = Address::parse(base).unwrap();
            assert_eq!(address.join("/api/v2/alerts").unwrap().reveal(), joined);
        }
    }

    #[test]
    fn this_host_is_known() {
        for (url, local) in [
            ("http://127.0.0.1:9093", true),
            ("http://[::1]:9093/x", true),
            ("http://localhost", true),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(Address::parse(url).unwrap().is_local(), local, "{url}");
        }
    }
}
