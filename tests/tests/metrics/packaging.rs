//! What is shipped fits what there is.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use turnaway::metrics::{Format, Moment};

use crate::served::full;

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(path)
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr]
        .map(String::from_utf8_lossy)
        .concat()
}

fn promtool(arguments: &[&str], input: Option<&str>) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(packaging("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("no promtool: run `cargo xtask setup --tests`");
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(input.unwrap_or_default().as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
}

fn text() -> String {
    full().render(Format::Text, Moment::now()).unwrap()
}

/// Names of samples.
fn names() -> BTreeSet<String> {
    text()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect()
}

/// Names of turnaway's metrics in text.
fn used(text: &str) -> BTreeSet<String> {
    text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
        .filter(|word| word.starts_with("turnaway_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn promtool_finds_nothing_wrong() {
    promtool(&["check", "metrics"], Some(&text()));
    promtool(&["check", "rules", "turnaway.rules.yml"], None);
    promtool(&["test", "rules", "turnaway.rules.test.yml"], None);
}

#[test]
fn rules_use_metrics_that_there_are_and_name_whom_they_are_about() {
    let rules = std::fs::read_to_string(packaging("prometheus/turnaway.rules.yml")).unwrap();
    let used = used(&rules);
    assert!(used.len() > 5, "{used:?}");
    let names = names();
    let unknown: Vec<&String> = used.difference(&names).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let tests = std::fs::read_to_string(packaging("prometheus/turnaway.rules.test.yml")).unwrap();
    let (failures, itself) = rules.split_once("- name: turnaway-itself").unwrap();
    let alerts = |group: &str| -> Vec<String> {
        let alerts = group.split("- alert: ").skip(1);
        alerts.map(str::to_owned).collect()
    };
    let about_others = alerts(failures);
    assert!(about_others.len() > 5);
    for alert in about_others.iter().chain(&alerts(itself)) {
        let name = alert.lines().next().unwrap();
        let tested = tests.contains(&format!("alertname: {name}\n"));
        assert!(tested, "{name} is not tested");
        for part in ["severity:", "summary:", "description:", "$labels.instance"] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
    }
    // A full table of tracked connections is no process's.
    for alert in about_others
        .iter()
        .filter(|alert| !alert.contains("conntrack"))
    {
        assert!(alert.contains("$labels.comm"), "whose? {alert}");
        let which = ["$labels.port", "$labels.listener", "$labels.pid"];
        assert!(
            which.iter().any(|label| alert.contains(label)),
            "which? {alert}"
        );
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let text = std::fs::read_to_string(packaging("grafana/turnaway.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            shown.extend(used(target["expr"].as_str().unwrap()));
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(
        variables
            .iter()
            .any(|variable| variable["type"] == "datasource")
    );
    let names = names();
    let unknown: Vec<&String> = shown.difference(&names).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let missing: Vec<&String> = names
        .difference(&shown)
        .filter(|name| !name.ends_with("_seconds_sum") && !name.ends_with("_seconds_count"))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.contains('_'))
        .map(str::to_owned)
        .collect();
    let names: BTreeSet<String> = names()
        .iter()
        .map(|name| {
            let family = name
                .strip_suffix("_seconds_bucket")
                .or_else(|| name.strip_suffix("_seconds_sum"))
                .or_else(|| name.strip_suffix("_seconds_count"));
            family.map_or(name.clone(), |family| format!("{family}_seconds"))
        })
        .collect();
    assert_eq!(documented, names);
}

#[test]
fn systemd_understands_the_unit() {
    let unit = std::fs::read_to_string(packaging("systemd/turnaway.service")).unwrap();
    // In tenths; the unit says why it is not less.
    systemd_rates(&unit, 35);
    let few = "systemd/turnaway.service.d/few-privileges.conf";
    let few = std::fs::read_to_string(packaging(few)).unwrap();
    systemd_rates(&format!("{unit}{few}"), 25);
}

/// Its tools find no fault with a unit, and rate it exactly so, as it says of itself.
fn systemd_rates(unit: &str, tenths: u32) {
    // It looks for the program, which is not installed here.
    let program = std::env::current_exe().unwrap();
    let installed = unit.replace("/usr/bin/turnaway", program.to_str().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("turnaway.service");
    std::fs::write(&path, installed).unwrap();
    let analyze = |arguments: &[&str]| {
        Command::new("systemd-analyze")
            .args(arguments)
            .arg(&path)
            .output()
            .expect("no systemd-analyze: run `cargo xtask setup --tests`")
    };
    let verified = analyze(&["verify"]);
    assert!(verified.status.success(), "{}", said(&verified));
    // Other units of the machine may have faults of their own.
    let about_it: Vec<String> = said(&verified)
        .lines()
        .filter(|line| line.contains("turnaway.service"))
        .map(str::to_owned)
        .collect();
    assert!(about_it.is_empty(), "{about_it:?}");
    let rated = analyze(&[
        "security",
        "--offline=true",
        "--no-pager",
        "--threshold=100",
    ]);
    let said = said(&rated);
    let rate = format!("{}.{}", tenths / 10, tenths % 10);
    assert!(
        said.contains(&format!(" turnaway.service: {rate} ")),
        "{said}"
    );
    assert!(unit.contains(&format!(" {rate}")), "it says otherwise");
}
