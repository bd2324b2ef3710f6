//! Listeners of every family, each with its own numbers.

use anyhow::Result;

use super::Stage;
use super::emfile::at_limit;
use super::listening::Listening;
use crate::sys::Call;

/// IPv6.
pub fn ipv6(stage: &mut Stage) -> Result<()> {
    at_limit(stage, &Listening::tcp6(9)?, 4, Call::Accept4, 61, 12)
}

/// IPv6 that takes IPv4 too.
pub fn dual_stack(stage: &mut Stage) -> Result<()> {
    at_limit(stage, &Listening::dual_stack(13)?, 2, Call::Accept4, 62, 13)
}

/// MPTCP.
pub fn mptcp(stage: &mut Stage) -> Result<()> {
    at_limit(stage, &Listening::mptcp(14)?, 3, Call::Accept4, 63, 14)
}

/// AF_UNIX by path.
pub fn unix_path(stage: &mut Stage) -> Result<()> {
    at_limit(stage, &Listening::unix_path(15)?, 5, Call::Accept4, 65, 15)
}

/// AF_UNIX by abstract name.
pub fn unix_abstract(stage: &mut Stage) -> Result<()> {
    at_limit(
        stage,
        &Listening::unix_abstract(17)?,
        6,
        Call::Accept4,
        66,
        16,
    )
}

/// AF_UNIX, SOCK_SEQPACKET.
pub fn unix_seqpacket(stage: &mut Stage) -> Result<()> {
    at_limit(
        stage,
        &Listening::unix_seqpacket(18)?,
        1,
        Call::Accept,
        67,
        17,
    )
}

/// AF_VSOCK.
pub fn vsock(stage: &mut Stage) -> Result<()> {
    at_limit(stage, &Listening::vsock(19)?, 2, Call::Accept4, 68, 18)
}
