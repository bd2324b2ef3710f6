//! The Open Cybersecurity Schema Framework, 1.8.

use std::net::IpAddr;

use jiff::Timestamp;

use super::{
    meaning::{Meaning, Outcome, Side, What},
    object::{
        Object, Text, Value, copy, is_of_all, number, object, put, put_back, take_number,
        take_object, take_text, text,
    },
    record::{self, Severity},
};

/// The version whose names these are.
pub(super) const VERSION: &str = "1.8.0";
/// Integers have 32 bits.
const MOST: u64 = i32::MAX as u64;
/// The operating system's number for Linux.
const LINUX: u64 = 200;

/// A class of events.
#[derive(Clone, Copy)]
struct Class {
    uid: u64,
    name: &'static str,
    category: &'static str,
}

/// What has no class of its own: that turnaway lives, and what a run came to.
const BASE: Class = Class {
    uid: 0,
    name: "Base Event",
    category: "Uncategorized",
};
/// Connections that are turned away.
const NETWORK: Class = Class {
    uid: 4_001,
    name: "Network Activity",
    category: "Network Activity",
};
/// Descriptors that run out: there is no connection yet.
const APPLICATION: Class = Class {
    uid: 6_008,
    name: "Application Error",
    category: "Application Activity",
};
/// Incidents.
const FINDING: Class = Class {
    uid: 2_004,
    name: "Detection Finding",
    category: "Findings",
};

/// The record in the names of OCSF; what has none is under `unmapped`.
pub(super) fn convert(mut native: Object) -> Object {
    let code = record::reason(&native).map(str::to_owned);
    let meaning = code.as_deref().map(Meaning::of);
    let kind = text(&native, "type").unwrap_or_default().to_owned();
    let mut ocsf = Object::new();
    let class = match (&*kind, meaning) {
        ("incident", _) => FINDING,
        (_, Some(meaning)) if meaning.side == Side::Descriptors => APPLICATION,
        (_, Some(_)) => NETWORK,
        _ => BASE,
    };
    put(&mut ocsf, "message", record::words(&native, meaning));
    classify(&mut ocsf, class, &native, &kind, meaning);
    let severity = Severity::of(&native, code.as_deref());
    put(&mut ocsf, "severity_id", severity.number());
    put(
        &mut ocsf,
        "severity",
        match severity {
            Severity::Info => "Informational",
            Severity::Warning => "Medium",
            Severity::Critical => "Critical",
        },
    );
    let host = take_text(&mut native, "host");
    if class.uid == NETWORK.uid {
        connection(&mut ocsf, &native, meaning, host.as_deref());
    }
    let from = if class.uid == FINDING.uid {
        "victim"
    } else {
        ""
    };
    let process = process(&mut native, from, host.as_deref());
    let has_container = process.contains_key("container") || process.contains_key("namespace_pid");
    if class.uid == FINDING.uid {
        finding(&mut ocsf, &native, meaning, &process, host.as_deref());
    }
    if !process.is_empty() {
        put(&mut ocsf, "actor", Object::of("process", process));
    }
    times(&mut ocsf, &mut native, &kind);
    put(&mut ocsf, "device", device(host.as_deref(), &mut native));
    let mut metadata = Object::new();
    let mut product = Object::new();
    put(&mut product, "name", "turnaway");
    put(&mut product, "vendor_name", "turnaway");
    let version = take_text(&mut native, "version");
    put(
        &mut product,
        "version",
        version.unwrap_or(env!("CARGO_PKG_VERSION").into()),
    );
    put(&mut metadata, "product", product);
    put(&mut metadata, "version", VERSION);
    put(&mut metadata, "uid", take_text(&mut native, "record_id"));
    put(&mut metadata, "event_code", code);
    put(&mut metadata, "log_name", format!("turnaway.{kind}"));
    put(&mut metadata, "log_version", copy(&native, "schema"));
    let mut profiles: Vec<Value> = vec!["datetime".into(), "host".into()];
    if has_container {
        profiles.push("container".into());
    }
    put(&mut metadata, "profiles", profiles);
    put(&mut ocsf, "metadata", metadata);
    put(&mut ocsf, "unmapped", native);
    ocsf
}

/// Of which class and kind it is, and what became of it.
fn classify(
    ocsf: &mut Object,
    class: Class,
    native: &Object,
    kind: &str,
    meaning: Option<Meaning>,
) {
    let (id, name) = activity(class, native, kind, meaning);
    put(ocsf, "activity_id", id);
    put(ocsf, "activity_name", name.to_owned());
    put(ocsf, "class_uid", class.uid);
    put(ocsf, "class_name", class.name);
    put(ocsf, "category_uid", class.uid / 1_000);
    put(ocsf, "category_name", class.category);
    put(ocsf, "type_uid", class.uid * 100 + id);
    put(ocsf, "type_name", format!("{}: {name}", class.name));
    let (status, name) = if class.uid == FINDING.uid {
        match id {
            1 => (1, "New"),
            3 => (4, "Resolved"),
            _ => (2, "In Progress"),
        }
    } else {
        match record::outcome(native, meaning) {
            _ if meaning.is_none() => (1, "Success"),
            Outcome::Failure => (2, "Failure"),
            Outcome::Success => (1, "Success"),
            Outcome::Unknown => (0, "Unknown"),
        }
    };
    put(ocsf, "status_id", status);
    put(ocsf, "status", name);
    put(ocsf, "status_code", copy(native, "errno"));
    put(ocsf, "status_detail", meaning.map(|meaning| meaning.says));
}

fn activity<'a>(
    class: Class,
    native: &Object,
    kind: &'a str,
    meaning: Option<Meaning>,
) -> (u64, &'a str) {
    match (class.uid, meaning) {
        (2_004, _) => match text(native, "status") {
            Some("resolved") => (3, "Close"),
            _ if text(native, "time") == text(native, "fired") => (1, "Create"),
            _ => (2, "Update"),
        },
        (4_001, Some(meaning)) => match meaning.what {
            What::Opened => (1, "Open"),
            What::Closed => (2, "Close"),
            What::Reset => (3, "Reset"),
            What::Failed => (4, "Fail"),
            What::Refused => (5, "Refuse"),
            What::Other(name) => (99, name),
        },
        (6_008, _) => (1, "General Error"),
        _ => (
            99,
            match kind {
                "heartbeat" => "Heartbeat",
                "summary" => "Summary",
                "accepted" => "Accepted",
                "run" => "Run",
                "program" => "Program",
                _ => "Other",
            },
        ),
    }
}

/// Who was to talk to whom. All of it stays in the native fields too.
fn connection(ocsf: &mut Object, native: &Object, meaning: Option<Meaning>, host: Option<&str>) {
    let side = meaning.map(|meaning| meaning.side);
    let listener = object(native, "listener");
    let peer = object(native, "peer").and_then(endpoint);
    let (from, to) = match side {
        // The process is on this host; from what address it would have called is not known.
        Some(Side::Client) => (
            here(None, host),
            peer.or_else(|| listener.and_then(endpoint)),
        ),
        _ => (peer, here(listener, host)),
    };
    put(ocsf, "src_endpoint", from.unwrap_or_default());
    put(ocsf, "dst_endpoint", to.unwrap_or_default());
    let far = object(native, "peer")
        .filter(|_| side == Some(Side::Client))
        .or(listener);
    let mut info = Object::new();
    let direction = match side {
        Some(Side::Server) => (1, "Inbound"),
        Some(Side::Client) => (2, "Outbound"),
        _ => (0, "Unknown"),
    };
    put(&mut info, "direction_id", direction.0);
    put(&mut info, "direction", direction.1);
    let protocol = listener.and_then(|listener| text(listener, "protocol"));
    put(&mut info, "protocol_name", protocol.map(str::to_owned));
    put(
        &mut info,
        "protocol_num",
        protocol.and_then(protocol_number),
    );
    let address: Option<IpAddr> = far
        .and_then(|far| text(far, "address"))
        .and_then(|address| address.parse().ok());
    if let Some(address) = address {
        let (id, name) = if address.is_ipv4() {
            (4, "Internet Protocol version 4 (IPv4)")
        } else {
            (6, "Internet Protocol version 6 (IPv6)")
        };
        put(&mut info, "protocol_ver_id", id);
        put(&mut info, "protocol_ver", name);
    }
    put(ocsf, "connection_info", info);
}

/// IANA's number; MPTCP is TCP on the wire.
fn protocol_number(name: &str) -> Option<u64> {
    Some(match name {
        "tcp" | "mptcp" | "smc" => 6,
        "udp" => 17,
        "dccp" => 33,
        "sctp" => 132,
        _ => return None,
    })
}

/// One end of a connection, if anything is known of it.
fn endpoint(native: &Object) -> Option<Object> {
    let mut end = Object::new();
    let address = text(native, "address");
    if let Some(ip) = address.and_then(|address| address.parse::<IpAddr>().ok()) {
        put(&mut end, "ip", ip.to_string());
    } else {
        // A path, or what is no address of the Internet.
        let name = text(native, "path").or(address);
        put(&mut end, "name", name.map(str::to_owned));
    }
    if end.is_empty() {
        return None;
    }
    put(&mut end, "port", port(native));
    Some(end)
}

/// The end that is on this host.
fn here(listener: Option<&Object>, host: Option<&str>) -> Option<Object> {
    let mut end = listener.and_then(endpoint).unwrap_or_default();
    if end.get("ip").and_then(Value::as_str).is_some_and(is_of_all) {
        end.remove("ip");
    }
    put(&mut end, "hostname", host.map(str::to_owned));
    if let Some(listener) = listener.filter(|_| !end.is_empty()) {
        put(&mut end, "port", port(listener));
    }
    (!end.is_empty()).then_some(end)
}

fn port(native: &Object) -> Option<u64> {
    number(native, "port").filter(|port| *port <= 65_535)
}

/// The process with its container, its user and its parent.
fn process(native: &mut Object, from: &str, host: Option<&str>) -> Object {
    let mut outer = take_object(native, from);
    let place = if from.is_empty() {
        &mut *native
    } else {
        &mut outer
    };
    let mut process = Object::new();
    let mut left = take_object(place, "process");
    // One that cannot be told from others is none.
    if !left.is_empty() && number(&left, "pid").is_none_or(|pid| pid > MOST) {
        put_back(place, "process", std::mem::take(&mut left));
    }
    put(&mut process, "uid", record::entity(host, &left));
    put(&mut process, "pid", take_number(&mut left, "pid", MOST));
    put(
        &mut process,
        "namespace_pid",
        take_number(&mut left, "ns_pid", MOST),
    );
    put(&mut process, "tid", take_number(&mut left, "tid", MOST));
    put(&mut process, "name", take_text(&mut left, "comm"));
    put(&mut process, "path", take_text(&mut left, "exe"));
    if let Some(start) = record::time(&left, "start_time") {
        put(&mut process, "created_time", milliseconds(start));
        put(
            &mut process,
            "created_time_dt",
            take_text(&mut left, "start_time"),
        );
    }
    let user = take_number(&mut left, "uid", u64::MAX).map(|uid| Text::from(uid.to_string()));
    if let Some(user) = user.or_else(|| take_text(&mut left, "uid_hash")) {
        put(&mut process, "user", Object::of("uid", user));
    }
    let mut parent = take_object(&mut left, "parent");
    if let Some(pid) = take_number(&mut parent, "pid", MOST) {
        let mut parent_process = Object::new();
        put(&mut parent_process, "pid", pid);
        put(&mut parent_process, "name", take_text(&mut parent, "comm"));
        put(&mut process, "parent_process", parent_process);
    }
    put_back(&mut left, "parent", parent);
    put(&mut process, "container", container(&mut left));
    if text(place, "type") == Some("program") && !process.contains_key("pid") {
        put(&mut process, "pid", take_number(place, "pid", MOST));
        put(&mut process, "name", take_text(place, "program"));
        put(&mut process, "path", take_text(place, "exe"));
        put(&mut process, "cmd_line", take_text(place, "argv"));
    }
    put_back(place, "process", left);
    if !from.is_empty() {
        put_back(native, from, outer);
    }
    process
}

fn container(process: &mut Object) -> Object {
    let mut left = take_object(process, "container");
    let mut container = Object::new();
    put(&mut container, "uid", take_text(&mut left, "id"));
    put(&mut container, "name", take_text(&mut left, "name"));
    if !container.is_empty() {
        put(&mut container, "runtime", take_text(&mut left, "runtime"));
        if let Some(image) = take_text(&mut left, "image") {
            let mut named = Object::of("name", image.clone());
            put(&mut named, "uid", image);
            put(&mut container, "image", named);
        }
        let mut pod = take_object(&mut left, "pod");
        if let Some(uid) = pod.get("uid").and_then(Value::as_str)
            && is_uuid(uid)
        {
            put(&mut container, "pod_uuid", take_text(&mut pod, "uid"));
        }
        if !pod.is_empty() || container.contains_key("pod_uuid") {
            put(&mut container, "orchestrator", "kubernetes");
        }
        put_back(&mut left, "pod", pod);
    }
    put_back(process, "container", left);
    container
}

/// Static pods have an id of another form.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// The host.
fn device(host: Option<&str>, native: &mut Object) -> Object {
    let mut device = Object::new();
    put(
        &mut device,
        "hostname",
        host.unwrap_or("unknown").to_owned(),
    );
    put(&mut device, "type_id", 0);
    put(&mut device, "type", "Unknown");
    let mut os = Object::new();
    put(&mut os, "name", "Linux");
    put(&mut os, "type", "Linux");
    put(&mut os, "type_id", LINUX);
    put(&mut os, "kernel_release", take_text(native, "kernel"));
    put(&mut device, "os", os);
    device
}

/// When it was, in milliseconds and, with the nine digits that it has, in words.
fn times(ocsf: &mut Object, native: &mut Object, kind: &str) {
    let (start, end) = match kind {
        "count" => (take_time(native, "first"), take_time(native, "last")),
        "incident" | "program" => (take_time(native, "started"), take_time(native, "ended")),
        "heartbeat" => (take_time(native, "since"), record::time(native, "time")),
        "summary" => (record::began(native), record::time(native, "time")),
        _ => (None, None),
    };
    put_time(ocsf, "start_time", start);
    put_time(ocsf, "end_time", end);
    if let Some((start, end)) = start.zip(end).filter(|(start, end)| start <= end) {
        let ms = end.as_millisecond() - start.as_millisecond();
        put(ocsf, "duration", Some(ms));
    }
    if kind == "count" {
        put(ocsf, "count", take_number(native, "count", MOST));
    }
    let time = take_time(native, "time");
    put_time(ocsf, "time", time);
}

fn take_time(native: &mut Object, name: &str) -> Option<Timestamp> {
    let time = record::time(native, name)?;
    native.remove(name);
    Some(time)
}

fn put_time(object: &mut Object, name: &'static str, time: Option<Timestamp>) {
    if let Some(time) = time {
        put(object, name, milliseconds(time));
        put(object, format!("{name}_dt"), format!("{time:.9}"));
    }
}

fn milliseconds(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// What was found, and whose it is.
fn finding(
    ocsf: &mut Object,
    native: &Object,
    meaning: Option<Meaning>,
    process: &Object,
    host: Option<&str>,
) {
    let mut info = Object::new();
    // An incident that has none is no record of ours.
    put(
        &mut info,
        "uid",
        copy(native, "id").unwrap_or("unknown".into()),
    );
    let says = meaning.map_or("connections are turned away", |meaning| meaning.says);
    let name = text(process, "name").map(crate::incident::plain);
    put(
        &mut info,
        "title",
        format!("{}: {says}", name.as_deref().or(host).unwrap_or("a host")),
    );
    put(&mut info, "desc", copy(native, "statement"));
    put_time(
        &mut info,
        "first_seen_time",
        record::time(native, "started"),
    );
    let last = record::last_of_reasons(native).and_then(|last| last.parse().ok());
    put_time(
        &mut info,
        "last_seen_time",
        record::time(native, "ended").or(last),
    );
    put_time(&mut info, "created_time", record::time(native, "fired"));
    put_time(&mut info, "modified_time", record::time(native, "time"));
    let reasons = native.get("reasons").and_then(Value::as_array);
    let reasons: Vec<Value> = reasons
        .into_iter()
        .flatten()
        .filter_map(|reason| {
            reason
                .get("reason")
                .filter(|reason| reason.as_str().is_some())
                .cloned()
        })
        .collect();
    put(&mut info, "types", reasons);
    put(ocsf, "finding_info", info);
    put(ocsf, "is_alert", Value::Bool(true));

    let mut resource = Object::new();
    let name = text(process, "name").or(host);
    put(&mut resource, "name", name.map(str::to_owned));
    put(&mut resource, "uid", copy(process, "uid"));
    let kind = if process.is_empty() {
        "host"
    } else {
        "process"
    };
    put(&mut resource, "type", kind);
    put(&mut resource, "hostname", host.map(str::to_owned));
    put(&mut resource, "role_id", 3);
    put(&mut resource, "role", "Affected");
    if ["name", "uid"]
        .iter()
        .any(|name| resource.contains_key(name))
    {
        put(ocsf, "resources", vec![resource.into()]);
    }

    let listeners = native.get("listeners").and_then(Value::as_array);
    let ends = listeners.into_iter().flatten().filter_map(Value::as_object);
    let mut evidences: Vec<Object> = ends
        .filter_map(|listener| here(Some(listener), host))
        .map(|end| Object::of("dst_endpoint", end))
        .collect();
    if !process.is_empty() {
        match evidences.first_mut() {
            Some(first) => put(first, "process", process.clone()),
            None => evidences.push(Object::of("process", process.clone())),
        }
    }
    let evidences: Vec<Value> = evidences.into_iter().map(Value::Object).collect();
    put(ocsf, "evidences", evidences);
}
