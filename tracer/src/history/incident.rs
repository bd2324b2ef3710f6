//! An incident as it is kept: what its record says (docs/records.md), read back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    alert::{Severity, Status},
    incident::{self, IncidentRecord},
    observation::{self, Code, Container, Fd, Listener},
};

/// An incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Identifies it.
    pub id: String,
    /// Its host.
    pub host: String,
    /// Whether it lasts.
    pub status: Status,
    /// How bad it was at its worst.
    pub severity: Severity,
    /// What it is, in one sentence.
    pub statement: String,
    /// When it began.
    pub started: Timestamp,
    /// When it was first told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<Timestamp>,
    /// The last that was seen of it, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The incident of the same victim that ended shortly before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_of: Option<String>,
    /// Whose it is.
    pub victim: Victim,
    /// Its reasons, causes first.
    pub reasons: Vec<ReasonTotal>,
    /// Its listeners.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Descriptors of the victim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<Fd>,
    /// The longest that was waited, nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_max_ns: Option<u64>,
    /// Clients of its host that did not get through.
    #[serde(default)]
    pub sufferers: Vec<Sufferer>,
    /// Failures of further clients.
    #[serde(default)]
    pub others_suffered: u64,
    /// What happened, in order.
    #[serde(default)]
    pub timeline: Vec<Line>,
    /// Lines of that which there was no room for.
    #[serde(default)]
    pub untold: u64,
}

/// Whose an incident is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Victim {
    /// `server` or `client`.
    pub role: String,
    /// The process; where there are several, the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// How many processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
    /// What it cannot connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The network namespace, where it is about that as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
}

/// A process in an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Path of its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// What one reason came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonTotal {
    /// The reason.
    pub reason: Code,
    /// Failures.
    pub count: u64,
    /// First of them.
    pub first: Timestamp,
    /// Last of them.
    pub last: Timestamp,
    /// Only the sum over several listeners is exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approximate: Option<bool>,
}

/// A client that did not get through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sufferer {
    /// Who.
    pub process: Process,
    /// Its failures.
    pub count: u64,
    /// First of them.
    pub first: Timestamp,
    /// Last of them.
    pub last: Timestamp,
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When.
    pub time: Timestamp,
    /// Which reason it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Code>,
    /// What happened, in words.
    pub text: String,
}

impl Incident {
    /// The incident of a record; `None` is impossible but for a record that cannot be written.
    #[must_use]
    pub fn of(record: &IncidentRecord) -> Option<Self> {
        serde_json::from_value(serde_json::to_value(record).ok()?).ok()
    }

    /// The reason that explains the others.
    #[must_use]
    pub fn reason(&self) -> Option<&Code> {
        incident::root(self.reasons.iter().map(|total| &total.reason))
    }

    /// Failures of all reasons.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let counts = self.reasons.iter().map(|total| total.count);
        counts.fold(0, u64::saturating_add)
    }

    /// Where it listens, as people write it.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        let mut places: Vec<String> = self.listeners.iter().filter_map(Listener::place).collect();
        places.sort();
        places.dedup();
        places
    }

    /// What tells its victim from others across restarts: a process id does not outlive one.
    #[must_use]
    pub fn subject(&self) -> String {
        let mut subject = match &self.victim.process {
            Some(process) => process.subject(),
            None => match self.victim.netns {
                Some(netns) => format!("net:[{netns}]"),
                None => self.places().first().cloned().unwrap_or_default(),
            },
        };
        if let Some(target) = self.victim.target.as_ref().filter(|_| self.is_of_client()) {
            subject.push_str(" to ");
            subject.push_str(target);
        }
        subject
    }

    /// Whether its victim cannot connect, instead of turning connections away.
    #[must_use]
    pub fn is_of_client(&self) -> bool {
        self.victim.role == "client"
    }

    /// The victim's name and unit or container, as they are shown.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.victim.process {
            Some(process) => process.name(),
            None => "a program that is not known".to_owned(),
        }
    }
}

impl From<&observation::Process> for Process {
    fn from(process: &observation::Process) -> Self {
        Self {
            pid: process.pid,
            start_time: process.start_time,
            comm: process.comm.clone(),
            unit: process.unit.clone(),
            cgroup: process.cgroup.clone(),
            container: process.container.clone(),
        }
    }
}

impl Process {
    /// Its name, and where it belongs.
    #[must_use]
    pub fn subject(&self) -> String {
        let comm = self.comm.as_deref().unwrap_or("?");
        let home = match (&self.container, &self.unit, &self.cgroup) {
            // A container's id changes with each start, its name does not.
            (Some(container), ..) => {
                let name = container.pod.as_ref().or(container.name.as_ref());
                Some(name.unwrap_or(&container.id))
            }
            (None, Some(unit), _) if unit.ends_with(".service") => Some(unit),
            _ => None,
        };
        match home {
            Some(home) => format!("{comm} in {home}"),
            None => comm.to_owned(),
        }
    }

    /// Its name, with pid and unit or container.
    #[must_use]
    pub fn name(&self) -> String {
        let comm = self.comm.as_deref().unwrap_or("a process");
        let mut about = format!("pid {}", self.pid);
        if let Some(container) = &self.container {
            about.push_str(", container ");
            about.push_str(container.name.as_deref().unwrap_or(&container.id));
        } else if let Some(unit) = &self.unit {
            about.push_str(", ");
            about.push_str(unit);
        }
        format!("{comm} ({about})")
    }
}
