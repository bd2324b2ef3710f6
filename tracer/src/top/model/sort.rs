//! In which order rows are shown.

use std::cmp::Reverse;

use super::{NEAR, Row};
use crate::top::sample::RowId;

/// By what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// What is worst: failures of the last minute, then stalls, full queues, accepts.
    #[default]
    Worst,
    /// Failures a second.
    Failures,
    /// Accepted connections a second.
    Accepts,
    /// How full the accept queue is.
    Queue,
    /// How long connections wait.
    Wait,
    /// How full the table of descriptors is.
    Fds,
    /// How long ago the last connection was accepted.
    Last,
    /// Its name.
    Name,
    /// Its owner.
    Owner,
}

impl Sort {
    /// All, in the order of columns.
    pub const ALL: [Self; 9] = [
        Self::Worst,
        Self::Name,
        Self::Owner,
        Self::Accepts,
        Self::Failures,
        Self::Queue,
        Self::Wait,
        Self::Last,
        Self::Fds,
    ];

    /// The next, or the one before.
    #[must_use]
    pub fn next(self, back: bool) -> Self {
        let at = Self::ALL.iter().position(|one| *one == self).unwrap_or(0);
        let step = if back { Self::ALL.len() - 1 } else { 1 };
        Self::ALL[(at + step) % Self::ALL.len()]
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Failures => "failures",
            Self::Accepts => "accepts",
            Self::Queue => "queue",
            Self::Wait => "wait",
            Self::Fds => "fds",
            Self::Last => "last",
            Self::Name => "name",
            Self::Owner => "owner",
        }
    }
}

/// What a row is sorted by: the highest first; `None` always last.
fn key(row: &Row, sort: Sort) -> Option<[u64; 5]> {
    let accepts = row.accept_rate.map(milli);
    let fails = row.failures_60s > 0 || row.stalled_ns.is_some();
    let full = row.descriptors().filter(|full| *full >= NEAR).unwrap_or(0);
    Some(match sort {
        Sort::Worst => [
            // Who turns others away before who is turned away.
            u64::from(fails) + u64::from(fails && !row.is_other()),
            row.failures_60s,
            row.stalled_ns.unwrap_or(0),
            row.fullness().unwrap_or(0).max(full),
            accepts.unwrap_or(0),
        ],
        Sort::Failures => [
            milli(row.failure_rate),
            row.failures_60s,
            row.failures,
            0,
            0,
        ],
        Sort::Accepts => [accepts?, row.accepted.unwrap_or(0), 0, 0, 0],
        Sort::Queue => {
            let (depth, _) = row.queue?;
            [row.fullness()?, u64::from(depth), 0, 0, 0]
        }
        Sort::Wait => {
            let (half, most) = row.waits?;
            [most, half, 0, 0, 0]
        }
        Sort::Fds => [row.descriptors()?, 0, 0, 0, 0],
        // The longest ago first.
        Sort::Last => [u64::MAX - row.last_accept_ns?, 0, 0, 0, 0],
        Sort::Name | Sort::Owner => [0; 5],
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are small and not negative"
)]
fn milli(rate: f64) -> u64 {
    (rate * 1000.0) as u64
}

/// Rows by their keys, which are made once; ties by name.
pub(super) fn order<'a>(
    rows: impl Iterator<Item = &'a Row>,
    sort: Sort,
    reverse: bool,
) -> Vec<RowId> {
    let mut keyed: Vec<(Option<[u64; 5]>, &Row)> = rows.map(|row| (key(row, sort), row)).collect();
    let owner = |row: &'a Row| {
        let owner = row.owner.as_ref();
        (
            owner.is_none(),
            owner.map(|owner| (&*owner.comm, owner.pid)),
        )
    };
    keyed.sort_unstable_by(|(a, one), (b, other)| {
        let numbers = match (a, b) {
            (Some(a), Some(b)) if reverse => a.cmp(b),
            (a, b) => Reverse(a).cmp(&Reverse(b)),
        };
        let words = match sort {
            Sort::Owner => owner(one).cmp(&owner(other)),
            Sort::Name => one.name.cmp(&other.name),
            _ => std::cmp::Ordering::Equal,
        };
        let words = if reverse { words.reverse() } else { words };
        let last = || (&one.name, &one.id).cmp(&(&other.name, &other.id));
        numbers.then(words).then_with(last)
    });
    keyed.into_iter().map(|(_, row)| row.id.clone()).collect()
}
