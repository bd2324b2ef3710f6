//! The Debian package: what is in it, and its life in a Debian.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use turnaway_tests::{tracer, wait};

use chroot::{Chroot, with_chroot};

#[path = "package/chroot.rs"]
mod chroot;

/// A package of the program to test. Compressing it would take long.
fn deb(version: &str, output: &Path) -> PathBuf {
    xtask::package::deb(&tracer::binary().unwrap(), version, "none", output).unwrap()
}

/// BPF programs that a process holds, by the kernel's own account.
fn programs(pid: u32) -> BTreeSet<u64> {
    fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .unwrap()
        // One may be closed meanwhile.
        .filter_map(|file| fs::read_to_string(file.ok()?.path()).ok())
        .flat_map(|text| {
            let ids = text
                .lines()
                .filter_map(|line| line.strip_prefix("prog_id:"));
            ids.map(|id| id.trim().parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

/// Those of them that are loaded.
fn loaded() -> BTreeSet<u64> {
    let output = Command::new("bpftool")
        .args(["-j", "prog", "show"])
        .output()
        .expect("no bpftool: run `cargo xtask setup --tests`");
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    all.iter().filter_map(|one| one["id"].as_u64()).collect()
}

fn runs(pid: u32) -> bool {
    // As a zombie it has no program.
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

/// Each hook and what became of it, as doctor says.
fn hooks(said: &[u8]) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(said).unwrap();
    assert_eq!(report["tracefs"]["ok"], true, "{}", report["tracefs"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let hooks = report["hooks"].as_array().unwrap();
    let each = hooks.iter();
    each.map(|hook| (text(&hook["name"]), text(&hook["status"])))
        .collect()
}

fn sees_as_much_as_outside(chroot: &Chroot) {
    let words = ["doctor", "--output", "json"];
    let outside = Command::new(tracer::binary().unwrap())
        .args(words)
        .output()
        .unwrap();
    let inside = chroot.output(&[&["turnaway"], &words[..]].concat());
    assert_eq!(inside.status.code(), outside.status.code());
    let hooks = [inside, outside].map(|output| hooks(&output.stdout));
    assert_eq!(hooks[0], hooks[1]);
    assert!(hooks[0].iter().any(|(_, status)| status == "attached"));
}

fn difference(after: &BTreeSet<PathBuf>, before: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    after.difference(before).cloned().collect()
}

#[test]
fn it_is_installed_upgraded_removed_and_purged() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (deb("0.1.0-1", dir.path()), deb("0.1.1-1", dir.path()));
    with_chroot(|chroot| {
        let before = chroot.files();
        chroot.install(&first);
        assert_eq!(chroot.asked(), ["daemon-reload", "start turnaway.service"]);
        let old = chroot.main_pid();
        let hooks = programs(old);
        assert!(!hooks.is_empty() && hooks.is_subset(&loaded()), "{hooks:?}");
        sees_as_much_as_outside(chroot);
        assert!(chroot.run(&["turnaway", "--version"]).contains("turnaway "));
        chroot.run(&["turnaway", "check-config"]);

        let config = chroot.path("/etc/turnaway/turnaway.toml");
        let edited = fs::read_to_string(&config).unwrap() + "# mine\n";
        fs::write(&config, &edited).unwrap();
        chroot.install(&second);
        assert_eq!(
            chroot.asked(),
            ["daemon-reload", "restart turnaway.service"]
        );
        assert_eq!(fs::read_to_string(&config).unwrap(), edited);
        let new = chroot.main_pid();
        assert!(old != new && !runs(old) && runs(new), "{old} {new}");
        let version = chroot.run(&["dpkg-query", "-Wf", "${Version}", "turnaway"]);
        assert_eq!(version, "0.1.1-1");

        let all: BTreeSet<u64> = hooks.union(&programs(new)).copied().collect();
        chroot.run(&["dpkg", "--remove", "turnaway"]);
        assert_eq!(chroot.asked(), ["stop turnaway.service", "daemon-reload"]);
        assert!(!runs(new));
        // The kernel frees them when nobody can be running them any more, which takes it a moment.
        wait::until_true("hooks to be gone", || Ok(loaded().is_disjoint(&all))).unwrap();
        let left = difference(&chroot.files(), &before);
        let kept = |path: &PathBuf| {
            let kept = ["/etc/turnaway", "/var/lib/turnaway", "/etc/systemd"];
            kept.iter().any(|folder| path.starts_with(folder))
                || path.starts_with("/var/lib/systemd/deb-systemd-helper-enabled")
        };
        assert!(left.iter().all(kept), "{left:?}");
        assert!(config.exists() && chroot.path("/var/lib/turnaway").exists());

        chroot.run(&["dpkg", "--purge", "turnaway"]);
        let after = chroot.files();
        assert_eq!(difference(&after, &before), Vec::<PathBuf>::new());
        assert_eq!(difference(&before, &after), Vec::<PathBuf>::new());
        assert!(
            !chroot
                .output(&["dpkg-query", "-W", "turnaway"])
                .status
                .success()
        );
    });
}

#[test]
fn what_was_disabled_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (deb("0.1.0-1", dir.path()), deb("0.1.1-1", dir.path()));
    with_chroot(|chroot| {
        chroot.install(&first);
        let wanted = "/etc/systemd/system/multi-user.target.wants/turnaway.service";
        fs::remove_file(chroot.path(wanted)).unwrap();
        chroot.run(&["systemctl", "stop", "turnaway.service"]);
        chroot.asked();
        // Debian's tool says that it does not start it.
        fs::copy(&second, chroot.path("/tmp/package.deb")).unwrap();
        let upgraded = chroot.output(&["dpkg", "--install", "/tmp/package.deb"]);
        assert!(upgraded.status.success(), "{upgraded:?}");
        assert_eq!(chroot.asked(), ["daemon-reload"]);
        assert!(!chroot.path(wanted).exists());
    });
}

#[test]
fn the_same_program_makes_the_same_package() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [one, two] = dirs
        .each_ref()
        .map(|dir| fs::read(deb("0.1.0-1", dir.path())).unwrap());
    assert!(one == two, "two packages differ");
}
