//! A shop: nginx in front of two backends, which ask a database through a pooler. It is what those who buy see.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::as_nobody;
use super::foreground::{Foreground, free_port, open_to_all};
use super::nginx::{self, Nginx};
use super::postgres;
use anyhow::{Context as _, Result};

/// Requests that each backend works on at once.
const THREADS: u32 = 48;
/// Buyers come one after the other so soon.
const PACE: Duration = Duration::from_millis(25);
/// … and no more of them, whatever happens.
const BUYERS: usize = 2_000;
/// No buyer waits longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Buys something. Whoever cannot reach the database is not served, which takes two seconds to find out.
const PROGRAM: &str = "\
import os, psycopg2
def app(environ, start_response):
    try:
        db = psycopg2.connect(os.environ['DATABASE'])
        try:
            with db, db.cursor() as cursor:
                cursor.execute('insert into orders default values')
        finally:
            db.close()
    except psycopg2.Error:
        start_response('503 Service Unavailable', [('Content-Length', '0')])
        return []
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
";

/// The servers in front of the pooler.
pub struct Shop {
    /// Where it is.
    pub port: u16,
    /// What answers there.
    pub nginx: Foreground,
    /// What that asks: gunicorn, two of them.
    pub backends: [Foreground; 2],
    log: PathBuf,
}

impl Shop {
    /// Opens it.
    pub fn open(dir: &Path, pooler: u16) -> Result<Self> {
        let program = dir.join("shop.py");
        fs::write(&program, PROGRAM)?;
        let ports = [free_port()?, free_port()?, free_port()?];
        let [port, one, other] = ports;
        let backend = |port: u16| {
            let mut command = as_nobody("/usr/bin/gunicorn");
            command
                .args(["--worker-class", "gthread", "--workers", "1"])
                .args(["--threads", &THREADS.to_string()])
                .args(["--bind", &format!("127.0.0.1:{port}")])
                .args(["--worker-tmp-dir", "/dev/shm", "--chdir"])
                .arg(dir)
                .arg("shop:app")
                .env(
                    "DATABASE",
                    format!(
                        "host=127.0.0.1 port={pooler} user={} dbname=postgres connect_timeout=2",
                        postgres::USER
                    ),
                );
            Foreground::start(&mut command, port)
        };
        let log = dir.join("answers");
        let http = format!(
            "log_format answer '$status';
            upstream backends {{ server 127.0.0.1:{one}; server 127.0.0.1:{other}; }}
            server {{
                listen 127.0.0.1:{port};
                access_log {} answer;
                location / {{ proxy_pass http://backends; proxy_next_upstream off; }}
            }}",
            log.display()
        );
        let backends = [backend(one)?, backend(other)?];
        let folder = dir.join("nginx");
        fs::create_dir(&folder)?;
        open_to_all(&folder)?;
        let arguments = Nginx {
            http: &http,
            ..Nginx::default()
        }
        .configure(&folder)?;
        let mut command = as_nobody(nginx::PROGRAM);
        let nginx = Foreground::start(command.args(arguments), port)?;
        Ok(Self {
            port,
            nginx,
            backends,
            log,
        })
    }

    /// Has buyers come until it closes, and returns how many were answered with which status.
    pub fn sell(&self, closes: &AtomicBool) -> Result<BTreeMap<u16, usize>> {
        std::thread::scope(|buyers| {
            let mut waiting = Vec::new();
            while !closes.load(Ordering::Relaxed) && waiting.len() < BUYERS {
                let buyer = buyer(self.port)?;
                waiting.push(buyers.spawn(|| answer(buyer)));
                std::thread::sleep(PACE);
            }
            let mut answers = BTreeMap::new();
            for buyer in waiting {
                let status = buyer.join().unwrap_or_else(|panic| resume_unwind(panic))?;
                *answers.entry(status).or_default() += 1;
            }
            Ok(answers)
        })
    }

    /// Answers that nginx has given, by its own log: how many, and how many of them with this status.
    pub fn answers(&self, status: u16) -> Result<(usize, usize)> {
        let log = fs::read_to_string(&self.log).context("no answer yet")?;
        let wanted = status.to_string();
        let with = log.lines().filter(|line| *line == wanted).count();
        Ok((log.lines().count(), with))
    }

    /// The processes that ask for the buyers: gunicorn's workers.
    pub fn workers(&self) -> Result<Vec<u32>> {
        let mut workers = Vec::new();
        for master in &self.backends {
            let pid = master.0.id();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            for child in children.split_whitespace() {
                workers.push(child.parse()?);
            }
        }
        Ok(workers)
    }
}

/// Somebody who has said what to buy.
pub fn buyer(port: u16) -> Result<TcpStream> {
    let mut buyer = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    buyer.set_read_timeout(Some(PATIENCE))?;
    buyer.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")?;
    Ok(buyer)
}

/// The status that somebody is answered with.
pub fn answer(mut buyer: TcpStream) -> Result<u16> {
    let mut text = String::new();
    buyer.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).context("no status")?;
    Ok(status.parse()?)
}
