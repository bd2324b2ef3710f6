//! Who it was: from a process id and what the kernel side saw of it to an executable, a
//! parent, a cgroup, a unit and a container.
//!
//! Everything here is read from procfs, cgroupfs and the container runtimes' own files.
//! No program is started and no API is called. What cannot be read stays `None`.

mod cache;
pub mod cgroup;
pub mod container;
mod far;
pub mod holdings;
pub(crate) mod kernfs;
mod links;
pub mod owners;
mod process;
pub mod survey;
mod table;
mod task;
pub mod timens;
mod who;

pub use cgroup::Runtime;
pub use container::{Container, Pod};
pub use process::{Adopted, Attributor};
pub use task::NofileLimits;
pub use who::{Far, FarListener, Holder, Holders, Party, Who};

/// Who a process is, beyond what the kernel side reports with each failure.
///
/// Names that are bytes on Linux stay bytes: [`crate::text`] makes them fit to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Path of its executable as `/proc/PID/exe` tells it; ends in ` (deleted)` where the
    /// file was replaced since.
    pub exe: Option<Vec<u8>>,
    /// Its parent.
    pub parent: Option<Parent>,
    /// Process id in its own pid namespace, where that is not the initial one.
    pub ns_pid: Option<u32>,
    /// Path of its cgroup: the v2 hierarchy's or, on v1 and hybrid hosts, the one that
    /// tells most (see [`cgroup::telling_path`]).
    pub cgroup: Option<Vec<u8>>,
    /// The systemd unit it runs in, as systemd writes it in cgroup paths (`\x2d` and all).
    pub unit: Option<String>,
    /// Whether [`Identity::unit`] is one of a user's systemd, not of the system's.
    pub user_unit: bool,
    /// The container it runs in.
    pub container: Option<Container>,
    /// The process was gone when it was last looked at.
    pub exited: bool,
}

/// The parent of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Its name, any bytes; `None` where it is gone, or its pid is another process's now.
    pub comm: Option<Vec<u8>>,
}
