//! How a run is shown: columns for people, or records for machines.

use std::{
    collections::HashSet,
    fmt::Write as _,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    advice::Advice,
    aggregate::Total,
    attribute::{Who, holdings::Holdings},
    event::{Count, Failure, Key, ProcessId, Tier},
    kernel::{
        attach::{HookStatus, Missed},
        plan::HookName,
        session::Losses,
        words,
    },
    record::{
        self, Clock, CountRecord, Event, Failures, Hook, HookState, Listening, Lost, Run, Summary,
    },
    sink::{
        self,
        text::{Look, Text},
    },
    stream::format,
    text,
};

/// Most processes and reasons that are given advice in the summary.
const ADVISED_AT_END: usize = 5;
/// Most processes and reasons whose advice is remembered as given.
const ADVISED: usize = 10_000;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns.
    Text {
        /// With colours.
        color: bool,
        /// At a terminal.
        terminal: bool,
        /// Columns of the terminal, where lines have an end.
        width: Option<usize>,
    },
    /// Records: one JSON object a line, in these words.
    Records(format::Format),
}

/// What of each line is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Columns, by their places among [`Text::columns`]; none is all.
    pub columns: Vec<usize>,
    /// Fields of records, as paths such as `process.pid`; none is all. A record that has none of them is left
    /// out.
    pub fields: Vec<String>,
    /// Times of failures with their date and zone.
    pub dates: bool,
}

/// Renders what happens; writes nothing.
pub(super) struct Output {
    /// `None` renders records.
    text: Option<Text>,
    /// In whose words records are.
    words: format::Format,
    fields: Vec<String>,
    host: String,
    started: Instant,
    advised: HashSet<About>,
}

/// What advice is given once for: a process or, where there is none, a listener; and a
/// reason.
type About = (Option<ProcessId>, Option<u64>, turnaway_common::Reason);

fn about(key: &Key) -> About {
    let listener = key.socket_inode.filter(|_| key.process.is_none());
    (key.process, listener, key.reason)
}

/// What a run came to, before it is rendered.
pub(super) struct End<'a> {
    /// Exact totals, most failures first, and whose they are.
    pub(super) totals: &'a [(Key, Total, Who)],
    /// Failures of keys that were too many to tell apart.
    pub(super) other: u64,
    /// What the kernel side could not keep.
    pub(super) losses: Losses,
    /// Lines that could not be written.
    pub(super) lost_lines: u64,
    /// The hooks.
    pub(super) hooks: &'a [HookStatus],
    /// How many runs of each the kernel left out.
    pub(super) missed: &'a [(HookName, Missed)],
    /// What went well.
    pub(super) listeners: &'a [Listening],
}

impl Output {
    pub(super) fn new(format: Format, shown: &Shown) -> Self {
        Self {
            words: match format {
                Format::Records(words) => words,
                Format::Text { .. } => format::Format::Native,
            },
            fields: shown.fields.clone(),
            text: match format {
                Format::Records(_) => None,
                Format::Text {
                    color,
                    terminal,
                    width,
                } => Some(Text::new(Look {
                    color,
                    terminal,
                    width,
                    dates: shown.dates,
                    columns: shown.columns.clone(),
                    ..Look::default()
                })),
            },
            host: text::json(rustix::system::uname().nodename().to_bytes()),
            started: Instant::now(),
            advised: HashSet::new(),
        }
    }

    /// What comes before the first failure.
    pub(super) fn header(&self) -> Option<String> {
        self.text.as_ref().map(Text::header)
    }

    /// One failure, and what holds the descriptors of its process; `advise` says what to do about it, and is asked once for each process
    /// and reason.
    pub(super) fn event(
        &mut self,
        failure: &Failure,
        who: &Who,
        fd_used: Option<u64>,
        holdings: Option<&Holdings>,
        clock: &Clock,
        advise: impl FnOnce() -> Advice,
    ) -> Option<String> {
        let Some(text) = &self.text else {
            let event = Event::new(&self.host, failure, who, fd_used, clock);
            return self.json(&event.holding(holdings));
        };
        let mut lines = text.event(failure, who, fd_used, clock);
        for line in holdings
            .into_iter()
            .flat_map(|held| sink::holdings::lines(text, held))
        {
            lines.push('\n');
            lines.push_str(&line);
        }
        if self.advised.len() < ADVISED && self.advised.insert(about(&failure.key)) {
            let advice = text.advice(&advise());
            if !advice.is_empty() {
                lines.push('\n');
                lines.push_str(&advice);
            }
        }
        Some(lines)
    }

    /// The growth of a counter within `period`, of which `more` failures were not shown one
    /// by one.
    pub(super) fn count(
        &self,
        count: &Count,
        more: u64,
        period: Duration,
        who: &Who,
        clock: &Clock,
    ) -> Option<String> {
        let failures = Failures::of_count(count, who);
        match &self.text {
            Some(text) if count.key.tier == Tier::Poll && more > 0 => {
                Some(text.polled(&failures, more, period, clock))
            }
            Some(text) => (more > 0).then(|| text.more(&failures, more, period)),
            None => self.json(&CountRecord::new(
                &self.host,
                Timestamp::now(),
                &failures,
                clock,
            )),
        }
    }

    /// The record of a run.
    pub(super) fn record(&self, end: &End<'_>, clock: &Clock) -> Summary {
        let totals = failures(end);
        let hooks = hooks(end);
        Summary::new(&self.host, &self.run(end, &totals, &hooks), clock)
    }

    fn run<'a>(&self, end: &End<'a>, totals: &'a [Failures<'a>], hooks: &'a [Hook]) -> Run<'a> {
        Run {
            ended: Timestamp::now(),
            duration: self.started.elapsed(),
            totals,
            other: end.other,
            lost: Lost {
                ring: end.losses.ring,
                map: end.losses.map,
                missed: end.losses.missed,
                output: end.lost_lines,
            },
            hooks,
            listeners: end.listeners,
        }
    }

    /// The end of a run.
    ///
    /// `advise` says what to do about what was not advised on before.
    pub(super) fn summary(
        &self,
        end: &End<'_>,
        clock: &Clock,
        mut advise: impl FnMut(&Key, &Total, &Who) -> Advice,
    ) -> Option<String> {
        let Some(text) = &self.text else {
            return self.json(&self.record(end, clock));
        };
        let totals = failures(end);
        let mut hooks = hooks(end);
        // Why a hook works in no better tier is doctor's to explain.
        for hook in hooks.iter_mut().filter(|hook| hook.target.is_some()) {
            hook.detail = None;
        }
        let run = self.run(end, &totals, &hooks);
        let mut lines = text.summary(&run, clock);
        let mut advised = HashSet::new();
        for (failures, (key, total, who)) in totals.iter().zip(end.totals) {
            let about = about(key);
            if self.advised.contains(&about) || !advised.insert(about) {
                continue;
            }
            if advised.len() > ADVISED_AT_END {
                break;
            }
            let advice = text.advice(&advise(key, total, who));
            if !advice.is_empty() {
                let (reason, whose) = (key.reason.code(), text.whose(failures));
                // Writing to a string cannot fail.
                let _ = write!(lines, "\nFor {reason} of {whose}:\n{advice}");
            }
        }
        Some(lines)
    }

    /// A record as a line, or what of it is to be shown.
    fn json(&self, record: &impl Serialize) -> Option<String> {
        // Records hold strings, numbers and lists only: nothing that JSON cannot say.
        if self.words == format::Format::Native {
            let line = serde_json::to_string(record).unwrap_or_default();
            return record::only(line, &self.fields);
        }
        let line = serde_json::to_string(record).ok()?;
        let record = serde_json::from_str(&line).ok()?;
        serde_json::to_string(&format::convert(self.words, record)).ok()
    }
}

fn failures<'a>(end: &'a End<'_>) -> Vec<Failures<'a>> {
    end.totals
        .iter()
        .map(|(key, total, who)| Failures {
            key,
            listener: &total.listener,
            who,
            count: total.count,
            first_ns: total.first_ns,
            last_ns: total.last_ns,
            waited_max_ns: total.waited_max_ns,
            approximate: total.approximate,
        })
        .collect()
}

fn hooks(end: &End<'_>) -> Vec<Hook> {
    end.hooks
        .iter()
        .map(|status| {
            let missed = end.missed.iter().find(|(name, _)| *name == status.hook);
            hook(status, missed.and_then(|(_, missed)| *missed))
        })
        .collect()
}

/// A hook as records have it.
pub(crate) fn hook(status: &HookStatus, missed: Missed) -> Hook {
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
        missed: missed.filter(|_| status.attached.is_some()),
        detail: (!refused.is_empty()).then(|| refused.join("; ")),
    }
}
