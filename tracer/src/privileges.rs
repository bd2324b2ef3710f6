//! What each thread may still do once all is set up (docs/daemon.md has the table and how it was
//! found out).
//!
//! Capabilities belong to threads. The kernel side is loaded by the first thread, which then keeps what
//! it takes to look into other processes, as do those that enter network namespaces; all others need
//! nothing but their user id.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// What a thread has to do from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Looks into processes and network namespaces, and reads counters.
    Look,
    /// Files and sockets of its own, and programs that it starts.
    Serve,
}

impl Duty {
    /// The capabilities that it takes, of those that a thread has.
    fn takes(self, has: CapabilitySet) -> CapabilitySet {
        match self {
            Self::Look => {
                let takes = LOOKS
                    .iter()
                    .fold(CapabilitySet::empty(), |all, (one, _)| all.union(*one));
                // Before Linux 5.19 counters are read by who has either: the greater does for the lesser.
                if has.contains(CapabilitySet::SYS_ADMIN) {
                    takes
                } else {
                    takes.union(CapabilitySet::BPF)
                }
            }
            Self::Serve => CapabilitySet::empty(),
        }
    }
}

/// What looking takes, and what is not seen without it.
const LOOKS: &[(CapabilitySet, &str)] = &[
    (
        CapabilitySet::SYS_PTRACE,
        "programs, descriptors and queues of other users' processes",
    ),
    (
        CapabilitySet::DAC_READ_SEARCH,
        "descriptors of other users' processes, and cgroups of those that have ended",
    ),
    (
        CapabilitySet::SYS_ADMIN,
        "queues in other network namespaces (containers), and who fails while the system's table of files is full",
    ),
];

/// Capabilities that matter here, by name.
const NAMES: &[(CapabilitySet, &str)] = &[
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
];

fn name(one: CapabilitySet) -> &'static str {
    let named = NAMES.iter().find(|(set, _)| *set == one);
    named.map_or("a capability", |(_, name)| name)
}

/// Whether the calling thread has it.
#[must_use]
pub fn has(one: CapabilitySet) -> bool {
    effective().contains(one)
}

fn effective() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// Which of these the calling thread lacks, in words; `None` if it has all. What CAP_BPF and CAP_PERFMON
/// allow, CAP_SYS_ADMIN allows, too.
#[must_use]
pub fn lacking(wanted: CapabilitySet) -> Option<String> {
    lacking_of(effective(), wanted)
}

fn lacking_of(has: CapabilitySet, wanted: CapabilitySet) -> Option<String> {
    let instead = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
    let has = if has.contains(CapabilitySet::SYS_ADMIN) {
        has.union(instead)
    } else {
        has
    };
    let missing: Vec<&str> = NAMES
        .iter()
        .filter(|(one, _)| wanted.contains(*one) && !has.contains(*one))
        .map(|(_, name)| *name)
        .collect();
    match missing.len() {
        0 => None,
        1 => Some(format!("{} is missing", missing[0])),
        _ => Some(format!("{} are missing", missing.join(" and "))),
    }
}

/// What is not seen because the calling thread may not look: the capability, and what it is for.
#[must_use]
pub fn unseen() -> Vec<String> {
    let has = effective();
    LOOKS
        .iter()
        .filter(|(one, _)| !has.contains(*one))
        .map(|(one, what)| format!("not seen: {what}\n  {} is missing", name(*one)))
        .collect()
}

/// Gives up, for the calling thread and those that it starts from now on, all that its duty does not
/// take. That is said and not fatal where it cannot be done: all works without.
pub fn keep(duty: Duty) {
    if let Err(error) = give_up_the_rest(duty) {
        log::warn!("privileges that are not needed any more cannot be given up: {error}");
    }
}

fn give_up_the_rest(duty: Duty) -> io::Result<()> {
    /// As many as the kernel's masks have room for.
    const MOST: u32 = u64::BITS;

    // Whatever is run from here, an alert's command included, gets no more than this thread has.
    set_no_new_privs(true)?;
    let before = capabilities(None)?;
    let takes = duty.takes(before.permitted);
    if before.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..MOST {
            let one = CapabilitySet::from_bits_retain(1 << number);
            // The kernel knows no more than some 40 of them.
            if !takes.contains(one) && remove_capability_from_bounding_set(one).is_err() {
                break;
            }
        }
    }
    let kept = before.permitted.intersection(takes);
    // This empties the ambient set, too: it is part of what is inherited.
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Capabilities are a thread's: this one is at an end after that.
    fn apart<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(body).join().unwrap()
    }

    fn mask(name: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    }

    #[test]
    fn what_is_not_kept_is_gone() {
        apart(|| {
            let had = mask("CapPrm:");
            keep(Duty::Look);
            let kept = had & (1 << 19 | 1 << 2 | 1 << 21);
            assert_eq!(mask("CapEff:"), kept);
            assert_eq!(mask("CapPrm:"), kept);
            assert_eq!(mask("CapInh:"), 0);
            assert_eq!(mask("CapAmb:"), 0);
            assert_eq!(mask("NoNewPrivs:"), 1);
            keep(Duty::Serve);
            assert_eq!(mask("CapPrm:"), 0);
            let unseen = unseen();
            assert_eq!(unseen.len(), 3, "{unseen:?}");
            assert!(unseen[0].ends_with("CAP_SYS_PTRACE is missing"));
        });
    }

    #[test]
    fn counters_stay_readable_without_cap_sys_admin() {
        let few = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
        assert!(Duty::Look.takes(few).contains(CapabilitySet::BPF));
        let more = few.union(CapabilitySet::SYS_ADMIN);
        assert!(!Duty::Look.takes(more).contains(CapabilitySet::BPF));
        assert!(Duty::Serve.takes(few).is_empty());
    }

    #[test]
    fn what_is_missing_is_named() {
        let wanted = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
        let lacking = |has| lacking_of(has, wanted);
        assert_eq!(
            lacking(CapabilitySet::empty()).unwrap(),
            "CAP_BPF and CAP_PERFMON are missing"
        );
        assert_eq!(
            lacking(CapabilitySet::BPF).unwrap(),
            "CAP_PERFMON is missing"
        );
        assert_eq!(lacking(CapabilitySet::SYS_ADMIN), None);
        assert_eq!(lacking(wanted), None);
    }
}
