//! The Elastic Common Schema, 9.4.

use std::net::IpAddr;

use super::{
    meaning::{Meaning, Outcome, Side, What},
    object::{
        Object, Text, Value, copy, is_of_all, number, object, put, put_back, take_number,
        take_object, take_text, text,
    },
    record::{self, Severity},
};

/// The version whose names these are.
pub(super) const VERSION: &str = "9.4.0";

/// The record in the names of ECS; what has none is under `turnaway`.
pub(super) fn convert(mut native: Object) -> Object {
    let code = record::reason(&native).map(str::to_owned);
    let meaning = code.as_deref().map(Meaning::of);
    let mut ecs = Object::new();
    put(&mut ecs, "message", record::words(&native, meaning));
    let mut event = of_event(&native, code.as_deref(), meaning);
    let mut host = Object::new();
    let name = take_text(&mut native, "host");
    put(&mut host, "hostname", name.clone());
    put(&mut host, "name", name.clone());
    connection(&mut ecs, &native, meaning);
    process(&mut ecs, &mut native, name.as_deref());
    error(&mut ecs, &mut native, meaning);
    put(&mut event, "id", take_text(&mut native, "record_id"));
    let mut names = ["syscall", "op"].into_iter();
    let action = names.find_map(|name| take_text(&mut native, name));
    if action.is_some() {
        put(&mut event, "action", action);
    }
    heartbeat(&mut ecs, &mut host, &mut native);
    put(&mut ecs, "@timestamp", take_text(&mut native, "time"));
    put(&mut ecs, "ecs", Object::of("version", VERSION));
    put(&mut ecs, "event", event);
    put(&mut ecs, "host", host);
    put(&mut ecs, "turnaway", native);
    ecs
}

/// What kind of event it is, and when.
fn of_event(native: &Object, code: Option<&str>, meaning: Option<Meaning>) -> Object {
    let kind = text(native, "type").unwrap_or_default();
    let mut event = Object::new();
    let (category, types) = category(kind, meaning);
    put(&mut event, "category", vec![category.into()]);
    put(&mut event, "type", types);
    put(
        &mut event,
        "kind",
        match kind {
            "incident" => "alert",
            "heartbeat" => "state",
            "count" | "summary" | "accepted" => "metric",
            _ => "event",
        },
    );
    put(&mut event, "module", "turnaway");
    put(&mut event, "provider", "turnaway");
    put(&mut event, "dataset", format!("turnaway.{kind}"));
    put(&mut event, "severity", Severity::of(native, code).number());
    if let Some(meaning) = meaning {
        put(&mut event, "code", code.map(str::to_owned));
        put(&mut event, "reason", meaning.says);
        let outcome = match record::outcome(native, Some(meaning)) {
            Outcome::Failure => "failure",
            Outcome::Success => "success",
            Outcome::Unknown => "unknown",
        };
        put(&mut event, "outcome", outcome);
    }
    // An event's own time is when it happened; others are made when they say.
    if kind != "event" {
        put(&mut event, "created", copy(native, "time"));
    }
    let (start, end) = span(native, kind);
    let times = start
        .as_deref()
        .and_then(parse)
        .zip(end.as_deref().and_then(parse));
    if let Some((start, end)) = times {
        let ns = i64::try_from(end.duration_since(start).as_nanos()).ok();
        put(&mut event, "duration", ns.filter(|ns| *ns >= 0));
    }
    put(&mut event, "start", start);
    put(&mut event, "end", end);
    match kind {
        "incident" => {
            let action = match text(native, "status") {
                Some("resolved") => "incident-resolved",
                _ if text(native, "time") == text(native, "fired") => "incident-fired",
                _ => "incident-updated",
            };
            put(&mut event, "action", action);
        }
        "heartbeat" | "summary" | "run" | "program" => {
            put(&mut event, "action", kind.to_owned());
        }
        _ => {}
    }
    event
}

fn parse(time: &str) -> Option<jiff::Timestamp> {
    time.parse().ok()
}

/// From when to when it is.
fn span(native: &Object, kind: &str) -> (Option<String>, Option<String>) {
    let of = |name| {
        record::time(native, name)
            .and(text(native, name))
            .map(str::to_owned)
    };
    match kind {
        "count" => (of("first"), of("last")),
        "incident" | "program" => (of("started"), of("ended")),
        "heartbeat" => (of("since"), of("time")),
        "summary" => {
            let start = record::began(native).map(|start| format!("{start:.9}"));
            (start, of("time"))
        }
        _ => (None, None),
    }
}

/// What it is about, and what happened there: of the types that are expected in the category.
fn category(kind: &str, meaning: Option<Meaning>) -> (&'static str, Vec<Value>) {
    let (category, types): (_, &[&str]) = match (kind, meaning) {
        ("incident", Some(meaning)) => match meaning.side {
            Side::Descriptors => ("process", &["info"]),
            _ => ("network", &["connection", "info"]),
        },
        (_, Some(meaning)) => match (meaning.side, meaning.what) {
            (Side::Descriptors, _) => ("process", &["info"]),
            (_, What::Refused) => ("network", &["connection", "denied"]),
            (_, What::Closed | What::Reset) => ("network", &["connection", "end"]),
            (_, What::Opened) => ("network", &["connection", "start"]),
            (_, What::Failed) => ("network", &["connection"]),
            (_, What::Other(_)) => ("network", &["connection", "info"]),
        },
        ("program", None) => ("process", &["info"]),
        ("accepted", None) => ("network", &["connection", "info"]),
        _ => ("host", &["info"]),
    };
    (category, types.iter().map(|one| (*one).into()).collect())
}

/// Who was to talk to whom. All of it stays in the native fields too: an address that is no IP address,
/// and how many wait, have no field of their own.
fn connection(ecs: &mut Object, native: &Object, meaning: Option<Meaning>) {
    let Some(meaning) = meaning.filter(|meaning| meaning.side != Side::Descriptors) else {
        if let Some(listener) = object(native, "listener") {
            ends(ecs, None, Some(here(listener)));
        }
        return;
    };
    let listener = object(native, "listener").or_else(|| {
        let first = native.get("listeners")?.as_array()?.first()?;
        first.as_object()
    });
    let peer = object(native, "peer").map(endpoint);
    let (from, to) = match meaning.side {
        Side::Client => (None, peer.or_else(|| listener.map(here))),
        _ => (peer, listener.map(here)),
    };
    let far = match meaning.side {
        Side::Client => object(native, "peer").or(listener),
        _ => listener,
    };
    let mut network = Object::new();
    put(
        &mut network,
        "direction",
        match meaning.side {
            Side::Client => Some("egress"),
            Side::Server => Some("ingress"),
            Side::Descriptors | Side::Network => None,
        },
    );
    put(
        &mut network,
        "transport",
        listener.and_then(|one| copy(one, "protocol")),
    );
    let address = far.and_then(|far| text(far, "address"));
    let address: Option<IpAddr> = address.and_then(|address| address.parse().ok());
    put(
        &mut network,
        "type",
        address.map(|address| if address.is_ipv4() { "ipv4" } else { "ipv6" }),
    );
    put(ecs, "network", network);
    ends(ecs, from, to);
}

fn ends(ecs: &mut Object, from: Option<Object>, to: Option<Object>) {
    let ips = [&from, &to].into_iter().flatten();
    let ips: Vec<_> = ips.filter_map(|end| end.get("ip").cloned()).collect();
    if !ips.is_empty() {
        put(ecs, "related", Object::of("ip", ips));
    }
    if let Some(from) = from {
        put(ecs, "client", from.clone());
        put(ecs, "source", from);
    }
    if let Some(to) = to {
        put(ecs, "server", to.clone());
        put(ecs, "destination", to);
    }
}

/// One end of a connection: `address` is whatever it is, `ip` only what is one.
fn endpoint(native: &Object) -> Object {
    let mut end = Object::new();
    let address = text(native, "address");
    put(
        &mut end,
        "address",
        copy(native, "path").or_else(|| copy(native, "address")),
    );
    let ip: Option<IpAddr> = address.and_then(|address| address.parse().ok());
    put(&mut end, "ip", ip.map(|ip| ip.to_string()));
    put(
        &mut end,
        "port",
        number(native, "port").filter(|port| *port <= MOST),
    );
    end
}

/// The end that is on this host.
fn here(listener: &Object) -> Object {
    let mut end = endpoint(listener);
    if text(&end, "ip").is_some_and(is_of_all) {
        end.remove("ip");
    }
    end
}

/// The process, its container, pod, unit and user.
fn process(ecs: &mut Object, native: &mut Object, host: Option<&str>) {
    let mut victim = take_object(native, "victim");
    let is_victim = !victim.is_empty();
    let from = if is_victim { &mut victim } else { &mut *native };
    let mut left = take_object(from, "process");
    let mut process = Object::new();
    put(&mut process, "entity_id", record::entity(host, &left));
    put(&mut process, "pid", take_number(&mut left, "pid", MOST));
    put(&mut process, "vpid", take_number(&mut left, "ns_pid", MOST));
    put(&mut process, "name", take_text(&mut left, "comm"));
    put(&mut process, "executable", take_text(&mut left, "exe"));
    if record::time(&left, "start_time").is_some() {
        put(&mut process, "start", take_text(&mut left, "start_time"));
    }
    let mut thread = Object::new();
    put(&mut thread, "id", take_number(&mut left, "tid", MOST));
    put(&mut thread, "name", take_text(&mut left, "thread"));
    put(&mut process, "thread", thread);
    let mut parent = take_object(&mut left, "parent");
    let mut parent_process = Object::new();
    put(
        &mut parent_process,
        "pid",
        take_number(&mut parent, "pid", MOST),
    );
    put(&mut parent_process, "name", take_text(&mut parent, "comm"));
    put(&mut process, "parent", parent_process);
    put_back(&mut left, "parent", parent);
    let user = take_number(&mut left, "uid", MOST)
        .map(|uid| Text::from(uid.to_string()))
        .or_else(|| take_text(&mut left, "uid_hash"));
    if let Some(user) = user {
        put(&mut process, "user", Object::of("id", user.clone()));
        put(ecs, "user", Object::of("id", user));
    }
    let mut service = Object::new();
    put(&mut service, "name", take_text(&mut left, "unit"));
    container(ecs, &mut left);
    if is_victim {
        put_back(&mut victim, "process", left);
        put_back(native, "victim", victim);
    } else {
        put_back(native, "process", left);
        program(&mut process, &mut service, native);
    }
    put(ecs, "process", process);
    put(ecs, "service", service);
}

/// `program` records have a process's fields at their top.
fn program(process: &mut Object, service: &mut Object, native: &mut Object) {
    if text(native, "type") != Some("program") {
        return;
    }
    put(process, "pid", take_number(native, "pid", MOST));
    put(process, "name", take_text(native, "program"));
    put(process, "executable", take_text(native, "exe"));
    put(process, "command_line", take_text(native, "argv"));
    put(service, "name", take_text(native, "unit"));
    let mut parent = Object::new();
    put(&mut parent, "name", take_text(native, "parent"));
    put(process, "parent", parent);
}

fn container(ecs: &mut Object, process: &mut Object) {
    let mut left = take_object(process, "container");
    let mut container = Object::new();
    put(&mut container, "id", take_text(&mut left, "id"));
    put(&mut container, "name", take_text(&mut left, "name"));
    put(&mut container, "runtime", take_text(&mut left, "runtime"));
    if let Some(image) = take_text(&mut left, "image") {
        put(&mut container, "image", Object::of("name", image));
    }
    let (mut resource, mut orchestrator) = (Object::new(), Object::new());
    // An incident has namespace and name in one.
    if let Some(pod) = text(&left, "pod") {
        let (namespace, name) = pod
            .split_once('/')
            .map_or((None, pod), |(namespace, name)| (Some(namespace), name));
        put(&mut orchestrator, "namespace", namespace.map(str::to_owned));
        put(&mut resource, "name", name.to_owned());
    }
    let mut pod = take_object(&mut left, "pod");
    put(
        &mut orchestrator,
        "namespace",
        take_text(&mut pod, "namespace"),
    );
    put(&mut resource, "id", take_text(&mut pod, "uid"));
    put(&mut resource, "name", take_text(&mut pod, "name"));
    if !resource.is_empty() {
        put(&mut resource, "type", "pod");
        put(&mut orchestrator, "type", "kubernetes");
    }
    put_back(&mut left, "pod", pod);
    put_back(process, "container", left);
    put(&mut orchestrator, "resource", resource);
    put(ecs, "container", container);
    put(ecs, "orchestrator", orchestrator);
}

fn error(ecs: &mut Object, native: &mut Object, meaning: Option<Meaning>) {
    let Some(errno) = take_text(native, "errno") else {
        return;
    };
    let mut error = Object::new();
    put(&mut error, "code", errno);
    put(&mut error, "message", meaning.map(|meaning| meaning.says));
    put(ecs, "error", error);
}

/// Who says that turnaway lives.
fn heartbeat(ecs: &mut Object, host: &mut Object, native: &mut Object) {
    let mut agent = Object::new();
    put(&mut agent, "type", "turnaway");
    put(&mut agent, "version", take_text(native, "version"));
    put(ecs, "agent", agent);
    let mut os = Object::new();
    put(&mut os, "type", "linux");
    put(&mut os, "kernel", take_text(native, "kernel"));
    put(host, "os", os);
}

/// A `long` of Elasticsearch is signed.
const MOST: u64 = i64::MAX as u64;
