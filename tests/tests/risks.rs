//! What doctor says is at risk, of processes that put themselves there.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use turnaway_tests::workload::listening::Listening;
use turnaway_tests::{sys, tracer};
use xtask::vm::{self, Guest};

/// What a helper is to do, in its environment as JSON.
const ROLE: &str = "TURNAWAY_TEST_ROLE";
/// Arguments that make a helper of this program, if it has a role.
const HELPER: [&str; 3] = [
    "--exact",
    "a_listener_s_default_limit_is_a_risk_until_it_is_raised",
    "--nocapture",
];

/// A process with a listener. It ends when this is dropped.
struct Helper {
    child: Child,
    /// Closed when it is to end.
    input: Option<ChildStdin>,
    /// Kept, since what says something to nobody ends.
    output: BufReader<ChildStdout>,
    /// Socket inode of its listener, where it has one.
    inode: u64,
}

/// What it is to be like.
#[derive(Clone, Copy, Default)]
struct Role {
    /// Its soft limit of open files.
    limit: Option<u64>,
    /// A network namespace of its own, with these settings.
    settings: Option<&'static [(&'static str, &'static str)]>,
    /// It listens.
    backlog: Option<u32>,
    /// So many connections wait.
    queue: u32,
    /// It opens files until it has so many descriptors.
    descriptors: u64,
    /// It gives its listener away, to nobody.
    in_flight: bool,
}

impl Role {
    fn json(self) -> Value {
        json!({
            "settings": self.settings,
            "backlog": self.backlog,
            "queue": self.queue,
            "descriptors": self.descriptors,
            "in_flight": self.in_flight,
        })
    }
}

impl Helper {
    fn start(role: Role) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(HELPER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env(ROLE, role.json().to_string());
        // SAFETY: between fork and exec it makes two system calls, and nothing else.
        unsafe {
            command.pre_exec(move || {
                // Of the process's first thread, which is what others look at.
                if role.settings.is_some() {
                    sys::unshare(libc::CLONE_NEWNET)?;
                }
                if let Some(limit) = role.limit {
                    let (_, hard) = sys::nofile()?;
                    sys::set_nofile(limit, hard)?;
                }
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut helper = Self {
            child,
            input,
            output,
            inode: 0,
        };
        loop {
            let mut line = String::new();
            assert_ne!(helper.output.read_line(&mut line).unwrap(), 0, "it ended");
            // The harness begins a line and does not end it.
            if let Some((_, inode)) = line.split_once("inode ") {
                helper.inode = inode.trim().parse().unwrap();
                return helper;
            }
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn netns(&self) -> u64 {
        let link = format!("/proc/{}/ns/net", self.pid());
        fs::metadata(link).unwrap().ino()
    }

    /// How many descriptors it has.
    fn descriptors(&self) -> u64 {
        let folder = format!("/proc/{}/fd", self.pid());
        fs::read_dir(folder).unwrap().count() as u64
    }

    /// Its soft limit.
    fn limit(&self) -> u64 {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid())).unwrap();
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// A setting of its network namespace.
    fn setting(&self, name: &str) -> String {
        let output = Command::new("nsenter")
            .args(["-n", "-t"])
            .arg(self.pid().to_string())
            .args(["cat", &format!("/proc/sys/net/{name}")])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The risks that are about it, its listener or its network namespace.
    fn risks(&self, report: &Value) -> Vec<Value> {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let netns = self.netns();
        let is_about = |risk: &&Value| {
            risk["process"]["pid"] == self.pid()
                || (self.inode != 0 && risk["listener"]["inode"] == self.inode)
                || (netns != own && risk["netns"] == netns)
        };
        let risks = report["risks"].as_array().unwrap();
        risks.iter().filter(is_about).cloned().collect()
    }

    /// The only one.
    fn risk(&self, report: &Value) -> Value {
        let risks = self.risks(report);
        let [risk] = &risks[..] else {
            panic!("{risks:#?}");
        };
        risk.clone()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.input.take());
        // It fails only if it has ended.
        let _ = self.child.wait();
    }
}

/// What [`Helper`] starts: one of the tests, with a role instead.
fn play(role: &str) {
    let role: Value = serde_json::from_str(role).unwrap();
    let number = |name: &str| role[name].as_u64();
    if let Some(settings) = role["settings"].as_array() {
        sys::loopback_up().unwrap();
        for setting in settings {
            let (name, value) = (setting[0].as_str().unwrap(), setting[1].as_str().unwrap());
            fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
        }
    }
    let mut listening =
        number("backlog").map(|backlog| Listening::tcp4(u32::try_from(backlog).unwrap()).unwrap());
    let mut inode = 0;
    let mut kept: Vec<OwnedFd> = Vec::new();
    if let Some(listening) = &listening {
        let link = format!("/proc/self/fd/{}", listening.fd());
        inode = fs::metadata(link).unwrap().ino();
        let queue = u32::try_from(number("queue").unwrap()).unwrap();
        kept.extend(listening.queue_up(queue).unwrap());
    }
    let spare = fs::File::open("/dev/null").unwrap();
    let wanted = number("descriptors").unwrap();
    // The folder itself is one of them while it is read.
    while (fs::read_dir("/proc/self/fd").unwrap().count() as u64) <= wanted {
        kept.push(sys::dup(spare.as_raw_fd()).unwrap());
    }
    let ends = UnixStream::pair().unwrap();
    if role["in_flight"] == true {
        let end = ends.0.try_clone().unwrap().into();
        sys::send_descriptor(&end, listening.as_ref().unwrap().socket()).unwrap();
        // That was the last one but for the one that is under way.
        listening = None;
    }
    println!("inode {inode}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop((listening, kept, ends));
}

fn doctor() -> Value {
    report(
        Command::new(tracer::binary().unwrap())
            .args(["doctor", "--json"])
            .stderr(Stdio::null()),
    )
}

fn report(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Whether a hard limit may be raised here: CAP_SYS_RESOURCE, which containers' root has not.
fn may_raise_limits() -> bool {
    const CAP_SYS_RESOURCE: u64 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    let may = u64::from_str_radix(effective.trim(), 16).unwrap() & 1 << CAP_SYS_RESOURCE != 0;
    if !may {
        eprintln!("SKIPPED: the advice is not followed: no CAP_SYS_RESOURCE");
    }
    may
}

/// Types what is advised.
fn follow(risk: &Value) {
    let advice = risk["advice"].as_str().unwrap();
    let status = Command::new("sh")
        .args(["-ec", advice])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{advice}");
}

#[test]
fn a_listener_s_default_limit_is_a_risk_until_it_is_raised() {
    if let Ok(role) = std::env::var(ROLE) {
        play(&role);
        return;
    }
    let helper = Helper::start(Role {
        limit: Some(1024),
        backlog: Some(16),
        ..Role::default()
    });
    let risk = helper.risk(&doctor());
    assert_eq!(risk["code"], "process.nofile_low");
    assert_eq!(risk["severity"], "hint");
    assert_eq!(risk["value"], helper.descriptors());
    assert_eq!(risk["limit"], helper.limit());
    let comm = fs::read_to_string(format!("/proc/{}/comm", helper.pid())).unwrap();
    assert_eq!(risk["process"]["comm"], comm.trim_end());
    if may_raise_limits() {
        follow(&risk);
        assert!(helper.limit() > 1024);
        assert_eq!(helper.risks(&doctor()), [Value::Null; 0]);
    }
}

#[test]
fn a_limit_that_is_nearly_used_up_is_a_risk_though_nobody_listens() {
    let helper = Helper::start(Role {
        limit: Some(100),
        descriptors: 85,
        ..Role::default()
    });
    assert!(helper.descriptors() > 80, "{}", helper.descriptors());
    let risk = helper.risk(&doctor());
    assert_eq!(risk["code"], "process.fd_pressure");
    assert_eq!(risk["severity"], "warning");
    assert_eq!(risk["value"], helper.descriptors());
    assert_eq!(risk["limit"], 100);
    if may_raise_limits() {
        follow(&risk);
        assert_eq!(helper.risks(&doctor()), [Value::Null; 0]);
    }
}

/// A limit that is no risk.
const ENOUGH: Option<u64> = Some(4000);

#[test]
fn a_full_queue_in_another_namespace() {
    let helper = Helper::start(Role {
        limit: ENOUGH,
        settings: Some(&[]),
        backlog: Some(4),
        queue: 5,
        ..Role::default()
    });
    let risk = helper.risk(&doctor());
    assert_eq!(risk["code"], "listener.queue_filling");
    assert_eq!(risk["process"]["pid"], helper.pid());
    assert_eq!(risk["listener"]["netns"], helper.netns());
    assert_eq!(risk["netns"], helper.netns());
    assert_eq!(risk["value"], 5);
    assert_eq!(risk["limit"], 4);
    let text = risk["text"].as_str().unwrap();
    assert!(
        text.contains(&format!("net:[{}]", helper.netns())),
        "{text}"
    );
    assert!(text.ends_with("full"), "{text}");
}

#[test]
fn settings_of_another_namespace_are_risks_until_they_are_mended() {
    let helper = Helper::start(Role {
        limit: ENOUGH,
        settings: Some(&[
            ("ipv4/tcp_syncookies", "0"),
            ("ipv4/tcp_abort_on_overflow", "1"),
        ]),
        backlog: Some(4),
        ..Role::default()
    });
    let risks = helper.risks(&doctor());
    let codes: Vec<&str> = risks
        .iter()
        .map(|risk| risk["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["net.syncookies_off", "net.abort_on_overflow"]);
    assert_eq!(risks[0]["value"], 0);
    assert_eq!(risks[1]["value"], 1);
    for risk in &risks {
        assert_eq!(risk["netns"], helper.netns());
        assert!(risk.get("process").is_none(), "{risk}");
        follow(risk);
    }
    assert_eq!(helper.setting("ipv4/tcp_syncookies"), "1");
    assert_eq!(helper.setting("ipv4/tcp_abort_on_overflow"), "0");
    assert_eq!(helper.risks(&doctor()), [Value::Null; 0]);
}

#[test]
fn a_backlog_that_was_cut_and_one_that_just_fits() {
    let role = |backlog| Role {
        limit: ENOUGH,
        settings: Some(&[("core/somaxconn", "77")]),
        backlog: Some(backlog),
        ..Role::default()
    };
    let (cut, below) = (Helper::start(role(65_535)), Helper::start(role(76)));
    let report = doctor();
    let risk = cut.risk(&report);
    assert_eq!(risk["code"], "listener.backlog_cut");
    assert_eq!(risk["value"], 77);
    assert_eq!(risk["limit"].to_string(), cut.setting("core/somaxconn"));
    assert_eq!(risk["listener"]["inode"], cut.inode);
    assert_eq!(risk["process"]["pid"], cut.pid());
    let text = risk["text"].as_str().unwrap();
    assert!(text.contains("may have been cut"), "{text}");
    assert!(text.contains("is not known"), "{text}");
    assert_eq!(below.risks(&report), [Value::Null; 0]);
    follow(&risk);
    assert_ne!(cut.setting("core/somaxconn"), "77");
}

/// Whether this process may look at all others: who may do less than another may not.
fn sees_all() -> bool {
    fs::read_link("/proc/1/ns/net").is_ok()
}

#[test]
fn a_listener_that_is_on_its_way_is_nobody_s() {
    let helper = Helper::start(Role {
        limit: ENOUGH,
        settings: Some(&[]),
        backlog: Some(16),
        in_flight: true,
        ..Role::default()
    });
    let report = doctor();
    if sees_all() {
        let risk = helper.risk(&report);
        assert_eq!(risk["code"], "listener.held_by_nobody");
        assert_eq!(risk["listener"]["inode"], helper.inode);
        assert!(risk.get("process").is_none(), "{risk}");
    } else {
        // Somebody who is not seen may hold it; the guest below sees everybody.
        assert_eq!(helper.risks(&report), [Value::Null; 0]);
        assert_ne!(report["risks_unknown"], json!([]));
    }
}

#[test]
fn what_holds_a_listener_outside_of_a_pid_namespace_is_not_nobody() {
    let helper = Helper::start(Role {
        limit: ENOUGH,
        settings: Some(&[]),
        backlog: Some(16),
        ..Role::default()
    });
    // In the helper's network, where its process is not seen.
    let report = report(
        Command::new("nsenter")
            .args(["-n", "-t", &helper.pid().to_string()])
            .args(["unshare", "--pid", "--fork", "--mount-proc"])
            .arg(tracer::binary().unwrap())
            .args(["doctor", "--json"]),
    );
    assert_eq!(helper.risks(&report), [Value::Null; 0]);
    let unknown = report["risks_unknown"].to_string();
    assert!(unknown.contains("pid namespace"), "{unknown}");
}

/// The kernel that tells least of these: neither how many descriptors a process has nor the
/// cookie of a network namespace.
#[test]
fn on_an_old_kernel_where_everybody_is_seen() {
    let Some(kernel) = vm::for_test("5.10") else {
        return;
    };
    let tests = [
        "a_listener_that_is_on_its_way_is_nobody_s",
        "a_full_queue_in_another_namespace",
        "a_limit_that_is_nearly_used_up_is_a_risk_though_nobody_listens",
        "a_listener_without_risk",
    ];
    let command = ["/bin/env", "TURNAWAY_BIN=/bin/turnaway", "/bin/risks"];
    let harness = ["--exact", "--test-threads=1"];
    let mut guest = Guest::new(
        kernel,
        command.iter().chain(&harness).chain(&tests).copied(),
    );
    guest
        .file(tracer::binary().unwrap(), "/bin/turnaway")
        .program(Path::new("/usr/bin/env"), "/bin/env")
        .unwrap()
        .program(Path::new("/bin/sh"), "/bin/sh")
        .unwrap()
        .program(Path::new("/usr/bin/prlimit"), "/bin/prlimit")
        .unwrap()
        .program(&std::env::current_exe().unwrap(), "/bin/risks")
        .unwrap();
    // Emulation is slow, and slower still beside other tests.
    guest.timeout = Duration::from_mins(8);
    let exit = guest.run(|line| println!("{line}")).unwrap();
    assert_eq!(exit.code, 0, "{}", exit.console);
    assert!(exit.console.contains("4 passed"), "{}", exit.console);
}

#[test]
fn a_listener_without_risk() {
    for settings in [None, Some(&[][..])] {
        let helper = Helper::start(Role {
            limit: ENOUGH,
            settings,
            backlog: Some(16),
            queue: 8,
            ..Role::default()
        });
        assert_eq!(helper.risks(&doctor()), [Value::Null; 0]);
    }
}

#[test]
fn risks_are_found_where_nothing_can_be_loaded() {
    let helper = Helper::start(Role {
        limit: Some(1024),
        backlog: Some(16),
        ..Role::default()
    });
    let empty = tempfile::tempdir().unwrap();
    let report = report(
        Command::new("unshare")
            .args(["-m", "sh", "-ec"])
            .arg("mount --bind \"$EMPTY\" /sys/kernel/btf; exec \"$TURNAWAY\" doctor --json")
            .env("TURNAWAY", tracer::binary().unwrap())
            .env("EMPTY", empty.path()),
    );
    assert_eq!(report["healthy"], false);
    assert_eq!(helper.risk(&report)["code"], "process.nofile_low");
}

#[test]
fn what_nobody_may_read_is_unknown_and_no_risk() {
    let helper = Helper::start(Role {
        limit: Some(1024),
        backlog: Some(16),
        ..Role::default()
    });
    let dir = tempfile::tempdir().unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), everybody).unwrap();
    let copy = dir.path().join("turnaway");
    fs::copy(tracer::binary().unwrap(), &copy).unwrap();
    let report = report(
        Command::new("setpriv")
            .args(["--reuid", "65534", "--clear-groups"])
            .arg(&copy)
            .args(["doctor", "--json"]),
    );
    // Its listener is seen, and so is that its holder is not: it is not called nobody's.
    assert_eq!(helper.risks(&report), [Value::Null; 0]);
    let unknown = report["risks_unknown"].as_array().unwrap();
    assert!(
        unknown
            .iter()
            .any(|line| line.as_str().unwrap().contains("descriptors of")),
        "{unknown:?}"
    );
}

#[test]
fn text_says_what_and_what_to_type() {
    let helper = Helper::start(Role {
        limit: ENOUGH,
        settings: Some(&[]),
        backlog: Some(4),
        queue: 5,
        ..Role::default()
    });
    let output = Command::new(tracer::binary().unwrap())
        .arg("doctor")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (pid, netns) = (helper.pid(), helper.netns());
    let mut lines = text
        .lines()
        .skip_while(|line| !line.contains(&format!("[{pid}]: tcp 127.0.0.1:")));
    let what = lines.next().unwrap_or_else(|| panic!("{text}"));
    assert!(what.starts_with("[!!]   listener.queue_filling "), "{what}");
    let numbers = format!("in net:[{netns}]: 5 connections wait of 4 that may: full");
    assert!(what.ends_with(&numbers), "{what}");
    let mend = lines.next().unwrap();
    assert!(mend.starts_with("       mend: "), "{mend}");
    assert!(mend.contains(&format!("/proc/{pid}/")), "{mend}");
    assert!(text.contains("[ok]   conntrack "), "{text}");
}
