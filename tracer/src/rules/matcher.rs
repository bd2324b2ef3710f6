//! What a rule, a silence or an entry of an ignore list is about.

use serde::{Deserialize, Serialize};

use crate::observation::{Container, Observation};

/// What it is about: everything that is given must match, and of each at least one. Texts may end
/// in `*`, which stands for anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Matcher {
    /// Reason codes; empty is any.
    pub reason: Vec<String>,
    /// Names of processes: whose call failed, or who holds the listener.
    pub comm: Vec<String>,
    /// systemd units.
    pub unit: Vec<String>,
    /// Containers by name, or by the beginning of their id.
    pub container: Vec<String>,
    /// Ports that are listened on, or were to be connected to.
    pub port: Vec<u32>,
    /// Paths of AF_UNIX sockets that are listened on, or were to be connected to.
    pub path: Vec<String>,
}

/// What is looked at to match.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    /// Reason code.
    pub reason: &'a str,
    /// Names of processes.
    pub comm: Vec<&'a str>,
    /// Unit.
    pub unit: Option<&'a str>,
    /// Container.
    pub container: Option<&'a Container>,
    /// Ports.
    pub port: Vec<u32>,
    /// Paths.
    pub path: Vec<&'a str>,
}

impl<'a> Subject<'a> {
    /// That of an observation.
    #[must_use]
    pub fn of(seen: &'a Observation) -> Self {
        let process = seen.process.as_ref();
        let servers = seen.server.iter().chain(&seen.holders);
        let target = seen.peer.as_ref().filter(|_| seen.reason.is_of_client());
        Self {
            reason: seen.reason.as_str(),
            comm: process
                .and_then(|process| process.comm.as_deref())
                .into_iter()
                .chain(servers.filter_map(|server| server.comm.as_deref()))
                .collect(),
            unit: process.and_then(|process| process.unit.as_deref()),
            container: process.and_then(|process| process.container.as_ref()),
            port: seen
                .listener
                .as_ref()
                .and_then(|listener| listener.port)
                .into_iter()
                .chain(target.and_then(|target| target.port))
                .collect(),
            path: seen
                .listener
                .as_ref()
                .and_then(|listener| listener.path.as_deref())
                .into_iter()
                .chain(target.and_then(|target| target.path.as_deref()))
                .collect(),
        }
    }
}

impl Matcher {
    /// Whether it is about this.
    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let any = |patterns: &[String], texts: &[&str]| {
            patterns.is_empty()
                || patterns
                    .iter()
                    .any(|pattern| texts.iter().any(|text| like(pattern, text)))
        };
        any(&self.reason, &[subject.reason])
            && any(&self.comm, &subject.comm)
            && any(&self.unit, subject.unit.as_slice())
            && (self.container.is_empty()
                || subject.container.is_some_and(|container| {
                    self.container.iter().any(|pattern| {
                        container.id.starts_with(pattern.as_str())
                            || container
                                .name
                                .as_deref()
                                .is_some_and(|name| like(pattern, name))
                    })
                }))
            && any(&self.path, &subject.path)
            && (self.port.is_empty() || self.port.iter().any(|port| subject.port.contains(port)))
    }

    /// Whether it is about everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn like(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => text == pattern,
    }
}
