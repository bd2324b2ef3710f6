//! Asking the running daemon, and how it behaves: what it may still do, what it records, how it ends.

#[path = "control/daemon.rs"]
mod daemon;
#[path = "control/metrics.rs"]
mod metrics;
#[path = "control/privileges.rs"]
mod privileges;
#[path = "control/recording.rs"]
mod recording;
#[path = "control/server.rs"]
mod server;

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daemon::{Daemon, count, is_at};
use serde_json::{Value, json};
use server::{Role, Server};
use turnaway_tests::servers::foreground::free_port;
use turnaway_tests::{tracer, wait};

const NOBODY: u32 = 65_534;
/// The daemon ends within this of being told to.
const END: Duration = Duration::from_secs(5);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn refuses(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

#[test]
fn status_says_how_the_daemon_is() {
    let dir = folder();
    let mut server = Server::start(Role::default());
    let daemon = Daemon::start(dir.path(), "", &["--no-metrics"]);
    let failed = server.act("fail", 7);
    daemon.incident("firing", server.port);
    let counted = |status: &Value| status["failures"].as_u64() >= Some(failed);
    let status = daemon.until_status("failures to be counted", counted);
    assert_eq!(status["pid"], daemon.child.id());
    assert_eq!(status["host"], turnaway_host());
    assert!(status["uptime_s"].as_f64().unwrap() > 0.0);
    assert!(status["reading_age_s"].as_f64().unwrap() < 10.0, "{status}");
    let hooks = status["hooks"].as_array().unwrap();
    let accept = hooks.iter().find(|hook| hook["name"] == "accept").unwrap();
    assert!(accept["tier"].is_string(), "{accept}");
    for loss in ["ring", "map", "output"] {
        assert!(status["lost"][loss].is_u64(), "{status}");
    }
    assert_eq!(status["state"]["folder"], daemon.state.to_str().unwrap());
    assert_eq!(status["metrics"], Value::Null);
    let file = dir.path().join("turnaway.toml");
    assert_eq!(status["rules"]["file"], file.to_str().unwrap());
    assert!(status["firing"].as_u64() >= Some(1));
    let address = format!("127.0.0.1:{}", server.port);
    let incidents = status["incidents"].to_string();
    assert!(incidents.contains(&address), "{incidents}");

    let incidents = daemon.ask(&["incidents", "--json"]);
    let ours: Vec<Value> = incidents
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record| is_at(record, server.port))
        .collect();
    assert_eq!(ours.len(), 1, "{incidents}");
    assert_eq!(count(&ours[0], "accept.emfile"), failed);
    for words in [&daemon.ask(&["incidents"]), &daemon.ask(&["status"])] {
        assert!(words.contains(&address), "{words}");
    }
    let (pid, port) = (server.pid().to_string(), server.port.to_string());
    // One that nothing listens on here.
    let other = free_port().unwrap().to_string();
    for (filters, ours) in [
        (["-P", &port, "--reason", "accept"], true),
        (["-P", &port, "--pid", &pid], true),
        (["-P", &other, "--pid", &pid], false),
        (["-P", &port, "--reason", "queue.unix_full"], false),
        (["--pid", &pid, "--unit", "none"], false),
    ] {
        let told = daemon.ask(&[&["incidents"][..], &filters].concat());
        assert_eq!(told.contains(&address), ours, "{filters:?}: {told}");
    }

    // A configuration that is refused is shown until one is taken.
    let right = fs::read(&file).unwrap();
    fs::write(&file, "\n\nrule = 1").unwrap();
    daemon.signal(libc::SIGHUP);
    let refused = |status: &Value| !status["rules"]["reload"].is_null();
    let status = daemon.until_status("a refusal", refused);
    let error = status["rules"]["reload"]["error"].as_str().unwrap();
    assert!(error.contains("turnaway.toml:3"), "{error}");
    assert!(daemon.ask(&["status"]).contains("refused at"));
    fs::write(&file, right).unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.until_status("no refusal", |status| !refused(status));
}

fn turnaway_host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    name.trim_end().to_owned()
}

#[test]
fn only_root_is_answered_and_only_where_a_daemon_is() {
    let dir = folder();
    let mut daemon = Daemon::start(dir.path(), "", &["--no-metrics"]);
    let socket = daemon.socket();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(&daemon.state), 0o700);
    // Others can run it only where they can get at it.
    let program = tracer::binary().unwrap();
    let copy = dir.path().join("turnaway");
    fs::copy(&program, &copy).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let ask = || {
        use std::os::unix::process::CommandExt as _;
        Command::new(&copy)
            .args(["status", "--socket"])
            .arg(&socket)
            .uid(NOBODY)
            .output()
            .unwrap()
    };
    refuses(&ask(), &["only root may ask", "run this as root"]);
    // Where somebody opened the door, who comes in is asked all the same.
    fs::set_permissions(&daemon.state, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    refuses(&ask(), &["refuses: only root may ask"]);
    fs::set_permissions(&daemon.state, Permissions::from_mode(0o700)).unwrap();

    // A second one is refused, whatever else it has of its own.
    let second = Command::new(&program)
        .args(["daemon", "--no-metrics", "--no-state", "--socket"])
        .arg(&socket)
        .output()
        .unwrap();
    refuses(&second, &["another turnaway daemon answers at", "--socket"]);
    daemon.kill();
    assert!(socket.exists(), "SIGKILL leaves it behind");
    let said = daemon.ask_as(0, &["status"]);
    refuses(&said, &["no turnaway daemon answers at", "--socket"]);
    // And the next one takes its place.
    let mut next = Daemon::start(dir.path(), "", &["--no-metrics"]);
    assert_eq!(next.status()["pid"], next.child.id());
    next.end();
    assert!(!socket.exists());
}

#[test]
fn whoever_asks_badly_is_refused_and_holds_up_nobody() {
    let dir = folder();
    let daemon = Daemon::start(dir.path(), "", &["--no-metrics"]);
    let silent: Vec<UnixStream> = (0..40)
        .map(|_| UnixStream::connect(daemon.socket()).unwrap())
        .collect();
    let endless: Vec<UnixStream> = (0..10)
        .map(|_| {
            let mut stream = UnixStream::connect(daemon.socket()).unwrap();
            // It is answered before it has said all, and the rest goes nowhere.
            let _ = stream.write_all(&vec![b'x'; 100_000]);
            stream
        })
        .collect();
    assert_eq!(daemon.status()["pid"], daemon.child.id());
    drop((silent, endless));
    for line in ["\n", "{\"ask\":\"status\"", "[]\n", "{\"ask\":\"stop\"}\n"] {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["error"].is_string(), "{line:?}: {answer}");
    }
    assert_eq!(daemon.status()["pid"], daemon.child.id());
}

/// A command that writes what it is told, and what it may do, to a file.
fn writes_to(file: &Path) -> String {
    let script = format!(
        "(cat; grep -E '^(Cap|NoNew)' /proc/self/status) >> {}",
        file.display()
    );
    format!(
        "[[notify]]\ntype = \"command\"\ncommand = {}\n",
        json!(["/bin/sh", "-c", script])
    )
}

#[test]
fn a_silence_holds_over_a_restart_until_it_is_removed() {
    let dir = folder();
    let told = dir.path().join("told");
    let config = writes_to(&told);
    let mut server = Server::start(Role::default());
    let address = format!("127.0.0.1:{}", server.port);
    let port = server.port.to_string();
    let mut daemon = Daemon::start(dir.path(), &config, &["--no-metrics"]);

    let output = daemon.ask_as(0, &["silence", "add", "-P", &port]);
    assert_eq!(output.status.code(), Some(2), "it has an end");
    let output = daemon.ask_as(0, &["silence", "add", "--for", "1h"]);
    assert_eq!(output.status.code(), Some(2), "it is about something");
    let past = [
        "silence",
        "add",
        "-P",
        &port,
        "--until",
        "2020-01-01T00:00:00Z",
    ];
    assert_eq!(daemon.ask_as(0, &past).status.code(), Some(2));

    let add = [
        "silence",
        "add",
        "-P",
        &port,
        "--for",
        "1h",
        "--comment",
        "moves today",
        "--json",
    ];
    let added: Value = serde_json::from_str(&daemon.ask(&add)).unwrap();
    assert_eq!(added["kept"], true, "{added}");
    let id = added["silence"]["id"].as_str().unwrap().to_owned();
    server.act("fail", 3);
    daemon.incident("firing", server.port);
    let incidents = daemon.ask(&["incidents"]);
    let line = incidents.lines().find(|line| line.contains(&address));
    assert!(line.unwrap().contains("(silenced)"), "{incidents}");

    daemon.kill();
    let daemon = Daemon::start(dir.path(), &config, &["--no-metrics"]);
    let list = daemon.ask(&["silence", "list"]);
    assert!(list.contains(&id) && list.contains("moves today"), "{list}");
    // Of a minute, the incident is over after.
    server.act("fail", 2);
    daemon.until_status("failures to be counted", |status| {
        let all = status["incidents"].as_array().unwrap();
        all.iter()
            .any(|one| one["silenced"] == true && one["statement"].to_string().contains(&address))
    });
    let about = || {
        let said = fs::read_to_string(&told).unwrap_or_default();
        let ours = said.lines().filter(|line| line.contains(&address)).count();
        (ours, said)
    };
    assert_eq!(about().0, 0, "{}", about().1);

    let removed = daemon.ask(&["silence", "remove", &id]);
    assert!(removed.contains(&id), "{removed}");
    wait::until_true("it to be told", || {
        let (ours, said) = about();
        Ok(ours > 0 && said.contains("NoNewPrivs"))
    })
    .unwrap();
    // The command is run without privileges.
    let (_, said) = about();
    for mask in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let line = said.lines().find(|line| line.starts_with(mask)).unwrap();
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
    assert!(said.contains("NoNewPrivs:\t1"), "{said}");
    assert_eq!(daemon.ask(&["silence", "list"]), "no silence\n");
    let again = daemon.ask_as(0, &["silence", "expire", &id]);
    refuses(&again, &["there is no silence"]);
}

#[test]
fn a_silence_ends_by_itself() {
    let dir = folder();
    let daemon = Daemon::start(dir.path(), "", &["--no-metrics"]);
    daemon.ask(&["silence", "add", "--all", "--for", "2s"]);
    assert_eq!(daemon.status()["silences"], 1);
    daemon.until_status("no silence", |status| status["silences"] == 0);
}

/// The third share of attempts is never reached: 5 of 100 are 5 %.
const SHARES: &str = "
defaults = false
[[rule]]
name = \"FiveOfHundred\"
reason = \"accept.emfile\"
ratio = 0.05
count = 5
window = \"5m\"
labels = { of = \"five\" }
[[rule]]
name = \"MoreThanThat\"
reason = \"accept.emfile\"
ratio = 0.0501
window = \"5m\"
severity = \"critical\"
";

#[test]
fn a_share_of_attempts_is_exact() {
    let dir = folder();
    let told = dir.path().join("told");
    let config = SHARES.to_owned() + &writes_to(&told);
    let mut server = Server::start(Role::default());
    let daemon = Daemon::start(dir.path(), &config, &["--no-metrics"]);
    // The exact share of 5 in 100 that failed; what comes first must not make it look like more.
    let mut accepted = server.act("accept", 95);
    let failed = server.act("fail", 5);
    let fired = daemon.incident("firing", server.port);
    assert_eq!(fired["severity"], "warning", "{fired}");
    assert_eq!(count(&fired, "accept.emfile"), failed);
    wait::until_true("it to be told", || {
        let said = fs::read_to_string(&told).unwrap_or_default();
        Ok(said.contains("FiveOfHundred"))
    })
    .unwrap();
    // It has seen every one that was accepted.
    let waits = wait::until("all that were accepted", || {
        let said = daemon.ask(&["status", "--json"]);
        let status: Value = serde_json::from_str(&said)?;
        let waiting = status["waiting"].as_array().unwrap().clone();
        let address = format!("127.0.0.1:{}", server.port);
        Ok(waiting.into_iter().find(|one| one["listener"] == address))
    })
    .unwrap();
    assert_eq!(waits["waits"]["count"], accepted, "{waits}");
    // One more failure, and it is more than 5 %.
    server.act("fail", 1);
    let worse = daemon.incident("firing", server.port);
    assert_eq!(worse["severity"], "critical", "{worse}");
    accepted += server.act("accept", 1);
    assert_eq!(accepted, 96);
}

#[test]
fn few_of_many_are_no_share() {
    let dir = folder();
    let mut server = Server::start(Role::default());
    let mut daemon = Daemon::start(dir.path(), SHARES, &["--no-metrics"]);
    server.act("accept", 96);
    let failed = server.act("fail", 5);
    daemon.until_status("failures to be counted", |status| {
        status["failures"].as_u64() >= Some(failed) && status["pending"].as_u64() >= Some(1)
    });
    daemon.end();
    assert_eq!(daemon.rest(server.port), Vec::<Value>::new());
}

#[test]
fn it_ends_soon_under_load_and_with_a_receiver_that_never_answers() {
    let dir = folder();
    // Connections are made, and nothing ever comes back.
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", receiver.local_addr().unwrap());
    let nobody = format!("http://127.0.0.1:{}", free_port().unwrap());
    let mut config = String::new();
    for (name, url) in [("deaf", &url), ("dead", &nobody)] {
        config += "[[notify]]\ntype = \"alertmanager\"\ntimeout = \"30s\"\n";
        writeln!(config, "name = \"{name}\"\nurl = \"{url}\"").unwrap();
    }
    let record = dir.path().join("record");
    let mut server = Server::start(Role::default());
    let mut daemon = Daemon::start(
        dir.path(),
        &config,
        &["--no-metrics", "--record", record.to_str().unwrap()],
    );
    let spinning = Arc::new(AtomicBool::new(true));
    let load = {
        let spinning = Arc::clone(&spinning);
        std::thread::spawn(move || {
            let mut failed = 0;
            while spinning.load(Ordering::Relaxed) {
                failed += server.act("fail-for-ms", 200);
            }
            (server, failed)
        })
    };
    daemon.until_status("a receiver that does not answer", |status| {
        let all = status["notifiers"].as_array().unwrap();
        all.iter()
            .any(|one| one["name"] == "dead" && one["last_error"].is_string())
            && status["queued"].as_u64() >= Some(2)
    });
    let took = daemon.end();
    spinning.store(false, Ordering::Relaxed);
    let (_, failed) = load.join().unwrap();
    println!("{failed} failures; it ended after {took:?}");
    assert!(took < END, "{took:?}");
    // What waits is kept for the next start.
    for name in ["deaf", "dead"] {
        let queue = daemon.state.join("queue").join(name);
        assert!(fs::read_dir(queue).unwrap().count() > 0, "{name}");
    }
}
