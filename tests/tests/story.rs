//! The story that turnaway is for, with real parts: PostgreSQL, a pooler at its limit of descriptors, a
//! backup that reads and writes a disk, a client that keeps its connection and sees nothing of it all.
//! On its own, since it looks at the whole machine.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use turnaway_tests::daemon::Daemon;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::servers::{as_nobody, postgres};
use turnaway_tests::{tracer, wait};

const PATIENCE: Duration = Duration::from_mins(1);
/// Descriptors of the pooler.
const LIMIT: u64 = 64;

/// A process that is ended when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends the health check, whatever becomes of the test.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `turnaway daemon`, whose incidents are soon over.
fn daemon(dir: &Path) -> Daemon {
    let config = dir.join("turnaway.toml");
    let mut text = String::new();
    for name in [
        "OutOfDescriptors",
        "ListenerStalled",
        "DescriptorsExhausted",
        "DescriptorPressure",
        "AcceptQueueOverflow",
        "AcceptQueueOverflows",
        "AcceptSlow",
    ] {
        text += "[[rule]]\nresolve_after = \"3s\"\nwindow = \"5s\"\nname = ";
        text += &serde_json::to_string(name).unwrap();
        text.push('\n');
    }
    std::fs::write(&config, text).unwrap();
    Daemon::start(&tracer::binary().unwrap(), &config, &dir.join("state")).unwrap()
}

fn report(state: &Path, arguments: &[&str]) -> String {
    try_report(state, arguments).unwrap()
}

fn try_report(state: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(tracer::binary().unwrap())
        .args(["report", "--state"])
        .arg(state)
        .args(arguments)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8(output.stdout).unwrap())
}

/// pgbouncer with few descriptors, in front of a PostgreSQL.
fn pooler(dir: &Path, port: u16, database: u16) -> Foreground {
    let config = dir.join("pgbouncer.ini");
    std::fs::write(
        &config,
        format!(
            "[databases]\n* = host=127.0.0.1 port={database} user={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\nmax_client_conn = 500\n\
             logfile = {}\n",
            postgres::USER,
            dir.join("pgbouncer.log").display()
        ),
    )
    .unwrap();
    let limit = format!("--nofile={LIMIT}:");
    let mut command = as_nobody("/usr/bin/prlimit");
    command.arg(limit).arg("/usr/sbin/pgbouncer").arg(config);
    Foreground::start(&mut command, port).unwrap()
}

/// Something to back up.
fn fill(port: u16) {
    let status = Command::new("psql")
        .args([
            "-h",
            "127.0.0.1",
            "-U",
            postgres::USER,
            "-d",
            "postgres",
            "-q",
            "-p",
        ])
        .arg(port.to_string())
        // As it is, and not compressed.
        .args([
            "-c",
            "create table shop (x text); alter table shop alter x set storage external;",
        ])
        .args([
            "-c",
            "insert into shop select repeat(md5(g::text), 64) from generate_series(1, 200000) g",
        ])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn the_first_tuesday_is_explained() {
    let dir = folder().unwrap();
    let (database, port) = (free_port().unwrap(), free_port().unwrap());
    let _postgres = postgres::start(dir.path(), database).unwrap();
    fill(database);
    let pgbouncer = pooler(dir.path(), port, database);
    let mut daemon = daemon(dir.path());

    // The backup: more than it needs to be seen, less than it takes to end.
    let target = dir.path().join("backup");
    let cron = dir.path().join("cron");
    std::fs::copy("/bin/sh", &cron).unwrap();
    // Its parent ends with the server that it reads from.
    let words = format!(
        "pg_basebackup -h 127.0.0.1 -U {} -p {database} -D {} --max-rate=20M --no-sync -c fast; true",
        postgres::USER,
        target.display()
    );
    let cron = Command::new(cron)
        .args(["-c", &words])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _cron = Ended(cron);
    wait::until_true("the backup to write", || Ok(target.join("base").exists())).unwrap();
    std::thread::sleep(Duration::from_secs(4));

    // The health check: green, from before to after.
    let mut health = postgres::Session::begin(port).unwrap();
    health.ask().unwrap();
    let (ends, checks) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _ends = Ends(&ends);
        let checking = scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                health.ask().unwrap();
                checks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        // Clients, until the pooler has no descriptor left. The log is the pooler's own.
        let log = dir.path().join("pgbouncer.log");
        let failed = || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            log.contains("Too many open files")
        };
        let mut clients = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !failed() {
            assert!(Instant::now() < deadline, "the pooler never ran out");
            clients.push(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        let refused = Instant::now();
        let before = checks.load(Ordering::Relaxed);
        let fired = daemon.fires(port).unwrap();
        let took = refused.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        explained(&fired, pgbouncer.0.id(), &target, port);
        wait::until_true("health checks to pass meanwhile", || {
            Ok(checks.load(Ordering::Relaxed) > before + 3)
        })
        .unwrap();

        // What the report says to type is typed.
        let state = dir.path().join("state");
        let id = fired["id"].as_str().unwrap();
        // The history is written when the disk has time for it.
        let told = wait::until("the incident to be in the history", || {
            let told = try_report(&state, &[id, "-o", "json"]);
            let told: Value = serde_json::from_str(&told.unwrap_or("{}".to_owned()))?;
            let is_there = told["incidents"][0]["explanation"].is_object();
            Ok(Some(told).filter(|_| is_there))
        })
        .unwrap();
        let remedies = told["incidents"][0]["remedies"].as_array().unwrap();
        let now = remedies.iter().filter_map(|one| one["how"].as_str());
        let now = now
            .filter(|how| how.starts_with("prlimit"))
            .collect::<Vec<_>>();
        let [now] = now[..] else {
            panic!("one thing to type: {remedies:#?}");
        };
        // By the pooler's own user: root of a container may not change another's limits.
        let status = as_nobody("/bin/sh").args(["-c", now]).status().unwrap();
        assert!(status.success(), "{now}");
        let resolved = daemon.over(port).unwrap();
        assert_eq!(resolved["id"], fired["id"]);
        let healthy = &resolved["explanation"]["healthy"];
        assert!(healthy["carried"].as_u64().unwrap() >= 1, "{healthy}");
        ends.store(true, Ordering::Relaxed);
        checking.join().unwrap();
        drop(clients);

        daemon.stop().unwrap();
        let text = report(&state, &[id, "--time-zone", "UTC"]);
        for words in [
            "pgbouncer",
            "pg_basebackup",
            &format!("127.0.0.1:{port}"),
            "of 64 when it began",
            "health check",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let html = report(&state, &[id, "-o", "html"]);
        for plot in ["Failures", "Descriptors"] {
            assert!(html.contains(&format!("data-plot=\"{plot}\"")), "{plot}");
        }
    });
}

fn explained(fired: &Value, pooler: u32, target: &Path, port: u16) {
    assert_eq!(fired["victim"]["process"]["pid"], pooler, "{fired:#}");
    assert_eq!(fired["victim"]["process"]["comm"], "pgbouncer");
    assert_eq!(fired["listeners"][0]["port"], port);
    let explanation = &fired["explanation"];
    let victim = &explanation["victim"];
    assert_eq!(victim["soft"], LIMIT, "{explanation:#}");
    // It fires when descriptors run short, which is before there are none.
    assert!(victim["fd"].as_u64().unwrap() * 10 >= LIMIT * 8, "{victim}");
    let held = victim["held"].as_array().unwrap();
    let port = port.to_string();
    let accepted = |one: &&Value| one["accepted_at"] == port.as_str();
    let clients = held
        .iter()
        .filter(accepted)
        .filter_map(|one| one["count"].as_u64());
    // A machine that is very busy may not have looked at all of them in time, and says so.
    assert!(
        clients.sum::<u64>() > LIMIT / 2 || victim["complete"] == false,
        "{victim:#}"
    );
    let started = explanation["started"].as_array().unwrap();
    let target = target.to_str().unwrap();
    let is_backup = |one: &&Value| {
        one["comm"] == "pg_basebackup"
            && one["argv"]
                .as_str()
                .is_some_and(|argv| argv.contains(target))
    };
    let backup = started.iter().find(is_backup);
    let backup = backup.unwrap_or_else(|| panic!("{started:#?}"));
    assert_eq!(backup["clock"], "cron", "{backup}");
    assert_eq!(backup["parent"], "cron", "{backup}");
    let trigger = explanation["trigger"].as_array().unwrap();
    // Whatever else is busy on this machine at the same time may be told beside it.
    assert!(
        trigger.iter().any(|one| one["pid"] == backup["pid"]),
        "{explanation:#}"
    );
    let healthy = &explanation["healthy"];
    assert!(healthy["open"].as_u64().unwrap() > LIMIT / 2, "{healthy}");
    assert!(explanation["started_lost"].is_u64());
}
