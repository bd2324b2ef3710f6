//! Observations from recorded lines (docs/records.md).

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Code, Container, Fd, Kind, Listener, MAX_HOLDERS, Observation, Peer, Process, Server, bounded,
};
use crate::record::{SCHEMA, Waits};

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Something was seen.
    Seen(Box<Observation>),
    /// A run of turnaway ended here: what comes after is another's, and what lasted may have
    /// ended unseen.
    End,
    /// A run of turnaway began, or goes on in another file.
    Run(Run),
    /// Nothing to count: an empty line, or a record that holds no failure.
    Other,
}

/// How a run of turnaway goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// It began here: what lasted may have ended unseen.
    pub began: bool,
    /// All accepted connections that rules ask for are told.
    pub sees_accepted: bool,
}

/// Reads one line. An error says what is wrong with it, in words.
pub fn parse(line: &str) -> Result<Line, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(Line::Other);
    }
    let head: Head<'_> = serde_json::from_str(line).map_err(|error| in_words(&error))?;
    if head.schema != SCHEMA {
        let schema = bounded(&head.schema);
        return Err(format!("schema is {schema:?}, not {SCHEMA:?}"));
    }
    let is_count = match head.r#type.as_ref() {
        "count" => true,
        "event" => false,
        "summary" => return Ok(Line::End),
        "accepted" => {
            let body: AcceptedBody =
                serde_json::from_str(line).map_err(|error| in_words(&error))?;
            return Ok(Line::Seen(Box::new(body.observation())));
        }
        "run" => {
            let body: RunBody = serde_json::from_str(line).map_err(|error| in_words(&error))?;
            return Ok(match body.state {
                RunState::Ended => Line::End,
                state => Line::Run(Run {
                    began: state == RunState::Began,
                    sees_accepted: body.accepts,
                }),
            });
        }
        _ => return Ok(Line::Other),
    };
    let body: Body = serde_json::from_str(line).map_err(|error| in_words(&error))?;
    body.observation(is_count)
        .map(|seen| Line::Seen(Box::new(seen)))
}

/// Without the position: the line is the reader's to name.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    bounded(text)
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    schema: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    r#type: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct Body {
    time: Timestamp,
    host: String,
    reason: Code,
    process: Option<ProcessBody>,
    holders: Option<Vec<Server>>,
    listener: Option<Listener>,
    peer: Option<Peer>,
    server: Option<Server>,
    conntrack: Option<Conntrack>,
    fd: Option<Fd>,
    count: Option<u64>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    state: Option<State>,
    waited_ns: Option<u64>,
    waited_max_ns: Option<u64>,
    #[serde(default)]
    approximate: bool,
}

#[derive(Deserialize)]
struct Conntrack {
    netns: u32,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Began,
    Ended,
}

#[derive(Deserialize)]
struct AcceptedBody {
    time: Timestamp,
    host: String,
    listener: Listener,
    count: u64,
    waited: Option<WaitedBody>,
}

#[derive(Deserialize)]
struct WaitedBody {
    max_ns: u64,
    histogram: Vec<SlotBody>,
}

#[derive(Deserialize)]
struct SlotBody {
    below_ns: u64,
    count: u64,
}

impl AcceptedBody {
    fn observation(self) -> Observation {
        let waits = self.waited.map(|waited| {
            let mut waits = Waits {
                slots: Vec::new(),
                longest: Duration::from_nanos(waited.max_ns),
            };
            for slot in waited.histogram {
                // In order and no more than there can be, whatever the line has.
                waits.add(&Waits {
                    slots: vec![(Duration::from_nanos(slot.below_ns), slot.count)],
                    longest: Duration::ZERO,
                });
            }
            waits
        });
        Observation {
            listener: Some(self.listener),
            waits,
            ..Observation::accepted(self.host, self.time, self.count)
        }
        .within_bounds()
    }
}

#[derive(Deserialize)]
struct RunBody {
    state: RunState,
    #[serde(default)]
    accepts: bool,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RunState {
    Began,
    Continued,
    Ended,
}

#[derive(Deserialize)]
struct ProcessBody {
    pid: u32,
    start_time: Option<Timestamp>,
    comm: Option<String>,
    unit: Option<String>,
    cgroup: Option<String>,
    container: Option<ContainerBody>,
}

#[derive(Deserialize)]
struct ContainerBody {
    id: String,
    name: Option<String>,
    pod: Option<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    name: Option<String>,
    namespace: Option<String>,
}

impl Body {
    fn observation(self, is_count: bool) -> Result<Observation, String> {
        let kind = if is_count {
            let count = self.count.ok_or("a count without count")?;
            let first = self.first.ok_or("a count without first")?;
            let last = self.last.ok_or("a count without last")?;
            Kind::Count { count, first, last }
        } else {
            match self.state {
                Some(State::Began) => Kind::Began,
                Some(State::Ended) => Kind::Ended,
                None => Kind::Exemplar,
            }
        };
        Ok(Observation {
            time: self.time,
            host: self.host,
            reason: self.reason,
            kind,
            process: self.process.map(ProcessBody::process),
            holders: self.holders.unwrap_or_default(),
            listener: self.listener,
            peer: self.peer,
            server: self.server,
            netns: self.conntrack.map(|table| table.netns),
            fd: self.fd.unwrap_or_default(),
            waited: self
                .waited_ns
                .or(self.waited_max_ns)
                .map(Duration::from_nanos),
            approximate: self.approximate,
            waits: None,
        }
        .within_bounds())
    }
}

impl ProcessBody {
    fn process(self) -> Process {
        Process {
            pid: self.pid,
            start_time: self.start_time,
            comm: self.comm,
            unit: self.unit,
            cgroup: self.cgroup,
            container: self.container.map(|container| Container {
                id: container.id,
                name: container.name,
                pod: container
                    .pod
                    .and_then(|pod| pod_name(pod.namespace.as_deref(), pod.name.as_deref())),
            }),
        }
    }
}

/// A pod as `namespace/name`.
pub(super) fn pod_name(namespace: Option<&str>, name: Option<&str>) -> Option<String> {
    match (namespace, name?) {
        (Some(namespace), name) => Some(format!("{namespace}/{name}")),
        (None, name) => Some(name.to_owned()),
    }
}

impl Observation {
    /// The same, with no text that is too long.
    pub(super) fn within_bounds(mut self) -> Self {
        let cut = |text: &mut String| {
            if text.len() > super::MAX_TEXT {
                *text = bounded(text);
            }
        };
        cut(&mut self.host);
        if let Some(process) = &mut self.process {
            for text in [&mut process.comm, &mut process.unit, &mut process.cgroup] {
                text.as_mut().map(cut);
            }
            if let Some(container) = &mut process.container {
                cut(&mut container.id);
                container.name.as_mut().map(cut);
                container.pod.as_mut().map(cut);
            }
        }
        if let Some(listener) = &mut self.listener {
            for text in [
                &mut listener.family,
                &mut listener.address,
                &mut listener.path,
            ] {
                text.as_mut().map(cut);
            }
        }
        if let Some(peer) = &mut self.peer {
            peer.address.as_mut().map(cut);
            peer.path.as_mut().map(cut);
        }
        self.holders.truncate(MAX_HOLDERS);
        for server in self.server.iter_mut().chain(&mut self.holders) {
            server.comm.as_mut().map(cut);
        }
        self
    }
}
