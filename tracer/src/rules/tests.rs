//! Files of rules, good and bad.

use std::time::Duration;

use super::{Rules, parse};
use crate::{alert::Severity, observation};

#[test]
fn nothing_configured_is_good_defaults() {
    let rules = parse("", "x").unwrap();
    assert_eq!(rules, Rules::default());
    let rule = rules.named("OutOfDescriptors").unwrap();
    assert_eq!(rule.trigger.count, 1);
    assert_eq!(rule.severity, Severity::Critical);
}

#[test]
fn a_rule_of_a_default_name_changes_it_and_others_are_added() {
    let rules = parse(
        r#"
[[rule]]
name = "ListenerStalled"
duration = "10s"
severity = "warning"
labels = { team = "db" }

[[rule]]
name = "AcceptAborted"
enabled = false

[[rule]]
name = "Pooler"
reason = ["accept.*", "queue.stalled"]
comm = "pgbouncer"
unit = "pgbouncer*"
port = [6432, 6433]
count = 3
ratio = 0.05
window = "5m"
for = "10s"
resolve_after = "2m"
severity = "info"

[[ignore]]
comm = ["nmap", "scanner*"]

[[silence]]
until = 2026-11-25T06:00:00Z
unit = "pgbouncer.service"
comment = "moved on Wednesday"
"#,
        "x",
    )
    .unwrap();
    assert_eq!(rules.rules.len(), Rules::default().rules.len());
    let stalled = rules.named("ListenerStalled").unwrap();
    assert_eq!(stalled.trigger.duration, Some(Duration::from_secs(10)));
    assert_eq!(stalled.matcher.reason, ["queue.stalled"]);
    assert_eq!(stalled.labels["team"], "db");
    assert!(rules.named("AcceptAborted").is_none());
    let pooler = rules.named("Pooler").unwrap();
    assert_eq!(pooler.matcher.port, [6432, 6433]);
    assert_eq!(pooler.hold, Duration::from_secs(10));
    assert_eq!(rules.ignore.len(), Rules::default().ignore.len() + 1);
    assert_eq!(rules.silences[0].until.as_second(), 1_795_586_400);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (text, line, words) in [
        ("\nrulez = 1\n", Some(2), "rulez"),
        ("[[rule]]\nname = \"a\"\n", Some(1), "no reason"),
        (
            "[[rule]]\nname = \"a\"\nreason = \"accept.emfle\"\n",
            Some(3),
            "accept.emfile",
        ),
        (
            "[[rule]]\nname = \"a\"\nreason = \"accept.*\"\nwindow = \"soon\"\n",
            Some(4),
            "30s",
        ),
        (
            "[[rule]]\nname = \"a\"\nreason = \"accept.*\"\ncount = 0\n",
            Some(4),
            "at least 1",
        ),
        (
            "[[rule]]\nname = \"a\"\nreason = \"accept.*\"\nratio = 5.0\n",
            Some(4),
            "share",
        ),
        (
            "[[rule]]\nname = \"a\"\nreason = \"accept.*\"\nduration = \"2s\"\n",
            Some(4),
            "for =",
        ),
        (
            "[[rule]]\nname = \"a\"\nreason = \"accept.*\"\nseverity = \"high\"\n",
            Some(4),
            "critical",
        ),
        (
            "[[rule]]\nname = \"a\"\nreason = \"accept.*\"\n[[rule]]\nname = \"a\"\n",
            Some(5),
            "another name",
        ),
        (
            "[[rule]]\nname = \"a\"\nreason = \"accept.*\"\nlabels = { severity = \"x\" }\n",
            Some(4),
            "label",
        ),
        (
            "[[rule]]\nname = \"a\"\nreason = \"accept.*\"\nport = 70000\n",
            Some(1),
            "65535",
        ),
        (
            "[[rule]]\nname = \"a\"\nenabled = false\n",
            Some(1),
            "remove",
        ),
        ("[[ignore]]\n", Some(1), "everything"),
        ("[[silence]]\ncomm = \"a\"\n", Some(1), "until"),
        (
            "[[silence]]\nuntil = 2026-11-25\n",
            Some(2),
            "with its zone",
        ),
        ("[[rule]\n", Some(1), ""),
    ] {
        let error = parse(text, "rules.toml").unwrap_err();
        assert_eq!(error.line, line, "{error} of {text}");
        let said = error.to_string();
        assert!(said.starts_with("rules.toml:"), "{said}");
        assert!(said.contains(words), "{said} of {text}");
    }
}

#[test]
fn whoever_asks_for_names_is_no_incident_by_default() {
    let ignored = |rules: &Rules, path: &str| {
        let line = format!(
            r#"{{"schema":"turnaway/1","type":"count","time":"2026-11-24T03:12:05Z","host":"db1",
            "reason":"connect.refused","errno":"ENOENT","count":40,"process":{{"pid":7,"comm":"ls"}},
            "peer":{{"family":"unix","path":"{path}"}},"first":"2026-11-24T03:12:04Z",
            "last":"2026-11-24T03:12:05Z"}}"#
        );
        match observation::parse(&line.replace('\n', "")) {
            Ok(observation::Line::Seen(seen)) => rules.ignores(&seen),
            other => panic!("{other:?}"),
        }
    };
    let rules = Rules::default();
    assert!(ignored(&rules, "/var/run/nscd/socket"));
    assert!(!ignored(&rules, "/run/app.sock"));
    let none = parse("defaults = false", "x").unwrap();
    assert!(!ignored(&none, "/var/run/nscd/socket"));
    let own = parse("[[ignore]]\npath = \"/run/app*\"", "x").unwrap();
    assert!(ignored(&own, "/run/app.sock"));
    assert!(ignored(&own, "/var/run/nscd/socket"));
}
