//! How a run is shown: columns for people, or records for machines.

use std::{rc::Rc, time::Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    aggregate::Total,
    attribute::Identity,
    event::{Count, Failure, Key},
    kernel::{attach::HookStatus, session::Losses, words},
    record::{Clock, CountRecord, Event, Failures, Hook, HookState, Lost, Run, Summary},
    text,
};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns.
    Text {
        /// With colours.
        color: bool,
        /// For a terminal, whose lines have an end.
        terminal: bool,
    },
    /// Records: one JSON object a line.
    Json,
}

/// Renders what happens; writes nothing.
pub(super) struct Output {
    format: Format,
    host: String,
    started: Instant,
}

/// What a run came to, before it is rendered.
pub(super) struct End<'a> {
    /// Exact totals, most failures first, and whose they are.
    pub(super) totals: Vec<(&'a Key, &'a Total, Rc<Identity>)>,
    /// Failures of keys that were too many to tell apart.
    pub(super) other: u64,
    /// What the kernel side could not keep.
    pub(super) losses: Losses,
    /// Lines that could not be written.
    pub(super) lost_lines: u64,
    /// The hooks.
    pub(super) hooks: &'a [HookStatus],
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            host: text::json(rustix::system::uname().nodename().to_bytes()),
            started: Instant::now(),
        }
    }

    /// What comes before the first failure.
    pub(super) fn header(&self) -> Option<String> {
        None
    }

    /// One failure.
    pub(super) fn event(
        &mut self,
        failure: &Failure,
        identity: &Identity,
        fd_used: Option<u64>,
        clock: &Clock,
    ) -> String {
        json(&Event::new(&self.host, failure, identity, fd_used, clock))
    }

    /// The growth of a counter, of which `more` failures were not shown one by one.
    pub(super) fn count(
        &mut self,
        count: &Count,
        more: u64,
        identity: &Identity,
        clock: &Clock,
    ) -> Option<String> {
        let _ = more;
        let failures = Failures::of_count(count, identity);
        Some(json(&CountRecord::new(&self.host, Timestamp::now(), &failures, clock)))
    }

    /// The end of a run.
    pub(super) fn summary(&self, end: &End<'_>, clock: &Clock) -> String {
        let totals: Vec<Failures<'_>> = end
            .totals
            .iter()
            .map(|(key, total, identity)| Failures {
                key,
                process: &total.process,
                listener: &total.listener,
                identity,
                count: total.count,
                first_ns: total.first_ns,
                last_ns: total.last_ns,
            })
            .collect();
        let hooks: Vec<Hook> = end.hooks.iter().map(hook).collect();
        let run = Run {
            ended: Timestamp::now(),
            duration: self.started.elapsed(),
            totals: &totals,
            other: end.other,
            lost: Lost {
                ring: end.losses.ring,
                map: end.losses.map,
                missed: end.losses.missed,
                output: end.lost_lines,
            },
            hooks: &hooks,
        };
        json(&Summary::new(&self.host, &run, clock))
    }
}

fn hook(status: &HookStatus) -> Hook {
    let refused: Vec<String> = status
        .refused
        .iter()
        .map(|(tier, why)| format!("{}: {why}", tier.name()))
        .collect();
    Hook {
        name: status.hook.name().to_owned(),
        tier: status.attached.as_ref().map(|(tier, _)| *tier),
        target: status.attached.is_some().then(|| words::targets(status)),
        status: if status.attached.is_some() {
            HookState::Attached
        } else {
            HookState::Unavailable
        },
        detail: (!refused.is_empty()).then(|| refused.join("; ")),
    }
}

fn json(record: &impl Serialize) -> String {
    // Records hold strings, numbers and lists only: nothing that JSON cannot say.
    let mut line = serde_json::to_string(record).unwrap_or_default();
    line.push('\n');
    line
}
