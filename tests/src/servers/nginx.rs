//! nginx with a configuration of its own.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Where it is.
pub const PROGRAM: &str = "/usr/sbin/nginx";
/// The name of its log, in its folder.
pub const LOG: &str = "log";

/// What one nginx is to do.
#[derive(Clone, Copy, Debug)]
pub struct Nginx<'a> {
    /// Directives of the outermost context.
    pub main: &'a str,
    /// The most connections of a worker.
    pub connections: u32,
    /// What it serves: directives of the http context.
    pub http: &'a str,
}

impl Default for Nginx<'_> {
    fn default() -> Self {
        Self {
            main: "daemon off; worker_processes 1;",
            connections: 512,
            http: "",
        }
    }
}

impl Nginx<'_> {
    /// Writes the configuration to a folder, where pid, log and temporary files are too. Returns the
    /// arguments to run it with.
    pub fn configure(&self, dir: &Path) -> Result<[OsString; 4]> {
        let Self {
            main,
            connections,
            http,
        } = self;
        let folder = dir.display();
        let text = format!(
            "{main} pid {folder}/pid; error_log {folder}/{LOG};
            events {{ worker_connections {connections}; }}
            http {{
                access_log off;
                client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
                scgi_temp_path {folder}/scgi;
                {http}
            }}\n"
        );
        let config = dir.join("nginx.conf");
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        // It may run as a user of its own.
        fs::set_permissions(&config, Permissions::from_mode(0o644))?;
        Ok([
            "-e".into(),
            dir.join(LOG).into(),
            "-c".into(),
            config.into(),
        ])
    }
}

/// A server that answers at a port of 127.0.0.1; `more` are options of listening.
#[must_use]
pub fn answers(port: u16, more: &str) -> String {
    format!("server {{ listen 127.0.0.1:{port} {more}; location / {{ return 204; }} }}")
}
