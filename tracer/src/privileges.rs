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
    /// The capabilities that it takes.
    const fn takes(self) -> CapabilitySet {
        match self {
            // Files of other processes in /proc, and what else their owners alone may read; setns(2) into
            // a network namespace; and to open one more file where the system's table is full, which is
            // what is to be explained then. The last of them also allows what CAP_BPF does.
            Self::Look => CapabilitySet::SYS_PTRACE
                .union(CapabilitySet::DAC_READ_SEARCH)
                .union(CapabilitySet::SYS_ADMIN),
            Self::Serve => CapabilitySet::empty(),
        }
    }
}

/// Gives up, for the calling thread and those that it starts from now on, all that its duty does not
/// take. That is said and not fatal where it cannot be done: all works without.
pub fn keep(duty: Duty) {
    keep_these(duty.takes());
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
            keep(Duty::Look);
            let kept = Duty::Look.takes().bits() & had;
            assert_eq!(mask("CapEff:"), kept);
            assert_eq!(mask("CapPrm:"), kept);
            assert_eq!(mask("CapInh:"), 0);
            assert_eq!(mask("CapAmb:"), 0);
            assert_eq!(mask("NoNewPrivs:"), 1);
            keep(Duty::Serve);
            assert_eq!(mask("CapPrm:"), 0);
        });
    }
}
