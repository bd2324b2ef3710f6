//! What a run and its parts come to: the input of records and of the terminal's summary.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::Listening;
use crate::{
    attribute::Who,
    event::{Count, Key, Listener, Tier},
};

/// Failures of one key.
#[derive(Clone, Copy, Debug)]
pub struct Failures<'a> {
    /// The key.
    pub key: &'a Key,
    /// The listener at the first of them.
    pub listener: &'a Listener,
    /// Whose they are.
    pub who: &'a Who,
    /// How many.
    pub count: u64,
    /// First of them, nanoseconds of `CLOCK_MONOTONIC`.
    pub first_ns: u64,
    /// Last of them, nanoseconds of `CLOCK_MONOTONIC`.
    pub last_ns: u64,
    /// The longest that one of them waited, nanoseconds.
    pub waited_max_ns: Option<u64>,
    /// Only the sum over several listeners is exact.
    pub approximate: bool,
}

impl<'a> Failures<'a> {
    /// The growth of a counter.
    #[must_use]
    pub fn of_count(count: &'a Count, who: &'a Who) -> Self {
        Self {
            key: &count.key,
            listener: &count.listener,
            who,
            count: count.count,
            first_ns: count.first_ns,
            last_ns: count.last_ns,
            waited_max_ns: count.waited_max_ns,
            approximate: count.approximate,
        }
    }
}

/// What was not seen, not kept or not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "lost")]
pub struct Lost {
    /// Exemplars that found the ring buffer full; their failures are counted.
    pub ring: u64,
    /// Failures that found the counter map full: in no total.
    pub map: u64,
    /// Runs of a hook that the kernel left out; null where it does not tell.
    pub missed: Option<u64>,
    /// Records that were not written because the reader was too slow.
    pub output: u64,
}

/// What became of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum HookState {
    /// In place.
    Attached,
    /// Could not be put in place: what it would have seen was not seen.
    Unavailable,
}

/// A hook of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "hook")]
pub struct Hook {
    /// Its name, such as `accept`.
    pub name: String,
    /// Its tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Where it sits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What became of it.
    pub status: HookState,
    /// Runs of its programs that the kernel left out; absent where it does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
    /// Why no better tier, or none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A whole run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// When it ended.
    pub ended: Timestamp,
    /// How long hooks were in place.
    pub duration: Duration,
    /// Exact totals, most failures first.
    pub totals: &'a [Failures<'a>],
    /// Failures of keys that were too many to be told apart.
    pub other: u64,
    /// What is missing from the totals.
    pub lost: Lost,
    /// The hooks.
    pub hooks: &'a [Hook],
    /// What went well at listeners, those that accepted most first.
    pub listeners: &'a [Listening],
}
