//! A program that is run for each alert, one at a time.
//!
//! The alert is on its standard input, not among its arguments, which everybody can see. Its
//! environment holds nothing of turnaway's own but a few harmless words.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{self, Child, ChildStderr, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use super::receiver::{Failure, Receiver};
use crate::{
    alert::{Alert, Status},
    text,
};

/// Where programs are looked for by what is run: the usual places.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of what the program says that are kept, the last ones.
const MAX_SAID: usize = 512;

/// A program with its arguments.
pub(super) struct Command {
    words: Vec<String>,
    timeout: Duration,
}

impl Command {
    pub(super) fn new(words: Vec<String>, timeout: Duration) -> Self {
        Self { words, timeout }
    }

    fn start(&self, alert: &Alert) -> Result<Child> {
        let (program, arguments) = self.words.split_first().context("no program")?;
        let status = match alert.status {
            Status::Firing => "firing",
            Status::Resolved => "resolved",
        };
        process::Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .env("TURNAWAY_STATUS", status)
            .env("TURNAWAY_SEVERITY", alert.severity.name())
            .current_dir("/")
            .stdin(input(alert)?)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own, so that what it started can be ended with it.
            .process_group(0)
            .spawn()
            .context("cannot run it")
    }
}

impl Receiver for Command {
    fn deliver(&mut self, alert: &Alert) -> Result<(), Failure> {
        let later = |error: anyhow::Error| Failure::later(format!("{error:#}"));
        let mut child = self.start(alert).map_err(later)?;
        let watched = watch(&mut child, self.timeout);
        if !matches!(watched, Ok(Watched { ended: true, .. })) {
            end(&mut child);
        }
        let status = child.wait().context("cannot wait for it");
        let watched = watched.map_err(later)?;
        let status = status.map_err(later)?;
        judge(&watched, status, self.timeout)
    }
}

/// The alert, in a file that has no name: a pipe would have to be filled while the program reads.
fn input(alert: &Alert) -> Result<File> {
    let fd = memfd_create("alert", MemfdFlags::CLOEXEC).context("cannot make its input")?;
    let mut file = File::from(fd);
    let mut line = serde_json::to_vec(alert)?;
    line.push(b'\n');
    file.write_all(&line)
        .and_then(|()| file.rewind())
        .context("cannot write its input")?;
    Ok(file)
}

struct Watched {
    ended: bool,
    said: Vec<u8>,
}

/// Reads what the program says until it ends or its time is over.
fn watch(child: &mut Child, timeout: Duration) -> Result<Watched> {
    let deadline = Instant::now() + timeout;
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch it")?;
    let mut stderr = child.stderr.take();
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Watched { ended: false, said });
        }
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Err(Errno::INTR) => continue,
            polled => polled.context("cannot wait for it")?,
        };
        let is_ready = |index: usize| {
            fds.get(index)
                .is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty())
        };
        let (ended, speaks) = (is_ready(0), is_ready(1));
        drop(fds);
        // What it said last is read before its end is believed, but no more than the pipe holds:
        // what it left behind may go on speaking.
        if speaks && !listen(&mut stderr, &mut said) {
            stderr = None;
        }
        if ended {
            return Ok(Watched { ended, said });
        }
    }
}

/// Reads what is there; false if there will be no more.
fn listen(stderr: &mut Option<ChildStderr>, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    let read = stderr.as_mut().map_or(Ok(0), |pipe| pipe.read(&mut buffer));
    let Ok(read @ 1..) = read else {
        return false;
    };
    said.extend(&buffer[..read]);
    let excess = said.len().saturating_sub(MAX_SAID);
    said.drain(..excess);
    true
}

fn end(child: &mut Child) {
    let pid = Pid::from_child(child);
    // It fails only if all have ended.
    let _ = kill_process_group(pid, Signal::KILL);
}

fn judge(watched: &Watched, status: ExitStatus, timeout: Duration) -> Result<(), Failure> {
    if watched.ended && status.success() {
        return Ok(());
    }
    let said = text::terminal(String::from_utf8_lossy(&watched.said).trim().as_bytes());
    let colon = if said.is_empty() { "" } else { ": " };
    let what = if watched.ended {
        format!("ended with {status}")
    } else {
        format!(
            "did not end within {} s and was killed",
            timeout.as_secs_f32()
        )
    };
    Err(Failure::later(format!("{what}{colon}{said}")))
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::{Command, Failure};
    use crate::{
        alert::{Alert, Status},
        notify::{receiver::Receiver as _, sample},
    };

    fn run(script: &str, timeout: Duration) -> Result<(), Failure> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Command::new(words, timeout).deliver(&sample("a", Status::Firing))
    }

    fn why(result: Result<(), Failure>) -> String {
        match result {
            Err(Failure::Later { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn the_alert_is_on_stdin_and_the_environment_is_bare() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        run(&format!("cat > {path}/in; env > {path}/env"), LONG).unwrap();
        let alert: Alert =
            serde_json::from_slice(&fs::read(dir.path().join("in")).unwrap()).unwrap();
        assert_eq!(alert, sample("a", Status::Firing));
        let env = fs::read_to_string(dir.path().join("env")).unwrap();
        assert!(env.contains("TURNAWAY_STATUS=firing\n"));
        for line in env.lines() {
            let name = line.split('=').next().unwrap();
            // The shell adds some of its own.
            assert!(
                ["PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name)
                    || name.starts_with("TURNAWAY_"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_program_that_reads_nothing_is_fine_and_one_that_fails_is_heard() {
        run("exit 0", LONG).unwrap();
        let said = why(run("echo '\u{1b}[2Jno' >&2; exit 3", LONG));
        assert_eq!(said, "ended with exit status: 3: \\x1b[2Jno");
        let said = why(run("yes x | head -c 100000 >&2; exit 1", LONG));
        assert!(said.len() < 2_000, "{said}");
        let words = vec!["/nonexistent/program".to_owned()];
        let result = Command::new(words, LONG).deliver(&sample("a", Status::Firing));
        assert!(why(result).starts_with("cannot run it"));
    }

    #[test]
    fn what_takes_too_long_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", path.display());
        let said = why(run(&script, Duration::from_secs(3)));
        assert!(
            said.starts_with("did not end within 3 s and was killed"),
            "{said}"
        );
        let pid = fs::read_to_string(path).unwrap();
        // Killed at once; it may take a moment to be gone, and then it waits for its parent.
        for _ in 0..10_000 {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            if stat.map_or(true, |stat| stat.contains(") Z ")) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it still runs");
    }

    #[test]
    fn what_a_program_leaves_behind_is_not_waited_for() {
        let started = std::time::Instant::now();
        run("sleep 20 & exit 0", LONG).unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}
