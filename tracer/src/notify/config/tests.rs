use std::time::Duration;

use serde::Deserialize;

use super::{Access, Body, Config, Facility, Format, Place, Receiver, understand};
use crate::alert::Severity;

/// As the daemon's configuration holds it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    notify: Vec<Config>,
}

fn parse(text: &str) -> Result<Vec<super::Notifier>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    understand(&file.notify).map_err(|error| format!("{error:#}"))
}

/// The examples in the documentation are understood, and there is one of each type.
#[test]
fn the_documented_examples_hold() {
    let docs = include_str!("../../../../docs/notify.md");
    let mut kinds = Vec::new();
    for (index, block) in docs.split("```").enumerate() {
        let Some(text) = block.strip_prefix("toml\n").filter(|_| index % 2 == 1) else {
            continue;
        };
        let notifiers = parse(text).unwrap_or_else(|error| panic!("{error}\nin:\n{text}"));
        kinds.extend(
            notifiers
                .iter()
                .map(|notifier| notifier.receiver.kind().name()),
        );
    }
    for kind in [
        "alertmanager",
        "webhook",
        "command",
        "journald",
        "syslog",
        "stdout",
    ] {
        assert!(kinds.contains(&kind), "no example of {kind}");
    }
}

#[test]
fn what_is_left_out_has_a_good_default() {
    let notifiers = parse(
        "[[notify]]\ntype = \"alertmanager\"\nurl = \"http://127.0.0.1:9093\"\n\
         [[notify]]\ntype = \"webhook\"\nbody = \"pagerduty\"\nrouting_key_file = \"/key\"\n\
         [[notify]]\ntype = \"syslog\"\n[[notify]]\ntype = \"stdout\"\n",
    )
    .unwrap();
    let [alertmanager, pagerduty, syslog, stdout] = &notifiers[..] else {
        panic!("{notifiers:?}");
    };
    assert_eq!(alertmanager.name, "alertmanager");
    assert_eq!(alertmanager.timeout, Duration::from_secs(10));
    assert_eq!(alertmanager.queue, 1_000);
    assert_eq!(alertmanager.wants.min_severity, Severity::Info);
    let Receiver::Alertmanager {
        urls,
        resend,
        access,
        ..
    } = &alertmanager.receiver
    else {
        panic!("{alertmanager:?}");
    };
    assert_eq!(*resend, Duration::from_mins(1));
    assert_eq!(*access, Access::default());
    assert_eq!(urls[0].to_string(), "http://127.0.0.1:9093/");
    let Receiver::Webhook {
        url: Place::Address(url),
        body,
        ..
    } = &pagerduty.receiver
    else {
        panic!("{pagerduty:?}");
    };
    assert_eq!(url.reveal(), "https://events.pagerduty.com/v2/enqueue");
    assert_eq!(*body, Body::Pagerduty("/key".into()));
    assert_eq!(
        syslog.receiver,
        Receiver::Syslog("/dev/log".into(), Facility::Daemon)
    );
    assert_eq!(stdout.receiver, Receiver::Stdout(Format::Text));
}

#[test]
fn what_is_wrong_is_said_in_plain_words() {
    for (text, said) in [
        (
            "type = \"webhook\"",
            "where to? Give `url`, or `url_file` if it is a secret",
        ),
        (
            "type = \"webhook\"\nurl = \"x\"",
            "does not begin with http",
        ),
        (
            "type = \"webhook\"\nurl = \"http://u:p@x\"",
            "use `bearer_token_file`",
        ),
        (
            "type = \"webhook\"\nurl = \"http://x\"\nurl_file = \"/y\"",
            "not both",
        ),
        (
            "type = \"webhook\"\nurl_file = \"y\"",
            "`url_file` is a whole path",
        ),
        (
            "type = \"webhook\"\nbody = \"pagerduty\"",
            "give `routing_key_file`",
        ),
        (
            "type = \"webhook\"\nurl = \"http://x\"\nrouting_key_file = \"/y\"",
            "goes with body = \"pagerduty\"",
        ),
        (
            "type = \"alertmanager\"",
            "Give `url`, `urls` or `url_file`",
        ),
        ("type = \"alertmanager\"\nurls = []", "`urls` is empty"),
        (
            "type = \"alertmanager\"\nurls = [\"http://a\", \"http://a/\"]",
            "is there twice",
        ),
        (
            "type = \"alertmanager\"\nurl = \"http://a\"\nresend = \"soon\"",
            "`resend` is a time such as",
        ),
        (
            "type = \"stdout\"\ntimeout = \"-1s\"",
            "`timeout` is a time such as",
        ),
        (
            "type = \"stdout\"\ntimeout = \"1h\"",
            "`timeout` is at most 10 min",
        ),
        ("type = \"stdout\"\nqueue = 0", "`queue` is a number from 1"),
        (
            "type = \"stdout\"\nurl = \"http://x\"",
            "`url` means nothing to type = \"stdout\"; it belongs to alertmanager and webhook",
        ),
        (
            "type = \"stdout\"\nonly = [\"accept.enfil\"]",
            "there is no reason \"accept.enfil\"",
        ),
        ("type = \"stdout\"\nname = \"a/b\"", "`name` is 1 to 64"),
        ("type = \"command\"", "which program?"),
        (
            "type = \"command\"\ncommand = [\"sh\"]",
            "begins with the whole path",
        ),
        ("type = \"stdout\"\nbogus = 1", "unknown field `bogus`"),
        ("type = \"mail\"", "unknown variant `mail`"),
        (
            "type = \"stdout\"\nmin_severity = \"bad\"",
            "unknown variant `bad`",
        ),
    ] {
        let error = parse(&format!("[[notify]]\n{text}\n")).unwrap_err();
        assert!(error.contains(said), "{text}\n{error}");
        assert!(!error.contains("u:p"), "{error}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let error = parse(
        "[[notify]]\ntype = \"command\"\n[[notify]]\ntype = \"stdout\"\n\
         [[notify]]\ntype = \"stdout\"\n[[notify]]\ntype = \"webhook\"\nname = \"page\"\n",
    )
    .unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert!(
        lines[0].starts_with("notify 1 (command): which program?"),
        "{error}"
    );
    assert!(
        lines[1].starts_with("notify 3 (stdout): another one is called so too"),
        "{error}"
    );
    assert!(
        lines[2].starts_with("notify 4 (page): where to?"),
        "{error}"
    );
}
