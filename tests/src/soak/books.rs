//! What failed by the word of those who failed, and by turnaway's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use crate::records::Key;
use crate::servers::overflow::DROPS;

/// A reason, and the name of the process whose call failed. Packets that a listener drops are nobody's, and one
/// account for all their reasons: where a queue is polled, the kernel does not tell them apart.
pub(super) type Account = (String, String);

/// What all reasons of dropped packets are booked as.
const DROPPED: &str = "queue.* (packets dropped)";

/// Failures by account.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<Account, u64>);

impl Tally {
    pub(super) fn add(&mut self, reason: &str, comm: &str, count: u64) {
        let account = (reason.to_owned(), comm.to_owned());
        *self.0.entry(account).or_default() += count;
    }

    pub(super) fn dropped(&mut self, count: u64) {
        self.add(DROPPED, "", count);
    }
}

/// Whose failures are booked: those of the loads, and of nobody else on this machine.
#[derive(Debug, Default)]
pub(super) struct Ours {
    /// Ids of their cgroups.
    pub(super) cgroups: BTreeSet<u64>,
    /// Their network namespace.
    pub(super) netns: u64,
}

impl Ours {
    fn are(&self, key: &Key) -> bool {
        key.listener.netns == Some(self.netns)
            || key
                .process
                .cgroup_id
                .is_some_and(|id| self.cgroups.contains(&id))
    }
}

/// What turnaway wrote.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) counted: Tally,
    /// What it says that it lost, by name: all but zeros.
    pub(super) lost: BTreeMap<String, u64>,
    /// Whether its last record is there.
    pub(super) ended: bool,
}

impl Written {
    /// Reads the file of its stream.
    pub(super) fn read(path: &Path, ours: &Ours) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut written = Self::default();
        for line in BufReader::new(file).lines() {
            written.take(&line?, ours)?;
        }
        Ok(written)
    }

    fn take(&mut self, line: &str, ours: &Ours) -> Result<()> {
        let parse = || format!("no record: {line:?}");
        let record: Value = serde_json::from_str(line).with_context(parse)?;
        // What the stream lost up to here, which is told once.
        self.lose("stream", &record["stream"]["lost"]);
        match record["type"].as_str() {
            Some("count") => {
                let key: Key = serde_json::from_value(record).with_context(parse)?;
                if ours.are(&key) {
                    let count = key.count.context("a count without one")?;
                    self.book(&key, count);
                }
            }
            Some("summary") => {
                self.ended = true;
                for (name, lost) in record["lost"].as_object().into_iter().flatten() {
                    self.lose(name, lost);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn book(&mut self, key: &Key, count: u64) {
        if DROPS.iter().any(|drops| key.reason.starts_with(drops)) {
            self.counted.dropped(count);
        } else {
            let comm = key.process.comm.as_deref().unwrap_or_default();
            self.counted.add(&key.reason, comm, count);
        }
    }

    fn lose(&mut self, name: &str, lost: &Value) {
        if let Some(lost) = lost.as_u64().filter(|lost| *lost > 0) {
            *self.lost.entry(name.to_owned()).or_default() += lost;
        }
    }
}

/// An account, as both have it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Balance {
    reason: String,
    comm: String,
    /// What failed; `None` where nobody but turnaway counts.
    failed: Option<u64>,
    counted: u64,
}

impl Balance {
    /// Whether both say the same, where there are two.
    pub(super) fn holds(&self) -> bool {
        self.failed.is_none_or(|failed| failed == self.counted)
    }
}

/// All accounts, those that both have first.
pub(super) fn balance(failed: &Tally, counted: &Tally) -> Vec<Balance> {
    let one = |account: &Account| Balance {
        reason: account.0.clone(),
        comm: account.1.clone(),
        failed: failed.0.get(account).copied(),
        counted: counted.0.get(account).copied().unwrap_or(0),
    };
    let rest = counted.0.keys().filter(|key| !failed.0.contains_key(*key));
    failed.0.keys().chain(rest).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Ours {
        Ours {
            cgroups: [7].into(),
            netns: 9,
        }
    }

    #[test]
    fn what_others_on_the_machine_do_is_not_booked() {
        let mut written = Written::default();
        for (cgroup, netns, count) in [(7, 1, 2), (8, 9, 3), (8, 1, 100)] {
            let line = format!(
                r#"{{"type":"count","reason":"accept.emfile","tier":"tracepoint","count":{count},"process":{{"pid":1,"comm":"x","cgroup_id":{cgroup}}},"listener":{{"netns":{netns}}}}}"#
            );
            written.take(&line, &ours()).unwrap();
        }
        let mut failed = Tally::default();
        failed.add("accept.emfile", "x", 5);
        let balance = balance(&failed, &written.counted);
        assert!(
            matches!(&balance[..], [one] if one.holds() && one.counted == 5),
            "{balance:?}"
        );
    }

    #[test]
    fn one_too_many_and_one_too_few_do_not_balance() {
        let mut failed = Tally::default();
        failed.add("accept.emfile", "nginx", 5);
        failed.dropped(6);
        for (count, dropped, holds) in [
            (5, 6, [true; 2]),
            (4, 6, [false, true]),
            (5, 7, [true, false]),
            (0, 6, [false, true]),
        ] {
            let mut counted = Tally::default();
            counted.add("accept.emfile", "nginx", count);
            counted.dropped(dropped);
            counted.add("queue.stalled", "nginx", 1);
            let all = balance(&failed, &counted);
            let held: Vec<bool> = all.iter().map(Balance::holds).collect();
            assert_eq!(held[..2], holds, "{all:?}");
            assert_eq!(all[2].failed, None);
        }
    }

    #[test]
    fn what_was_lost_is_told_by_name() {
        let mut written = Written::default();
        for line in [
            r#"{"type":"heartbeat","stream":{"lost":3}}"#,
            r#"{"type":"incident"}"#,
            r#"{"type":"summary","lost":{"ring":0,"map":2,"missed":null,"output":0}}"#,
        ] {
            written.take(line, &ours()).unwrap();
        }
        assert!(written.ended);
        let lost: Vec<_> = written.lost.into_iter().collect();
        assert_eq!(lost, [("map".to_owned(), 2), ("stream".to_owned(), 3)]);
    }
}
