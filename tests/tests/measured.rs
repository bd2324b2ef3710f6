//! What measures turnaway does what it says, and leaves nothing behind.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use turnaway_tests::cgroup::hierarchies;
use turnaway_tests::tracer::{self, Tracer, wait_for};

const MEMBERS: u64 = 20;
const FAILURES: u64 = 100;
/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_mins(1);

/// Processes that fail, each in a cgroup of its own. Its input ends when this is dropped; then it does.
struct Crowd {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Crowd {
    fn start() -> Self {
        let (count, failing) = (MEMBERS.to_string(), FAILURES.to_string());
        let mut child = Command::new(tracer::scenarios().unwrap())
            .args(["crowd", &count, "--failing", &failing])
            .args(["--seconds", "1", "--cgroups"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut crowd = Self {
            child,
            input,
            output,
        };
        assert_eq!(crowd.line(), "ready\n");
        crowd
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    /// Its cgroups, as the file system has them.
    fn cgroups(&self) -> Vec<PathBuf> {
        let ours = format!("turnaway-test-{}-crowd-", self.child.id());
        let mut found = Vec::new();
        for hierarchy in hierarchies().unwrap() {
            for entry in hierarchy.mounted.read_dir().unwrap() {
                let path = entry.unwrap().path();
                if path
                    .file_name()
                    .unwrap()
                    .to_string_lossy()
                    .starts_with(&ours)
                {
                    found.push(path);
                }
            }
        }
        found
    }

    /// Ends its input, and waits for its end.
    fn end(&mut self) {
        drop(self.input.take());
        let status = wait_for(&mut self.child, PATIENCE).unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.input.take());
        if wait_for(&mut self.child, PATIENCE).is_err() {
            // Both fail only if it has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[test]
fn a_crowd_fails_as_often_as_it_says_and_its_cgroups_go_with_it() {
    let mut crowd = Crowd::start();
    assert_eq!(crowd.cgroups().len() as u64, MEMBERS);
    let binary = tracer::binary().unwrap();
    let tracer = Tracer::start(&binary, &["--json", "--reason", "accept"]).unwrap();
    crowd.input.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(crowd.line(), format!("{FAILURES}\n"));
    let summary = tracer.stop().unwrap().records().unwrap().summary;
    for path in crowd.cgroups() {
        let name = format!("/{}", path.file_name().unwrap().to_string_lossy());
        let totals = summary.totals.iter();
        let ours = totals.filter(|total| total.process.cgroup.as_ref() == Some(&name));
        let counts: Vec<Option<u64>> = ours.map(|total| total.count).collect();
        assert_eq!(counts, [Some(FAILURES / MEMBERS)], "{name}");
    }
    crowd.end();
    assert_eq!(crowd.cgroups(), Vec::<PathBuf>::new());
}

#[test]
fn a_crowd_that_nobody_wants_any_more_leaves_no_cgroups() {
    let mut crowd = Crowd::start();
    assert_eq!(crowd.cgroups().len() as u64, MEMBERS);
    // As when who measures is killed.
    crowd.end();
    assert_eq!(crowd.cgroups(), Vec::<PathBuf>::new());
}
