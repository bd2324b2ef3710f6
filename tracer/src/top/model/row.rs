//! One row: a listener, or what fails without one.

use std::sync::Arc;

use super::ring::{Ring, SECONDS};
use crate::{
    observation::Code,
    top::sample::{ListenerSample, RowId},
};

/// Waits are told of the last half to whole minute.
const WINDOW_NS: u64 = 30_000_000_000;

/// Upper bounds and counts, nanoseconds.
type Waits = Vec<(u64, u64)>;

/// A row, as it was last seen.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub id: RowId,
    /// Name, safe to show.
    pub name: Arc<str>,
    /// Port.
    pub port: Option<u32>,
    /// Socket cookie.
    pub cookie: u64,
    /// Network namespace.
    pub netns: Option<u32>,
    /// Whose.
    pub owner: Option<Owner>,
    /// All processes were looked at, and none holds it.
    pub orphan: bool,
    /// Process ids of all that hold it.
    pub owners: Vec<u32>,
    /// Depth and limit of its accept queue.
    pub queue: Option<(u32, u32)>,
    /// Accepted connections since counting began.
    pub accepted: Option<u64>,
    /// Accepted connections a second, in the last interval.
    pub accept_rate: Option<f64>,
    /// When the last was accepted, nanoseconds.
    pub last_accept_ns: Option<u64>,
    /// Nobody has accepted for so long, nanoseconds.
    pub stalled_ns: Option<u64>,
    /// Half of the connections waited for less, and 99 of 100: nanoseconds, of the last minute.
    pub waits: Option<(u64, u64)>,
    /// Failures since counting began.
    pub failures: u64,
    /// Failures a second, in the last interval.
    pub failure_rate: f64,
    /// Failures of the last minute.
    pub failures_60s: u64,
    /// When the last was, nanoseconds.
    pub last_failure_ns: Option<u64>,
    /// Only the sum over several listeners is exact.
    pub approximate: bool,
    /// The same by reason, the most in the last minute first.
    pub reasons: Vec<ByReason>,
    /// Its listener is closed.
    pub closed: bool,
    /// Accepted connections by second.
    pub accepts_by_second: Ring,
    /// Failures by second.
    pub failures_by_second: Ring,
    /// Connections that waited, by second.
    pub depth_by_second: Ring,
    /// Number of the sample that it was in last.
    pub(super) generation: u64,
    now: Waits,
    middle: Waits,
    base: Waits,
    turned_ns: u64,
}

/// Whose a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// Its name, safe to show; empty where that is not known.
    pub comm: Arc<str>,
    /// Where it runs, safe to show; empty where that is not known.
    pub place: Arc<str>,
    /// Open descriptors.
    pub used: Option<u64>,
    /// The most there may be.
    pub limit: Option<u64>,
    /// How many others hold it, too.
    pub others: usize,
}

/// Failures of a row by reason.
#[derive(Clone, Debug)]
pub struct ByReason {
    /// Why.
    pub reason: Code,
    /// Name of the errno of the last.
    pub errno: Option<Arc<str>>,
    /// Since counting began.
    pub count: u64,
    /// When the last was, nanoseconds.
    pub last_ns: u64,
    /// By second.
    pub by_second: Ring,
}

impl Row {
    pub(super) fn new(id: RowId, name: &Arc<str>) -> Self {
        Self {
            id,
            name: Arc::clone(name),
            port: None,
            cookie: 0,
            netns: None,
            owner: None,
            orphan: false,
            owners: Vec::new(),
            queue: None,
            accepted: None,
            accept_rate: None,
            last_accept_ns: None,
            stalled_ns: None,
            waits: None,
            failures: 0,
            failure_rate: 0.0,
            failures_60s: 0,
            last_failure_ns: None,
            approximate: false,
            reasons: Vec::new(),
            closed: false,
            accepts_by_second: Ring::default(),
            failures_by_second: Ring::default(),
            depth_by_second: Ring::default(),
            generation: 0,
            now: Waits::new(),
            middle: Waits::new(),
            base: Waits::new(),
            turned_ns: 0,
        }
    }

    /// Takes in what the listener is now; `seconds` have passed, `None` for a first look at sums of before.
    pub(super) fn take(&mut self, one: &ListenerSample, at_ns: u64, seconds: Option<f64>) {
        let second = at_ns / 1_000_000_000;
        let before = match seconds {
            Some(_) => self.accepted.unwrap_or(0),
            None => one.accepted.unwrap_or(0),
        };
        self.accept_rate = one.accepted.map(|now| {
            // Another socket may have got the inode's number, and begins anew.
            let grown = if now < before { now } else { now - before };
            self.accepts_by_second.add(second, grown);
            rate(grown, seconds)
        });
        self.name = Arc::clone(&one.name);
        self.port = one.port;
        self.cookie = one.cookie;
        self.netns = Some(one.netns);
        self.queue = Some((one.depth, one.limit));
        self.accepted = one.accepted;
        self.last_accept_ns = one.last_accept_ns;
        self.stalled_ns = one.stalled_ns;
        self.closed = false;
        self.orphan = one.orphan;
        self.depth_by_second.highest(second, one.depth);
        self.wait(&one.waits, at_ns);
    }

    fn wait(&mut self, waits: &Waits, at_ns: u64) {
        if at_ns.saturating_sub(self.turned_ns) >= WINDOW_NS {
            self.turned_ns = at_ns;
            self.base = std::mem::replace(&mut self.middle, self.now.clone());
        }
        if self.now != *waits {
            self.now.clone_from(waits);
        }
        self.waits = percentiles(&self.now, &self.base);
    }

    /// Takes in that so many more failed.
    pub(super) fn fail(
        &mut self,
        reason: &Code,
        errno: Option<&Arc<str>>,
        grown: u64,
        last_ns: u64,
        second: u64,
    ) {
        self.failures = self.failures.saturating_add(grown);
        self.failures_by_second.add(second, grown);
        self.last_failure_ns = self.last_failure_ns.max(Some(last_ns));
        let known = self.reasons.iter().position(|one| one.reason == *reason);
        let at = known.unwrap_or_else(|| {
            self.reasons.push(ByReason {
                reason: reason.clone(),
                errno: None,
                count: 0,
                last_ns: 0,
                by_second: Ring::default(),
            });
            self.reasons.len() - 1
        });
        let one = &mut self.reasons[at];
        one.count = one.count.saturating_add(grown);
        one.last_ns = one.last_ns.max(last_ns);
        one.by_second.add(second, grown);
        if errno.is_some() {
            one.errno = errno.cloned();
        }
    }

    /// How full the accept queue is, in thousandths.
    #[must_use]
    pub fn fullness(&self) -> Option<u64> {
        let (depth, limit) = self.queue?;
        Some(u64::from(depth) * 1000 / u64::from(limit).max(1))
    }

    /// How full its owner's table of descriptors is, in thousandths.
    #[must_use]
    pub fn descriptors(&self) -> Option<u64> {
        let owner = self.owner.as_ref()?;
        Some(owner.used?.saturating_mul(1000) / owner.limit?.max(1))
    }

    /// The reason of most failures of the last minute: a cause before what follows from it.
    #[must_use]
    pub fn main_reason(&self, second: u64) -> Option<&ByReason> {
        let lately = |one: &&ByReason| one.by_second.sum(second, SECONDS) > 0;
        let is_state = |one: &&ByReason| one.reason.lasts();
        let mut causes = self
            .reasons
            .iter()
            .filter(lately)
            .filter(|one| !is_state(one));
        causes.next().or_else(|| self.reasons.iter().find(lately))
    }
}

/// A number a second.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
pub(super) fn rate(grown: u64, seconds: Option<f64>) -> f64 {
    match seconds {
        Some(seconds) if seconds > 0.0 => grown as f64 / seconds,
        _ => 0.0,
    }
}

/// The bounds that half and 99 % of what came since `base` lie below.
fn percentiles(now: &Waits, base: &Waits) -> Option<(u64, u64)> {
    let had = |bound: u64| {
        let known = base.iter().find(|(other, _)| *other == bound);
        known.map_or(0, |(_, count)| *count)
    };
    // A histogram that has less than before is another socket's.
    let grown = |bound: u64, count: u64| count.checked_sub(had(bound)).unwrap_or(count);
    let all: u64 = now.iter().map(|(bound, count)| grown(*bound, *count)).sum();
    if all == 0 {
        return None;
    }
    let below = |percent: u64| {
        let mut seen = 0;
        for (bound, count) in now {
            seen += grown(*bound, *count);
            if u128::from(seen) * 100 >= u128::from(percent) * u128::from(all) {
                return *bound;
            }
        }
        0
    };
    Some((below(50), below(99)))
}

#[cfg(test)]
mod tests {
    use super::percentiles;

    #[test]
    fn waits_are_those_of_the_window() {
        let now = vec![(4, 100), (8, 40), (64, 2)];
        assert_eq!(percentiles(&now, &Vec::new()), Some((4, 64)));
        assert_eq!(percentiles(&now, &vec![(4, 100), (64, 2)]), Some((8, 8)));
        assert_eq!(percentiles(&now, &now.clone()), None);
        assert_eq!(percentiles(&Vec::new(), &now), None);
    }
}
