//! Processes whose accepts fail when they are told so.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use turnaway_tests::records::{Key, Records};

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/failing/fail.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fail");
    // Another run may be using the one that is there.
    let own = program.with_extension(std::process::id().to_string());
    let status = Command::new("cc")
        .args(["-O2", "-Wall", "-Werror", "-o"])
        .args([&own, &source])
        .status()
        .expect("no cc: run `cargo xtask setup --tests`");
    assert!(status.success(), "cc: {status}");
    std::fs::rename(&own, &program).unwrap();
    program
});

/// One such process. It is killed when this is dropped.
pub(crate) struct Failing {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Its process id.
    pub(crate) pid: u32,
    /// The port that it listens on.
    pub(crate) port: u32,
    /// Its soft limit of descriptors.
    pub(crate) limit: u64,
    /// How often it failed with EMFILE so far, as it says itself.
    pub(crate) emfile: u64,
    /// The same with EBADF.
    pub(crate) badf: u64,
}

impl Failing {
    /// Starts one of this name.
    pub(crate) fn named(name: &[u8]) -> Self {
        let mut child = Command::new(&*PROGRAM)
            .arg(OsStr::from_bytes(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut this = Self {
            child,
            orders,
            answers,
            pid: 0,
            port: 0,
            limit: 0,
            emfile: 0,
            badf: 0,
        };
        let about = this.answer();
        let [pid, port, limit] = about[..] else {
            panic!("three numbers, not {about:?}");
        };
        this.pid = this.child.id();
        assert_eq!(pid, u64::from(this.pid));
        this.port = u32::try_from(port).unwrap();
        this.limit = limit;
        this
    }

    /// Fails that often with EMFILE.
    pub(crate) fn emfile(&mut self, count: u64) {
        let failed = self.order("emfile", u128::from(count));
        assert_eq!(failed, count);
        self.emfile += failed;
    }

    /// Fails that often with EBADF, on no listener.
    pub(crate) fn badf(&mut self, count: u64) {
        let failed = self.order("badf", u128::from(count));
        assert_eq!(failed, count);
        self.badf += failed;
    }

    /// Fails with EMFILE for that long, as fast as it can.
    pub(crate) fn spin(&mut self, time: Duration) {
        self.emfile += self.order("spin", time.as_millis());
    }

    fn order(&mut self, order: &str, number: u128) -> u64 {
        writeln!(self.orders, "{order} {number}").unwrap();
        let answer = self.answer();
        assert_eq!(answer.len(), 1, "{answer:?}");
        answer[0]
    }

    /// Its next line. It ends by itself after a minute, so this does too.
    fn answer(&mut self) -> Vec<u64> {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended, having said {line:?}");
        line.split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect()
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was counted: process, errno, port and how often, sorted.
pub(crate) type Counted = Vec<(u32, String, Option<u32>, u64)>;

/// The totals of a run.
pub(crate) fn totals(records: &Records) -> Counted {
    let what = |key: &Key| {
        (
            key.process.pid,
            key.errno.clone(),
            key.listener.port,
            key.count.unwrap_or(0),
        )
    };
    let mut totals: Counted = records.summary.totals.iter().map(what).collect();
    totals.sort();
    totals
}

/// What these processes say of their EMFILE, and of their EBADF.
pub(crate) fn tallies(emfile: &[&Failing], badf: &[&Failing]) -> Counted {
    let full = emfile
        .iter()
        .map(|it| (it.pid, "EMFILE".to_owned(), Some(it.port), it.emfile));
    let misused = badf
        .iter()
        .map(|it| (it.pid, "EBADF".to_owned(), None, it.badf));
    let mut tallies: Counted = full.chain(misused).collect();
    tallies.sort();
    tallies
}
