//! Alerts reach receivers that are slow, down, full of errors, or killed with what sends to them.
//! The truth is what the receiver noted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use jiff::Timestamp;
use turnaway::alert::{Alert, Severity, Status};
use turnaway::notify::{
    Health, Notifiers,
    config::{Config, understand},
};
use turnaway_tests::servers::alertmanager::Alertmanager;
use turnaway_tests::servers::foreground::{Foreground, free_port};
use turnaway_tests::servers::receiver::{Manner, Receiver, Request};
use turnaway_tests::{apart, lines, sys, wait};

/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_mins(1);
/// Where another process finds what it needs.
const FOLDER: &str = "TURNAWAY_TEST_QUEUE";
const URL: &str = "TURNAWAY_TEST_URL";

/// One `[[notify]]` as the daemon would read it.
fn config(value: serde_json::Value) -> Config {
    serde_json::from_value(value).unwrap()
}

fn webhook(name: &str, url: &str) -> Config {
    config(serde_json::json!({ "type": "webhook", "name": name, "url": url }))
}

fn start(configs: &[Config], folder: &Path) -> Notifiers {
    Notifiers::start(&understand(configs).unwrap(), Some(folder)).unwrap()
}

fn alert(id: &str, status: Status) -> Alert {
    let now = Timestamp::now();
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        owned.collect()
    };
    Alert {
        id: id.to_owned(),
        status,
        severity: Severity::Critical,
        starts_at: now - Duration::from_secs(2),
        ends_at: (status == Status::Resolved).then_some(now),
        updated_at: now,
        labels: pairs(&[
            ("alertname", "TurnawayAcceptEmfile"),
            ("severity", "critical"),
            ("host", "db1"),
            ("reason", "accept.emfile"),
            ("comm", "pgbouncer"),
            ("unit", "pgbouncer.service"),
            ("listener", "0.0.0.0:6432"),
            ("incident", id),
        ]),
        annotations: pairs(&[
            ("summary", "pgbouncer turns clients away"),
            ("now", "prlimit --nofile=4096 -p 17"),
        ]),
    }
}

fn told(requests: &[Request]) -> Vec<(String, String)> {
    requests.iter().map(Request::told).collect()
}

/// Beginning and end of so many incidents, mixed.
fn story(incidents: usize) -> Vec<Alert> {
    let mut all: Vec<Alert> = Vec::new();
    for index in 0..incidents {
        all.push(alert(&format!("incident-{index}"), Status::Firing));
        if let Some(earlier) = index.checked_sub(3) {
            all.push(alert(&format!("incident-{earlier}"), Status::Resolved));
        }
    }
    for index in incidents.saturating_sub(3)..incidents {
        all.push(alert(&format!("incident-{index}"), Status::Resolved));
    }
    all
}

/// Everything came, and for each incident the beginning before the end.
fn check_story(took: &[Request], sent: &[Alert]) {
    let mut first: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (at, told) in told(took).into_iter().enumerate() {
        first.entry(told).or_insert(at);
    }
    for alert in sent {
        let at = |status: &str| first.get(&(alert.id.clone(), status.to_owned()));
        let firing = at("firing").unwrap_or_else(|| panic!("{} never came", alert.id));
        if alert.status == Status::Resolved {
            let resolved = at("resolved").unwrap_or_else(|| panic!("{} never ended", alert.id));
            assert!(firing < resolved, "{} ended before it began", alert.id);
        }
    }
}

/// Waits until all of it has come, and checks it.
fn until_story(server: &Receiver, sent: &[Alert]) {
    let different = || told(&server.took()).into_iter().collect::<BTreeSet<_>>();
    wait::until_true("the story", || Ok(different().len() >= sent.len()))
        .unwrap_or_else(|error| panic!("{error}: {:?} of {}", different(), sent.len()));
    check_story(&server.took(), sent);
}

fn until_health(notifiers: &Notifiers, what: &str, holds: impl Fn(&Health) -> bool) -> Health {
    let look = || Ok(notifiers.health().into_iter().find(&holds));
    wait::until(what, look).unwrap_or_else(|error| panic!("{error}: {:?}", notifiers.health()))
}

fn labels_of(firing: &[serde_json::Value]) -> BTreeSet<String> {
    firing
        .iter()
        .map(|alert| alert["labels"]["incident"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn alertmanager_shows_what_fires_and_what_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let told_by_it = Receiver::start(Manner::Takes).unwrap();
    let server = Alertmanager::start(free_port().unwrap(), &told_by_it.url()).unwrap();
    let config = config(serde_json::json!({
        "type": "alertmanager", "url": server.url(), "generator_url": "http://db1.example/turnaway",
    }));
    let notifiers = start(&[config], dir.path());
    let sent = alert("a", Status::Firing);
    notifiers.send(&sent);
    let firing = server
        .until("the alert", |firing| firing.len() == 1)
        .unwrap();
    let shown = &firing[0];
    assert_eq!(shown["labels"], serde_json::to_value(&sent.labels).unwrap());
    assert_eq!(
        shown["annotations"],
        serde_json::to_value(&sent.annotations).unwrap()
    );
    assert_eq!(shown["generatorURL"], "http://db1.example/turnaway");
    let starts_at: Timestamp = shown["startsAt"].as_str().unwrap().parse().unwrap();
    // Alertmanager shows milliseconds.
    assert_eq!(starts_at.as_millisecond(), sent.starts_at.as_millisecond());

    // Other labels are another alert to Alertmanager: the one before ends.
    let mut milder = alert("a", Status::Firing);
    milder
        .labels
        .insert("severity".to_owned(), "warning".to_owned());
    notifiers.send(&milder);
    server
        .until("the other severity alone", |firing| {
            firing.len() == 1 && firing[0]["labels"]["severity"] == "warning"
        })
        .unwrap();

    milder.status = Status::Resolved;
    milder.ends_at = Some(Timestamp::now());
    notifiers.send(&milder);
    server.until("the end", <[_]>::is_empty).unwrap();
    // It passes on that both have ended, one after the other.
    wait::until_true("Alertmanager to say so", || {
        let ended = told_by_it
            .took()
            .iter()
            .filter(|request| request.body["status"] == "resolved")
            .count();
        Ok(ended == 2)
    })
    .unwrap();
    let health = notifiers.stop(PATIENCE);
    assert_eq!((health[0].delivered, health[0].queued), (3, 0));
    assert_eq!(health[0].failed_attempts, 0, "{health:?}");
}

#[test]
fn an_alertmanager_that_was_down_is_told_what_is_true_now() {
    let dir = tempfile::tempdir().unwrap();
    let tells = Receiver::start(Manner::Takes).unwrap();
    let port = free_port().unwrap();
    let config = config(serde_json::json!({
        "type": "alertmanager", "url": format!("http://127.0.0.1:{port}"), "resend": "1s",
    }));
    let notifiers = start(&[config], dir.path());
    for (id, status) in [
        ("a", Status::Firing),
        ("b", Status::Firing),
        ("a", Status::Resolved),
    ] {
        notifiers.send(&alert(id, status));
    }
    until_health(&notifiers, "a failure", |health| health.failed_attempts > 0);
    let b = BTreeSet::from(["b".to_owned()]);
    let server = Alertmanager::start(port, &tells.url()).unwrap();
    server
        .until("the one that lasts", |firing| labels_of(firing) == b)
        .unwrap();
    // One that forgets everything is told again.
    drop(server);
    let server = Alertmanager::start(port, &tells.url()).unwrap();
    let firing = server
        .until("it again", |firing| labels_of(firing) == b)
        .unwrap();
    // It fires for longer than any end that was given.
    let given = firing[0]["endsAt"].clone();
    let mut ends = BTreeSet::new();
    wait::until_true("later and later ends", || {
        ends.extend(
            server
                .firing()?
                .iter()
                .map(|alert| alert["endsAt"].to_string()),
        );
        Ok(ends.len() >= 6)
    })
    .unwrap();
    assert!(ends.last().unwrap() > &given.to_string());
    // And when nobody says so any more, it ends by itself.
    drop(notifiers);
    server.until("the end", <[_]>::is_empty).unwrap();
}

#[test]
fn a_receiver_that_answers_500_for_a_while_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Receiver::start(Manner::Answers(500)).unwrap();
    let notifiers = start(&[webhook("hook", &server.url())], dir.path());
    let sent = story(10);
    for alert in &sent {
        notifiers.send(alert);
    }
    server.until_arrived(3).unwrap();
    server.becomes(Manner::Takes);
    until_story(&server, &sent);
    let health = notifiers.stop(PATIENCE);
    assert_eq!(health[0].delivered, sent.len() as u64);
    assert!(health[0].failed_attempts >= 3);
    // Nothing was taken twice: every failure was known to be one.
    assert_eq!(server.took().len(), sent.len());
}

#[test]
fn a_slow_receiver_holds_up_neither_caller_nor_others() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Receiver::start(Manner::Waits).unwrap();
    let quick = Receiver::start(Manner::Takes).unwrap();
    let configs = [webhook("slow", &slow.url()), webhook("quick", &quick.url())];
    let notifiers = start(&configs, dir.path());
    let sent = story(20);
    for alert in &sent {
        notifiers.send(alert);
    }
    until_story(&quick, &sent);
    assert!(slow.answered().is_empty());
    slow.becomes(Manner::Takes);
    until_story(&slow, &sent);
    drop(notifiers);
}

#[test]
fn who_does_not_answer_in_time_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Receiver::start(Manner::Waits).unwrap();
    let config = config(serde_json::json!({
        "type": "webhook", "url": server.url(), "timeout": "300ms",
    }));
    let notifiers = start(&[config], dir.path());
    notifiers.send(&alert("a", Status::Firing));
    let health = until_health(&notifiers, "two failures", |health| {
        health.failed_attempts >= 2
    });
    assert_eq!(health.last_error.as_deref(), Some("no answer within 0.3 s"));
    server.becomes(Manner::Takes);
    until_health(&notifiers, "delivery", |health| health.delivered == 1);
    // Whoever gave up asked all the same.
    assert!(
        told(&server.took())
            .iter()
            .all(|told| told == &("a".to_owned(), "firing".to_owned()))
    );
}

#[test]
fn a_receiver_that_comes_up_later_is_told_the_whole_story() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let notifiers = start(
        &[webhook("hook", &format!("http://127.0.0.1:{port}/hook"))],
        dir.path(),
    );
    let sent = story(10);
    for alert in &sent {
        notifiers.send(alert);
    }
    until_health(&notifiers, "two failures", |health| {
        health.failed_attempts >= 2
    });
    let server = Receiver::start_at(port, Manner::Takes).unwrap();
    until_story(&server, &sent);
    assert_eq!(notifiers.stop(PATIENCE)[0].queued, 0);
    assert_eq!(server.took().len(), sent.len());
}

#[test]
fn a_receiver_is_found_by_name_and_may_not_send_us_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let server = Receiver::start(Manner::Answers(302)).unwrap();
    let url = format!("http://localhost:{}/", server.port);
    let notifiers = start(&[webhook("hook", &url)], dir.path());
    notifiers.send(&alert("a", Status::Firing));
    let health = until_health(&notifiers, "a failure", |health| health.failed_attempts > 0);
    let why = health.last_error.unwrap();
    assert!(why.contains("redirects are not followed"), "{why}");
    server.becomes(Manner::Takes);
    server.until_taken(1).unwrap();
    drop(notifiers);
}

#[test]
fn what_a_receiver_chokes_on_does_not_keep_others_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Receiver::start(Manner::ChokesOn(500, "poison")).unwrap();
    let notifiers = start(&[webhook("hook", &server.url())], dir.path());
    notifiers.send(&alert("poison", Status::Firing));
    let sent = story(5);
    for alert in &sent {
        notifiers.send(alert);
    }
    until_story(&server, &sent);
    // What it will never take is given up, and counted.
    server.becomes(Manner::ChokesOn(400, "poison"));
    let health = until_health(&notifiers, "the refusal", |health| health.refused == 1);
    assert_eq!((health.queued, health.delivered), (0, sent.len() as u64));
}

#[test]
fn secrets_are_sent_and_not_shown() {
    const TOKEN: &str = "t0ken-of-the-receiver";
    const PATH: &str = "s3cret-path";
    const KEY: &str = "r0uting-key";
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, format!("{text}\n")).unwrap();
        path
    };
    let server = Receiver::start(Manner::Answers(503)).unwrap();
    let url = server.url();
    let configs = [
        config(serde_json::json!({
            "type": "webhook", "name": "token", "url": format!("{url}?q={PATH}"),
            "bearer_token_file": file("token", TOKEN),
        })),
        config(serde_json::json!({
            "type": "webhook", "name": "address", "body": "slack",
            "url_file": file("url", &format!("{url}/{PATH}")),
        })),
        config(serde_json::json!({
            "type": "webhook", "name": "key", "body": "pagerduty", "url": url,
            "routing_key_file": file("key", KEY),
        })),
    ];
    let notifiers = start(&configs, &dir.path().join("queue"));
    notifiers.send(&alert("a", Status::Firing));
    for name in ["token", "address", "key"] {
        let health = until_health(&notifiers, "failures", |health| {
            health.name == name && health.failed_attempts > 0
        });
        // The receiver answers with what it was asked.
        let error = health.last_error.unwrap();
        assert!(error.starts_with("answered 503: POST "), "{error}");
    }
    let health = serde_json::to_string(&notifiers.health()).unwrap();
    let shown = format!("{health} {configs:?} {:?}", understand(&configs));
    for secret in [TOKEN, PATH, KEY] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let requests = server.answered();
    let has = |word: &str| {
        requests
            .iter()
            .any(|request| request.head.contains(word) || request.body.to_string().contains(word))
    };
    assert!(
        has(&format!("authorization: Bearer {TOKEN}")),
        "{requests:?}"
    );
    assert!(has(&format!("POST /hook/{PATH} ")) && has(KEY));
    server.becomes(Manner::Takes);
    server.until_taken(3).unwrap();
    drop(notifiers);
}

/// The process that [`what_waits_survives_sigkill`] kills: the same test, told what to send.
fn sender(folder: &Path, url: &str) {
    let notifiers = start(&[webhook("hook", url)], folder);
    for (index, alert) in story(1_000).iter().enumerate() {
        notifiers.send(alert);
        assert!(notifiers.settle(PATIENCE));
        println!("\nkept {index}");
    }
}

#[test]
fn what_waits_survives_sigkill() {
    /// Killed when so many were kept, in each life.
    const KEPT: [usize; 2] = [40, 80];
    if let (Some(folder), Ok(url)) = (std::env::var_os(FOLDER), std::env::var(URL)) {
        sender(Path::new(&folder), &url);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Receiver::start(Manner::Answers(500)).unwrap();
    let mut kept = 0;
    for until in KEPT {
        let mut sender = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_waits_survives_sigkill", "--nocapture"])
            .env(FOLDER, dir.path())
            .env(URL, server.url())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = lines::numbered(sender.stdout.take().unwrap(), "kept ");
        let last = ready.find(|index| *index + 1 >= until as u64);
        // In the middle of writing, delivering or removing.
        sys::kill(sender.id(), libc::SIGKILL).unwrap();
        sender.wait().unwrap();
        kept = usize::try_from(last.expect("it ended too early")).unwrap() + 1;
        // The second life delivers some of what the first has left.
        server.becomes(Manner::Takes);
    }
    let notifiers = start(&[webhook("hook", &server.url())], dir.path());
    let health = notifiers.stop(PATIENCE);
    assert_eq!((health[0].queued, health[0].damaged), (0, 0));
    let took = server.took();
    check_story(&took, &story(1_000)[..kept]);
    let different: BTreeSet<_> = told(&took).into_iter().collect();
    println!(
        "{} taken, {} different, of {kept}",
        took.len(),
        different.len()
    );
}

#[test]
fn a_full_disk_costs_no_alert() {
    let dir = tempfile::tempdir().unwrap();
    apart::on_small_disk(dir.path(), || {
        let filler = dir.path().join("filler");
        // More than fits.
        fs::write(&filler, vec![0; 2 * apart::SMALL]).unwrap_err();
        let server = Receiver::start(Manner::Answers(500))?;
        let notifiers = start(&[webhook("hook", &server.url())], dir.path());
        let sent = story(10);
        for alert in &sent {
            notifiers.send(alert);
        }
        let health = until_health(&notifiers, "the disk", |health| health.not_stored.is_some());
        let why = health.not_stored.unwrap_or_default();
        ensure!(why.contains("No space left"), "{why}");
        ensure!(!notifiers.settle(Duration::ZERO), "nothing can be kept");
        // With room, what waits is kept after all.
        fs::remove_file(&filler)?;
        ensure!(notifiers.settle(PATIENCE), "{:?}", notifiers.health());
        until_health(&notifiers, "the disk", |health| health.not_stored.is_none());
        server.becomes(Manner::Takes);
        until_story(&server, &sent);
        let health = notifiers.stop(PATIENCE);
        ensure!(
            health[0].queued == 0 && health[0].dropped == 0,
            "{health:?}"
        );
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_folder_that_became_read_only_costs_no_alert() {
    let dir = tempfile::tempdir().unwrap();
    apart::on_small_disk(dir.path(), || {
        let server = Receiver::start(Manner::Answers(500))?;
        let all = story(8);
        let (before, after) = all.split_at(8);
        let notifiers = start(&[webhook("hook", &server.url())], dir.path());
        for alert in before {
            notifiers.send(alert);
        }
        ensure!(notifiers.settle(PATIENCE), "{:?}", notifiers.health());
        ensure!(notifiers.stop(Duration::ZERO)[0].queued == before.len());
        apart::mount(&["-o", "remount,ro", &dir.path().to_string_lossy()])?;

        let notifiers = start(&[webhook("hook", &server.url())], dir.path());
        for alert in after {
            notifiers.send(alert);
        }
        let health = until_health(&notifiers, "the disk", |health| health.not_stored.is_some());
        let why = health.not_stored.unwrap_or_default();
        ensure!(why.contains("Read-only"), "{why}");
        server.becomes(Manner::Takes);
        until_story(&server, &all);
        ensure!(notifiers.stop(PATIENCE)[0].queued == 0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn certificates_are_checked() {
    const SERVER: &str = "
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length']))
        with open('came', 'ab') as file: file.write(body + b'\\n')
        self.send_response(204)
        self.end_headers()
server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert', 'key')
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";
    const REQUEST: &str = "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = more\n\
                           [name]\nCN = receiver\n[more]\nsubjectAltName = IP:127.0.0.1\n";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("request"), REQUEST).unwrap();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-days", "2", "-config", "request", "-keyout", "key", "-out", "cert",
        ])
        .current_dir(dir.path())
        .output()
        .expect("openssl: run `cargo xtask setup --tests`");
    assert!(made.status.success(), "{made:?}");
    let port = free_port().unwrap();
    let mut python = Command::new("/usr/bin/python3");
    python
        .args(["-c", SERVER])
        .arg(port.to_string())
        .current_dir(dir.path());
    let server = Foreground::start(&mut python, port).unwrap();
    let url = format!("https://127.0.0.1:{port}/");
    let trusting = config(serde_json::json!({
        "type": "webhook", "name": "trusting", "url": url, "ca_file": dir.path().join("cert"),
    }));
    let configs = [webhook("wary", &url), trusting];
    let notifiers = start(&configs, &dir.path().join("queue"));
    let sent = alert("a", Status::Firing);
    notifiers.send(&sent);
    let wary = until_health(&notifiers, "a refusal", |health| {
        health.name == "wary" && health.failed_attempts > 0
    });
    let why = wary.last_error.unwrap();
    assert!(why.contains("certificate"), "{why}");
    until_health(&notifiers, "delivery", |health| health.delivered == 1);
    let came = fs::read_to_string(dir.path().join("came")).unwrap();
    let came: Vec<Alert> = came
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(came, [sent]);
    drop((notifiers, server));
}
