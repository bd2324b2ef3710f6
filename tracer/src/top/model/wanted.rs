//! What is shown of all: by the filter of the command line, and by the text that is typed.

use std::collections::HashMap;

use super::Row;
use crate::{
    filter::Filter,
    top::sample::{FailureSample, ProcessSample},
};

fn any<T>(wanted: &[T], test: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(test)
}

fn is_called(comm: &str, wanted: &[u8]) -> bool {
    comm == crate::text::terminal(wanted)
}

/// Whether a folder of a cgroup's path is named by a container's id that begins so: `ID`, or `docker-ID.scope` and the
/// like.
fn has_id(part: &str, beginning: &str) -> bool {
    const SHORTEST: usize = 12;
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let id = name.rsplit('-').next().unwrap_or(name);
    id.len() >= SHORTEST
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && id.starts_with(beginning)
}

/// Whether a process that runs there is of a wanted unit, container and cgroup.
fn runs_in(filter: &Filter, place: &str, cgroup: &str) -> bool {
    let of_unit = |unit: &String| {
        let is_it = |name: &str| name == unit || name.strip_suffix(".service") == Some(unit);
        is_it(place) || cgroup.split('/').any(is_it)
    };
    any(&filter.units, of_unit)
        && any(&filter.containers, |container| {
            place == container || cgroup.split('/').any(|part| has_id(part, container))
        })
        && any(&filter.cgroups, |part| cgroup.contains(part.as_str()))
}

/// A listener is wanted if one of those that hold it is.
pub(super) fn listener(
    filter: &Filter,
    port: Option<u32>,
    pids: impl Iterator<Item = u32> + Clone,
    processes: &HashMap<u32, ProcessSample>,
) -> bool {
    if !any(&filter.ports, |wanted| Some(*wanted) == port) {
        return false;
    }
    let everybody = filter.pids.is_empty()
        && filter.comms.is_empty()
        && filter.units.is_empty()
        && filter.containers.is_empty()
        && filter.cgroups.is_empty();
    if everybody {
        return true;
    }
    pids.into_iter().any(|pid| {
        let process = processes.get(&pid);
        let comm = process.map_or("", |process| &process.comm);
        let cgroup = process.map_or("", |process| &process.cgroup);
        let place = process.map_or("", |process| &process.place);
        any(&filter.pids, |wanted| *wanted == pid)
            && any(&filter.comms, |wanted| is_called(comm, wanted))
            && runs_in(filter, place, cgroup)
    })
}

/// Whether failures are wanted.
pub(super) fn failure(filter: &Filter, one: &FailureSample) -> bool {
    let errno = |wanted: &u16| {
        let name = crate::errno::name(*wanted);
        one.errno.as_deref() == Some(&*name)
    };
    any(&filter.ports, |port| Some(*port) == one.port)
        && any(&filter.pids, |pid| Some(*pid) == one.pid)
        && any(&filter.comms, |comm| is_called(&one.comm, comm))
        && runs_in(filter, &one.place, &one.cgroup)
        && any(&filter.reasons, |reason| {
            reason.code() == one.reason.as_str()
        })
        && any(&filter.errnos, errno)
}

/// Whether a row has `text`, which is in lower case, in anything that is shown of it.
pub(super) fn text(row: &Row, text: &str) -> bool {
    let has = |shown: &str| shown.to_lowercase().contains(text);
    text.is_empty()
        || has(&row.name)
        || row.reasons.iter().any(|one| has(one.reason.as_str()))
        || row.owner.as_ref().is_some_and(|owner| {
            has(&owner.comm) || has(&owner.place) || owner.pid.to_string() == text
        })
}
