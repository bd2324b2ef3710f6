//! What each thread may still do once all is set up (docs/daemon.md has the table and how it was
//! found out).
//!
//! Capabilities belong to threads. The kernel side is loaded by the first thread, which then keeps what
//! it takes to look up other processes; one thread enters network namespaces; all others need nothing
//! but their user id.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// What a thread has to do from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Reads counters and looks up whose they are.
    Capture,
    /// Goes through network namespaces.
    Poll,
    /// Files and sockets of its own, and programs that it starts.
    Serve,
}

impl Duty {
    /// The capabilities that it takes.
    const fn takes(self) -> CapabilitySet {
        // Files of other processes in /proc, and what else their owners alone may read.
        const LOOK: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);
        match self {
            Self::Capture => LOOK,
            // setns(2) into a network namespace.
            Self::Poll => LOOK.union(CapabilitySet::SYS_ADMIN),
            Self::Serve => CapabilitySet::empty(),
        }
    }
}

/// Gives up, for the calling thread and those that it starts from now on, all that its duty does not
/// take. That is said and not fatal where it cannot be done: all works without.
pub fn keep(duty: Duty) {
    keep_these(duty.takes());
}

/// The same for the thread that reads the counters. `can_read` tries whether they can be read still:
/// before Linux 5.19, where programs without privileges may not use BPF at all, that takes CAP_BPF.
pub fn keep_to_capture(can_read: impl FnOnce() -> bool) {
    let takes = Duty::Capture.takes();
    let tried = without(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN, can_read);
    keep_these(match tried {
        Ok(true) => takes,
        // Where CAP_BPF is not known, CAP_SYS_ADMIN stands for it.
        _ if has(CapabilitySet::BPF) => takes | CapabilitySet::BPF,
        _ => takes | CapabilitySet::SYS_ADMIN,
    });
}

fn has(capability: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.permitted.contains(capability))
}

/// Tries something without these, and takes them again.
fn without<T>(these: CapabilitySet, attempt: impl FnOnce() -> T) -> io::Result<T> {
    let before = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: before.effective.difference(these),
            ..before
        },
    )?;
    let result = attempt();
    set_capabilities(None, before)?;
    Ok(result)
}

fn keep_these(takes: CapabilitySet) {
    if let Err(error) = give_up_the_rest(takes) {
        log::warn!("privileges that are not needed any more cannot be given up: {error}");
    }
}

fn give_up_the_rest(takes: CapabilitySet) -> io::Result<()> {
    /// As many as the kernel's masks have room for.
    const MOST: u32 = u64::BITS;

    // Whatever is run from here, an alert's command included, gets no more than this thread has.
    set_no_new_privs(true)?;
    let before = capabilities(None)?;
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
            keep(Duty::Poll);
            let kept = Duty::Poll.takes().bits() & had;
            assert_eq!(mask("CapEff:"), kept);
            assert_eq!(mask("CapPrm:"), kept);
            assert_eq!(mask("CapInh:"), 0);
            assert_eq!(mask("CapAmb:"), 0);
            assert_eq!(mask("NoNewPrivs:"), 1);
            keep(Duty::Serve);
            assert_eq!(mask("CapPrm:"), 0);
        });
    }

    #[test]
    fn what_counters_need_is_found_out_by_trying() {
        let bpf = CapabilitySet::BPF.bits();
        for can_read in [true, false] {
            apart(move || {
                let had = mask("CapPrm:");
                let mut seen = None;
                keep_to_capture(|| {
                    seen = Some(mask("CapEff:"));
                    can_read
                });
                assert_eq!(seen.unwrap() & bpf, 0);
                let kept = if can_read { 0 } else { had & bpf };
                assert_eq!(mask("CapEff:") & bpf, kept);
            });
        }
    }
}
