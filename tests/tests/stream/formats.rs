//! What a daemon tells in the words of others, as real receivers got it, against what is published of those.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use turnaway_tests::daemon::{Daemon, configure};
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::servers::foreground::folder;
use turnaway_tests::servers::poster::{Posted, Poster};
use turnaway_tests::{tracer, wait};

use crate::syslog::Rsyslog;

// The same check as that of the product's own samples.
#[path = "../../../tracer/src/stream/format/tests/published.rs"]
mod published;

/// An address of this host that nobody listens at, told to no receiver.
const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 44, 55, 66);

/// Takes everything, as Elasticsearch says it.
fn takes(_: usize, _: &Posted) -> (u16, Vec<u8>) {
    (200, br#"{"errors":false,"items":[]}"#.to_vec())
}

/// The documents of `_bulk`, by their ids.
fn documents(poster: &Poster) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for posted in poster.posted() {
        let lines: Vec<Value> = posted
            .text()
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for pair in lines.chunks(2) {
            let id = pair[0]["create"]["_id"].as_str().unwrap();
            all.insert(id.to_owned(), pair[1].clone());
        }
    }
    all
}

fn sum<'a>(records: impl Iterator<Item = &'a Value>, of: impl Fn(&Value) -> Option<u64>) -> u64 {
    records.filter_map(of).sum()
}

/// Failures at a port by a document of ECS.
fn in_ecs(record: &Value, port: u16) -> Option<u64> {
    let is_it = record["event"]["dataset"] == "turnaway.count"
        && record["event"]["code"] == "accept.emfile"
        && record["destination"]["port"] == port;
    is_it
        .then(|| record["turnaway"]["count"].as_u64())
        .flatten()
}

/// The same by OCSF.
fn in_ocsf(record: &Value, port: u16) -> Option<u64> {
    let is_it = record["class_uid"] == 4_001
        && record["metadata"]["event_code"] == "accept.emfile"
        && record["dst_endpoint"]["port"] == port;
    is_it.then(|| record["count"].as_u64()).flatten()
}

#[test]
fn a_search_engine_gets_ecs_and_a_syslog_server_ocsf() {
    let dir = folder().unwrap();
    let poster = Poster::start(takes).unwrap();
    let mut rsyslog = Rsyslog::start(dir.path(), "", "");
    let streams = format!(
        "heartbeat = \"1s\"\n\
         [privacy]\npeers = \"hash\"\nusers = \"hash\"\ncommand_lines = \"drop\"\n\
         [[stream]]\ntype = \"http\"\nformat = \"ecs\"\nurl = \"{}\"\nbody = \"elasticsearch\"\n\
         [[stream]]\ntype = \"tcp\"\nformat = \"ocsf\"\naddress = \"127.0.0.1:{}\"\n\
         envelope = \"rfc5424\"\nframing = \"octet-counted\"\nsettle = \"300ms\"\n",
        poster.url(),
        rsyslog.port,
    );
    let config = configure(dir.path(), &streams, Duration::from_secs(3)).unwrap();
    let state = dir.path().join("state");
    let mut acceptor = Acceptor::run(&tracer::scenarios().unwrap()).unwrap();
    let port = acceptor.port;
    let _client = acceptor.client().unwrap();
    let daemon = Daemon::start(&tracer::binary().unwrap(), &config, &state).unwrap();
    let failed = acceptor.fail(1_000).unwrap();
    TcpStream::connect((NOBODY, 1)).unwrap_err();

    // That of this process: others of this host fail as well.
    let own = std::process::id();
    let is_refused = |code: &Value, pid: &Value| code == "connect.refused" && *pid == own;
    wait::until_true("the search engine to have all", || {
        let all = documents(&poster);
        Ok(sum(all.values(), |one| in_ecs(one, port)) == failed
            && all
                .values()
                .any(|one| is_refused(&one["event"]["code"], &one["process"]["pid"])))
    })
    .unwrap();
    let ocsf = || -> BTreeMap<String, Value> {
        let understood = rsyslog.understood().into_iter();
        // The id in structured data is that of the record; some come twice.
        understood
            .map(|(fields, record)| (fields[1].clone(), record))
            .collect()
    };
    wait::until_true("the syslog server to have all", || {
        let all = ocsf();
        Ok(sum(all.values(), |one| in_ocsf(one, port)) == failed
            && all.values().any(|one| {
                is_refused(
                    &one["metadata"]["event_code"],
                    &one["actor"]["process"]["pid"],
                )
            }))
    })
    .unwrap();
    daemon.stop().unwrap();

    let ecs = documents(&poster);
    for kind in ["event", "count", "incident", "heartbeat", "summary"] {
        let dataset = format!("turnaway.{kind}");
        assert!(
            ecs.values().any(|one| one["event"]["dataset"] == dataset),
            "no {kind}"
        );
    }
    for (id, record) in &ecs {
        assert_eq!(published::ecs(record), Vec::<String>::new(), "{record:#}");
        assert_eq!(record["event"]["id"], **id);
        assert!(record["message"].is_string());
    }
    let facts = published::Ocsf::read();
    let ocsf = ocsf();
    for (id, record) in &ocsf {
        assert_eq!(facts.wrong(record), Vec::<String>::new(), "{record:#}");
        assert_eq!(record["metadata"]["uid"], **id);
    }
    for class in [0, 2_004, 4_001] {
        assert!(
            ocsf.values().any(|one| one["class_uid"] == class),
            "none of {class}"
        );
    }
    // Structured data is of the native record.
    let understood = rsyslog.understood();
    let fields = understood
        .iter()
        .find_map(|(fields, record)| in_ocsf(record, port).map(|_| fields));
    assert_eq!(fields.unwrap()[0], "accept.emfile");

    // Nobody is told what is nobody's business, but for what it is in hashes.
    let everything = format!("{ecs:?}{ocsf:?}");
    assert!(!everything.contains(&NOBODY.to_string()));
    let refused = ecs
        .values()
        .find(|one| is_refused(&one["event"]["code"], &one["process"]["pid"]));
    let refused = &refused.unwrap()["destination"];
    assert!(
        refused["address"].as_str().unwrap().starts_with("hash:"),
        "{refused}"
    );
    let users: Vec<&str> = ecs
        .values()
        .filter_map(|one| one["user"]["id"].as_str())
        .collect();
    assert!(
        !users.is_empty() && users.iter().all(|user| user.starts_with("hash:")),
        "{users:?}"
    );
    rsyslog.kill();
}
