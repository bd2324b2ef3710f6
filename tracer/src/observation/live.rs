//! Observations from the live pipeline: by way of the records' own fields, so that what is
//! recorded and replayed is the same.

use std::time::Duration;

use jiff::Timestamp;
use turnaway_common::Reason;

use super::{
    Code, Container, Fd, Kind, Listener, Observation, Peer, Process, Server, line::pod_name,
};
use crate::{
    attribute::Who,
    event::{self, Count, Failure},
    record::{Clock, HolderFields, KeyFields, ListenerFields, PeerFields, ProcessFields, Waits},
};

impl Observation {
    /// An exemplar, or a state that began or ended; `fd_used` is the number of open descriptors.
    /// The same as its `event` record has.
    #[must_use]
    pub fn of_failure(
        host: &str,
        failure: &Failure,
        who: &Who,
        fd_used: Option<u64>,
        clock: &Clock,
    ) -> Self {
        let mut fields = KeyFields::new(&failure.key, &failure.listener, who, fd_used, clock);
        fields.peer = fields.peer.or(failure.peer.map(PeerFields::new));
        let kind = match (Code::from(failure.key.reason).lasts(), failure.ended) {
            (true, false) => Kind::Began,
            (true, true) => Kind::Ended,
            (false, _) => Kind::Exemplar,
        };
        let time = clock.wall_of_monotonic(failure.monotonic_ns);
        let mut seen = Self::new(host, time, failure.key.reason, kind, fields);
        seen.waited = failure.waited_ns.map(Duration::from_nanos);
        seen
    }

    /// A state that lasts.
    #[must_use]
    pub fn of_lasting(host: &str, failure: &Failure, who: &Who, clock: &Clock) -> Self {
        Self {
            kind: Kind::Lasting,
            ..Self::of_failure(host, failure, who, None, clock)
        }
    }

    /// What a counter grew by, read at `time`. The same as its `count` record has.
    #[must_use]
    pub fn of_count(host: &str, time: Timestamp, count: &Count, who: &Who, clock: &Clock) -> Self {
        let fields = KeyFields::new(&count.key, &count.listener, who, None, clock);
        let kind = Kind::Count {
            count: count.count,
            first: clock.wall_of_monotonic(count.first_ns),
            last: clock.wall_of_monotonic(count.last_ns),
        };
        let mut seen = Self::new(host, time, count.key.reason, kind, fields);
        seen.waited = count.waited_max_ns.map(Duration::from_nanos);
        seen.approximate = count.approximate;
        seen
    }

    /// So many connections more were accepted at a listener, read at `time`. The same as its
    /// `accepted` record has.
    #[must_use]
    pub fn of_accepted(
        host: &str,
        time: Timestamp,
        (inode, listener): (u64, &event::Listener),
        count: u64,
        waits: Option<Waits>,
    ) -> Self {
        Self {
            listener: Some(Listener::of(inode, listener)),
            waits,
            ..Self::accepted(host.to_owned(), time, count)
        }
        .within_bounds()
    }

    /// Of nothing that is known but the number.
    pub(super) fn accepted(host: String, time: Timestamp, count: u64) -> Self {
        Self {
            time,
            host,
            reason: Code::new("accepted"),
            kind: Kind::Accepted { count },
            process: None,
            holders: Vec::new(),
            listener: None,
            peer: None,
            server: None,
            netns: None,
            fd: Fd::default(),
            waited: None,
            approximate: false,
            waits: None,
        }
    }

    fn new(host: &str, time: Timestamp, reason: Reason, kind: Kind, fields: KeyFields) -> Self {
        Self {
            time,
            host: host.to_owned(),
            reason: Code::from(reason),
            kind,
            process: fields.process.map(process),
            holders: fields
                .holders
                .unwrap_or_default()
                .into_iter()
                .map(server)
                .collect(),
            listener: fields.listener.map(listener),
            peer: fields.peer.map(|peer| Peer {
                address: peer.address,
                port: peer.port,
                path: peer.path,
            }),
            server: fields.server.map(server),
            netns: fields.conntrack.map(|table| table.netns),
            fd: fields.fd.map_or_else(Fd::default, |fd| Fd {
                used: fd.used,
                limit: fd.limit,
            }),
            waited: None,
            approximate: false,
            waits: None,
        }
        .within_bounds()
    }
}

impl Listener {
    /// A listener with this socket inode.
    #[must_use]
    pub fn of(inode: u64, of: &event::Listener) -> Self {
        listener(ListenerFields::new(Some(inode), of))
    }
}

fn process(fields: ProcessFields) -> Process {
    Process {
        pid: fields.pid,
        start_time: fields.start_time.and_then(|start| start.parse().ok()),
        comm: fields.comm,
        unit: fields.unit,
        cgroup: fields.cgroup,
        container: fields.container.map(|container| Container {
            id: container.id,
            name: container.name,
            pod: container
                .pod
                .and_then(|pod| pod_name(pod.namespace.as_deref(), pod.name.as_deref())),
        }),
    }
}

fn server(fields: HolderFields) -> Server {
    Server {
        pid: fields.pid,
        comm: fields.comm,
    }
}

fn listener(fields: ListenerFields) -> Listener {
    Listener {
        inode: fields.inode,
        family: fields.family,
        address: fields.address,
        port: fields.port,
        path: fields.path,
        netns: fields.netns,
        queue: fields.queue,
        backlog: fields.backlog,
    }
}
