//! Queues of real servers: reloads and upgrades under load.

#[path = "queues/haproxy.rs"]
mod haproxy;
#[path = "queues/load.rs"]
mod load;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use load::Load;
use turnaway_tests::live::Live;
use turnaway_tests::records::Records;
use turnaway_tests::scenario::run::Actor;
use turnaway_tests::servers::foreground::{folder, free_port, listeners};
use turnaway_tests::servers::nginx::{self, Nginx};
use turnaway_tests::{sys, tracer, wait};

fn watching_for_abandoned(port: u16) -> Live {
    let port = port.to_string();
    let arguments = ["--reason", "queue.abandoned", "-P", &port];
    Live::start(&tracer::binary().unwrap(), &arguments).unwrap()
}

fn abandoned(records: &Records) -> u64 {
    records
        .summary
        .totals
        .iter()
        .filter(|total| total.reason == "queue.abandoned")
        .filter_map(|total| total.count)
        .sum()
}

#[test]
fn an_upgrade_of_nginx_loses_nothing_and_both_sides_say_so() {
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let server = Nginx {
        main: "worker_processes 2;",
        http: &nginx::answers(port, ""),
        ..Nginx::default()
    };
    let arguments = server.configure(dir.path()).unwrap();
    let pid_in = |name: &str| {
        let text = std::fs::read_to_string(dir.path().join(name)).ok()?;
        text.trim().parse::<u32>().ok()
    };
    let status = Command::new(nginx::PROGRAM)
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success());
    wait::until_true("nginx to listen", || Ok(!listeners(port)?.is_empty())).unwrap();
    let old = wait::until("nginx's pid", || Ok(pid_in("pid"))).unwrap();
    let turnaway = watching_for_abandoned(port);
    let load = Load::start(port);
    load.wait_for(500);
    sys::kill(old, libc::SIGUSR2).unwrap();
    let new = wait::until("the new nginx", || {
        Ok(pid_in("pid.oldbin")
            .and(pid_in("pid"))
            .filter(|pid| *pid != old))
    })
    .unwrap();
    load.wait_for(500);
    sys::kill(old, libc::SIGQUIT).unwrap();
    wait::until_true("the end of the old nginx", || {
        Ok(!Path::new(&format!("/proc/{old}")).exists())
    })
    .unwrap();
    load.wait_for(500);
    let tally = load.finish();
    let records = turnaway.stop().unwrap();
    sys::kill(new, libc::SIGTERM).unwrap();
    wait::until_true("the end of nginx", || {
        Ok(!Path::new(&format!("/proc/{new}")).exists())
    })
    .unwrap();
    assert_eq!(tally.reset.load(Ordering::Relaxed), 0);
    assert_eq!(tally.refused.load(Ordering::Relaxed), 0);
    assert_eq!(abandoned(&records), 0);
}

#[test]
fn an_audit_agrees_with_the_kernel_and_with_the_one_who_did_it() {
    let programs = tracer::scenarios().unwrap();
    let mut actor = Actor::start(&programs, "queue_syn_overflow").unwrap();
    let mut doctor = Command::new(tracer::binary().unwrap())
        .args(["doctor", "--json", "--audit", "5s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = BufReader::new(doctor.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("counting ") {
        line.clear();
        assert_ne!(ready.read_line(&mut line).unwrap(), 0, "it ended");
    }
    let tally = actor.act().unwrap();
    let output = doctor.wait_with_output().unwrap();
    actor.finish().unwrap();
    let audit: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let [failures] = &tally.failures[..] else {
        panic!("{tally:?}");
    };
    let netns = failures.listener.netns.unwrap();
    let ours = audit["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["netns"] == netns)
        .unwrap_or_else(|| panic!("{audit}"));
    assert_eq!(ours["counted"]["overflows"], failures.count, "{audit}");
    assert_eq!(ours["kernel"]["overflows"], failures.count, "{audit}");
    assert_eq!(audit["agrees"], true, "{audit}");
    assert!(output.status.success());
}
