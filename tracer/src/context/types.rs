//! What an explanation is made of. Every part says when it was read; what could not be read is absent.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::record::names::Time;

/// What was found around an incident, and what follows from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "explanation")]
pub struct Explanation {
    /// When it was taken.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub taken: Timestamp,
    /// Programs that began in the hour before and ran when the incident began, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub started: Vec<Started>,
    /// Further ones.
    #[serde(default)]
    pub started_more: u64,
    /// Starts that were not seen; absent where programs are not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_lost: Option<u64>,
    /// Pressure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressures>,
    /// Who used disks and processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<Busy>,
    /// The victim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victim: Option<VictimState>,
    /// Memory of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// The host's table of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Connections that went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<Healthy>,
    /// Who waits in the queue of the victim's listener, when most did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Whether the like happened before, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<String>,
    /// How it comes about, best supported first; none is an answer.
    #[serde(default)]
    pub mechanism: Vec<Cause>,
    /// What set it off, best supported first; none is an answer.
    #[serde(default)]
    pub trigger: Vec<Cause>,
}

/// A program that began before an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "started")]
pub struct Started {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// When it began.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub started: Timestamp,
    /// When it ended, if it has since.
    #[schemars(with = "Option<Time>")]
    #[serde(
        default,
        serialize_with = "maybe_rfc3339",
        skip_serializing_if = "Option::is_none"
    )]
    pub ended: Option<Timestamp>,
    /// Path of the executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Its arguments, as far as they were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<String>,
    /// systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Name of its parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Cron, or the timer that starts its unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
}

/// How long tasks had to wait: percent of the time (`/proc/pressure`, `some`, and `full` for disks).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "pressures")]
pub struct Pressures {
    /// When it was read.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub read: Timestamp,
    /// Of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Levels>,
    /// Of the victim's cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Levels>,
    /// What is not available, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unavailable: Vec<String>,
}

/// Percent of the last ten seconds, and of the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "levels")]
pub struct Levels {
    /// Some task waited for a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Level>,
    /// Some task waited for a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Level>,
    /// All tasks that had something to do waited for a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_full: Option<Level>,
    /// Some task waited for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Level>,
}

/// A pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "level")]
pub struct Level {
    /// Percent of the last ten seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
}

/// Who used the most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "busy")]
pub struct Busy {
    /// When it was read.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub read: Timestamp,
    /// Over how many seconds before that.
    pub over_s: f64,
    /// Bytes a second to and from disks.
    pub disk: Vec<User>,
    /// Percent of one processor.
    pub cpu: Vec<User>,
}

/// A process and what it used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "user")]
pub struct User {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// How much.
    pub now: f64,
    /// How much in the hour before; absent where it was not seen for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<f64>,
}

/// How the victim stood.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "victim_state")]
pub struct VictimState {
    /// When it was read.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub read: Timestamp,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Open descriptors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<u64>,
    /// Soft limit of descriptors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<u64>,
    /// Hard limit of descriptors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard: Option<u64>,
    /// What holds descriptors, most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
    /// Whether all of them were looked at.
    #[serde(default)]
    pub complete: bool,
    /// How many it had open before, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fd_before: Vec<Reading>,
}

/// A number and when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "reading")]
pub struct Reading {
    /// When.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub read: Timestamp,
    /// How many.
    pub count: u64,
}

/// Descriptors that are alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "held")]
pub struct Held {
    /// `socket`, `file`, `pipe`, ….
    pub kind: String,
    /// State of a socket, such as `ESTABLISHED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Where it leads, of one that was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Where it was accepted: a port or a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<String>,
    /// Different addresses that they were accepted from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<u64>,
    /// How many.
    pub count: u64,
}

/// Memory, bytes (`/proc/meminfo`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "memory")]
pub struct Memory {
    /// When it was read.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub read: Timestamp,
    /// All.
    pub total: u64,
    /// What programs can have without swapping.
    pub available: u64,
    /// Swap in use.
    pub swap_used: u64,
}

/// The table of files (`/proc/sys/fs/file-nr`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "files")]
pub struct Files {
    /// When it was read.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub read: Timestamp,
    /// In use.
    pub used: u64,
    /// The most there may be.
    pub limit: u64,
}

/// Connections of the victim's listener that went on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "healthy")]
pub struct Healthy {
    /// When it was read.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub read: Timestamp,
    /// The listener.
    pub listener: String,
    /// Connections that are established.
    pub open: u64,
    /// Those among them over which data went since the incident began.
    pub carried: u64,
    /// Where they come from, most first, at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
}

/// Where connections come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "healthy_peer")]
pub struct Peer {
    /// IP address.
    pub address: String,
    /// Connections.
    pub count: u64,
}

/// Connections that wait to be accepted on the victim's listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "waiting")]
pub struct Waiting {
    /// When it was read.
    #[schemars(with = "Time")]
    #[serde(serialize_with = "rfc3339")]
    pub read: Timestamp,
    /// The listener.
    pub listener: String,
    /// Connections that wait.
    pub count: u64,
    /// How long the first of them has waited, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_s: Option<f64>,
    /// Whose they are, as far as those are processes of this host; most first, at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Client>,
    /// Connections of other hosts, or of processes that were not found.
    pub of_others: u64,
    /// Where those come from, most first, at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
}

impl Waiting {
    /// Who waits, in words; none if nobody does.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        if self.count == 0 {
            return None;
        }
        let client = |one: &Client| {
            let unit = one.unit.as_ref().map(|unit| format!(" of {unit}"));
            format!(
                "{} {}[{}]{}",
                one.count,
                crate::incident::plain(&one.comm),
                one.pid,
                unit.unwrap_or_default()
            )
        };
        let peer = |one: &Peer| format!("{} from {}", one.count, one.address);
        let mut whose: Vec<String> = self.clients.iter().map(client).collect();
        whose.extend(self.peers.iter().map(peer));
        Some(format!(
            "{} connections waited in the queue of {}: {}",
            self.count,
            self.listener,
            whose.join(", ")
        ))
    }
}

/// A process and how many of its connections wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "waiting_client")]
pub struct Client {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Connections.
    pub count: u64,
}

/// A cause that is likely, and why it is thought to be one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "cause")]
pub struct Cause {
    /// What it is, in one sentence.
    pub what: String,
    /// What tells it from others in code: `slow_dependency`, `leak`, `load`, `not_closed`, `program`, ….
    pub kind: String,
    /// How well it is supported.
    pub strength: Strength,
    /// What supports it, one sentence each.
    #[schemars(length(min = 1))]
    pub evidence: Vec<String>,
    /// Process id of the program, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// How well a cause is supported.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Strength {
    /// It may be.
    Weak,
    /// It fits.
    Moderate,
    /// It fits, and hardly anything else does.
    Strong,
}

impl Strength {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weak => "weak",
            Self::Moderate => "moderate",
            Self::Strong => "strong",
        }
    }
}

impl Held {
    /// What they are, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = match &self.state {
            Some(state) => format!("{} {state}", self.kind),
            None => self.kind.clone(),
        };
        if let Some(remote) = &self.remote {
            words.push_str(" to ");
            words.push_str(remote);
        }
        if let Some(at) = &self.accepted_at {
            words.push_str(" accepted at ");
            words.push_str(at);
        }
        match self.peers {
            Some(1) => words.push_str(" from one address"),
            Some(peers) => {
                words.push_str(" from ");
                words.push_str(&peers.to_string());
                words.push_str(" addresses");
            }
            None => {}
        }
        words
    }
}

/// As all records have times.
fn rfc3339<S: serde::Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.9}"))
}

#[expect(clippy::ref_option, reason = "serde hands out a reference")]
fn maybe_rfc3339<S: serde::Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339(time, to),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::incident::tests::wall;

    fn waiting(read: Timestamp) -> Waiting {
        Waiting {
            read,
            listener: "0.0.0.0:6432".to_owned(),
            count: 26,
            longest_s: Some(1.5),
            clients: vec![Client {
                pid: 900,
                comm: "gunicorn".to_owned(),
                unit: Some("shop.service".to_owned()),
                count: 25,
            }],
            of_others: 1,
            peers: vec![Peer {
                address: "10.0.0.7".to_owned(),
                count: 1,
            }],
        }
    }

    /// An explanation of which everything is known.
    pub(crate) fn sample() -> Explanation {
        let read = wall(2_000);
        let level = Some(Level {
            avg10: 81.5,
            avg60: 40.25,
        });
        let levels = Some(Levels {
            cpu: level,
            io: level,
            io_full: level,
            memory: level,
        });
        let user = User {
            pid: 4711,
            comm: "pg_dump".to_owned(),
            now: 90e6,
            usual: Some(1e3),
        };
        Explanation {
            taken: read,
            started: vec![Started {
                pid: 4711,
                comm: "pg_dump".to_owned(),
                started: wall(0),
                ended: Some(wall(5_000)),
                exe: Some("/usr/bin/pg_dump".to_owned()),
                argv: Some("pg_dump -Fc shop".to_owned()),
                unit: Some("backup.service".to_owned()),
                parent: Some("systemd".to_owned()),
                clock: Some("backup.timer".to_owned()),
            }],
            started_more: 1,
            started_lost: Some(2),
            pressure: Some(Pressures {
                read,
                host: levels,
                cgroup: levels,
                unavailable: vec!["io.pressure: not there".to_owned()],
            }),
            busy: Some(Busy {
                read,
                over_s: 30.5,
                disk: vec![user.clone()],
                cpu: vec![user],
            }),
            victim: Some(VictimState {
                read,
                pid: 812,
                fd: Some(1024),
                soft: Some(1024),
                hard: Some(4096),
                held: vec![Held {
                    kind: "socket".to_owned(),
                    state: Some("ESTABLISHED".to_owned()),
                    remote: Some("127.0.0.1:5432".to_owned()),
                    accepted_at: Some("6432".to_owned()),
                    peers: Some(2),
                    count: 1000,
                }],
                complete: true,
                fd_before: vec![Reading { read, count: 100 }],
            }),
            memory: Some(Memory {
                read,
                total: 1 << 34,
                available: 1 << 33,
                swap_used: 0,
            }),
            files: Some(Files {
                read,
                used: 9_000,
                limit: 1 << 40,
            }),
            healthy: Some(Healthy {
                read,
                listener: "0.0.0.0:6432".to_owned(),
                open: 1011,
                carried: 47,
                peers: vec![Peer {
                    address: "127.0.0.1".to_owned(),
                    count: 1011,
                }],
            }),
            waiting: Some(waiting(read)),
            again: Some("twice, 7 d 0 h 2 min apart".to_owned()),
            mechanism: vec![Cause {
                what: "it depends on what is slow".to_owned(),
                kind: "slow_dependency".to_owned(),
                strength: Strength::Strong,
                evidence: vec!["its connections there are in use".to_owned()],
                pid: None,
            }],
            trigger: vec![Cause {
                what: "pg_dump began".to_owned(),
                kind: "program".to_owned(),
                strength: Strength::Weak,
                evidence: vec!["it was started by the clock".to_owned()],
                pid: Some(4711),
            }],
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let text = serde_json::to_string(&sample()).unwrap();
        let read: Explanation = serde_json::from_str(&text).unwrap();
        assert_eq!(read, sample());
        assert_eq!(
            serde_json::from_str::<Started>(
                r#"{"pid": 1, "comm": "x", "started": "2026-11-24T03:12:00Z"}"#
            )
            .unwrap()
            .ended,
            None
        );
    }
}
