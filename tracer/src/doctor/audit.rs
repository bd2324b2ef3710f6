//! `doctor --audit`: what turnaway counts, beside what the kernel itself has counted meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use turnaway_common::Reason;

use crate::{
    attribute::timens::monotonic_ns,
    event::{Count, Tier},
    kernel::session::{Options, Session},
    queues::Drops,
    sockets::{Poll, Poller, TcpExt},
};

/// The reasons whose counts must add up to the kernel's.
const AUDITED: [Reason; 6] = [
    Reason::QueueSynOverflow,
    Reason::QueueAckOverflow,
    Reason::QueueRstOverflow,
    Reason::QueueOverflow,
    Reason::QueueSynFlood,
    Reason::QueueDropped,
];
/// Between two looks.
const READING: Duration = Duration::from_secs(1);

/// What came of an audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Version of this record.
    pub schema: &'static str,
    /// Always `audit`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Both sides agree everywhere, and nothing was lost.
    pub agrees: bool,
    /// How turnaway sees what listeners drop: a tier, or `poll`.
    pub tier: Option<Tier>,
    /// Failures that found no room in the counter map.
    pub lost: u64,
    /// One for each network namespace.
    pub namespaces: Vec<Compared>,
}

/// A network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Its inode number.
    pub netns: u32,
    /// What turnaway counted.
    pub counted: Numbers,
    /// How much the kernel's counters grew: `TcpExt` of `/proc/net/netstat`.
    /// `None` where the namespace was gone before they could be read for the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Numbers>,
}

/// Drops of a network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Numbers {
    /// `ListenOverflows`: the accept queue was full.
    pub overflows: u64,
    /// `ListenDrops`: all of them.
    pub drops: u64,
}

impl Audit {
    /// Watches for so long and compares; `ready` is called when it begins to count.
    pub fn run(tier: Option<Tier>, duration: Duration, ready: impl FnOnce()) -> Result<Self> {
        let mut options = Options {
            tier,
            ..Options::default()
        };
        options.filter.reasons = AUDITED
            .iter()
            .fold(0, |bits, reason| bits | 1 << (*reason as u16));
        options.filter.exemplars_per_key = 0;
        let mut session = Session::start(&options)?;
        let mut poller = Poller::new(Path::new("/"));
        let polls = session.polls_queues();
        let mut drops = Drops::default();
        let mut counted = HashMap::new();

        let (first, at_ns) = (poller.poll(), monotonic_ns());
        drops.poll(&first, at_ns);
        session.take_counts()?;
        ready();
        let deadline = Instant::now() + duration;
        let mut last = first.clone();
        let mut gone = BTreeSet::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            thread::sleep(left.min(READING));
            let at_ns = monotonic_ns();
            let newest = poller.poll();
            gone.extend(gone_since(&last, &newest));
            last = newest;
            let mut counts = session.take_counts()?;
            if polls {
                counts.extend(drops.poll(&last, at_ns));
                counts.extend(drops.closed(session.take_closed(), left.is_zero()));
            }
            add(&mut counted, &counts);
            if left.is_zero() {
                break;
            }
        }
        session.detach()?;
        add(&mut counted, &session.take_counts()?);
        let lost = session.losses().context("cannot read what was lost")?.map;
        let tier = if polls {
            Some(Tier::Poll)
        } else {
            session
                .hooks()
                .first()
                .and_then(|hook| hook.attached.as_ref())
                .map(|(tier, _)| *tier)
        };
        Ok(Self::compare(&first, &last, &gone, &counted, tier, lost))
    }

    fn compare(
        first: &Poll,
        last: &Poll,
        gone: &BTreeSet<u32>,
        counted: &HashMap<u32, Numbers>,
        tier: Option<Tier>,
        lost: u64,
    ) -> Self {
        let before: HashMap<u32, TcpExt> = first
            .namespaces
            .iter()
            .filter_map(|namespace| Some((namespace.inode, namespace.counters?)))
            .collect();
        let counted_in = |netns: u32| counted.get(&netns).copied().unwrap_or_default();
        let mut compared: BTreeMap<u32, Compared> = BTreeMap::new();
        for namespace in &last.namespaces {
            let Some(after) = namespace.counters else {
                continue;
            };
            // One that is new has counted from nothing.
            let before = before.get(&namespace.inode);
            let grown = |after: u64, before: Option<u64>| after.saturating_sub(before.unwrap_or(0));
            compared.insert(
                namespace.inode,
                Compared {
                    netns: namespace.inode,
                    counted: counted_in(namespace.inode),
                    kernel: Some(Numbers {
                        overflows: grown(
                            after.listen_overflows,
                            before.map(|before| before.listen_overflows),
                        ),
                        drops: grown(after.listen_drops, before.map(|before| before.listen_drops)),
                    }),
                },
            );
        }
        // What those had counted by their end, nobody knows.
        for &netns in gone {
            let compared = compared.entry(netns).or_insert_with(|| Compared {
                netns,
                counted: counted_in(netns),
                kernel: None,
            });
            compared.kernel = None;
        }
        let namespaces: Vec<Compared> = compared.into_values().collect();
        Self {
            schema: "turnaway/1",
            kind: "audit",
            agrees: lost == 0 && namespaces.iter().all(Compared::agrees),
            tier,
            lost,
            namespaces,
        }
    }

    /// For people: a line for each namespace that dropped anything.
    #[must_use]
    pub fn text(&self) -> String {
        let tier = self.tier.map_or("not at all", Tier::name);
        // Writing to a string cannot fail.
        let mut out = format!("What listeners drop is seen by: {tier}\n");
        let _ = writeln!(
            out,
            "     NETNS       OVERFLOWS      KERNEL       DROPS      KERNEL"
        );
        for one in &self.namespaces {
            let mark = match one.kernel {
                None => "??",
                Some(_) if one.agrees() => "ok",
                Some(_) => "--",
            };
            let kernel = |number: fn(Numbers) -> u64| {
                let known = one.kernel.map(|kernel| number(kernel).to_string());
                known.unwrap_or_else(|| "?".to_owned())
            };
            let _ = writeln!(
                out,
                "[{mark}] {:<11} {:>9} {:>11} {:>11} {:>11}",
                one.netns,
                one.counted.overflows,
                kernel(|kernel| kernel.overflows),
                one.counted.drops,
                kernel(|kernel| kernel.drops)
            );
        }
        if self.lost > 0 {
            let _ = writeln!(
                out,
                "[--] {} failures found no room to be counted",
                self.lost
            );
        }
        let _ = writeln!(
            out,
            "{}",
            if self.agrees {
                "turnaway and the kernel agree."
            } else {
                "turnaway and the kernel differ: see the lines marked [--]."
            }
        );
        out
    }
}

impl Compared {
    /// As far as it is known.
    fn agrees(&self) -> bool {
        self.kernel.is_none_or(|kernel| kernel == self.counted)
    }
}

/// Namespaces of an older poll that are gone in a newer one. Their numbers may be those of
/// others by then.
fn gone_since(older: &Poll, newer: &Poll) -> Vec<u32> {
    let there: HashMap<u32, Option<u64>> = newer
        .namespaces
        .iter()
        .map(|one| (one.inode, one.cookie))
        .collect();
    older
        .namespaces
        .iter()
        .filter(|one| there.get(&one.inode) != Some(&one.cookie))
        .map(|one| one.inode)
        .collect()
}

fn add(counted: &mut HashMap<u32, Numbers>, counts: &[Count]) {
    for count in counts {
        let numbers = counted
            .entry(count.listener.netns.unwrap_or(0))
            .or_default();
        match count.key.reason {
            Reason::QueueSynOverflow
            | Reason::QueueAckOverflow
            | Reason::QueueRstOverflow
            | Reason::QueueOverflow => {
                numbers.overflows += count.count;
                numbers.drops += count.count;
            }
            Reason::QueueSynFlood | Reason::QueueDropped => numbers.drops += count.count,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::Namespace;

    fn poll(netns: u32, overflows: u64, drops: u64) -> Poll {
        Poll {
            namespaces: vec![Namespace {
                inode: netns,
                counters: Some(TcpExt {
                    listen_overflows: overflows,
                    listen_drops: drops,
                    cookies: 0,
                    request_drops: 0,
                }),
                complete: true,
                ..Namespace::default()
            }],
            ..Poll::default()
        }
    }

    fn numbers(overflows: u64, drops: u64) -> Numbers {
        Numbers { overflows, drops }
    }

    #[test]
    fn a_difference_is_found_and_said() {
        let counted = HashMap::from([(7, numbers(3, 4))]);
        let audit = |last: &Poll, lost| {
            Audit::compare(
                &poll(7, 10, 20),
                last,
                &BTreeSet::new(),
                &counted,
                Some(Tier::Kprobe),
                lost,
            )
        };
        let good = audit(&poll(7, 13, 24), 0);
        assert!(good.agrees && good.text().contains("agree."), "{good:?}");
        let bad = audit(&poll(7, 13, 25), 0);
        assert!(!bad.agrees && bad.text().contains("[--] 7 "), "{bad:?}");
        assert!(!audit(&poll(7, 13, 24), 1).agrees);
    }

    #[test]
    fn what_a_namespace_that_is_gone_had_counted_is_not_known() {
        let (first, last) = (poll(8, 5, 5), poll(7, 0, 0));
        let gone: BTreeSet<u32> = gone_since(&first, &last).into_iter().collect();
        assert_eq!(gone, BTreeSet::from([8]));
        let counted = HashMap::from([(8, numbers(5, 5))]);
        let audit = Audit::compare(&first, &last, &gone, &counted, None, 0);
        assert_eq!(audit.namespaces.len(), 2);
        assert_eq!(audit.namespaces[1].kernel, None);
        assert!(audit.agrees && audit.text().contains("[??] 8 "));

        // Its number is another's now.
        let mut reused = poll(8, 0, 0);
        reused.namespaces[0].cookie = Some(1);
        assert_eq!(gone_since(&first, &reused), [8]);
        let audit = Audit::compare(&first, &reused, &gone, &counted, None, 0);
        assert_eq!(audit.namespaces[0].kernel, None);
    }
}
