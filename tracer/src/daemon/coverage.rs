//! What a silence means: reasons that were watched and saw nothing, and those that cannot be watched. Pure.

use std::collections::BTreeMap;

use turnaway_common::Reason;

use crate::{
    event::Tier,
    kernel::{attach::HookStatus, plan::HookName, session::Losses},
    record::Blind,
};

/// What was watched at some moment, and what had been lost by then.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    hooks: Vec<(HookName, Option<Tier>)>,
    losses: Losses,
}

impl Watch {
    pub(super) fn new(hooks: &[HookStatus], losses: Losses) -> Self {
        Self {
            hooks: hooks
                .iter()
                .map(|status| (status.hook, tier(status)))
                .collect(),
            losses,
        }
    }
}

fn tier(status: &HookStatus) -> Option<Tier> {
    status.attached.as_ref().map(|(tier, _)| *tier)
}

/// The reasons that can be told apart from others only together, where queues are polled: the kernel counts
/// them in few numbers.
fn hidden_by_a_poll(reason: Reason) -> bool {
    HookName::ListenQueue.reasons().contains(&reason)
}

/// `queue.overflow` is any of these three.
const OVERFLOWS: [Reason; 3] = [
    Reason::QueueSynOverflow,
    Reason::QueueAckOverflow,
    Reason::QueueRstOverflow,
];

/// The reasons that were watched from `before` to `now` without loss, of which nothing was counted.
pub(super) fn ruled_out(
    before: &Watch,
    now: &Watch,
    counts: &BTreeMap<&'static str, u64>,
) -> Vec<&'static str> {
    // What found the map full is counted in no reason; runs that the kernel left out may be of any; and
    // where it does not tell, there may have been some.
    let is_lossless = now.losses.map == before.losses.map
        && now.losses.missed.is_some()
        && now.losses.missed == before.losses.missed;
    if !is_lossless {
        return Vec::new();
    }
    let is_counted = |reason: &Reason| counts.contains_key(reason.code());
    let tier_of = |watch: &Watch, name: HookName| {
        let hook = watch.hooks.iter().find(|(hook, _)| *hook == name);
        hook.and_then(|(_, tier)| *tier)
    };
    let is_watched = |reason: &Reason| match hooks(*reason).as_slice() {
        // Read from /proc each second, with no hook.
        [] => *reason == Reason::FdTablePressure,
        hooks => hooks.iter().all(|name| {
            tier_of(before, *name).is_some() && tier_of(before, *name) == tier_of(now, *name)
        }),
    };
    let is_polled = tier_of(now, HookName::ListenQueue) == Some(Tier::Poll);
    let polled = HookName::ListenQueue.reasons();
    Reason::ALL
        .iter()
        .filter(|reason| is_watched(reason) && !is_counted(reason))
        .filter(|reason| {
            !(is_polled && hidden_by_a_poll(**reason) && polled.iter().any(is_counted))
        })
        .filter(|reason| **reason != Reason::QueueOverflow || !OVERFLOWS.iter().any(is_counted))
        .map(|reason| reason.code())
        .collect()
}

/// The hooks that a reason needs.
fn hooks(reason: Reason) -> Vec<HookName> {
    let all = HookName::ALL.iter().copied();
    all.filter(|hook| hook.reasons().contains(&reason))
        .collect()
}

/// The reasons that cannot be watched, or not of all programs.
pub(super) fn blind(hooks: &[HookStatus]) -> Vec<Blind> {
    let missing = |reason: &Reason| {
        let mut missing = hooks
            .iter()
            .filter(|status| tier(status).is_none() && status.hook.reasons().contains(reason));
        missing.next()
    };
    Reason::ALL
        .iter()
        .filter_map(|reason| Some((reason, missing(reason)?)))
        .map(|(reason, status)| {
            let refused = status.refused.first();
            let why = refused.map_or(String::new(), |(_, why)| format!(": {why}"));
            Blind {
                reason: reason.code(),
                why: format!(
                    "the hook {} is not in place, which sees {}{why}",
                    status.hook.name(),
                    status.hook.unseen()
                ),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(hook: HookName, tier: Option<Tier>) -> HookStatus {
        HookStatus {
            hook,
            attached: tier.map(|tier| (tier, Vec::new())),
            refused: vec![(Tier::Trampoline, "EPERM".to_owned())],
        }
    }

    fn all(tier: Tier) -> Vec<HookStatus> {
        let all = HookName::ALL.iter();
        all.map(|hook| status(*hook, Some(tier))).collect()
    }

    fn watch(hooks: &[HookStatus], map: u64, missed: Option<u64>) -> Watch {
        let losses = Losses {
            ring: 0,
            map,
            missed,
        };
        Watch::new(hooks, losses)
    }

    #[test]
    fn what_is_watched_and_sees_nothing_is_ruled_out() {
        let hooks = all(Tier::Trampoline);
        let quiet = watch(&hooks, 1, Some(2));
        let out = ruled_out(&quiet, &quiet, &BTreeMap::new());
        // Whether every table of connections could be read is not known here.
        let expected: Vec<_> = Reason::ALL
            .iter()
            .filter(|reason| **reason != Reason::NetConntrackFull)
            .map(|reason| reason.code())
            .collect();
        assert_eq!(out, expected);
        assert_eq!(blind(&hooks), []);

        let counts = BTreeMap::from([("accept.emfile", 1), ("queue.ack_overflow", 2)]);
        let out = ruled_out(&quiet, &quiet, &counts);
        for counted in ["accept.emfile", "queue.ack_overflow", "queue.overflow"] {
            assert!(!out.contains(&counted), "{counted}");
        }
        assert!(out.contains(&"accept.enfile") && out.contains(&"queue.syn_overflow"));
    }

    #[test]
    fn what_was_lost_may_have_been_anything() {
        let hooks = all(Tier::Trampoline);
        let before = watch(&hooks, 1, Some(2));
        for after in [
            watch(&hooks, 2, Some(2)),
            watch(&hooks, 1, Some(3)),
            watch(&hooks, 1, None),
        ] {
            assert_eq!(
                ruled_out(&before, &after, &BTreeMap::new()),
                Vec::<&str>::new()
            );
        }
    }

    #[test]
    fn what_no_hook_watches_is_told_and_never_ruled_out() {
        let whole = all(Tier::Tracepoint);
        let mut hooks = whole.clone();
        hooks[1] = status(HookName::IoUringAccept, None);
        let (whole, part) = (watch(&whole, 0, Some(0)), watch(&hooks, 0, Some(0)));
        for (before, now) in [(&whole, &part), (&part, &whole), (&part, &part)] {
            let out = ruled_out(before, now, &BTreeMap::new());
            assert!(
                !out.contains(&"accept.emfile") && out.contains(&"connect.refused"),
                "{out:?}"
            );
        }
        let blind = blind(&hooks);
        let reasons: Vec<_> = blind.iter().map(|blind| blind.reason).collect();
        let expected: Vec<_> = HookName::IoUringAccept
            .reasons()
            .iter()
            .map(|one| one.code())
            .collect();
        assert_eq!(reasons, expected);
        assert!(
            blind[0].why.contains("io_uring") && blind[0].why.contains("EPERM"),
            "{}",
            blind[0].why
        );
        // Not the whole interval.
        let none = watch(&[], 0, Some(0));
        assert_eq!(
            ruled_out(&none, &whole, &BTreeMap::new()),
            ["fd.table_pressure"]
        );
    }

    #[test]
    fn a_poll_tells_some_reasons_together_only() {
        let mut hooks = all(Tier::Tracepoint);
        hooks[2] = status(HookName::ListenQueue, Some(Tier::Poll));
        let watch = watch(&hooks, 0, Some(0));
        let out = ruled_out(&watch, &watch, &BTreeMap::from([("queue.dropped", 1)]));
        assert!(
            !out.contains(&"queue.syn_overflow") && !out.contains(&"queue.overflow"),
            "{out:?}"
        );
        let out = ruled_out(&watch, &watch, &BTreeMap::new());
        assert!(out.contains(&"queue.syn_overflow"), "{out:?}");
    }
}
