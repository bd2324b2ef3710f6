//! What became more between two looks at a process's descriptors. Pure.

use std::{cmp::Reverse, collections::HashMap};

use super::{Holdings, Kind, SocketGroup};

/// Something a process holds more of than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Of what.
    pub what: Grown,
    /// Descriptors at the first look.
    pub before: u64,
    /// Descriptors at the second look, more.
    pub after: u64,
}

/// What there is more of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grown {
    /// A kind of descriptors.
    Kind(Kind),
    /// Sockets that are alike, as at the second look.
    Sockets(SocketGroup),
}

/// The kinds and groups of sockets that grew, most first; of equal growth, kinds first.
///
/// Nothing where one of the looks was not complete: what it left out would look like
/// growth, or hide it.
#[must_use]
pub fn growth(before: &Holdings, after: &Holdings) -> Vec<Growth> {
    if !before.complete || !after.complete {
        return Vec::new();
    }
    let kinds: HashMap<_, _> = before.kinds.iter().copied().collect();
    let groups: HashMap<_, _> = before
        .groups
        .iter()
        .map(|group| (alike(group), group.count))
        .collect();
    let kinds = after.kinds.iter().map(|(kind, count)| Growth {
        what: Grown::Kind(*kind),
        before: kinds.get(kind).copied().unwrap_or(0),
        after: *count,
    });
    let groups = after.groups.iter().map(|group| Growth {
        what: Grown::Sockets(group.clone()),
        before: groups.get(&alike(group)).copied().unwrap_or(0),
        after: group.count,
    });
    let mut grown: Vec<_> = kinds
        .chain(groups)
        .filter(|growth| growth.after > growth.before)
        .collect();
    grown.sort_by_key(|growth| Reverse(growth.after - growth.before));
    grown
}

/// All that tells groups apart.
fn alike(group: &SocketGroup) -> impl Eq + std::hash::Hash + '_ {
    (
        (group.family, group.protocol, group.state),
        (group.remote, group.local_port, group.path.as_deref()),
    )
}
