//! The story that turnaway is for, with real parts: nginx, two backends, a pooler that reaches its limit of
//! descriptors, PostgreSQL whose disk hangs while a backup runs, a health check that keeps its connection
//! and sees nothing of it all. On its own, since it looks at the whole machine.

#[path = "story/guest.rs"]
mod guest;
#[path = "story/tuesdays.rs"]
mod tuesdays;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use turnaway_tests::daemon::Daemon;
use turnaway_tests::disk::Disk;
use turnaway_tests::scenario::env;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::servers::shop::{self, Shop};
use turnaway_tests::servers::{as_nobody, postgres};
use turnaway_tests::{tracer, wait};

/// Descriptors of the pooler.
const LIMIT: u64 = 96;
/// What the daemon has seen is written there.
const RECORDING: &str = "recording.ndjson";
/// Connections that it makes to the database at most.
const POOL: u64 = 30;

/// Whose turn it is: told twice at a time, nothing in it would come when it should.
static TURN: Mutex<()> = Mutex::new(());

/// How soon an alert comes. Emulated processors are slow.
fn soon() -> Duration {
    Duration::from_secs(if env::is_guest() { 20 } else { 3 })
}

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
    let (state, recording) = (dir.join("state"), dir.join(RECORDING));
    let more = [OsStr::new("--record"), recording.as_os_str()];
    Daemon::start_with(&tracer::binary().unwrap(), &config, &state, &more).unwrap()
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
             default_pool_size = {POOL}\nlogfile = {}\n",
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

/// What is sold, and something to back up.
fn fill(port: u16) {
    let user = postgres::USER;
    let status = Command::new("psql")
        .args(["-h", "127.0.0.1", "-U", user, "-d", "postgres", "-q", "-p"])
        .arg(port.to_string())
        // As it is, and not compressed.
        .args([
            "-c",
            "create table shop (x text); alter table shop alter x set storage external;",
        ])
        .args([
            "-c",
            "insert into shop select repeat(md5(g::text), 64) from generate_series(1, 100000) g",
        ])
        .args([
            "-c",
            "create table orders (id serial, at timestamptz default now())",
        ])
        // It has long been there when the story begins: the backup does not have to write it down first.
        .args(["-c", "checkpoint"])
        .status()
        .unwrap();
    assert!(status.success());
}

/// A backup that takes longer than the story, started by the clock.
fn backup(dir: &Path, database: u16, target: &Path) -> Ended {
    let cron = dir.join("cron");
    std::fs::copy("/bin/sh", &cron).unwrap();
    // Its parent ends with the server that it reads from.
    let words = format!(
        "pg_basebackup -h 127.0.0.1 -U {} -p {database} -D {} --max-rate=4M --no-sync -c fast; true",
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
    let cron = Ended(cron);
    wait::until_true("the backup to write", || Ok(target.join("base").exists())).unwrap();
    cron
}

#[test]
fn the_first_tuesday_is_explained() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = folder().unwrap();
    // Where the database is, and where it is backed up to: a folder may be in memory, which is no disk.
    let (disk, backups) = (Disk::ext4(768).unwrap(), Disk::ext4(768).unwrap());
    let (database, port) = (free_port().unwrap(), free_port().unwrap());
    let _postgres = postgres::start(&disk.mounted, database).unwrap();
    fill(database);
    let pgbouncer = pooler(dir.path(), port, database);
    let shop = Shop::open(dir.path(), port).unwrap();
    let mut daemon = daemon(dir.path());
    let buy = || shop::answer(shop::buyer(shop.port).unwrap()).unwrap();
    assert_eq!(buy(), 200);
    // The health check: green, from before to after.
    let mut health = postgres::Session::begin(port).unwrap();
    health.ask().unwrap();
    let target = backups.mounted.join("backup");
    let _cron = backup(dir.path(), database, &target);
    // What began at the same time is no candidate.
    std::thread::sleep(Duration::from_secs(4));

    let (ends, checks) = (AtomicBool::new(false), AtomicU64::new(0));
    let closes = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (guard, last) = (Ends(&ends), Ends(&closes));
        let checking = scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                health.ask().unwrap();
                checks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        // No disk here is slow on demand, but one can be made to hang. Orders are not written from now on.
        let frozen = disk.freeze().unwrap();
        let buying = scope.spawn(|| shop.sell(&closes).unwrap());
        // The log is the pooler's own.
        let log = dir.path().join("pgbouncer.log");
        wait::until_true("the pooler to run out of descriptors", || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            Ok(log.contains("Too many open files"))
        })
        .unwrap();
        let refused = Instant::now();
        let before = checks.load(Ordering::Relaxed);
        let fired = daemon.fires(port).unwrap();
        let took = refused.elapsed();
        assert!(took < soon(), "{took:?}");
        // What takes long to find out, as with emulated processors, is told once it is.
        let fired = match &fired["explanation"] {
            Value::Null if env::is_guest() => daemon.fires(port).unwrap(),
            _ => fired,
        };
        let watching = daemon.child.id();
        explained(
            &fired,
            pgbouncer.0.id(),
            &target,
            (port, database),
            watching,
        );
        wait::until_true(
            "buyers to be turned away",
            || Ok(shop.answers(503)?.1 >= 20),
        )
        .unwrap();
        wait::until_true("health checks to pass meanwhile", || {
            Ok(checks.load(Ordering::Relaxed) > before + 3)
        })
        .unwrap();
        let state = dir.path().join("state");
        let id = fired["id"].as_str().unwrap();
        let told = suffered(&state, id, &shop);

        // Those who come now would wait until the disk is well again, more than nginx has room for.
        drop(last);
        mend(&told);
        let resolved = daemon.over(port).unwrap();
        assert_eq!(resolved["id"], fired["id"]);
        let healthy = &resolved["explanation"]["healthy"];
        assert!(healthy["carried"].as_u64().unwrap() >= 1, "{healthy}");
        drop(guard);
        checking.join().unwrap();
        drop(frozen);
        let mut answers = buying.join().unwrap();

        daemon.stop().unwrap();
        is_reported(&state, id, port);
        let onset = resolved["started"].as_str().unwrap().parse().unwrap();
        tuesdays::are_recognised(&dir.path().join(RECORDING), onset, dir.path());
        // All is well again, and what the buyers saw is what nginx says.
        assert_eq!(buy(), 200);
        *answers.entry(200).or_default() += 2;
        for (status, count) in answers {
            assert!(matches!(status, 200 | 503), "{count} answers of {status}");
            assert_eq!(shop.answers(status).unwrap().1, count, "{status}");
        }
    });
}

/// What the report says to type is typed.
fn mend(told: &Value) {
    let remedies = told["remedies"].as_array().unwrap();
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
}

fn is_reported(state: &Path, id: &str, port: u16) {
    let text = report(state, &[id, "--time-zone", "UTC"]);
    for words in [
        "pgbouncer",
        "pg_basebackup",
        "gunicorn",
        &format!("127.0.0.1:{port}"),
        &format!("of {LIMIT} when it began"),
        "health check",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let html = report(state, &[id, "-o", "html"]);
    for plot in ["Failures", "Descriptors"] {
        assert!(html.contains(&format!("data-plot=\"{plot}\"")), "{plot}");
    }
}

/// Waits until the report names all who asked for the buyers as those who wait, and returns the incident.
fn suffered(state: &Path, id: &str, shop: &Shop) -> Value {
    let workers: BTreeSet<u64> = shop.workers().unwrap().into_iter().map(u64::from).collect();
    assert_eq!(workers.len(), 2);
    wait::until("those who wait to be in the history", || {
        let told = try_report(state, &[id, "-o", "json"]);
        let told: Value = serde_json::from_str(&told.unwrap_or("{}".to_owned()))?;
        let incident = &told["incidents"][0];
        let clients = incident["explanation"]["waiting"]["clients"].as_array();
        let found: BTreeSet<u64> = clients
            .into_iter()
            .flatten()
            .filter_map(|client| client["pid"].as_u64())
            .collect();
        Ok((found == workers).then(|| incident.clone()))
    })
    .unwrap()
}

/// The process, and the processes that it descends from.
fn ancestry(pid: u64) -> Vec<u64> {
    let parent = |pid: u64| -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        line.trim().parse().ok().filter(|parent| *parent > 0)
    };
    std::iter::successors(Some(pid), |pid| parent(*pid)).collect()
}

fn explained(
    fired: &Value,
    pooler: u32,
    target: &Path,
    (port, database): (u16, u16),
    watching: u32,
) {
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
        clients.sum::<u64>() > LIMIT / 4 || victim["complete"] == false,
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
    // What else is busy on this machine at the same time may be told before it, but nothing that has a part
    // in the story. turnaway has none; where processors are emulated, starting it is work.
    let own = u64::from(std::process::id());
    let first = trigger.iter().find(|one| {
        let pid = one["pid"].as_u64().unwrap();
        let is_no_part = env::is_guest() && pid == u64::from(watching);
        !is_no_part && ancestry(pid).contains(&own)
    });
    let first = first.unwrap_or_else(|| panic!("{explanation:#}"));
    assert_eq!(first["pid"], backup["pid"], "{explanation:#}");
    let mechanism = &explanation["mechanism"][0];
    assert_eq!(mechanism["kind"], "slow_dependency", "{explanation:#}");
    let what = mechanism["what"].as_str().unwrap();
    assert!(what.contains(&format!("127.0.0.1:{database}")), "{what}");
    let healthy = &explanation["healthy"];
    let open = healthy["open"].as_u64();
    assert!(open.is_some_and(|open| open > LIMIT / 4), "{fired:#}");
    assert!(explanation["started_lost"].is_u64());
}
