use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::stream::format::{Format, convert, tests::samples::records};

fn filter(peers: Choice, command_lines: Choice, users: Choice) -> Filter {
    Filter {
        peers,
        command_lines,
        users,
        key: Some(hmac::Key::new(hmac::HMAC_SHA256, b"a key of the tests")),
    }
}

const CHOICES: [Choice; 2] = [Choice::Drop, Choice::Hash];

/// An incident that tells of an address, a command line and a user wherever it can.
fn telling(address: &str, argv: &str, user: &str, uid: u64) -> Value {
    json!({
        "schema": "turnaway/1", "type": "incident", "time": "2026-11-24T03:14:34.000000000Z", "host": "db1",
        "id": "20261124T031201Z-9f3a11c2", "status": "firing", "severity": "critical",
        "statement": format!("haproxy cannot connect to {address}: no answer"),
        "victim": {
            "role": "client", "target": address,
            "process": {
                "pid": 1, "comm": "x", "cgroup": format!("/user.slice/user-{uid}.slice/user@{uid}.service/x"),
                "unit": format!("user@{uid}.service"), "exe": format!("/home/{user}/x"), "uid": uid
            }
        },
        "reasons": [{"reason": "connect.timeout", "count": 1}],
        "listeners": [{"address": "192.0.2.1", "port": 80, "path": format!("/run/user/{uid}/x")}],
        "peer": {"address": address, "port": 40_000},
        "timeline": [{"text": format!("the first connect to {address}.")}, {"text": format!("[{address}]:80")}],
        "holdings": {
            "sockets": [{"remote": format!("{address}:5432")}], "files": [{"path": format!("/home/{user}/y")}]
        },
        "explanation": {
            "started": [{"argv": argv, "comm": "pg_dump"}],
            "healthy": {"peers": [{"address": address, "count": 1}]},
            "waiting": {"peers": [{"address": address, "count": 1}]},
            "trigger": [{"what": format!("slow: {address}:5432"), "evidence": [format!("{address} is slow")]}]
        }
    })
}

fn told(filter: &Filter, record: &Value) -> [String; 3] {
    Format::ALL.map(|format| {
        let line = filter.line(&record.to_string());
        let record = serde_json::from_str(&line).unwrap();
        serde_json::to_string(&convert(format, record)).unwrap()
    })
}

proptest! {
    #[test]
    fn what_is_hidden_is_nowhere(
        v4 in any::<[u8; 4]>(), v6 in any::<[u16; 8]>(), is_v6: bool,
        argv in "[a-zA-Z]{12,40} -[a-z]{3}", user in "[a-z]{9,20}", uid in 100_000_000_u64..4_000_000_000,
    ) {
        let ip = if is_v6 { IpAddr::from(v6) } else { IpAddr::from(v4) };
        prop_assume!(!ip.is_unspecified());
        let address = ip.to_string();
        prop_assume!(address.len() > 7 && address != "192.0.2.1");
        let record = telling(&address, &argv, &user, uid);
        for choice in CHOICES {
            for text in told(&filter(choice, choice, choice), &record) {
                for hidden in [&address, &argv, &user, &uid.to_string()] {
                    prop_assert!(!text.contains(hidden.as_str()), "{hidden} in {text}");
                }
                prop_assert!(text.contains("192.0.2.1"), "the host's own: {text}");
            }
            for text in told(&filter(choice, Choice::Keep, Choice::Keep), &record) {
                prop_assert!(!text.contains(&address) && text.contains(&argv) && text.contains(&user));
            }
        }
        for text in told(&filter(Choice::Keep, Choice::Keep, Choice::Drop), &record) {
            prop_assert!(text.contains(&address) && text.contains(&argv) && !text.contains(&user));
        }
    }

    #[test]
    fn sentences_of_any_kind_are_read(text in ".{0,200}") {
        let filter = filter(Choice::Hash, Choice::Hash, Choice::Hash);
        let mut record = json!({"statement": text, "peer": {"address": text}, "argv": text});
        filter.apply(record.as_object_mut().unwrap());
    }
}

use std::net::IpAddr;

#[test]
fn equal_values_have_equal_hashes_and_others_have_others() {
    let filter = filter(Choice::Hash, Choice::Hash, Choice::Hash);
    let of = |address: &str, uid: u64| {
        let line = filter.line(&telling(address, "pg_dump", "ada", uid).to_string());
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let (one, same, other) = (of("10.1.2.3", 7), of("10.1.2.3", 7), of("10.1.2.4", 8));
    assert_eq!(one, same);
    let address = one["peer"]["address"].as_str().unwrap();
    assert!(
        address.starts_with("hash:") && address.len() == 37,
        "{address}"
    );
    // One that is in several places is the same in all of them.
    assert_eq!(one["victim"]["target"], address);
    assert_eq!(
        one["holdings"]["sockets"][0]["remote"],
        format!("{address}:5432")
    );
    assert_eq!(
        one["statement"],
        format!("haproxy cannot connect to {address}: no answer")
    );
    assert_eq!(
        one["explanation"]["trigger"][0]["what"],
        format!("slow: {address}:5432")
    );
    assert_eq!(
        one["timeline"][0]["text"],
        format!("the first connect to {address}.")
    );
    let uid = one["victim"]["process"]["uid_hash"].as_str().unwrap();
    assert_eq!(
        one["victim"]["process"]["unit"],
        format!("user@{uid}.service")
    );
    assert_eq!(one["victim"]["process"].get("uid"), None);
    assert_ne!(one["peer"]["address"], other["peer"]["address"]);
    assert_ne!(
        one["victim"]["process"]["uid_hash"],
        other["victim"]["process"]["uid_hash"]
    );
    let key = Some(hmac::Key::new(hmac::HMAC_SHA256, b"another key"));
    let another = Filter { key, ..filter };
    let line = another.line(&telling("10.1.2.3", "pg_dump", "ada", 7).to_string());
    assert!(!line.contains(address), "the key makes no difference");
}

#[test]
fn what_is_kept_is_as_it_was() {
    let keep = filter(Choice::Keep, Choice::Keep, Choice::Keep);
    for record in records() {
        let line = keep.line(&record.to_string());
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), record);
    }
    assert!(Privacy::default().filter().unwrap().is_none());
}

#[test]
fn what_is_private_still_fits_the_schema() {
    let validator = crate::record::tests::validator();
    for choice in CHOICES {
        let filter = filter(choice, choice, choice);
        for record in records() {
            let record: Value = serde_json::from_str(&filter.line(&record.to_string())).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&record)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{errors:?} in {record:#}");
        }
    }
}

#[test]
fn a_key_is_read_from_a_file_and_must_be_long() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let config: Config =
        serde_json::from_value(json!({"peers": "hash", "key_file": path})).unwrap();
    let privacy = config.understand().unwrap();
    assert!(
        privacy
            .filter()
            .unwrap_err()
            .to_string()
            .contains("key_file")
    );
    std::fs::write(&path, "short\n").unwrap();
    let error = format!("{:#}", privacy.filter().unwrap_err());
    assert!(
        error.contains("fewer than 16 bytes") && !error.contains("short"),
        "{error}"
    );
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    let of = || privacy.filter().unwrap().unwrap().hash("10.1.2.3");
    assert_eq!(of(), of());
    let start = Privacy {
        key_file: None,
        ..privacy.clone()
    };
    let of_start = || start.filter().unwrap().unwrap().hash("10.1.2.3");
    assert_eq!(of_start(), of_start(), "a reload changes no hash");
    assert_ne!(of(), of_start());

    let config: Config = serde_json::from_value(json!({"key_file": path})).unwrap();
    assert!(
        config
            .understand()
            .unwrap_err()
            .to_string()
            .contains("nothing is to be hashed")
    );
    assert!(serde_json::from_value::<Config>(json!({"peer": "hash"})).is_err());
    assert!(serde_json::from_value::<Config>(json!({"peers": "hide"})).is_err());
}
