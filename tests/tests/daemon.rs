//! The daemon, with a real server that runs out of descriptors and a real Alertmanager. On its own,
//! since it looks at the whole machine.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use turnaway_tests::daemon::{Daemon, configure};
use turnaway_tests::servers::alertmanager::Alertmanager;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::servers::nginx;
use turnaway_tests::{tracer, wait};

/// When an incident is over.
const RESOLVE: Duration = Duration::from_secs(3);
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
        let server = nginx::Nginx {
            main: "daemon off; worker_processes 1; worker_rlimit_nofile 32;",
            http: &nginx::answers(port, ""),
            ..nginx::Nginx::default()
        };
        let log = dir.join(nginx::LOG);
        let mut command = Command::new(nginx::PROGRAM);
        command.args(server.configure(dir).unwrap());
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

fn start(config: &Path, state: &Path) -> Daemon {
    Daemon::start(&tracer::binary().unwrap(), config, state).unwrap()
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
    let config = configure(dir.path(), &notify, RESOLVE).unwrap();
    let mut daemon = start(&config, &dir.path().join("state"));
    assert!(daemon.get("/healthz").is_ok());

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
    let fired = daemon.fires(nginx.port).unwrap();

    // A configuration that is wrong is refused, and all goes on.
    let right = fs::read(&config).unwrap();
    fs::write(&config, "rule = 1").unwrap();
    daemon.signal(libc::SIGHUP).unwrap();
    daemon.says("the configuration stays as it was").unwrap();
    fs::write(&config, right).unwrap();

    drop(clients);
    let resolved = daemon.over(nginx.port).unwrap();
    assert_eq!(resolved["id"], fired["id"]);
    alertmanager
        .until("its end", |firing| !firing.iter().any(|one| is_ours(&one)))
        .unwrap();
    let failures = nginx.failures() as u64;
    daemon
        .until_counted("accept.emfile", nginx.port, failures)
        .unwrap();
    let took = daemon.stop().unwrap().took;
    // Its hooks are removed one by one after it has said and sent everything.
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn killed_in_an_incident_it_goes_on_with_the_same() {
    let dir = folder().unwrap();
    let nginx = Nginx::start(dir.path());
    let config = configure(dir.path(), "", RESOLVE).unwrap();
    let state = dir.path().join("state");
    let mut daemon = start(&config, &state);
    let clients = nginx.exhaust();
    let fired = daemon.fires(nginx.port).unwrap();
    let id = fired["id"].as_str().unwrap().to_owned();
    wait::until_true("the incident to be kept", || {
        let kept = fs::read_to_string(state.join("incidents.json")).unwrap_or_default();
        Ok(kept.contains(&id))
    })
    .unwrap();
    daemon.signal(libc::SIGKILL).unwrap();
    drop(daemon);

    let mut daemon = start(&config, &state);
    let before = nginx.failures();
    wait::until_true("more failures", || Ok(nginx.failures() > before)).unwrap();
    drop(clients);
    let resolved = daemon.over(nginx.port).unwrap();
    assert_eq!(resolved["id"], fired["id"]);
    assert_eq!(resolved["started"], fired["started"]);
    // What was found out when it began is in the history.
    assert!(fired["explanation"]["taken"].is_string(), "{fired}");
    assert_eq!(
        resolved["explanation"]["taken"],
        fired["explanation"]["taken"]
    );
}

#[test]
fn two_daemons_do_not_share_a_state() {
    let dir = folder().unwrap();
    let config = configure(dir.path(), "", RESOLVE).unwrap();
    let state = dir.path().join("state");
    let _first = start(&config, &state);
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
