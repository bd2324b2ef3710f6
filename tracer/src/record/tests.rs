//! Records against their schema and against each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use serde::Serialize;
use serde_json::{Value, json};
use turnaway_common::Reason;

use super::{
    AcceptedRecord, Beat, Blind, Clock, CountRecord, Event, Failures, HeartbeatRecord, Lost,
    ProgramRecord, Run, RunRecord, Summary,
    samples::{self, AT_NS, clock},
};
use crate::{
    attribute::{Who, holdings::holdings},
    event::{Address, Failure, Op, Target},
};

const SCHEMA: &str = include_str!("../../../docs/schema/turnaway-1.json");
const DOCUMENT: &str = include_str!("../../../docs/records.md");

pub(crate) fn value(record: impl Serialize) -> Value {
    // Through text, as a reader would see it.
    let line = serde_json::to_string(&record).expect("serialised");
    assert!(!line.contains('\n'), "one record, one line: {line}");
    serde_json::from_str(&line).expect("JSON")
}

fn all_samples() -> Vec<(Failure, Who)> {
    let mut samples = vec![samples::rich(), samples::minimal(), samples::hostile()];
    let (mut vsock, who) = samples::rich();
    vsock.listener.family = Some(40);
    vsock.listener.protocol = Some(0);
    vsock.listener.address = Some(Address::Vsock {
        cid: u32::MAX,
        port: u32::MAX,
    });
    samples.push((vsock, who));
    let (mut inet6, who) = samples::rich();
    inet6.listener.family = Some(10);
    inet6.listener.protocol = Some(262);
    inet6.listener.address = Some(Address::Inet(SocketAddr::from(([0; 16], 80))));
    samples.push((inet6, who));
    let (mut odd, who) = samples::rich();
    odd.listener.family = Some(999);
    odd.listener.socket_type = Some(99);
    odd.listener.protocol = Some(9_999);
    odd.listener.address = Some(Address::Unix(Vec::new()));
    samples.push((odd, who));
    for reason in [Reason::QueueSynOverflow, Reason::QueueStalled] {
        samples.push(samples::of_listener(reason));
    }
    let (mut shed, who) = samples::rich();
    shed.key.reason = Reason::AcceptShed;
    shed.key.errno = None;
    samples.push((shed, who));
    for reason in [Reason::ConnectRefused, Reason::QueueUnixFull] {
        samples.push(samples::of_connect(reason));
    }
    let (mut waited, who) = samples::of_connect(Reason::QueueUnixFull);
    waited.key.errno = None;
    waited.waited_ns = Some(900_000_000);
    samples.push((waited, who));
    for reason in [
        Reason::FdExhausted,
        Reason::FdPressure,
        Reason::FdTablePressure,
    ] {
        samples.push(samples::of_descriptors(reason));
    }
    for call in [Some("io_uring_openat"), None] {
        let (mut uring, who) = samples::of_descriptors(Reason::FdExhausted);
        uring.key.op = Op::IoUring;
        uring.key.call = call;
        samples.push((uring, who));
    }
    let (mut uring, who) = samples::of_connect(Reason::ConnectTimeout);
    uring.key.op = Op::IoUring;
    uring.key.target = Some(Target::Vsock { cid: 2, port: 1 });
    samples.push((uring, who));
    samples.push(samples::of_conntrack());
    samples
}

pub(crate) fn event(failure: &Failure, who: &Who, used: Option<u64>) -> Value {
    value(Event::new("db1", failure, who, used, &clock()))
}

/// An event with what holds the descriptors of this very process.
fn held(failure: &Failure, who: &Who) -> Value {
    let root = std::path::Path::new("/");
    let holdings = holdings(root, std::process::id(), Duration::from_secs(5));
    let event = Event::new("db1", failure, who, None, &clock());
    value(event.holding(Some(&holdings.expect("its own are readable"))))
}

fn failures<'a>(failure: &'a Failure, who: &'a Who) -> Failures<'a> {
    Failures {
        key: &failure.key,
        listener: &failure.listener,
        who,
        count: 12_345,
        first_ns: AT_NS - 1_000_000_000,
        last_ns: AT_NS,
        waited_max_ns: failure.waited_ns,
        approximate: failure.waited_ns.is_some(),
    }
}

pub(crate) fn count(failure: &Failure, who: &Who) -> Value {
    let time = clock().wall_of_monotonic(AT_NS);
    let failures = failures(failure, who);
    value(CountRecord::new("db1", time, &failures, &clock()))
}

fn summary(samples: &[(Failure, Who)], lost: Lost) -> Value {
    let totals: Vec<_> = samples
        .iter()
        .map(|(failure, who)| failures(failure, who))
        .collect();
    let run = Run {
        ended: clock().wall_of_monotonic(AT_NS),
        duration: Duration::from_millis(90_500),
        totals: &totals,
        other: 0,
        lost,
        hooks: &samples::hooks(),
        listeners: &[samples::listening()],
    };
    value(Summary::new("db1", &run, &clock()))
}

pub(crate) fn all_records() -> Vec<Value> {
    let samples = all_samples();
    let mut records = Vec::new();
    for (failure, who) in &samples {
        records.push(event(failure, who, Some(1_024)));
        records.push(event(failure, who, None));
        records.push(held(failure, who));
        records.push(count(failure, who));
    }
    records.push(summary(&samples, Lost::default()));
    records.push(summary(
        &[],
        Lost {
            ring: 1,
            map: 2,
            missed: Some(3),
            output: u64::MAX,
        },
    ));
    records.extend(crate::incident::tests::samples().into_iter().map(value));
    records.extend(of_a_recording());
    let streamed = of_a_stream(&records);
    records.extend(streamed);
    records
}

/// What only a stream has.
fn of_a_stream(records: &[Value]) -> Vec<Value> {
    let beat = Beat {
        since: clock().wall_of_monotonic(AT_NS),
        uptime: Duration::from_secs(90),
        hooks: samples::hooks(),
        counts: BTreeMap::from([("accept.emfile", 17)]),
        ruled_out: vec!["accept.enfile", "connect.refused"],
        blind: vec![Blind {
            reason: "accept.shed",
            why: "the hook shed is not in place".to_owned(),
        }],
        lost: Lost::default(),
        listeners: Some(40),
    };
    let heartbeat = HeartbeatRecord::new("db1", clock().wall_of_monotonic(AT_NS), beat);
    let of = |kind: &str| records.iter().find(|record| record["type"] == kind);
    let mut streamed: Vec<Value> = ["event", "count", "incident", "summary"]
        .into_iter()
        .map(|kind| of(kind).expect(kind).clone())
        .chain([value(heartbeat)])
        .collect();
    let mut private = streamed[0].clone();
    let process = private["process"].as_object_mut().expect("an object");
    process.remove("uid");
    process.insert("uid_hash".to_owned(), json!(format!("hash:{:032x}", 7)));
    streamed.push(private);
    for record in &mut streamed {
        record["record_id"] = json!("4f2a09c1-1");
        record["stream"] = json!({"withheld": 3, "lost": 0});
    }
    streamed
}

fn program(time: jiff::Timestamp) -> crate::history::Run {
    crate::history::Run {
        pid: 4711,
        started: time - jiff::SignedDuration::from_mins(27),
        ended: Some(time),
        program: "pg_dump".to_owned(),
        unit: Some("backup.service".to_owned()),
        exe: Some("/usr/bin/pg_dump".to_owned()),
        argv: Some("pg_dump -Fc shop".to_owned()),
        parent: Some("systemd".to_owned()),
    }
}

/// What only a recording has.
fn of_a_recording() -> Vec<Value> {
    let time = clock().wall_of_monotonic(AT_NS);
    let one = samples::listening();
    let listener = (one.inode, &one.listener);
    let began = RunRecord::began("db1", time, true);
    vec![
        value(AcceptedRecord::new(
            "db1",
            time,
            listener,
            95,
            one.waited.as_ref(),
        )),
        value(AcceptedRecord::new("db1", time, listener, 1, None)),
        value(&began),
        value(began.clone().continued(time)),
        value(began.ended(time, Lost::default())),
        value(ProgramRecord::new("db1", time, program(time))),
    ]
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("the schema is JSON")
}

pub(crate) fn validator() -> jsonschema::Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema())
        .expect("the schema is one")
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    let published = schema();
    let made = super::schema::all();
    assert_eq!(
        SCHEMA,
        super::schema::text(&made),
        "`cargo xtask schema` writes it"
    );
    for name in super::schema::TYPES {
        let one = super::schema::of(name).expect(name);
        let validator = jsonschema::validator_for(&one).expect("a schema");
        let parts = one["$defs"].as_object().expect("definitions");
        assert!(
            parts
                .iter()
                .all(|(part, is)| published["$defs"][part] == *is)
        );
        let mut fitting = all_records()
            .into_iter()
            .filter(|one| validator.is_valid(one));
        assert!(fitting.all(|record| record["type"] == name), "{name}");
        let own = all_records()
            .into_iter()
            .filter(|record| record["type"] == name);
        assert!(own.clone().count() > 0);
        assert!(own.into_iter().all(|record| validator.is_valid(&record)));
    }
    assert_eq!(super::schema::of("nothing"), None);
}

/// What each definition required when it was first published, a line each. Nothing is ever taken away here.
const REQUIRED: &str = include_str!("required-1.txt");

#[test]
fn what_was_always_there_still_is() {
    let schema = schema();
    for line in REQUIRED.lines() {
        let (definition, fields) = line.split_once(": ").expect("a definition");
        let required = schema["$defs"][definition]["required"].as_array();
        let required = required.unwrap_or_else(|| panic!("{definition} requires nothing"));
        for field in fields.split(' ') {
            assert!(
                required.iter().any(|one| one == field),
                "{definition}.{field} may be missing now"
            );
        }
    }
}

#[test]
fn every_record_fits_the_schema() {
    let validator = validator();
    for record in all_records() {
        let errors: Vec<String> = validator
            .iter_errors(&record)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?} in {record:#}");
    }
}

/// Records as they were when they were first published. They are never changed: whoever reads them by the
/// schema of today reads those of yesterday, too.
const STORED: &str = include_str!("stored-1.ndjson");

#[test]
fn what_was_stored_still_fits_and_is_still_written() {
    let validator = validator();
    let mut stored = BTreeSet::new();
    for line in STORED.lines() {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let errors: Vec<String> = validator
            .iter_errors(&record)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?} in {record:#}");
        places("", &record, &mut stored);
    }
    for reason in Reason::ALL {
        let named = format!("\"reason\":\"{}\"", reason.code());
        assert!(
            STORED.contains(&named),
            "{} is not stored: add it",
            reason.code()
        );
    }
    // No field is gone, or is called otherwise.
    let mut today = BTreeSet::new();
    for record in all_records() {
        places("", &record, &mut today);
    }
    // What this very process holds is not all that may be held.
    for held in super::holdings::tests::samples() {
        places("event.holdings", &held, &mut today);
    }
    let gone: Vec<_> = stored.difference(&today).collect();
    assert_eq!(gone, Vec::<&String>::new());
}

/// Where fields are in a record.
fn places(prefix: &str, value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                // Names there are reasons.
                if prefix != "heartbeat.counts" {
                    let kind = value_kind(object, prefix);
                    let place = format!("{kind}.{name}");
                    into.insert(place.clone());
                    places(&place, value, into);
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|one| places(prefix, one, into)),
        _ => {}
    }
}

/// A record's fields are told apart by its type.
fn value_kind<'a>(object: &'a serde_json::Map<String, Value>, prefix: &'a str) -> &'a str {
    match object.get("type").and_then(Value::as_str) {
        Some(kind) if prefix.is_empty() => kind,
        _ => prefix,
    }
}

#[test]
fn the_schema_refuses_what_the_records_never_are() {
    let validator = validator();
    let (failure, who) = samples::rich();
    let good = event(&failure, &who, Some(1));
    assert!(validator.is_valid(&good));
    for (pointer, wrong) in [
        ("/schema", json!("turnaway/2")),
        ("/time", json!("2026-11-24T03:12:04Z")),
        ("/host", json!("")),
        ("/errno", json!(24)),
        ("/reason", json!("EMFILE")),
        ("/tier", json!("magic")),
        ("/process/comm", json!("")),
        ("/process/exe", json!(null)),
        ("/process/pid", json!(-1)),
        ("/process/container/runtime", json!("other")),
        ("/process/container/pod", json!({})),
        ("/listener/port", json!("80")),
        ("/listener/family", json!("ipv4")),
        ("/fd", json!({})),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect(pointer) = wrong;
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
    // A field the schema does not know, at each level; and each required one missing.
    for pointer in [
        "",
        "/process",
        "/process/parent",
        "/process/container",
        "/listener",
        "/fd",
    ] {
        let mut bad = good.clone();
        let object = bad.pointer_mut(pointer).and_then(Value::as_object_mut);
        object.expect(pointer).insert("new".to_owned(), json!(1));
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
    for field in [
        "schema", "type", "time", "host", "reason", "listener", "tier",
    ] {
        let mut bad = good.clone();
        bad.as_object_mut().expect("an object").remove(field);
        assert!(!validator.is_valid(&bad), "{field}");
    }
    let mut both = good;
    both["op"] = json!("accept");
    assert!(!validator.is_valid(&both), "syscall and op");
}

/// Every field that the schema's objects have, as `definition.field`.
fn schema_fields() -> BTreeSet<String> {
    let schema = schema();
    let definitions = schema["$defs"].as_object().expect("definitions");
    definitions
        .iter()
        .filter_map(|(name, definition)| Some((name, definition.get("properties")?.as_object()?)))
        .flat_map(|(name, fields)| fields.keys().map(move |field| format!("{name}.{field}")))
        .collect()
}

#[test]
fn the_schema_has_no_field_that_no_record_has() {
    let mut seen = BTreeSet::new();
    let mut note = |definition: &str, object: &Value| {
        for field in object.as_object().into_iter().flat_map(|it| it.keys()) {
            seen.insert(format!("{definition}.{field}"));
        }
    };
    for record in all_records() {
        note(record["type"].as_str().expect("a type"), &record);
        note("left_out", &record["stream"]);
        if record["type"] == "incident" {
            note("victim", &record["victim"]);
            note("incident_process", &record["victim"]["process"]);
            note("incident_fd", &record["fd"]);
            note("waits", &record["waits"]);
            note_explanation(&mut note, &record["explanation"]);
            for (list, definition) in [
                ("reasons", "incident_reason"),
                ("listeners", "incident_listener"),
                ("sufferers", "sufferer"),
                ("timeline", "timeline"),
            ] {
                for one in record[list].as_array().into_iter().flatten() {
                    note(definition, one);
                }
            }
            continue;
        }
        let totals = record["totals"].as_array().cloned().unwrap_or_default();
        for total in &totals {
            note("total", total);
        }
        note("lost", &record["lost"]);
        for blind in record["blind"].as_array().into_iter().flatten() {
            note("blind", blind);
        }
        note("waited", &record["waited"]);
        for hook in record["hooks"].as_array().into_iter().flatten() {
            note("hook", hook);
        }
        for listening in record["listeners"].as_array().into_iter().flatten() {
            note("listening", listening);
            note("waited", &listening["waited"]);
            let slots = listening["waited"]["histogram"].as_array();
            for slot in slots.into_iter().flatten() {
                note("wait_slot", slot);
            }
        }
        for key in totals.iter().chain([&record]) {
            note("process", &key["process"]);
            note("parent", &key["process"]["parent"]);
            note("container", &key["process"]["container"]);
            note("pod", &key["process"]["container"]["pod"]);
            note("listener", &key["listener"]);
            note("fd", &key["fd"]);
            note("peer", &key["peer"]);
            note("conntrack", &key["conntrack"]);
            for holder in key["holders"].as_array().into_iter().flatten() {
                note("holder", holder);
            }
        }
    }
    for holdings in super::holdings::tests::samples() {
        note("holdings", &holdings);
        for (list, definition) in [
            ("kinds", "held_kind"),
            ("sockets", "held_sockets"),
            ("files", "held_file"),
        ] {
            for held in holdings[list].as_array().into_iter().flatten() {
                note(definition, held);
            }
        }
    }
    assert_eq!(seen, schema_fields());
}

/// Where the objects of an explanation are, by definition.
const EXPLANATION: &[(&str, &str)] = &[
    ("explanation", ""),
    ("started", "/started/0"),
    ("pressures", "/pressure"),
    ("levels", "/pressure/host"),
    ("level", "/pressure/host/cpu"),
    ("busy", "/busy"),
    ("user", "/busy/disk/0"),
    ("victim_state", "/victim"),
    ("reading", "/victim/fd_before/0"),
    ("held", "/victim/held/0"),
    ("memory", "/memory"),
    ("files", "/files"),
    ("healthy", "/healthy"),
    ("healthy_peer", "/healthy/peers/0"),
    ("waiting", "/waiting"),
    ("waiting_client", "/waiting/clients/0"),
    ("cause", "/trigger/0"),
];

fn note_explanation(note: &mut impl FnMut(&str, &Value), explanation: &Value) {
    for (definition, pointer) in EXPLANATION {
        if let Some(object) = explanation.pointer(pointer) {
            note(definition, object);
        }
    }
}

#[test]
fn every_field_is_documented() {
    // How the document writes the fields of objects in objects.
    let written = |definition: &str, field: &str| match definition {
        "parent" | "container" | "lost" | "conntrack" => format!("`{definition}.{field}`"),
        "pod" => format!("`container.pod.{field}`"),
        "hook" => format!("`hooks[].{field}`"),
        "blind" => format!("`blind[].{field}`"),
        "left_out" => format!("`stream.{field}`"),
        "listening" => format!("`listeners[].{field}`"),
        "waited" => format!("`listeners[].waited.{field}`"),
        "wait_slot" => format!("`listeners[].waited.histogram[].{field}`"),
        "holder" => format!("`holders[].{field}`"),
        "peer" => format!("`peer.{field}`"),
        "victim" => format!("`victim.{field}`"),
        "waits" => format!("`waits.{field}`"),
        "incident_reason" => format!("`reasons[].{field}`"),
        "sufferer" => format!("`sufferers[].{field}`"),
        "timeline" => format!("`timeline[].{field}`"),
        "held_kind" => format!("`kinds[].{field}`"),
        "held_sockets" => format!("`sockets[].{field}`"),
        "held_file" => format!("`files[].{field}`"),
        _ if EXPLANATION.iter().any(|(name, _)| *name == definition) => {
            let (_, pointer) = EXPLANATION
                .iter()
                .find(|(name, _)| *name == definition)
                .unwrap();
            let path = pointer.replace("/0", "[]").replace('/', ".");
            format!("`explanation{path}.{field}`")
        }
        _ => format!("`{field}`"),
    };
    let undocumented: Vec<String> = schema_fields()
        .into_iter()
        .filter(|field| {
            let (definition, name) = field.split_once('.').expect("definition.field");
            // An object is documented by its fields.
            let is_object = matches!(
                name,
                "server"
                    | "victim"
                    | "parent"
                    | "container"
                    | "pod"
                    | "lost"
                    | "peer"
                    | "conntrack"
                    | "waits"
                    | "waiting"
                    | "stream"
            );
            !is_object && !DOCUMENT.contains(&written(definition, name))
        })
        .collect();
    assert_eq!(undocumented, Vec::<String>::new());
}

#[test]
fn the_documents_examples_fit_the_schema() {
    let validator = validator();
    let mut kinds = BTreeMap::new();
    for block in DOCUMENT.split("```json\n").skip(1) {
        let (example, _) = block.split_once("```").expect("a closed block");
        let record: Value = serde_json::from_str(example).expect("JSON");
        let errors: Vec<String> = validator
            .iter_errors(&record)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?} in {record:#}");
        *kinds.entry(record["type"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(kinds.len(), 8, "one example of each type: {kinds:?}");
}

#[test]
fn a_rich_event() {
    let (failure, who) = samples::rich();
    assert_eq!(
        event(&failure, &who, Some(1_024)),
        json!({
            "schema": "turnaway/1",
            "type": "event",
            "time": "2026-11-24T03:12:04.123456789Z",
            "host": "db1",
            "monotonic_ns": AT_NS,
            "reason": "accept.emfile",
            "errno": "EMFILE",
            "syscall": "accept4",
            "process": {
                "pid": 812,
                "ns_pid": 7,
                "start_time": "2026-11-23T02:11:08.123456788Z",
                "tid": 815,
                "comm": "pgbouncer",
                "thread": "acceptor",
                "exe": "/usr/sbin/pgbouncer",
                "uid": 106,
                "parent": {"pid": 1, "comm": "systemd"},
                "cgroup": "/system.slice/pgbouncer.service",
                "cgroup_id": 4711,
                "unit": "pgbouncer.service",
                "container": {
                    "id": "4f5cbdb2ca0e9a3e4f2d4a1c0b9e8d7c6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c",
                    "runtime": "containerd",
                    "name": "pooler",
                    "image": "registry.example/pgbouncer:1.23",
                    "pod": {
                        "uid": "1b6b27d1-3b7e-4a86-8c8e-2f6f0d0a7c11",
                        "name": "pooler-0",
                        "namespace": "shop"
                    }
                }
            },
            "listener": {
                "inode": 31337,
                "fd": 9,
                "family": "inet",
                "type": "stream",
                "protocol": "tcp",
                "address": "0.0.0.0",
                "port": 6432,
                "netns": 4_026_531_840_u32,
                "queue": 129,
                "backlog": 128
            },
            "fd": {"used": 1024, "limit": 1024},
            "tier": "trampoline",
            "peer": {"address": "10.1.2.3", "port": 40_000},
            "waited_ns": 612_000_000
        })
    );
}

#[test]
fn a_failed_connect_has_a_target_and_names_a_listener_of_this_host_only() {
    let (failure, who) = samples::of_connect(Reason::ConnectRefused);
    let (event, count) = (event(&failure, &who, None), count(&failure, &who));
    for record in [&event, &count] {
        assert_eq!(record["syscall"], "connect");
        assert_eq!(record["peer"], json!({"address": "10.1.2.3", "port": 5432}));
        assert_eq!(record.get("listener"), None);
        assert_eq!(record.get("server"), None);
        assert_eq!(record["process"]["comm"], "pgbouncer");
    }
    let (failure, who) = samples::of_connect(Reason::QueueUnixFull);
    let (event, count) = (
        self::event(&failure, &who, None),
        self::count(&failure, &who),
    );
    for record in [&event, &count] {
        assert_eq!(record["peer"], json!({"path": "/run/fpm.sock"}));
        assert_eq!(
            record["listener"],
            json!({
                "inode": 40112, "family": "unix", "path": "/run/fpm.sock", "netns": 4_026_531_840_u32,
            })
        );
        assert_eq!(record["server"], json!({"pid": 871, "comm": "php-fpm8.2"}));
    }
}

#[test]
fn what_is_unknown_is_absent() {
    let (failure, who) = samples::minimal();
    assert_eq!(
        event(&failure, &who, None),
        json!({
            "schema": "turnaway/1",
            "type": "event",
            "time": "2026-11-24T03:12:04.123456789Z",
            "host": "db1",
            "monotonic_ns": AT_NS,
            "reason": "accept.other",
            "errno": "E4000",
            "op": "accept",
            "process": {"pid": 1, "tid": 1, "uid": 0},
            "listener": {},
            "tier": "tracepoint"
        })
    );
}

#[test]
fn a_hostile_event() {
    let (failure, who) = samples::hostile();
    let event = event(&failure, &who, None);
    let evil = "\u{1b}]0;x\u{7}\n\\xff\u{202e}\"\\,\0";
    assert_eq!(event["op"], "io_uring_accept");
    assert_eq!(event.get("syscall"), None);
    assert_eq!(event["process"]["comm"], evil);
    assert_eq!(event["process"]["thread"], "\\xfe");
    assert_eq!(event["process"]["kernel_worker"], true);
    assert_eq!(event["listener"]["path"], format!("@{evil}"));
    assert_eq!(event["listener"].get("protocol"), None);
    assert_eq!(
        event["fd"],
        json!({"unlimited": true, "limit_copied": true})
    );
}

#[test]
fn counts_and_totals_carry_the_key_and_exact_times() {
    let (failure, who) = samples::rich();
    let event = event(&failure, &who, None);
    let count = count(&failure, &who);
    let summary = summary(&[(failure, who)], Lost::default());
    for counted in [&count, &summary["totals"][0]] {
        assert_eq!(counted["count"], 12_345);
        assert_eq!(counted["first"], "2026-11-24T03:12:03.123456789Z");
        assert_eq!(counted["last"], "2026-11-24T03:12:04.123456789Z");
        for field in [
            "reason", "errno", "syscall", "process", "listener", "fd", "tier",
        ] {
            assert_eq!(counted[field], event[field], "{field}");
        }
    }
    assert_eq!(summary["duration_s"], 90.5);
    assert_eq!(
        summary["lost"],
        json!({"ring": 0, "map": 0, "missed": null, "output": 0})
    );
}

#[test]
fn the_limit_that_io_uring_keeps_is_said_either_way() {
    let (mut failure, who) = samples::rich();
    failure.key.op = Op::IoUring;
    let event = event(&failure, &who, None);
    assert_eq!(event["fd"], json!({"limit": 1024, "limit_copied": false}));
}

#[test]
fn a_path_that_looks_abstract_is_told_apart() {
    assert_eq!(super::unix_name(b"\0name"), b"@name");
    assert_eq!(super::unix_name(b"@name"), b"./@name");
    assert_eq!(super::unix_name(b"/run/x"), b"/run/x");
    assert_eq!(super::unix_name(b""), b"");
}

#[test]
fn a_clock_is_all_that_times_depend_on() {
    let (failure, who) = samples::rich();
    let later = Clock::fixed(
        "2030-01-01T00:00:00Z".parse().expect("a time"),
        AT_NS,
        AT_NS,
    );
    let event = value(Event::new("db1", &failure, &who, None, &later));
    assert_eq!(event["time"], "2030-01-01T00:00:00.000000000Z");
}

#[test]
fn the_schema_knows_every_reason() {
    let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(schema()["$defs"]["reason"]["enum"], json!(codes));
}

#[test]
fn descriptors_have_no_listener_and_say_what_asked_for_them() {
    let (failure, who) = samples::of_descriptors(Reason::FdExhausted);
    let record = event(&failure, &who, Some(1_024));
    assert_eq!(record["reason"], "fd.exhausted");
    assert_eq!(record["syscall"], "openat");
    assert_eq!(record["fd"], json!({"used": 1_024, "limit": 1_024}));
    for absent in ["listener", "op", "level", "state"] {
        assert_eq!(record.get(absent), None, "{absent}");
    }

    let (failure, who) = samples::of_descriptors(Reason::FdPressure);
    let record = event(&failure, &who, Some(930));
    assert_eq!(record["level"], 90);
    assert_eq!(record["state"], "began");
    assert_eq!(record["fd"], json!({"used": 930, "limit": 1_024}));
    assert_eq!(record["process"]["pid"], 812);
    for absent in ["listener", "op", "syscall", "errno"] {
        assert_eq!(record.get(absent), None, "{absent}");
    }
    assert_eq!(count(&failure, &who)["level"], 90);

    let (mut failure, who) = samples::of_descriptors(Reason::FdTablePressure);
    failure.ended = true;
    let record = event(&failure, &who, None);
    assert_eq!(record["state"], "ended");
    assert_eq!(record["fd"], json!({"used": 930, "limit": 1_024}));
    assert_eq!(record.get("process"), None);
}
