//! Comparing what turnaway said with what happened.

use std::fmt::Debug;

use super::env::is_guest;
use crate::records::{Key, Peer, Records};
use crate::sys::{clock_ns, ticks_per_second};
use crate::truth::{Failures, Listener, Process, Tally};

/// /proc has the start of a process in ticks of 10 ms, and the wall clock may be adjusted.
const START_TOLERANCE_NS: i128 = 50_000_000;
/// Between the clocks of this process and of the kernel's records.
const TIME_TOLERANCE_NS: i128 = 100_000_000;

/// How long after a scenario its last state may be looked at, at most.
const LOOK_NS: i128 = 60_000_000_000;

/// So many failures of a kind are shown one by one each second, if there are as many.
const SHOWN_AT_LEAST: u64 = 10;

/// What of a run a tally is compared with.
pub struct Scope<'a> {
    /// The tier that was asked for.
    pub tier: &'a str,
    /// Whether nothing else was traced.
    pub alone: bool,
    /// How the reasons begin that it is about; others may come beside it.
    pub about: &'a [&'a str],
    /// When the failures happened, in nanoseconds of the wall clock.
    pub between: (i128, i128),
}

/// What a program does to connections, and no call that fails.
const SHED: &str = "accept.shed";

/// All differences.
#[must_use]
pub fn differences(tally: &Tally, records: &Records, scope: &Scope<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut events_of = vec![0_u32; tally.failures.len()];
    let ours = |key: &&Key| (scope.alone || belongs(tally, key)) && is_about(scope, &key.reason);
    for (kind, keys) in [
        ("total", &records.summary.totals),
        ("count", &records.counts),
        ("event", &records.events),
    ] {
        for key in keys.iter().filter(ours) {
            let Some(index) = tally
                .failures
                .iter()
                .position(|truth| is_of(tally, truth, key))
            else {
                found.push(format!("a {kind} of what did not happen: {key:?}"));
                continue;
            };
            let mut truth = tally.failures[index].clone();
            if kind == "event" {
                // Only the first few are shown, which are all of those that take.
                if truth.takes {
                    truth.listener.queue = truth
                        .listener
                        .queue
                        .map(|queue| queue.saturating_sub(events_of[index]));
                }
                events_of[index] += 1;
            }
            fields(&mut found, kind, &truth, key, scope);
        }
    }
    listening(&mut found, tally, records, scope);
    for truth in &tally.failures {
        let of_truth = |keys: &[Key]| -> Vec<u64> {
            keys.iter()
                .filter(|key| is_of(tally, truth, key))
                .map(|key| key.count.unwrap_or(1))
                .collect()
        };
        let what = name(truth);
        let totals = of_truth(&records.summary.totals);
        if totals != [truth.count] {
            // Whoever it was given to instead.
            let like: Vec<_> = records
                .summary
                .totals
                .iter()
                .filter(|key| truth.target.is_some() && is_at(truth, key) && !ours(key))
                .map(|key| (key.process.pid, &key.reason, key.count))
                .collect();
            found.push(format!(
                "{what}: {} failures, totals {totals:?}, of others there {like:?}",
                truth.count
            ));
        }
        let counted: u64 = of_truth(&records.counts).iter().sum();
        if counted != truth.count {
            found.push(format!(
                "{what}: {} failures, counts add up to {counted}",
                truth.count
            ));
        }
        let shown = of_truth(&records.events).len() as u64;
        let wrong = match truth.shown {
            Some(exactly) => shown != exactly,
            None => shown < truth.count.min(SHOWN_AT_LEAST) || shown > truth.count,
        };
        if wrong {
            found.push(format!("{what}: {} failures, {shown} events", truth.count));
        }
    }
    found
}

/// What went well at the listeners that are to be looked at.
fn listening(found: &mut Vec<String>, tally: &Tally, records: &Records, scope: &Scope<'_>) {
    for truth in &tally.listening {
        let told = records
            .summary
            .listeners
            .iter()
            .find(|one| one.listener.inode == Some(truth.inode));
        let mut compare = Compare {
            found,
            what: format!("listener {}", truth.inode),
        };
        // Queues that are polled do not tell whose the cookies were.
        let cookies = (scope.tier != "tracepoint").then_some(truth.cookies);
        let Some(told) = told else {
            // Nothing of it that a hook could see.
            let nothing = truth.accepted + cookies.unwrap_or(0) == 0;
            compare.holds("it is in the summary", nothing, &truth);
            continue;
        };
        compare.same("accepted", &Some(truth.accepted), &told.accepted);
        compare.known("shed", truth.shed.as_ref(), told.shed.as_ref());
        compare.same("cookies", &cookies, &told.cookies);
        if let Some((least, longer, shorter)) = truth.waited {
            let slots = || told.waited.iter().flat_map(|waited| &waited.histogram);
            // A slot goes up to its bound: one that ends below it holds none that waited so long.
            let below: u64 = slots()
                .filter(|slot| slot.below_ns <= least)
                .map(|slot| slot.count)
                .sum();
            let all: u64 = slots().map(|slot| slot.count).sum();
            compare.same("waited shorter", &shorter, &below);
            compare.same("waited longer", &longer, &(all - below));
            let longest = told.waited.as_ref().map(|waited| waited.max_ns);
            compare.holds("the longest", longest >= Some(least), &longest);
        }
    }
}

/// Whether a reason is looked at. Most workloads throw away what they accept.
fn is_about(scope: &Scope<'_>, reason: &str) -> bool {
    scope
        .about
        .iter()
        .any(|about| reason.starts_with(about) && (reason != SHED || *about == SHED))
}

/// Whether a record is about a process of the workload's or, where it names none, about one of its
/// listeners.
fn belongs(tally: &Tally, key: &Key) -> bool {
    match key.process.pid {
        0 => tally
            .failures
            .iter()
            .any(|truth| truth.listener.inode == key.listener.inode),
        pid => tally.pids.contains(&pid),
    }
}

/// Whether the kernel left runs of a hook out that may be (docs/limitations.md): kprobes that would
/// interrupt others. What is not exact then is said to be so.
#[must_use]
pub fn left_out(records: &Records, tier: &str) -> bool {
    tier == "kprobe" && records.summary.lost.missed.is_some_and(|missed| missed > 0)
}

/// What was lost, where nothing may be.
#[must_use]
pub fn losses(records: &Records, tier: &str) -> Option<String> {
    let lost = records.summary.lost;
    let other = records.summary.other;
    let missed = if left_out(records, tier) {
        0
    } else {
        lost.missed.unwrap_or(0)
    };
    let by: Vec<_> = records
        .summary
        .hooks
        .iter()
        .filter(|hook| hook.missed > Some(0))
        .map(|hook| (&hook.name, hook.missed))
        .collect();
    (lost.ring + lost.map + missed + lost.output + other > 0)
        .then(|| format!("{lost:?}, other: {other}, missed by {by:?}"))
}

fn name(truth: &Failures) -> String {
    format!(
        "{} {} by {} of pid {} on {:?} {}",
        truth.reason(),
        truth.errno,
        truth.call,
        truth.process.pid,
        truth.listener.inode,
        truth.target.as_deref().unwrap_or_default(),
    )
}

/// Whether a record is of these failures.
fn is_of(tally: &Tally, truth: &Failures, key: &Key) -> bool {
    // Who it was may not be known any more.
    let process = truth.process.pid == key.process.pid
        || truth.process.pid == 0 && tally.pids.contains(&key.process.pid);
    process
        && truth.errno == key.errno
        && truth.level == key.level
        && truth.reason() == key.reason
        && truth.call == key.call()
        && truth.listener.inode == key.listener.inode
        && is_at(truth, key)
}

fn is_at(truth: &Failures, key: &Key) -> bool {
    truth.target.is_none() || truth.target == key.peer.as_ref().map(Peer::name)
}

/// Compares the fields that are known.
fn fields(found: &mut Vec<String>, kind: &str, truth: &Failures, key: &Key, scope: &Scope<'_>) {
    let mut compare = Compare {
        found,
        what: format!("{kind} of {}", name(truth)),
    };
    // Without a hook, queues are asked for.
    let is_polled = truth.holders.is_some()
        && (scope.tier == "tracepoint" || truth.reason() == "queue.stalled");
    let tier = if is_polled { "poll" } else { scope.tier };
    let tier = truth.tier.as_deref().unwrap_or(tier);
    if truth.target.is_some() {
        let got = key.server.as_ref().map(|server| server.pid);
        // An emulated machine is too slow for the search, at times: unknown is absent.
        if got.is_some() || !is_guest() {
            compare.same("server", &truth.server, &got);
        }
    }
    compare.same("tier", &tier, &key.tier.as_str());
    if let Some(holders) = &truth.holders
        && truth.process.pid != 0
    {
        let got = key.holders.iter().flatten();
        let got: Vec<u32> = got.map(|holder| holder.pid).collect();
        compare.same("holders", holders, &got);
    }
    let peer = key.peer.as_ref();
    let peer = peer.map(Peer::name);
    if kind == "event" && !truth.peers.is_empty() {
        compare.holds(
            "peer",
            peer.as_ref().is_some_and(|peer| truth.peers.contains(peer)),
            &(&peer, &truth.peers),
        );
    }
    if let Some((least, most)) = truth.waited {
        let got = key.waited_ns.or(key.waited_max_ns);
        compare.holds(
            "waited",
            got.is_some_and(|got| (least..=most).contains(&got)),
            &(got, least, most),
        );
    }
    compare.same("conntrack", &truth.conntrack, &key.conntrack);
    if truth.conntrack.is_some() {
        compare.same("approximate", &false, &key.approximate);
    }
    process(&mut compare, &truth.process, key);
    listener(&mut compare, &truth.listener, key);
    // The system's limit is no process's: what is counted does not say it.
    if kind == "event" || truth.reason() != "fd.table_pressure" {
        compare.known("fd.limit", truth.limit.as_ref(), key.fd.limit.as_ref());
    }
    compare.known(
        "fd.limit_copied",
        truth.limit_copied.as_ref(),
        key.fd.limit_copied.as_ref(),
    );
    if kind == "event" {
        // Before 6.2 they are counted one by one: an emulated machine is too slow, at times.
        if key.fd.used.is_some() || !is_guest() {
            compare.known("fd.used", truth.used.as_ref(), key.fd.used.as_ref());
        }
    }
    let times = if kind == "event" {
        [key.time, key.time]
    } else {
        [key.first, key.last]
    };
    let times = times.map(|time| time.map_or(0, jiff::Timestamp::as_nanosecond));
    if key.tier == "poll" {
        // Between two polls; what a single look saw, and the end of something, are seen after.
        let ends = key.state.as_deref() == Some("ended");
        let late = if kind == "event" { LOOK_NS } else { 0 };
        compare.holds(
            "a poll before its end, and one after its begin",
            (ends || times[0] <= scope.between.1 + late) && times[1] >= scope.between.0,
            &(times, scope.between),
        );
        return;
    }
    compare.holds(
        "first <= last, while it happened",
        times[0] <= times[1]
            && times[0] >= scope.between.0 - TIME_TOLERANCE_NS
            && times[1] <= scope.between.1 + TIME_TOLERANCE_NS,
        &(times, scope.between),
    );
}

fn process(compare: &mut Compare<'_>, truth: &Process, key: &Key) {
    let got = &key.process;
    if truth.pid == 0 {
        // It is known to be nobody's.
        return;
    }
    compare.same("ns_pid", &truth.ns_pid, &got.ns_pid);
    compare.known("tid", truth.tid.as_ref(), got.tid.as_ref());
    compare.known("comm", Some(&truth.comm), got.comm.as_ref());
    compare.holds(
        "thread only where it differs",
        got.thread != got.comm,
        &got.thread,
    );
    let thread = got.thread.as_ref().or(got.comm.as_ref());
    compare.known("thread", truth.thread.as_ref(), thread);
    compare.same("uid", &Some(truth.uid), &got.uid);
    compare.known(
        "parent",
        truth.parent.as_ref(),
        got.parent.as_ref().map(|parent| &parent.pid),
    );
    compare.known("exe", truth.exe.as_ref(), got.exe.as_ref());
    compare.known("cgroup", truth.cgroup.as_ref(), got.cgroup.as_ref());
    compare.known(
        "cgroup_id",
        truth.cgroup_id.as_ref(),
        got.cgroup_id.as_ref(),
    );
    compare.known("unit", truth.unit.as_ref(), got.unit.as_ref());
    let container = got.container.as_ref().map(|container| &container.id);
    compare.known("container", truth.container.as_ref(), container);

    let boot = clock_ns(libc::CLOCK_REALTIME) - clock_ns(libc::CLOCK_BOOTTIME);
    let start =
        boot + i128::from(truth.start_ticks) * 1_000_000_000 / i128::from(ticks_per_second());
    let got = got.start_time.map(jiff::Timestamp::as_nanosecond);
    compare.holds(
        "start_time",
        got.is_some_and(|got| (got - start).abs() <= START_TOLERANCE_NS),
        &(got, start),
    );
}

fn listener(compare: &mut Compare<'_>, truth: &Listener, key: &Key) {
    let got = &key.listener;
    compare.known("listener.fd", truth.fd.as_ref(), got.fd.as_ref());
    compare.known("family", truth.family.as_ref(), got.family.as_ref());
    compare.known("type", truth.kind.as_ref(), got.kind.as_ref());
    if truth.family.is_some() {
        compare.same("protocol", &truth.protocol, &got.protocol);
    }
    compare.known("address", truth.address.as_ref(), got.address.as_ref());
    compare.known("port", truth.port.as_ref(), got.port.as_ref());
    compare.known("path", truth.path.as_ref(), got.path.as_ref());
    compare.known("netns", truth.netns.as_ref(), got.netns.as_ref());
    compare.known("queue", truth.queue.as_ref(), got.queue.as_ref());
    compare.known("backlog", truth.backlog.as_ref(), got.backlog.as_ref());
}

struct Compare<'a> {
    found: &'a mut Vec<String>,
    what: String,
}

impl Compare<'_> {
    /// What is known of the truth must be in the record.
    fn known<T: PartialEq + Debug>(&mut self, field: &str, truth: Option<&T>, got: Option<&T>) {
        if truth.is_some() {
            self.same(field, &truth, &got);
        }
    }

    fn same<T: PartialEq + Debug>(&mut self, field: &str, truth: &T, got: &T) {
        if truth != got {
            self.found
                .push(format!("{}: {field} is {truth:?}, not {got:?}", self.what));
        }
    }

    fn holds(&mut self, field: &str, holds: bool, values: &dyn Debug) {
        if !holds {
            self.found
                .push(format!("{}: {field}: {values:?}", self.what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Summary;
    use crate::sys::{Call, Errno};

    fn scope() -> Scope<'static> {
        Scope {
            tier: "kprobe",
            alone: true,
            about: &["accept."],
            between: (0, i128::MAX / 2),
        }
    }

    fn key(pid: u32, count: Option<u64>) -> Key {
        let json = format!(
            r#"{{"reason":"accept.emfile","errno":"EMFILE","syscall":"accept4","tier":"kprobe",
            "process":{{"pid":{pid},"tid":{pid},"uid":0,"comm":"x"}},
            "time":"2026-01-01T00:00:00Z","first":"2026-01-01T00:00:00Z",
            "last":"2026-01-01T00:00:00Z"}}"#
        );
        let mut key: Key = serde_json::from_str(&json).unwrap();
        key.count = count;
        key.process.start_time = Some(jiff::Timestamp::now());
        key
    }

    fn tally(count: u64) -> Tally {
        let now = clock_ns(libc::CLOCK_BOOTTIME) * i128::from(ticks_per_second()) / 1_000_000_000;
        let process = Process {
            pid: 7,
            comm: "x".to_owned(),
            start_ticks: u64::try_from(now).unwrap(),
            ..Process::default()
        };
        let errno = Errno(libc::EMFILE);
        let listener = Listener::default();
        Tally {
            pids: vec![7],
            failures: vec![Failures::new(
                process,
                listener,
                Call::Accept4,
                errno,
                count,
            )],
            accepted: 0,
            ..Tally::default()
        }
    }

    fn records(total: u64) -> Records {
        Records {
            events: vec![key(7, None), key(7, None), key(7, None)],
            counts: vec![key(7, Some(2)), key(7, Some(1))],
            summary: Summary {
                totals: vec![key(7, Some(total))],
                ..Summary::default()
            },
        }
    }

    #[test]
    fn the_truth_is_found_to_be_true() {
        assert_eq!(differences(&tally(3), &records(3), &scope()), [""; 0]);
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let wrong = |records: &Records| differences(&tally(3), records, &scope());
        assert_eq!(wrong(&records(4)).len(), 1);
        assert_eq!(differences(&tally(2), &records(3), &scope()).len(), 3);
        assert_eq!(wrong(&Records::default()).len(), 3);

        let mut other = records(3);
        other.summary.totals.push(key(8, Some(1)));
        assert_eq!(wrong(&other).len(), 1);
        let shared = Scope {
            alone: false,
            ..scope()
        };
        assert!(differences(&tally(3), &other, &shared).is_empty());

        let mut fewer = records(3);
        fewer.events.pop();
        assert_eq!(wrong(&fewer).len(), 1);

        let mut named = records(3);
        named.events[0].process.comm = Some("y".to_owned());
        assert_eq!(wrong(&named).len(), 1);
    }
}
