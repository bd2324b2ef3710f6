//! Which failures are wanted: what the kernel side can decide, it decides; the rest is
//! decided here, on counts and exemplars alike, so that totals stay exact.

use turnaway_common::{
    Reason,
    layout::{KernelFilter, MAX_PIDS, MAX_PORTS},
};

use crate::{
    attribute::Who,
    event::{Address, Key, Listener},
};

/// What to keep. An empty list keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Process ids.
    pub pids: Vec<u32>,
    /// Names of processes, whole.
    pub comms: Vec<Vec<u8>>,
    /// Parts of cgroup paths.
    pub cgroups: Vec<String>,
    /// Ports of listeners, and ports that were to be connected to.
    pub ports: Vec<u32>,
    /// Errnos, positive.
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
        let cgroup = party.and_then(|party| party.identity.cgroup.as_deref());
        any(&self.pids, |pid| who.is(*pid))
            && any(&self.comms, |comm| who.is_called(comm))
            && any(&self.ports, |port| Some(*port) == at)
            && (self.cgroups.is_empty()
                || cgroup.is_some_and(|cgroup| {
                    any(&self.cgroups, |part| {
                        memchr::memmem::find(cgroup, part.as_bytes()).is_some()
                    })
                }))
    }
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
