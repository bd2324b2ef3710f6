//! What is printed, to whom, and when.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use turnaway_tests::tracer::{self, wait_for};

use crate::emfile;

/// From a failure to its line.
const LINE: Duration = Duration::from_secs(1);
/// Until something that must happen has happened.
const PATIENCE: Duration = Duration::from_secs(20);

/// A tracer whose lines are read as they come. It is killed when this is dropped.
struct Live {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    said: Receiver<String>,
}

impl Live {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(tracer::binary().unwrap())
            .arg("trace")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, said) = mpsc::channel();
        // It ends with the tracer.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let this = Self {
            child,
            stdout,
            said,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = this.said.recv_timeout(left).expect("it gets ready");
            if line.starts_with("tracing ") {
                return this;
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_failure_is_shown_within_a_second() {
    let started = Instant::now();
    let mut actor = emfile();
    let pid = actor.pid().to_string();
    // It ends by itself, so that reading does too.
    let mut live = Live::start(&[
        "--json",
        "-p",
        &pid,
        "--reason",
        "accept",
        "--duration",
        "20s",
    ]);
    let ready = started.elapsed();
    let mut stdout = live.stdout.take().unwrap();

    let failed = Instant::now();
    let tally = actor.act().unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let shown = failed.elapsed();
    println!("ready after {ready:?}, shown {shown:?} after the failure");
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["type"], "event");
    assert_eq!(event["process"]["pid"], actor.pid());
    assert_eq!(event["fd"]["limit"].as_u64(), tally.failures[0].limit);
    assert!(shown < LINE, "{shown:?}");
}

/// `turnaway trace | head -1`: the reader goes while failures come.
fn reader_goes(format: &str) {
    let mut actor = emfile();
    let pid = actor.pid().to_string();
    let mut live = Live::start(&["-o", format, "-p", &pid, "--reason", "accept"]);
    if format == "json" {
        // Text begins with a heading, before any failure.
        actor.act().unwrap();
    }
    let mut stdout = live.stdout.take().unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.ends_with('\n'), "{line:?}");
    drop(stdout);

    // What comes now has no reader: in JSON the number of all, after a second.
    if format == "text" {
        actor.act().unwrap();
    }
    let status = wait_for(&mut live.child, PATIENCE).unwrap();
    let said: Vec<String> = live.said.iter().collect();
    assert_eq!(status.code(), Some(0), "{said:?}");
    assert_eq!(said, [""; 0]);
}

#[test]
fn a_reader_of_text_may_go() {
    reader_goes("text");
}

#[test]
fn a_reader_of_records_may_go() {
    reader_goes("json");
}

/// What it prints at a terminal.
fn at_terminal(no_color: Option<&str>, arguments: &str) -> String {
    let binary = tracer::binary().unwrap();
    let mut command = Command::new("script");
    command
        .args(["-qec", &format!("\"$TURNAWAY\" trace {arguments}")])
        .arg("/dev/null")
        .env("TURNAWAY", &binary)
        .env("SHELL", "/bin/sh")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("No failure was counted"), "{text}");
    text
}

#[test]
fn no_color_is_honoured_at_a_terminal() {
    // Nobody listens there, so there is nothing to show.
    let arguments = "-P 1 --duration 1s";
    let escapes = |text: &str| text.contains('\x1b');
    let plain = at_terminal(Some("1"), arguments);
    assert!(!escapes(&plain), "{plain:?}");
    // Without it there are colours, so that the above says something.
    let colored = at_terminal(None, arguments);
    assert!(escapes(&colored), "{colored:?}");
    // Empty is not set: no-color.org.
    let colored = at_terminal(Some(""), arguments);
    assert!(escapes(&colored), "{colored:?}");
    // What is asked for in so many words is done.
    let always = at_terminal(Some("1"), &format!("{arguments} --color always"));
    assert!(escapes(&always), "{always:?}");
    let never = at_terminal(None, &format!("{arguments} --color never"));
    assert!(!escapes(&never), "{never:?}");
}
