//! Which failures are wanted: what the kernel side can decide, it decides; the rest is
//! decided here, on counts and exemplars alike, so that totals stay exact.

use turnaway_common::{
    Reason,
    layout::{KernelFilter, MAX_PIDS, MAX_PORTS},
};

use crate::{
    attribute::Who,
    event::{Address, Key, Listener},
    history::Incident,
    observation::{self, Kind, Observation},
};

/// What to keep. An empty list keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Process ids.
    pub pids: Vec<u32>,
    /// Names of processes, whole.
    pub comms: Vec<Vec<u8>>,
    /// Numbers of users. Nothing that was recorded has them.
    pub uids: Vec<u32>,
    /// systemd units; `.service` may be left out.
    pub units: Vec<String>,
    /// Containers: their names, or the beginnings of their ids.
    pub containers: Vec<String>,
    /// Parts of cgroup paths.
    pub cgroups: Vec<String>,
    /// Ports of listeners, and ports that were to be connected to.
    pub ports: Vec<u32>,
    /// Errnos, positive. Nothing that was recorded is told apart by them.
    pub errnos: Vec<u16>,
    /// Reasons.
    pub reasons: Vec<Reason>,
}

impl Filter {
    /// The part that the kernel side applies before it counts anything.
    #[must_use]
    pub fn for_kernel(&self, exemplars_per_key: u32) -> KernelFilter {
        let mut filter = KernelFilter {
            exemplars_per_key,
            ..KernelFilter::EVERYTHING
        };
        if !self.reasons.is_empty() {
            filter.reasons = self
                .reasons
                .iter()
                .fold(0, |bits, reason| bits | 1 << (*reason as u16));
        }
        if !self.errnos.is_empty() {
            filter.errnos = [0; 3];
            filter.high_errnos = 0;
            for errno in &self.errnos {
                match filter.errnos.get_mut(usize::from(errno / 64)) {
                    Some(bits) => *bits |= 1 << (errno % 64),
                    // Rare enough for all of them to pass, and be told apart here.
                    None => filter.high_errnos = 1,
                }
            }
        }
        // More than fit are told apart here.
        if self.pids.len() <= MAX_PIDS {
            filter.pid_count = fill(&mut filter.pids, &self.pids);
        }
        if self.ports.len() <= MAX_PORTS {
            filter.port_count = fill(&mut filter.ports, &self.ports);
        }
        filter
    }

    /// Whether a failure is wanted. One that was nobody's call belongs to every process
    /// that holds the listener.
    #[must_use]
    pub fn wants(&self, key: &Key, listener: &Listener, who: &Who) -> bool {
        any(&self.errnos, |errno| Some(*errno) == key.errno)
            && any(&self.reasons, |reason| *reason == key.reason)
            && self.wants_at(port_of(key, listener), who)
    }

    /// Whether what happens at a listener, or because of a process, is wanted.
    #[must_use]
    pub fn wants_listener(&self, listener: &Listener, who: &Who) -> bool {
        self.wants_at(port_of_listener(listener), who)
    }

    fn wants_at(&self, at: Option<u32>, who: &Who) -> bool {
        let party = who.party.as_ref();
        let identity = party.map(|party| party.identity.as_ref());
        let container = identity.and_then(|identity| identity.container.as_ref());
        any(&self.pids, |pid| who.is(*pid))
            && any(&self.comms, |comm| who.is_called(comm))
            && any(&self.uids, |uid| {
                party.is_some_and(|party| party.facts.uid == Some(*uid))
            })
            && any(&self.ports, |port| Some(*port) == at)
            && self.wants_home(&Home {
                cgroup: identity.and_then(|identity| identity.cgroup.as_deref()),
                unit: identity.and_then(|identity| identity.unit.as_deref()),
                container: container.map(|one| (one.id.as_str(), one.name.as_deref())),
            })
    }

    fn wants_home(&self, home: &Home<'_>) -> bool {
        any(&self.units, |wanted| {
            home.unit
                .is_some_and(|unit| unit == wanted || unit.strip_suffix(".service") == Some(wanted))
        }) && any(&self.containers, |wanted| {
            home.container
                .is_some_and(|(id, name)| id.starts_with(wanted) || name == Some(wanted))
        }) && any(&self.cgroups, |part| {
            home.cgroup
                .is_some_and(|cgroup| memchr::memmem::find(cgroup, part.as_bytes()).is_some())
        })
    }

    /// Whether what was recorded is wanted. What was accepted is no failure, and always is.
    #[must_use]
    pub fn wants_seen(&self, seen: &Observation) -> bool {
        if matches!(seen.kind, Kind::Accepted { .. }) {
            return true;
        }
        let process = seen.process.as_ref();
        let others = || seen.server.iter().chain(&seen.holders);
        let target = seen.peer.as_ref().filter(|_| seen.reason.is_of_client());
        let port = match target {
            Some(target) => target.port,
            None => seen.listener.as_ref().and_then(|listener| listener.port),
        };
        let called = |comm: &Option<String>, wanted: &[u8]| {
            comm.as_deref()
                .is_some_and(|comm| comm.as_bytes() == wanted)
        };
        any(&self.reasons, |reason| {
            reason.code() == seen.reason.as_str()
        }) && any(&self.pids, |pid| {
            process.is_some_and(|process| process.pid == *pid)
                || others().any(|other| other.pid == *pid)
        }) && any(&self.comms, |comm| {
            process.is_some_and(|process| called(&process.comm, comm))
                || others().any(|other| called(&other.comm, comm))
        }) && any(&self.ports, |wanted| Some(*wanted) == port)
            && self.wants_home(&process.map_or_else(Home::default, |process| Home {
                cgroup: process.cgroup.as_deref().map(str::as_bytes),
                unit: process.unit.as_deref(),
                container: process.container.as_ref().map(named),
            }))
    }

    /// Whether an incident is wanted: by its victim, its listeners and any of its reasons.
    #[must_use]
    pub fn wants_incident(&self, incident: &Incident) -> bool {
        let victim = incident.victim.process.as_ref();
        let target = incident.victim.target.as_deref().unwrap_or_default();
        any(&self.reasons, |reason| {
            let mut reasons = incident.reasons.iter();
            reasons.any(|total| total.reason.as_str() == reason.code())
        }) && any(&self.pids, |pid| {
            victim.is_some_and(|victim| victim.pid == *pid)
        }) && any(&self.comms, |comm| {
            let name = victim.and_then(|victim| victim.comm.as_deref());
            name.is_some_and(|name| name.as_bytes() == comm)
        }) && any(&self.ports, |port| {
            let mut listeners = incident.listeners.iter();
            listeners.any(|listener| listener.port == Some(*port))
                || target.ends_with(&format!(":{port}"))
        }) && self.wants_home(&victim.map_or_else(Home::default, |victim| Home {
            cgroup: victim.cgroup.as_deref().map(str::as_bytes),
            unit: victim.unit.as_deref(),
            container: victim.container.as_ref().map(named),
        }))
    }
}

/// Where a process runs, as far as is known.
#[derive(Default)]
struct Home<'a> {
    cgroup: Option<&'a [u8]>,
    unit: Option<&'a str>,
    /// Id and name.
    container: Option<(&'a str, Option<&'a str>)>,
}

fn named(container: &observation::Container) -> (&str, Option<&str>) {
    (&container.id, container.name.as_deref())
}

fn any<T>(wanted: &[T], test: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(test)
}

fn fill(slots: &mut [u32], values: &[u32]) -> u32 {
    slots[..values.len()].copy_from_slice(values);
    u32::try_from(values.len()).unwrap_or(0)
}

/// The port that it is about: the target's, or the listener's own.
fn port_of(key: &Key, listener: &Listener) -> Option<u32> {
    if key.reason.is_of_connect() {
        return key.target?.port();
    }
    port_of_listener(listener)
}

fn port_of_listener(listener: &Listener) -> Option<u32> {
    match listener.address.as_ref()? {
        Address::Inet(address) => Some(u32::from(address.port())),
        Address::Vsock { port, .. } => Some(*port),
        Address::Unix(_) => None,
    }
}

/// The reasons that a word names: a whole code (`accept.emfile`), or a family
/// (`accept` or `accept.*`).
///
/// # Errors
/// The words that would have done.
pub fn reasons(word: &str) -> Result<Vec<Reason>, String> {
    let family = word.strip_suffix(".*").unwrap_or(word);
    let found: Vec<Reason> = Reason::ALL
        .iter()
        .copied()
        .filter(|reason| {
            reason.code() == word
                || reason
                    .code()
                    .strip_prefix(family)
                    .is_some_and(|rest| rest.starts_with('.'))
        })
        .collect();
    if found.is_empty() {
        let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        return Err(format!(
            "no such reason; use one of {}, or a family such as accept",
            codes.join(", ")
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Op, Tier},
        record::samples,
    };

    fn key() -> Key {
        Key {
            call: None,
            level: None,
            target: None,
            process: Some(samples::PROCESS),
            socket_inode: Some(7),
            reason: Reason::AcceptEmfile,
            errno: Some(24),
            op: Op::Syscall,
            tier: Tier::Trampoline,
        }
    }

    fn listener(address: &str) -> Listener {
        Listener {
            fd: None,
            family: None,
            socket_type: None,
            protocol: None,
            address: Some(Address::Inet(address.parse().unwrap())),
            netns: None,
            queue: None,
        }
    }

    fn wants(filter: &Filter) -> bool {
        filter.wants(
            &key(),
            &listener("[::]:80"),
            &samples::who(b"nginx", Some(b"/system.slice/a.service")),
        )
    }

    #[test]
    fn every_given_kind_must_match_and_one_value_of_each_is_enough() {
        assert!(wants(&Filter::default()));
        let good = Filter {
            pids: vec![1, 812],
            comms: vec![b"nginx".to_vec()],
            uids: Vec::new(),
            units: Vec::new(),
            containers: Vec::new(),
            cgroups: vec!["a.service".to_owned()],
            ports: vec![80],
            errnos: vec![23, 24],
            reasons: vec![Reason::AcceptEmfile],
        };
        assert!(wants(&good));
        for bad in [
            Filter {
                pids: vec![1],
                ..good.clone()
            },
            Filter {
                comms: vec![b"ngin".to_vec()],
                ..good.clone()
            },
            Filter {
                cgroups: vec!["b.service".to_owned()],
                ..good.clone()
            },
            Filter {
                ports: vec![8080],
                ..good.clone()
            },
            Filter {
                errnos: vec![23],
                ..good.clone()
            },
            Filter {
                reasons: vec![Reason::AcceptEnfile],
                ..good.clone()
            },
        ] {
            assert!(!wants(&bad), "{bad:?}");
        }
    }

    #[test]
    fn a_service_a_container_and_a_user_are_recognised() {
        let unit = |unit: &str| Filter {
            units: vec![unit.to_owned()],
            ..Filter::default()
        };
        let container = |container: &str| Filter {
            containers: vec![container.to_owned()],
            ..Filter::default()
        };
        let uid = |uid| Filter {
            uids: vec![uid],
            ..Filter::default()
        };
        let (failure, who) = samples::rich();
        let party = who.party.as_ref().unwrap();
        let own = party.identity.container.as_ref().unwrap().clone();
        let wants = |filter: &Filter| filter.wants(&failure.key, &failure.listener, &who);
        assert!(wants(&unit("pgbouncer")) && wants(&unit("pgbouncer.service")));
        assert!(!wants(&unit("pgb")));
        assert!(wants(&container(&own.id[..6])));
        assert!(wants(&container(own.name.as_deref().unwrap())));
        assert!(!wants(&container("none")));
        assert!(wants(&uid(party.facts.uid.unwrap())));
        assert!(!wants(&uid(4_321)));
    }

    #[test]
    fn what_was_recorded_is_told_apart_as_it_would_have_been_live() {
        let line = r#"{"schema":"turnaway/1","type":"count","time":"2026-03-03T03:12:00.000000000Z","host":"h",
            "reason":"accept.emfile","errno":"EMFILE","tier":"tracepoint","count":2,
            "first":"2026-03-03T03:12:00.000000000Z","last":"2026-03-03T03:12:00.000000000Z",
            "process":{"pid":812,"comm":"pgbouncer","unit":"pgbouncer.service","cgroup":"/system.slice/pgbouncer.service"},
            "listener":{"inode":7,"family":"inet","address":"0.0.0.0","port":6432}}"#;
        let line = line.replace('\n', "");
        let Ok(observation::Line::Seen(seen)) = observation::parse(&line) else {
            panic!("a count is something that was seen");
        };
        let all = Filter {
            pids: vec![1, 812],
            comms: vec![b"pgbouncer".to_vec()],
            units: vec!["pgbouncer".to_owned()],
            cgroups: vec!["system.slice".to_owned()],
            ports: vec![6_432],
            reasons: reasons("accept").unwrap(),
            ..Filter::default()
        };
        assert!(all.wants_seen(&seen));
        for other in [
            Filter {
                pids: vec![1],
                ..all.clone()
            },
            Filter {
                comms: vec![b"pg".to_vec()],
                ..all.clone()
            },
            Filter {
                units: vec!["web".to_owned()],
                ..all.clone()
            },
            Filter {
                containers: vec!["a".to_owned()],
                ..all.clone()
            },
            Filter {
                cgroups: vec!["user.slice".to_owned()],
                ..all.clone()
            },
            Filter {
                ports: vec![80],
                ..all.clone()
            },
            Filter {
                reasons: reasons("queue").unwrap(),
                ..all.clone()
            },
        ] {
            assert!(!other.wants_seen(&seen), "{other:?}");
        }
    }

    #[test]
    fn a_port_is_the_target_s_where_a_connect_failed() {
        let (failure, who) = samples::of_connect(Reason::ConnectRefused);
        let wants = |port| {
            let filter = Filter {
                ports: vec![port],
                ..Filter::default()
            };
            filter.wants(&failure.key, &failure.listener, &who)
        };
        assert!(wants(5_432));
        assert!(!wants(6_432));
    }

    #[test]
    fn an_unknown_cgroup_matches_no_cgroup_filter() {
        let filter = Filter {
            cgroups: vec![String::new()],
            ..Filter::default()
        };
        assert!(!filter.wants(
            &key(),
            &listener("1.2.3.4:80"),
            &samples::who(b"nginx", None)
        ));
    }

    #[test]
    fn the_kernel_gets_what_fits() {
        let filter = Filter {
            pids: vec![3, 4],
            errnos: vec![24, 103, 300],
            reasons: vec![Reason::AcceptEmfile],
            ..Filter::default()
        };
        let kernel = filter.for_kernel(5);
        assert_eq!(kernel.pid_count, 2);
        assert_eq!(kernel.pids[..3], [3, 4, 0]);
        assert_eq!(kernel.errnos, [1 << 24, 1 << 39, 0]);
        assert_eq!(kernel.high_errnos, 1);
        assert_eq!(kernel.reasons, 1 << 1);
        assert_eq!(kernel.exemplars_per_key, 5);

        let many = Filter {
            pids: (1..=17).collect(),
            ..Filter::default()
        };
        assert_eq!(many.for_kernel(5).pid_count, 0, "told apart in user space");
    }

    #[test]
    fn families_name_all_their_reasons() {
        assert_eq!(reasons("accept.emfile").unwrap(), [Reason::AcceptEmfile]);
        let accept = reasons("accept").unwrap();
        assert_eq!(accept.len(), 8);
        assert_eq!(reasons("accept.*").unwrap(), accept);
        assert!(reasons("acc").unwrap_err().contains("accept.enfile"));
        assert!(reasons("").is_err());
    }
}
