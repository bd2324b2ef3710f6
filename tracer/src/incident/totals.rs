//! Exact totals of each reason.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::observation::{Code, Observation};

/// Most reasons that are told apart; there are fewer unless records are made up.
const MAX_REASONS: usize = 1000;

/// Failures by reason: all that were ever counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    #[serde(rename = "totals")]
    by_reason: BTreeMap<Code, u64>,
}

impl Totals {
    /// Adds what was seen.
    pub(super) fn add(&mut self, seen: &Observation) {
        let count = seen.count();
        if count == 0 {
            return;
        }
        let sums = &mut self.by_reason;
        if let Some(sum) = sums.get_mut(&seen.reason) {
            *sum = sum.saturating_add(count);
        } else if sums.len() < MAX_REASONS {
            sums.insert(seen.reason.clone(), count);
        } else {
            let sum = sums.entry(Code::new("other")).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Each reason's.
    #[must_use]
    pub fn by_reason(&self) -> &BTreeMap<Code, u64> {
        &self.by_reason
    }

    /// That of all.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let sums = self.by_reason.values();
        sums.fold(0, |sum, count| sum.saturating_add(*count))
    }
}
