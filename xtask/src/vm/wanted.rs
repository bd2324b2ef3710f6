//! Which guests a test run is to boot.

use std::ffi::OsStr;
use std::io::Write as _;

use super::kernel::{UnpackedKernel, kernels_dir, locate};

/// If set, no guest test runs.
pub(crate) const NO_GUESTS: &str = "TURNAWAY_NO_GUESTS";

/// If set, guest tests run with the test kernel of this name only.
pub(crate) const ONE_KERNEL: &str = "TURNAWAY_KERNEL";

/// The kernel to test with, or nothing if this run leaves it out or this machine cannot boot it:
/// then the test says so, even if its output is captured, and passes.
#[must_use]
pub fn for_test(name: &str) -> Option<UnpackedKernel> {
    let variable = |name| std::env::var_os(name);
    let found = match left_out(
        name,
        variable(NO_GUESTS).as_deref(),
        variable(ONE_KERNEL).as_deref(),
    ) {
        Some(reason) => Err(reason),
        None => kernels_dir()
            .and_then(|dir| locate(&dir, name))
            .map_err(|error| format!("{error:#}")),
    };
    found
        .inspect_err(|reason| {
            // Not `eprintln!`, which a test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "SKIPPED: guest {name}: {reason}");
        })
        .ok()
}

fn left_out(name: &str, no_guests: Option<&OsStr>, only: Option<&OsStr>) -> Option<String> {
    if no_guests.is_some() {
        return Some(format!("{NO_GUESTS} is set"));
    }
    only.filter(|only| *only != name)
        .map(|only| format!("{ONE_KERNEL} is {}", only.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_can_leave_guests_out() {
        let only = Some(OsStr::new("6.1"));
        assert_eq!(left_out("6.1", None, None), None);
        assert_eq!(left_out("6.1", None, only), None);
        assert!(left_out("6.12", None, only).is_some());
        assert!(left_out("6.1", Some(OsStr::new("1")), only).is_some());
    }
}
