//! What goes in comes out, whatever the order, the time and the restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{
    Engine, Now, What,
    tests::{count, process, seen, wall},
};
use crate::{
    observation::{Code, Kind, Observation},
    rules::{self, Rules},
};

const REASONS: [&str; 7] = [
    "accept.emfile",
    "queue.stalled",
    "queue.syn_overflow",
    "connect.refused",
    "listener.closed",
    "fd.pressure",
    "made.up",
];

/// One failure of any kind that there is, is enough.
const ALL: &str = r#"
defaults = false
[[rule]]
name = "Any"
reason = ["accept.*", "queue.*", "connect.*", "listener.*", "fd.*"]
"#;

#[derive(Clone, Debug)]
enum Step {
    See(Box<Observation>),
    Tick(u32),
    Restart,
    Interrupted,
}

fn observation() -> impl Strategy<Value = Observation> {
    let kinds = prop_oneof![
        6 => (0_u64..1_000_000).prop_map(Some),
        4 => Just(None),
    ];
    (
        0..REASONS.len(),
        kinds,
        0_u8..4,
        0_u64..10_000_000,
        1_u32..12,
        0_u64..6,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(reason, counted, state, ms, pid, inode, named, served)| {
            let kind = match (counted, state) {
                (Some(failures), _) => count(failures, ms),
                (None, 0) => Kind::Exemplar,
                (None, 1) => Kind::Began,
                (None, 2) => Kind::Lasting,
                (None, _) => Kind::Ended,
            };
            let mut seen = seen(REASONS[reason], kind, ms, process("web", pid), inode);
            if !named {
                seen.process = None;
            }
            if served {
                seen.server = Some(crate::observation::Server {
                    pid: pid + 1,
                    comm: None,
                });
            }
            if pid % 3 == 0
                && let Some(process) = &mut seen.process
            {
                process.unit = None;
            }
            seen
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => observation().prop_map(|seen| Step::See(Box::new(seen))),
        5 => (0_u32..100_000).prop_map(Step::Tick),
        1 => Just(Step::Restart),
        1 => Just(Step::Interrupted),
    ];
    proptest::collection::vec(step, 1..150)
}

proptest! {
    #[test]
    fn totals_in_are_totals_out(steps in steps()) {
        let mut engine = Engine::new(Rules::default());
        let mut expected: BTreeMap<Code, u64> = BTreeMap::new();
        let mut at = 0_u64;
        for step in steps {
            match step {
                Step::See(seen) => {
                    if seen.count() > 0 {
                        *expected.entry(seen.reason.clone()).or_default() += seen.count();
                    }
                    engine.observe(&seen);
                }
                Step::Tick(ms) => {
                    at += u64::from(ms);
                    engine.tick(Now { wall: wall(at), steady: Duration::from_millis(at) });
                }
                Step::Restart => {
                    let text = serde_json::to_string(&engine.save()).unwrap();
                    let saved = serde_json::from_str(&text).unwrap();
                    engine = Engine::restore(Rules::default(), saved).unwrap();
                }
                Step::Interrupted => engine.interrupted(),
            }
            prop_assert_eq!(engine.totals().by_reason(), &expected);
            prop_assert_eq!(engine.totals().sum(), expected.values().sum::<u64>());
        }
    }

    #[test]
    fn every_failure_is_in_one_incident_once(steps in steps()) {
        // Whatever fails is told, so what is told must add up, however often it began and ended.
        let rules = rules::parse(ALL, "x").unwrap();
        let mut engine = Engine::new(rules.clone());
        let mut expected: BTreeMap<Code, u64> = BTreeMap::new();
        let mut told: BTreeMap<Code, u64> = BTreeMap::new();
        let mut at = 0_u64;
        let mut tick = |engine: &mut Engine, ms: u64| {
            at += ms;
            let now = Now { wall: wall(at), steady: Duration::from_millis(at) };
            for change in engine.tick(now) {
                if change.what == What::Resolved {
                    for reason in &change.record.reasons {
                        *told.entry(reason.reason.clone()).or_default() += reason.count;
                    }
                }
            }
        };
        for step in steps {
            match step {
                Step::See(seen) => {
                    // What is seen one by one is counted, too, sooner or later.
                    if seen.count() > 0 && rules.about(&seen).next().is_some() {
                        *expected.entry(seen.reason.clone()).or_default() += seen.count();
                        engine.observe(&seen);
                    }
                }
                Step::Tick(ms) => tick(&mut engine, ms.into()),
                Step::Restart => {
                    let text = serde_json::to_string(&engine.save()).unwrap();
                    let saved = serde_json::from_str(&text).unwrap();
                    engine = Engine::restore(rules.clone(), saved).unwrap();
                }
                Step::Interrupted => engine.interrupted(),
            }
        }
        // One that comes back takes longer to be over: an hour at most, each time.
        tick(&mut engine, 1_000);
        tick(&mut engine, 3_601_000);
        prop_assert!(engine.is_idle());
        prop_assert_eq!(told, expected);
    }

    #[test]
    fn incidents_have_every_failure_once(mut steps in proptest::collection::vec(observation(), 1..60)) {
        // All that a rule is about, close together in time, is in some incident that is open.
        let mut engine = Engine::new(Rules::default());
        engine.tick(Now { wall: wall(0), steady: Duration::ZERO });
        for seen in &mut steps {
            seen.reason = Code::new("accept.emfile");
            if let Kind::Count { count: failures, .. } = seen.kind {
                seen.kind = count(failures.max(1), 0);
            } else {
                seen.kind = Kind::Exemplar;
            }
            engine.observe(seen);
        }
        engine.tick(Now { wall: wall(1_000), steady: Duration::from_secs(1) });
        let expected: u64 = steps.iter().map(Observation::count).sum();
        let incidents = engine.incidents();
        let reasons = incidents.iter().flat_map(|incident| &incident.reasons);
        let got: u64 = reasons.map(|reason| reason.count).sum();
        // One of which only exemplars came has those for a count.
        prop_assert!(got >= expected, "{got} {expected}");
        prop_assert!(got <= expected + steps.len() as u64);
    }
}
