//! A real Alertmanager.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use crate::servers::foreground::Foreground;
use crate::wait;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// Alertmanager, with a folder of its own. It is ended when this is dropped.
pub struct Alertmanager {
    _server: Foreground,
    port: u16,
    _dir: TempDir,
}

impl Alertmanager {
    /// Starts it on a port, knowing nothing; what it has to say goes to `tells`.
    pub fn start(port: u16, tells: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("config.yml");
        fs::write(
            &config,
            format!(
                "route:\n  receiver: test\n  group_by: ['...']\n  group_wait: 0s\n  group_interval: 1s\n\
                 receivers:\n- name: test\n  webhook_configs:\n  - url: {tells}\n    send_resolved: true\n"
            ),
        )?;
        // It listens before it is ready, and on what looks like any address.
        let mut server = Command::new("/usr/bin/prometheus-alertmanager");
        server
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=");
        let server = Foreground::start(&mut server, port)
            .context("no Alertmanager: run `cargo xtask setup --tests`")?;
        let alertmanager = Self {
            _server: server,
            port,
            _dir: dir,
        };
        wait::until_true("Alertmanager to be ready", || {
            Ok(alertmanager.get("/-/ready").is_ok())
        })?;
        Ok(alertmanager)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Alerts that fire, as its API says.
    pub fn firing(&self) -> Result<Vec<Value>> {
        let all = self.get("/api/v2/alerts?active=true&silenced=false&inhibited=false")?;
        Ok(serde_json::from_str(&all)?)
    }

    /// Waits until what fires is as it should be.
    pub fn until(&self, what: &str, holds: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        wait::until(what, || {
            let firing = self.firing()?;
            Ok(holds(&firing).then_some(firing))
        })
        .with_context(|| format!("{:?}", self.firing()))
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        write!(connection, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "{answer}");
        Ok(body.to_owned())
    }
}
