//! A real Prometheus, with the rules that are shipped.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::foreground::free_port;
use crate::wait;

/// Until an answer is there, at the latest.
const ANSWER: Duration = Duration::from_secs(30);

/// Prometheus, with a folder of its own. It is killed when this is dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Prometheus {
    /// Starts it; it scrapes that address each second.
    pub fn start(target: SocketAddr) -> Result<Self> {
        // Somebody else may be quicker to take a port; then there is another.
        for _ in 0..5 {
            if let Some(prometheus) = Self::try_start(target)? {
                return Ok(prometheus);
            }
        }
        bail!("Prometheus found no port")
    }

    /// `None` where it ended at once.
    fn try_start(target: SocketAddr) -> Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let rules = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../packaging/prometheus/turnaway.rules.yml")
            .canonicalize()?;
        let config = dir.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
                 rule_files: ['{}']\n\
                 scrape_configs:\n- job_name: turnaway\n  static_configs: [{{targets: ['{target}']}}]\n",
                rules.display()
            ),
        )?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let data = dir.path().join("data");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log"))?)
            .spawn()
            .context("no prometheus: run `cargo xtask setup --tests`")?;
        let mut this = Self {
            child,
            address,
            dir,
        };
        let up = wait::until("Prometheus starts", || {
            if this.child.try_wait()?.is_some() {
                return Ok(Some(false));
            }
            Ok(this.ask("/-/ready").is_ok().then_some(true))
        });
        let up = up.with_context(|| this.log())?;
        Ok(up.then_some(this))
    }

    /// What its API answers, if that is good.
    fn ask(&self, path: &str) -> Result<String> {
        let mut connection = TcpStream::connect_timeout(&self.address, ANSWER)?;
        connection.set_read_timeout(Some(ANSWER))?;
        write!(connection, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{answer}");
        }
        Ok(body.to_owned())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The value of an expression, where it has one.
    pub fn value(&self, expression: &str) -> Result<Option<f64>> {
        let mut encoded = String::new();
        for byte in expression.bytes() {
            write!(encoded, "%{byte:02X}")?;
        }
        let body = self.ask(&format!("/api/v1/query?query={encoded}"))?;
        let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        let value = answer["data"]["result"][0]["value"][1].as_str();
        Ok(value.map(str::parse).transpose()?)
    }

    /// Waits until an expression has that value.
    pub fn shows(&self, expression: &str, expected: f64) -> Result<()> {
        let mut last = None;
        wait::until_true(expression, || {
            last = self.value(expression)?;
            Ok(last.is_some_and(|value| (value - expected).abs() < 1e-9))
        })
        .with_context(|| format!("{last:?} is not {expected}\n{}", self.log()))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
