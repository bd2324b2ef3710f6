use super::*;

fn read(text: &str) -> Result<Vec<Stream>> {
    #[derive(Deserialize)]
    struct File {
        stream: Vec<Config>,
    }
    let file: File = toml::from_str(text)?;
    understand(&file.stream, &Privacy::default())
}

#[test]
fn one_of_each_is_understood() {
    let streams = read(
        r#"
        [[stream]]
        type = "stdout"
        [[stream]]
        type = "file"
        path = "/var/log/turnaway.ndjson"
        size = "10M"
        every = "24h"
        [[stream]]
        type = "unix"
        path = "/run/x"
        socket = "datagram"
        [[stream]]
        type = "tcp"
        address = "[::1]:514"
        envelope = "rfc5424"
        framing = "octet-counted"
        spool = "1G"
        [[stream]]
        type = "tls"
        address = "logs.example:6514"
        [[stream]]
        type = "udp"
        address = "127.0.0.1:514"
        [[stream]]
        type = "http"
        url = "https://es.example:9200"
        body = "elasticsearch"
        types = ["incident"]
        min_severity = "critical"
        "#,
    )
    .unwrap();
    let spools: Vec<_> = streams.iter().map(|stream| stream.spool).collect();
    let usual = Some(SPOOL);
    assert_eq!(
        spools,
        [None, None, None, Some(1 << 30), usual, None, usual]
    );
    let Target::Connection(tls) = &streams[4].target else {
        panic!("{:?}", streams[4]);
    };
    let To::Tls(_, tls) = &tls.to else {
        panic!("{tls:?}");
    };
    assert_eq!(tls.server_name, "logs.example");
}

#[test]
fn what_is_wrong_is_said() {
    for (text, said) in [
        ("type = \"tcp\"", "where to?"),
        ("type = \"tcp\"\naddress = \"host\"", "HOST:PORT"),
        (
            "type = \"udp\"\naddress = \"h:1\"\nspool = \"1M\"",
            "`spool`",
        ),
        ("type = \"file\"\npath = \"x\"", "whole path"),
        (
            "type = \"stdout\"\nurl = \"http://h\"",
            "`url` means nothing",
        ),
        (
            "type = \"http\"\nurl = \"http://h\"\nindex = \"x\"",
            "`index` goes with",
        ),
        (
            "type = \"http\"\nurl = \"http://h\"\nbody = \"splunk\"\nindex = \"a b\"",
            "cannot be the name",
        ),
        (
            "type = \"http\"\nurl = \"http://h\"\nenvelope = \"rfc5424\"",
            "`envelope`",
        ),
        (
            "type = \"tls\"\naddress = \"h:1\"\ncert_file = \"/c\"",
            "go together",
        ),
        (
            "type = \"stdout\"\nonly = [\"acept\"]",
            "there is no reason",
        ),
        ("type = \"stdout\"\nrate = 0", "`rate`"),
        ("type = \"stdout\"\nfacility = \"user\"", "rfc5424"),
        (
            "type = \"tcp\"\naddress = \"h:1\"\nspool = \"8K\"",
            "at least 64K",
        ),
        ("type = \"stdout\"\nname = \"../x\"", "`name`"),
    ] {
        let error = format!("{:#}", read(&format!("[[stream]]\n{text}")).unwrap_err());
        assert!(error.contains(said), "{text}: {error}");
    }
    let twice = "[[stream]]\ntype = \"stdout\"\n".repeat(2);
    let error = format!("{:#}", read(&twice).unwrap_err());
    assert!(error.contains("called so too"), "{error}");
}

#[test]
fn only_what_is_wanted_goes_there() {
    let text = "[[stream]]\ntype = \"stdout\"\nonly = [\"accept\"]\nexcept = [\"accept.nomem\"]\n\
                min_severity = \"warning\"\ntypes = [\"event\", \"heartbeat\"]";
    let wants = read(text).unwrap().remove(0).wants;
    let entry = |kind, reason: Option<&str>, severity| entry::Entry {
        reason: reason.map(str::to_owned),
        severity,
        ..entry::sample(1, kind)
    };
    let warning = Some(Severity::Warning);
    for (kind, reason, severity, wanted) in [
        (entry::Kind::Event, Some("accept.emfile"), warning, true),
        (entry::Kind::Event, Some("accept.nomem"), warning, false),
        (entry::Kind::Event, Some("queue.slow"), warning, false),
        (
            entry::Kind::Event,
            Some("accept.emfile"),
            Some(Severity::Info),
            false,
        ),
        (entry::Kind::Count, Some("accept.emfile"), warning, false),
        // That turnaway lives is told in any case.
        (entry::Kind::Heartbeat, None, None, true),
    ] {
        let entry = entry(kind, reason, severity);
        assert_eq!(wants.accept(&entry), wanted, "{entry:?}");
    }
}
