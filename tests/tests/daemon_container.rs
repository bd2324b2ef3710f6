//! A server in a container of Podman's, which the daemon names as Podman does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use turnaway_tests::daemon::{Daemon, configure, failures};
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::servers::foreground::folder;
use turnaway_tests::servers::podman;
use turnaway_tests::{sys, tracer};

/// A container. It is removed when this is dropped.
struct Container {
    name: String,
}

impl Container {
    fn inspect(&self) -> Value {
        let output = podman().args(["inspect", &self.name]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        all[0].clone()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It fails only where there is none.
        let _ = podman()
            .args(["rm", "--force", "--time", "0", &self.name])
            .output();
    }
}

/// The file system of a container that holds one program without libraries.
fn root(dir: &Path) -> std::path::PathBuf {
    let root = dir.join("root");
    for folder in ["proc", "sys", "dev", "tmp", "etc", "run"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(tracer::scenarios().unwrap(), root.join("server")).unwrap();
    root
}

#[test]
fn a_container_is_named_by_its_id_and_name() {
    let dir = folder().unwrap();
    let config = configure(dir.path(), "", Duration::from_secs(3)).unwrap();
    let turnaway = tracer::binary().unwrap();
    let mut daemon = Daemon::start(&turnaway, &config, &dir.path().join("state")).unwrap();
    let container = Container {
        name: format!("turnaway-test-{}", sys::own_pid()),
    };
    let mut run = podman();
    // The limits that Podman would raise are not everybody's to raise.
    run.args(["run", "--interactive", "--network", "host"])
        .args([
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ])
        .args(["--name", &container.name, "--rootfs"])
        .arg(root(dir.path()))
        .args(["/server", "driven"]);
    let mut acceptor = Acceptor::start(&mut run).unwrap();
    let port = acceptor.port;
    let _client = acceptor.client().unwrap();

    assert_eq!(acceptor.fail(17).unwrap(), 17);
    let fired = daemon.fires(port).unwrap();
    let truth = container.inspect();
    let id = truth["Id"].as_str().unwrap();
    assert_eq!(id.len(), 64);
    let victim = &fired["victim"]["process"];
    assert_eq!(victim["container"]["id"], id, "{fired}");
    assert_eq!(victim["container"]["name"], container.name, "{fired}");
    assert_eq!(victim["pid"], truth["State"]["Pid"], "{fired}");
    let statement = fired["statement"].as_str().unwrap();
    let words = format!("container {}", container.name);
    assert!(statement.contains(&words), "{statement}");

    assert_eq!(acceptor.recover().unwrap(), 1);
    let over = daemon.over(port).unwrap();
    assert_eq!(over["victim"]["process"]["container"]["id"], id);
    assert_eq!(failures(&over, "accept.emfile"), Some(17));
    let ended = daemon.stop().unwrap();
    let summary = ended.records.last().unwrap();
    let totals = summary["totals"].as_array().unwrap();
    let ours: Vec<&Value> = totals
        .iter()
        .filter(|total| total["process"]["container"]["id"] == id)
        .filter(|total| total["reason"] == "accept.emfile")
        .collect();
    let [total] = ours[..] else {
        panic!("not one total of {id}: {ours:?}");
    };
    assert_eq!(total["count"], 17);
    assert_eq!(total["process"]["container"]["runtime"], "podman");
    assert_eq!(total["process"]["container"]["name"], container.name);
    acceptor.finish().unwrap();
}
