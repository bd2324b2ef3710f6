//! The daemon, with a real server that runs out of descriptors and a real Alertmanager. On its own,
//! since it looks at the whole machine.

#[path = "notify/alertmanager.rs"]
mod alertmanager;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use alertmanager::Alertmanager;
use serde_json::Value;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::{sys, tracer, wait};

const PATIENCE: Duration = Duration::from_secs(30);
const WORDS: &str = "accept4() failed (24: Too many open files)";

/// nginx with 32 descriptors.
struct Nginx {
    _server: Foreground,
    port: u16,
    log: PathBuf,
}

impl Nginx {
    fn start(dir: &Path) -> Self {
        let port = free_port().unwrap();
        let folder = dir.display();
        let config = dir.join("nginx.conf");
        fs::write(
            &config,
            format!(
                "daemon off; worker_processes 1; worker_rlimit_nofile 32; pid {folder}/pid;
                error_log {folder}/log;
                events {{ worker_connections 512; }}
                http {{
                    access_log off;
                    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
                    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
                    scgi_temp_path {folder}/scgi;
                    server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} }}
                }}\n"
            ),
        )
        .unwrap();
        let log = dir.join("log");
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-e").arg(&log).arg("-c").arg(config);
        Self {
            _server: Foreground::start(&mut command, port).unwrap(),
            port,
            log,
        }
    }

    /// How many accepts have failed, by its own log.
    fn failures(&self) -> usize {
        fs::read_to_string(&self.log)
            .unwrap()
            .matches(WORDS)
            .count()
    }

    /// More clients than it has descriptors for.
    fn exhaust(&self) -> Vec<TcpStream> {
        let clients = (0..40)
            .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap())
            .collect();
        wait::until_true("accepts to fail", || Ok(self.failures() > 0)).unwrap();
        clients
    }
}

/// `turnaway daemon`. It is killed when this is dropped.
struct Daemon {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    metrics: u16,
}

impl Daemon {
    fn start(config: &Path, state: &Path) -> Self {
        let metrics = free_port().unwrap();
        let mut child = Command::new(tracer::binary().unwrap())
            .args(["daemon", "--json", "--config"])
            .arg(config)
            .arg("--state")
            .arg(state)
            .args(["--metrics", &format!("127.0.0.1:{metrics}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = read_lines(child.stdout.take().unwrap());
        let errors = read_lines(child.stderr.take().unwrap());
        let daemon = Self {
            child,
            lines,
            errors,
            metrics,
        };
        daemon.says("tracing with");
        daemon
    }

    /// Waits until it says that on stderr.
    fn says(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.errors.recv_timeout(left).unwrap_or_else(|error| {
                panic!("waited for {words:?}: {error}");
            });
            if line.contains(words) {
                return;
            }
        }
    }

    /// The next record with this status of an incident of the server at a port.
    fn incident(&self, status: &str, port: u16) -> Value {
        let address = format!("127.0.0.1:{port}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|error| {
                panic!("waited for an incident that is {status}: {error}");
            });
            let record: Value = serde_json::from_str(&line).unwrap();
            let is_about = record["statement"].to_string().contains(&address);
            if record["type"] == "incident" && record["status"] == status && is_about {
                return record;
            }
        }
    }

    fn get(&self, path: &str) -> String {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics)).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer
    }

    /// What it has counted of a reason at a port.
    fn counted(&self, reason: &str, port: u16) -> Option<u64> {
        let (reason, port) = (format!("reason=\"{reason}\""), format!("port=\"{port}\""));
        self.get("/metrics")
            .lines()
            .filter(|line| line.starts_with("turnaway_failures_total{"))
            .find(|line| line.contains(&reason) && line.contains(&port))
            .and_then(|line| line.rsplit(' ').next()?.parse().ok())
    }

    fn signal(&self, signal: i32) {
        sys::kill(self.child.id(), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Default rules that are over soon.
fn config(dir: &Path, notify: &str) -> PathBuf {
    let mut text = notify.to_owned();
    for name in [
        "OutOfDescriptors",
        "ListenerStalled",
        "DescriptorsExhausted",
        "DescriptorPressure",
        "AcceptQueueOverflow",
        "AcceptQueueOverflows",
    ] {
        text += "[[rule]]\nresolve_after = \"3s\"\nname = ";
        text += &serde_json::to_string(name).unwrap();
        text.push('\n');
    }
    let path = dir.join("turnaway.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn an_nginx_at_its_limit_is_told_once_and_its_end_is() {
    let dir = folder().unwrap();
    let nginx = Nginx::start(dir.path());
    let nobody = format!("http://127.0.0.1:{}/", free_port().unwrap());
    let alertmanager = Alertmanager::start(free_port().unwrap(), &nobody).unwrap();
    let notify = format!(
        "[[notify]]\ntype = \"alertmanager\"\nurl = \"{}\"\n",
        alertmanager.url()
    );
    let config = config(dir.path(), &notify);
    let mut daemon = Daemon::start(&config, &dir.path().join("state"));
    assert!(daemon.get("/healthz").contains("200"));

    let clients = nginx.exhaust();
    let failed = Instant::now();
    // Others may run out of descriptors at the same time.
    let address = format!("127.0.0.1:{}", nginx.port);
    let is_ours = |alert: &&Value| alert["labels"].to_string().contains(&address);
    let alerts = alertmanager
        .until("an alert", |firing| firing.iter().any(|one| is_ours(&one)))
        .unwrap();
    let took = failed.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let ours: Vec<&Value> = alerts.iter().filter(is_ours).collect();
    let [alert] = &ours[..] else {
        panic!("one incident, one alert: {ours:?}");
    };
    let text = alert.to_string();
    for words in [
        &nginx.port.to_string(),
        "OutOfDescriptors",
        "critical",
        "32",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    let fired = daemon.incident("firing", nginx.port);

    // A configuration that is wrong is refused, and all goes on.
    let right = fs::read(&config).unwrap();
    fs::write(&config, "rule = 1").unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.says("the configuration stays as it was");
    fs::write(&config, right).unwrap();

    drop(clients);
    let resolved = daemon.incident("resolved", nginx.port);
    assert_eq!(resolved["id"], fired["id"]);
    alertmanager
        .until("its end", |firing| !firing.iter().any(|one| is_ours(&one)))
        .unwrap();
    let failures = nginx.failures() as u64;
    assert_eq!(daemon.counted("accept.emfile", nginx.port), Some(failures));

    let begun = Instant::now();
    daemon.signal(libc::SIGTERM);
    let status = tracer::wait_for(&mut daemon.child, PATIENCE).unwrap();
    assert!(status.success(), "{status}");
    let took = begun.elapsed();
    // Its hooks are removed one by one after it has said and sent everything.
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn killed_in_an_incident_it_goes_on_with_the_same() {
    let dir = folder().unwrap();
    let nginx = Nginx::start(dir.path());
    let config = config(dir.path(), "");
    let state = dir.path().join("state");
    let daemon = Daemon::start(&config, &state);
    let clients = nginx.exhaust();
    let fired = daemon.incident("firing", nginx.port);
    let id = fired["id"].as_str().unwrap().to_owned();
    wait::until_true("the incident to be kept", || {
        let kept = fs::read_to_string(state.join("incidents.json")).unwrap_or_default();
        Ok(kept.contains(&id))
    })
    .unwrap();
    daemon.signal(libc::SIGKILL);
    drop(daemon);

    let daemon = Daemon::start(&config, &state);
    let before = nginx.failures();
    wait::until_true("more failures", || Ok(nginx.failures() > before)).unwrap();
    drop(clients);
    let resolved = daemon.incident("resolved", nginx.port);
    assert_eq!(resolved["id"], fired["id"]);
    assert_eq!(resolved["started"], fired["started"]);
}

#[test]
fn two_daemons_do_not_share_a_state() {
    let dir = folder().unwrap();
    let config = config(dir.path(), "");
    let state = dir.path().join("state");
    let _first = Daemon::start(&config, &state);
    let second = Command::new(tracer::binary().unwrap())
        .args(["daemon", "--no-metrics", "--config"])
        .arg(&config)
        .arg("--state")
        .arg(&state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another turnaway daemon uses"), "{said}");
}
