//! What turnaway says, as far as the tests read it: docs/records.md.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

/// All records of a run.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Exemplars.
    pub events: Vec<Key>,
    /// Growth of counters.
    pub counts: Vec<Key>,
    /// The last line.
    pub summary: Summary,
}

impl Records {
    /// Reads the lines of a run, whose last one must be the summary.
    pub fn parse(output: &str) -> Result<Self> {
        let mut records = Self::default();
        let mut ended = false;
        for line in output.lines() {
            ensure!(!ended, "a line after the summary: {line}");
            let parse = || format!("unexpected line {line:?}");
            let head: Head = serde_json::from_str(line).with_context(parse)?;
            ensure!(head.schema == "turnaway/1", "schema {:?}", head.schema);
            match head.kind.as_str() {
                "event" => records
                    .events
                    .push(serde_json::from_str(line).with_context(parse)?),
                "count" => records
                    .counts
                    .push(serde_json::from_str(line).with_context(parse)?),
                "summary" => {
                    records.summary = serde_json::from_str(line).with_context(parse)?;
                    ended = true;
                }
                other => bail!("a record of type {other:?}"),
            }
        }
        ensure!(ended, "no summary");
        Ok(records)
    }
}

#[derive(Deserialize)]
struct Head {
    schema: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The fields that tell keys apart and describe them; `count` is absent from events.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Key {
    pub reason: String,
    /// Empty where there is none.
    #[serde(default)]
    pub errno: String,
    pub syscall: Option<String>,
    pub op: Option<String>,
    /// Of pid 0 where there is none.
    #[serde(default)]
    pub process: Process,
    pub holders: Option<Vec<Holder>>,
    pub peer: Option<Peer>,
    pub server: Option<Holder>,
    pub level: Option<u8>,
    pub waited_ns: Option<u64>,
    pub state: Option<String>,
    pub waited_max_ns: Option<u64>,
    #[serde(default)]
    pub listener: Listener,
    pub conntrack: Option<crate::truth::Conntrack>,
    #[serde(default)]
    pub approximate: bool,
    #[serde(default)]
    pub fd: Fd,
    pub tier: String,
    pub count: Option<u64>,
    pub first: Option<jiff::Timestamp>,
    pub last: Option<jiff::Timestamp>,
    pub time: Option<jiff::Timestamp>,
}

impl Key {
    /// The name of the syscall or operation.
    #[must_use]
    pub fn call(&self) -> &str {
        self.syscall
            .as_deref()
            .or(self.op.as_deref())
            .unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Process {
    pub pid: u32,
    pub ns_pid: Option<u32>,
    pub start_time: Option<jiff::Timestamp>,
    pub tid: Option<u32>,
    pub comm: Option<String>,
    pub thread: Option<String>,
    pub exe: Option<String>,
    pub uid: Option<u32>,
    pub parent: Option<Parent>,
    pub cgroup: Option<String>,
    pub cgroup_id: Option<u64>,
    pub unit: Option<String>,
    pub container: Option<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Holder {
    pub pid: u32,
    pub comm: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Peer {
    pub address: Option<String>,
    pub port: Option<u32>,
    pub path: Option<String>,
}

impl Peer {
    /// `ADDRESS PORT`, or the path.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.path, &self.address, self.port) {
            (Some(path), _, _) => path.clone(),
            (None, Some(address), Some(port)) => format!("{address} {port}"),
            _ => String::new(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Parent {
    pub pid: u32,
    pub comm: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Container {
    pub id: String,
    pub runtime: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Listener {
    pub inode: Option<u64>,
    pub fd: Option<i32>,
    pub family: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub protocol: Option<String>,
    pub address: Option<String>,
    pub port: Option<u32>,
    pub path: Option<String>,
    pub netns: Option<u64>,
    pub queue: Option<u32>,
    pub backlog: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Fd {
    pub used: Option<u64>,
    pub limit: Option<u64>,
    pub limit_copied: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Summary {
    pub totals: Vec<Key>,
    pub other: u64,
    pub lost: Lost,
    pub hooks: Vec<Hook>,
    #[serde(default)]
    pub listeners: Vec<Listening>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Listening {
    pub listener: Listener,
    pub pid: Option<u32>,
    pub accepted: Option<u64>,
    pub shed: Option<u64>,
    pub cookies: Option<u64>,
    pub waited: Option<Waited>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Waited {
    pub max_ns: u64,
    pub histogram: Vec<Slot>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Slot {
    pub below_ns: u64,
    pub count: u64,
}

/// `missed` is null where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Lost {
    pub ring: u64,
    pub map: u64,
    pub missed: Option<u64>,
    pub output: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md")]
pub struct Hook {
    pub name: String,
    pub tier: Option<String>,
    pub status: String,
    pub missed: Option<u64>,
    pub detail: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_cut_off_is_no_run() {
        assert!(Records::parse("").is_err());
        let summary = r#"{"schema":"turnaway/1","type":"summary","totals":[],"other":0,
            "lost":{"ring":0,"map":0,"missed":null,"output":0},"hooks":[]}"#
            .replace('\n', "");
        assert!(Records::parse(&summary).is_ok());
        assert!(Records::parse(&format!("{summary}\n{summary}")).is_err());
        assert!(Records::parse(&summary.replace("turnaway/1", "turnaway/2")).is_err());
    }
}
