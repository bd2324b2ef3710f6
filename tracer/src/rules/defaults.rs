//! The rules that hold where nothing is configured.

use std::{collections::BTreeMap, time::Duration};

use super::{Matcher, Rule, Trigger};
use crate::alert::Severity::{self, Critical, Warning};

/// How long an incident must be quiet before it is over: a client that is turned away tries
/// again within seconds, and a pooler accepts again for some seconds between two failures.
pub(super) const RESOLVE_AFTER: Duration = Duration::from_mins(1);
/// Within which failures are counted where a rule does not say.
pub(super) const WINDOW: Duration = Duration::from_mins(1);

/// Name, reasons, failures within [`WINDOW`], severity.
///
/// One failure is enough where the failure itself proves that the program or the host is at its
/// limit: how often it shows depends on the program, not on how bad it is. Where single ones are
/// normal life, some are wanted.
const DEFAULTS: &[(&str, &[&str], u64, Severity)] = &[
    (
        "OutOfDescriptors",
        &["accept.emfile", "accept.enfile"],
        1,
        Critical,
    ),
    ("AcceptNoMemory", &["accept.nomem"], 1, Critical),
    ("ListenerStalled", &["queue.stalled"], 1, Critical),
    ("DescriptorsExhausted", &["fd.exhausted"], 1, Warning),
    (
        "DescriptorPressure",
        &["fd.pressure", "fd.table_pressure"],
        1,
        Warning,
    ),
    (
        "AcceptQueueOverflow",
        &[
            "queue.syn_overflow",
            "queue.ack_overflow",
            "queue.rst_overflow",
            "queue.overflow",
            "queue.unix_full",
        ],
        10,
        Warning,
    ),
    (
        "AcceptQueueOverflows",
        &[
            "queue.syn_overflow",
            "queue.ack_overflow",
            "queue.rst_overflow",
            "queue.overflow",
            "queue.unix_full",
        ],
        100,
        Critical,
    ),
    (
        "ConnectionsDropped",
        &["queue.syn_flood", "queue.dropped"],
        100,
        Warning,
    ),
    ("AcceptSlow", &["queue.slow"], 20, Warning),
    ("ConnectionsAbandoned", &["queue.abandoned"], 1, Warning),
    ("ConnectionsShed", &["accept.shed"], 10, Warning),
    (
        "AcceptFails",
        &["accept.denied", "accept.misuse", "accept.other"],
        10,
        Warning,
    ),
    ("AcceptAborted", &["accept.aborted"], 100, Warning),
    ("NoLocalPort", &["connect.no_port"], 1, Critical),
    (
        "ConnectFails",
        &[
            "connect.refused",
            "connect.timeout",
            "connect.unreachable",
            "connect.reset",
            "connect.denied",
            "connect.other",
        ],
        20,
        Warning,
    ),
    ("ConntrackFull", &["net.conntrack_full"], 1, Critical),
];

pub(super) fn rules() -> Vec<Rule> {
    DEFAULTS
        .iter()
        .map(|(name, reasons, count, severity)| Rule {
            name: (*name).to_owned(),
            matcher: Matcher {
                reason: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
                ..Matcher::default()
            },
            trigger: Trigger {
                count: *count,
                window: WINDOW,
                ratio: None,
                duration: None,
            },
            hold: Duration::ZERO,
            resolve_after: RESOLVE_AFTER,
            severity: *severity,
            labels: BTreeMap::new(),
        })
        .collect()
}

/// What is no incident: the C library asks for a cache of names before it looks for itself, and where
/// none is installed, as nearly everywhere, each look-up begins with a connect that fails.
pub(super) fn ignored() -> Vec<Matcher> {
    vec![Matcher {
        reason: vec!["connect.refused".to_owned()],
        path: ["/var/run/nscd/socket", "/run/nscd/socket"]
            .map(ToOwned::to_owned)
            .into(),
        ..Matcher::default()
    }]
}
