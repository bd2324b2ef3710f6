//! Whose failure it is, as far as could be found out.

use std::rc::Rc;

use super::Identity;
use crate::event::{Listener, Process, ProcessId};

/// Whose failure it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The process whose call failed; where nobody's did, the one that accepts on the
    /// listener, or the only one that holds it. `None` where that could not be found out.
    pub party: Option<Party>,
    /// Where nobody's call failed: what is known of who holds the listener.
    pub holders: Option<Holders>,
    /// Where a connect failed: what is known of the other end.
    pub far: Option<Far>,
}

/// The other end of a connection that could not be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Far {
    /// Name of an AF_UNIX socket, as in [`crate::event::Address::Unix`].
    pub path: Option<Vec<u8>>,
    /// The listener, where there is one on this host.
    pub listener: Option<FarListener>,
    /// The process that holds it; of several, the one with the lowest id.
    pub server: Option<Holder>,
}

/// A listener that a client of this host wanted to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarListener {
    /// Its socket inode.
    pub inode: u64,
    /// The rest.
    pub listener: Listener,
}

/// A process and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Which.
    pub id: ProcessId,
    /// What the kernel side said of it, or procfs where the kernel side could not.
    pub facts: Process,
    /// Who it is beyond that.
    pub identity: Rc<Identity>,
}

/// The processes that hold a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// Them, by process id.
    pub processes: Vec<Holder>,
    /// Every process was looked at: there are no others.
    pub complete: bool,
}

/// A process that holds a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Its name, any bytes.
    pub comm: Option<Vec<u8>>,
}

impl Who {
    /// A process of its own.
    #[must_use]
    pub fn process(id: ProcessId, facts: Process, identity: Rc<Identity>) -> Self {
        Self {
            party: Some(Party {
                id,
                facts,
                identity,
            }),
            holders: None,
            far: None,
        }
    }

    /// Whether a process is, or may be, the one.
    #[must_use]
    pub fn is(&self, pid: u32) -> bool {
        self.party.as_ref().is_some_and(|party| party.id.pid == pid)
            || self.holders().any(|holder| holder.pid == pid)
    }

    /// Whether it, or one that it may be, has this name.
    #[must_use]
    pub fn is_called(&self, comm: &[u8]) -> bool {
        self.party
            .as_ref()
            .is_some_and(|party| party.facts.comm == comm)
            || self
                .holders()
                .any(|holder| holder.comm.as_deref() == Some(comm))
    }

    /// Nobody holds the listener any more.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.holders
            .as_ref()
            .is_some_and(|holders| holders.complete && holders.processes.is_empty())
    }

    fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.holders.iter().flat_map(|holders| &holders.processes)
    }
}
