//! `turnaway report`, as a person and a browser read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use turnaway::history::{Caps, Context, History, Incident, Sample, Watch};
use turnaway_tests::tracer;

const PATIENCE: Duration = Duration::from_mins(1);

/// 2026-11-10 03:12:00 UTC, a Tuesday.
const TUESDAY: i64 = 1_794_280_320;

fn tuesday(week: i64) -> Timestamp {
    Timestamp::from_second(TUESDAY + week * 7 * 86_400).unwrap()
}

fn incident(id: &str, started: Timestamp, failures: u64) -> Incident {
    let ended = started + SignedDuration::from_secs(90);
    serde_json::from_value(json!({
        "id": id, "host": "db1", "status": "resolved", "severity": "critical",
        "statement": "pgbouncer (pid 812) is out of file descriptors: <b>it</b> cannot accept",
        "started": started, "fired": started, "ended": ended,
        "victim": {"role": "server", "process": {
            "pid": 812, "comm": "pgbouncer", "unit": "pgbouncer.service",
            "cgroup": "/system.slice/pgbouncer.service",
        }},
        "reasons": [{"reason": "accept.emfile", "count": failures, "first": started, "last": ended}],
        "listeners": [{"inode": 7, "family": "inet", "address": "0.0.0.0", "port": 6432, "queue": 129, "backlog": 128}],
        "fd": {"used": 1024, "limit": 1024},
        "timeline": [{"time": started, "reason": "accept.emfile", "text": "the first accept fails"}],
    }))
    .unwrap()
}

/// Three Tuesdays in full, and so many others before them.
fn state(others: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let history = History::start(
        &folder.path().join("history.db"),
        Caps {
            memory: 1 << 30,
            ..Caps::default()
        },
    )
    .unwrap();
    history.watch(Watch {
        from: tuesday(-60),
        until: tuesday(3),
    });
    let mut random = fastrand::Rng::with_seed(5);
    for number in 0..others {
        let before = SignedDuration::from_secs(random.i64(0..400 * 86_400) + 86_400);
        let mut one = incident(
            &format!("other-{number}"),
            tuesday(0) - before,
            u64::from(number),
        );
        one.victim.process.as_mut().unwrap().unit = Some(format!("web{}.service", number % 50));
        history.incident(one);
    }
    for week in 0..3 {
        let id = format!("tuesday-{week}");
        let started = tuesday(week);
        history.incident(incident(&id, started, 523));
        let dump = started - SignedDuration::from_mins(27);
        history.context(Context {
            incident: id.clone(),
            taken: started,
            context: json!({
                "taken": started, "started_more": 0, "started_lost": 0,
                "started": [{"pid": 4711, "comm": "pg_dump", "started": dump, "argv": "pg_dump -Fc shop",
                             "unit": "backup.service", "clock": "backup.timer"}],
                "healthy": {"read": started, "listener": "0.0.0.0:6432", "open": 1011, "carried": 47},
                "mechanism": [],
                "trigger": [{"what": "pg_dump (pid 4711) began 27 min before", "kind": "program",
                             "strength": "strong", "evidence": ["it used most of the disk"], "pid": 4711}],
            }),
        });
        for second in 0..90_u32 {
            history.sample(
                &id,
                Sample {
                    time: started + SignedDuration::from_secs(second.into()),
                    failures: u64::from(second % 7),
                    queue: Some(129),
                    backlog: Some(128),
                    fd_used: Some(1024),
                    fd_limit: Some(1024),
                    cpu: Some(3.5),
                    io: Some(80.0),
                    memory: Some(0.5),
                },
            );
        }
    }
    assert!(history.stop(PATIENCE));
    folder
}

fn run(state: &Path, arguments: &[&str]) -> Output {
    Command::new(tracer::binary().unwrap())
        .args(["report", "--state"])
        .arg(state)
        .args(arguments)
        .env("TZ", "UTC")
        .output()
        .unwrap()
}

fn said(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_list_says_what_comes_again() {
    let state = state(0);
    let text = said(run(state.path(), &[]));
    assert!(
        text.contains("weekly, Tuesday 03:12 ± 1 min: 3 times"),
        "{text}"
    );
    assert_eq!(text.matches("Tue 2026-11-").count(), 5, "{text}");
    let text = said(run(state.path(), &["--since", "2026-11-20"]));
    assert!(
        text.contains("tuesday-2") && !text.contains("began        Tue 2026-11-17"),
        "{text}"
    );
    assert_eq!(
        said(run(state.path(), &["--unit", "nothing"])),
        "No incidents.\n"
    );
}

#[test]
fn what_is_wrong_is_said_with_the_right_exit_code() {
    let state = state(0);
    for (arguments, code, words) in [
        (&["nothing"][..], 1, "there is no incident nothing"),
        (&["tuesday"], 1, "3 incidents begin with tuesday"),
        (&["--since", "soon"], 2, "use a time such as"),
        (
            &["--time-zone", "Mars/Olympus"],
            2,
            "there is no such time zone",
        ),
        (&["--last", "tuesday-1"], 2, "cannot be used with"),
    ] {
        let output = run(state.path(), arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(words), "{arguments:?}: {errors}");
    }
    let nowhere = tempfile::tempdir().unwrap();
    let output = run(nowhere.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read the history"));
    fs::write(nowhere.path().join("history.db"), "rubbish".repeat(999)).unwrap();
    let output = run(nowhere.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
}

/// Opens a page in a browser; what the document is then, and what the browser said. What a page may not
/// load, which here is anything, is an error of its console.
fn open(page: &Path, shot: Option<&Path>) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("/usr/bin/chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
        ])
        .args(["--enable-logging=stderr", "--window-size=1100,2400"])
        .arg(format!(
            "--user-data-dir={}",
            folder.path().join("profile").display()
        ));
    match shot {
        Some(shot) => command.arg(format!("--screenshot={}", shot.display())),
        None => command.arg("--dump-dom"),
    };
    let output = command
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    (dom, errors)
}

fn page(state: &Path, arguments: &[&str], folder: &Path) -> PathBuf {
    let page = folder.join("report.html");
    let to = page.to_str().unwrap();
    said(run(
        state,
        &[arguments, &["-o", "html", "--to", to]].concat(),
    ));
    page
}

#[test]
fn a_browser_shows_one_without_a_request_or_an_error() {
    let state = state(0);
    let folder = tempfile::tempdir().unwrap();
    let page = page(state.path(), &["tuesday-1"], folder.path());
    let (dom, errors) = open(&page, None);
    assert!(!errors.contains("CONSOLE"), "{errors}");
    let written = fs::read_to_string(&page).unwrap();
    for address in ["http:", "https:", "src=", "url(", "@import", "<script"] {
        assert!(!written.contains(address), "{address}");
    }
    // The console does tell, where there is something to tell.
    let loads = folder.path().join("loads.html");
    let image = "<img src=\"http://127.0.0.1:9/x.png\"></body>";
    fs::write(&loads, written.replace("</body>", image)).unwrap();
    assert!(open(&loads, None).1.contains("CONSOLE"));
    assert!(!dom.contains("<b>it</b>"), "a name is no markup");
    for words in [
        "<dd data-fact=\"victim\">pgbouncer (pid 812, pgbouncer.service)</dd>",
        "<dd data-fact=\"failures\">accept.emfile 523</dd>",
        "<dd data-fact=\"descriptors\">1024 of 1024</dd>",
        "data-line=\"failures\" data-max=\"6\"",
        "data-line=\"open\" data-max=\"1024\"",
        "data-line=\"disk\" data-max=\"80\"",
        "47 of which carried data",
    ] {
        assert!(dom.contains(words), "{words}: {dom}");
    }
    assert_eq!(dom.matches("<figure class=\"plot\"").count(), 4);
    let shot = folder.path().join("shot.png");
    open(&page, Some(&shot));
    let size = fs::metadata(&shot).unwrap().len();
    assert!(size > 20_000, "{size} bytes of a picture");
    if let Ok(keep) = std::env::var("TURNAWAY_KEEP_SHOTS") {
        fs::copy(&shot, Path::new(&keep).join("one.png")).unwrap();
    }
}

#[test]
fn a_browser_shows_five_thousand() {
    let state = state(4_997);
    let folder = tempfile::tempdir().unwrap();
    let page = page(state.path(), &[], folder.path());
    let (dom, errors) = open(&page, None);
    assert!(!errors.contains("CONSOLE"), "{errors}");
    assert_eq!(dom.matches("<tr data-row=").count(), 5_000);
    assert_eq!(dom.matches("<details id=").count(), 100);
    assert!(dom.contains("5000 incidents from"), "the overview");
    if let Ok(keep) = std::env::var("TURNAWAY_KEEP_SHOTS") {
        let shot = folder.path().join("shot.png");
        open(&page, Some(&shot));
        fs::copy(&shot, Path::new(&keep).join("many.png")).unwrap();
    }
}
