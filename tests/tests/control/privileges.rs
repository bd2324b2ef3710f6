//! What the threads of turnaway may still do once it runs, by the kernel's own account.

use std::collections::BTreeMap;
use std::fs;

use crate::NOBODY;
use crate::daemon::{Daemon, count};
use crate::server::{Role, Server};
use turnaway_tests::tracer::{self, Tracer};
use turnaway_tests::wait;

const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;

/// What one thread may do.
#[derive(Debug)]
struct Thread {
    name: String,
    masks: BTreeMap<String, u64>,
}

fn threads(pid: u32) -> Vec<Thread> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .filter_map(|task| {
            // One may end meanwhile.
            let status = fs::read_to_string(task.unwrap().path().join("status")).ok()?;
            let field = |line: &str| {
                let (name, value) = line.split_once(":\t")?;
                let base = if name == "NoNewPrivs" { 10 } else { 16 };
                let wanted = name.starts_with("Cap") || name == "NoNewPrivs";
                wanted.then(|| (name.to_owned(), u64::from_str_radix(value, base).unwrap()))
            };
            Some(Thread {
                name: status.lines().next()?.split_once('\t')?.1.to_owned(),
                masks: status.lines().filter_map(field).collect(),
            })
        })
        .collect()
}

/// Each thread has what it takes, and no more.
fn have_no_more_than_they_need(pid: u32, threads: &[Thread]) {
    let main = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let mut polls = 0;
    for thread in threads {
        let most = match thread.name.as_str() {
            "turnaway-poll" | "turnaway-contex" => {
                polls += 1;
                SYS_PTRACE | DAC_READ_SEARCH | SYS_ADMIN
            }
            name if name == main.trim_end() => SYS_PTRACE | DAC_READ_SEARCH | SYS_ADMIN,
            _ => 0,
        };
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(thread.masks[set], most, "{set} of {thread:?}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(thread.masks[set], 0, "{set} of {thread:?}");
        }
        assert_eq!(thread.masks["NoNewPrivs"], 1, "{thread:?}");
    }
    assert!(polls > 0, "{threads:?}");
}

#[test]
fn capabilities_are_given_up_and_all_is_seen_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[[notify]]\ntype = \"command\"\ncommand = [\"/bin/true\"]\n";
    let record = dir.path().join("record");
    let port = turnaway_tests::servers::foreground::free_port().unwrap();
    let metrics = format!("127.0.0.1:{port}");
    let more = ["--metrics", &metrics, "--record", record.to_str().unwrap()];
    // Another user's, in another network namespace.
    let mut server = Server::start(Role {
        uid: Some(NOBODY),
        apart: true,
    });
    let daemon = Daemon::start(dir.path(), config, &more);
    let pid = daemon.child.id();
    // Threads that a request starts have no more either.
    crate::daemon::get(port, "/metrics").unwrap();
    daemon.status();
    let all = threads(pid);
    let names: Vec<&str> = all.iter().map(|thread| thread.name.as_str()).collect();
    for name in [
        "turnaway-poll",
        "turnaway-contex",
        "turnaway-histor",
        "turnaway-state",
        "turnaway-ctl",
        "turnaway-record",
        "stdout",
        "to-command",
        "alert-queue",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    have_no_more_than_they_need(pid, &all);

    // Who it is, what it has open and what its queue is like takes looking into its process and
    // its network.
    server.act("limit", 40);
    server.act("open", 36);
    let (_, short) = wait::until("descriptors to run short", || {
        let metrics = crate::daemon::get(port, "/metrics").unwrap();
        let label = format!("pid=\"{}\"", server.pid());
        let line = metrics
            .lines()
            .find(|line| line.starts_with("turnaway_process_open_fds{") && line.contains(&label));
        let open = line.and_then(|line| line.rsplit_once(' '));
        Ok(open.map(|(name, open)| (name.to_owned(), open.to_owned())))
    })
    .unwrap();
    let open: f64 = short.parse().unwrap();
    assert_eq!(open.to_string(), server.descriptors().to_string());
    server.act("close", 0);
    server.act("limit", 1024);
    let failed = server.act("fail", 4);
    let fired = daemon.incident("firing", server.port);
    let process = &fired["victim"]["process"];
    assert_eq!(process["pid"], server.pid());
    assert!(process["cgroup"].is_string(), "{process}");
    assert!(count(&fired, "accept.emfile") <= failed);
    server.act("queue", 3);
    let stalled = wait::until("a stall to be told", || {
        let incidents = daemon.ask(&["incidents", "--json"]);
        Ok(incidents
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|record| record["victim"]["process"]["pid"] == server.pid())
            .find(|record| count(record, "queue.stalled") > 0))
    })
    .unwrap();
    assert_eq!(stalled["listeners"][0]["queue"], 3, "{stalled}");
    have_no_more_than_they_need(pid, &threads(pid));
}

#[test]
fn trace_gives_them_up_too() {
    let tracer = Tracer::start(&tracer::binary().unwrap(), &["--json"]).unwrap();
    let pid = tracer.pid();
    let mut server = Server::start(Role {
        uid: Some(NOBODY),
        apart: true,
    });
    have_no_more_than_they_need(pid, &threads(pid));
    let failed = server.act("fail", 4);
    let records = tracer.stop().unwrap().records().unwrap();
    let ours: Vec<_> = records
        .summary
        .totals
        .iter()
        .filter(|total| total.reason == "accept.emfile" && total.process.pid == server.pid())
        .collect();
    assert_eq!(
        ours.iter().filter_map(|total| total.count).sum::<u64>(),
        failed
    );
    // A link that only some may read.
    let exe = fs::read_link(format!("/proc/{}/exe", server.pid())).unwrap();
    assert_eq!(ours[0].process.exe.as_deref(), exe.to_str());
}
