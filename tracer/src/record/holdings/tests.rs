use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{HoldingsFields, MAX_GROUPS};
use crate::attribute::holdings::{Family, Holdings, Kind, SocketGroup};

const SCHEMA: &str = include_str!("../../../../docs/schema/turnaway-1.json");
const DOCUMENT: &str = include_str!("../../../../docs/records.md");

/// Holdings with every field that there is.
fn rich() -> Holdings {
    Holdings {
        total: 1_024,
        complete: true,
        kinds: vec![(Kind::Socket, 1_006), (Kind::File, 14), (Kind::Pipe, 4)],
        groups: vec![
            SocketGroup {
                remote: Some(SocketAddr::from(([10, 1, 2, 3], 5_432))),
                ..SocketGroup::of_tcp(Some("ESTABLISHED"), 812)
            },
            SocketGroup {
                local_port: Some(6_432),
                peers: 3,
                ..SocketGroup::of_tcp(Some("CLOSE_WAIT"), 190)
            },
            SocketGroup {
                family: Family::Unix,
                protocol: None,
                path: Some(b"\0evil\xff\n\x1b".to_vec()),
                ..SocketGroup::of_tcp(Some("ESTABLISHED"), 3)
            },
            SocketGroup {
                family: Family::Other,
                protocol: None,
                ..SocketGroup::of_tcp(None, 1)
            },
        ],
        files: vec![(b"/var/log/x\xff\n".to_vec(), 3)],
    }
}

/// Holdings of more groups than are told apart.
fn many() -> Holdings {
    let groups = (1..=30)
        .rev()
        .map(|count| SocketGroup {
            remote: Some(SocketAddr::from(([0xff; 16], 1))),
            ..SocketGroup::of_tcp(Some("ESTABLISHED"), count)
        })
        .collect();
    Holdings {
        complete: false,
        groups,
        ..rich()
    }
}

fn value(holdings: &Holdings) -> Value {
    let line = serde_json::to_string(&HoldingsFields::new(holdings)).expect("serialised");
    assert!(!line.contains('\n'), "{line}");
    serde_json::from_str(&line).expect("JSON")
}

/// Records' parts for the test that no field of the schema is without use.
pub(crate) fn samples() -> Vec<Value> {
    vec![value(&rich()), value(&many()), value(&Holdings::default())]
}

fn validator() -> jsonschema::Validator {
    let mut schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let root = schema.as_object_mut().expect("an object");
    root.retain(|name, _| matches!(name.as_str(), "$schema" | "$defs"));
    root.insert("$ref".to_owned(), json!("#/$defs/holdings"));
    jsonschema::validator_for(&schema).expect("the schema is one")
}

#[test]
fn every_field() {
    assert_eq!(
        value(&rich()),
        json!({
            "total": 1024,
            "complete": true,
            "kinds": [
                {"kind": "socket", "count": 1006},
                {"kind": "file", "count": 14},
                {"kind": "pipe", "count": 4}
            ],
            "sockets": [
                {
                    "family": "inet", "protocol": "tcp", "state": "ESTABLISHED",
                    "remote": "10.1.2.3:5432", "count": 812
                },
                {
                    "family": "inet", "protocol": "tcp", "state": "CLOSE_WAIT",
                    "local_port": 6432, "peers": 3, "count": 190
                },
                {
                    "family": "unix", "state": "ESTABLISHED",
                    "path": "@evil\\xff\n\u{1b}", "count": 3
                },
                {"family": "other", "count": 1}
            ],
            "files": [{"path": "/var/log/x\\xff\n", "count": 3}]
        })
    );
    assert_eq!(
        value(&Holdings::default()),
        json!({"total": 0, "complete": false, "kinds": []})
    );
}

#[test]
fn small_groups_are_added_up() {
    let fields = value(&many());
    let sockets = fields["sockets"].as_array().expect("there");
    assert_eq!(sockets.len(), MAX_GROUPS);
    assert_eq!(sockets[19]["count"], 11);
    assert_eq!(
        sockets[19]["remote"],
        format!("[{}ffff]:1", "ffff:".repeat(7))
    );
    assert_eq!(fields["other"], (1..=10).sum::<u64>());
}

#[test]
fn they_fit_the_schema() {
    let validator = validator();
    for sample in samples() {
        let errors: Vec<String> = validator
            .iter_errors(&sample)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?} in {sample:#}");
    }
    let good = value(&rich());
    for (pointer, wrong) in [
        ("/total", json!(-1)),
        ("/complete", json!(null)),
        ("/kinds/0/kind", json!("sockets")),
        ("/kinds/0/count", json!(0)),
        ("/sockets/0/family", json!("ipv4")),
        ("/sockets/0/state", json!("")),
        ("/sockets/0/remote", json!("10.1.2.3")),
        ("/sockets/1/local_port", json!(65_536)),
        ("/sockets/1/peers", json!(0)),
        ("/files/0/path", json!("")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect(pointer) = wrong;
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
    for pointer in ["", "/kinds/0", "/sockets/0", "/files/0"] {
        let mut bad = good.clone();
        let object = bad.pointer_mut(pointer).and_then(Value::as_object_mut);
        object.expect(pointer).insert("new".to_owned(), json!(1));
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
}

#[test]
fn every_kind_and_family_is_in_the_schema_and_the_document() {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    // A new one must be written down here, or this does not compile.
    let next_kind = |kind| match kind {
        Kind::Socket => Some(Kind::File),
        Kind::File => Some(Kind::Pipe),
        Kind::Pipe => Some(Kind::EventFd),
        Kind::EventFd => Some(Kind::EventPoll),
        Kind::EventPoll => Some(Kind::TimerFd),
        Kind::TimerFd => Some(Kind::SignalFd),
        Kind::SignalFd => Some(Kind::Inotify),
        Kind::Inotify => Some(Kind::IoUring),
        Kind::IoUring => Some(Kind::Device),
        Kind::Device => Some(Kind::Memfd),
        Kind::Memfd => Some(Kind::PidFd),
        Kind::PidFd => Some(Kind::BpfObject),
        Kind::BpfObject => Some(Kind::Other),
        Kind::Other => None,
    };
    let next_family = |family| match family {
        Family::Inet => Some(Family::Inet6),
        Family::Inet6 => Some(Family::Unix),
        Family::Unix => Some(Family::Netlink),
        Family::Netlink => Some(Family::Packet),
        Family::Packet => Some(Family::Vsock),
        Family::Vsock => Some(Family::Other),
        Family::Other => None,
    };
    let kinds: Vec<_> = std::iter::successors(Some(Kind::Socket), |it| next_kind(*it))
        .map(Kind::name)
        .collect();
    let families: Vec<_> = std::iter::successors(Some(Family::Inet), |it| next_family(*it))
        .map(Family::name)
        .collect();
    let definitions = &schema["$defs"];
    let kind = &definitions["held_kind"]["properties"]["kind"]["enum"];
    let family = &definitions["held_sockets"]["properties"]["family"]["enum"];
    assert_eq!(*kind, json!(kinds));
    assert_eq!(*family, json!(families));
    for name in kinds.iter().chain(&families) {
        assert!(DOCUMENT.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_documents_example_fits_the_schema() {
    let (_, section) = DOCUMENT.split_once("## `holdings`").expect("a section");
    let (_, block) = section.split_once("```jsonc\n").expect("an example");
    let (example, _) = block.split_once("```").expect("a closed block");
    let example: Value = serde_json::from_str(example).expect("JSON");
    assert!(validator().is_valid(&example));
}
