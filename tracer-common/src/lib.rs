//! What the kernel programs and the user-space side of turnaway agree on: reason
//! codes, the layout of map keys and values, and the layout of ring records.
//!
//! Every shared structure is `repr(C)`, holds integers and byte arrays only (so that
//! any bit pattern is a valid value), has its padding written out and its size
//! asserted. Anything that may be unknown has a bit in [`known`]; a field whose bit
//! is clear holds zero and means nothing.
#![no_std]

pub mod failure;
pub mod layout;
pub mod program;
pub mod reason;

pub use failure::{
    ClosedListener, Exemplar, FailureCount, FailureKey, ListenerFacts, ListenerStats, ProcessFacts,
    known,
};
pub use program::ProgramRecord;
pub use reason::Reason;

#[cfg(feature = "user")]
mod pod {
    use crate::{failure, layout};

    macro_rules! pod {
        ($($ty:ty),+ $(,)?) => {
            $(
                // SAFETY: repr(C), integers and arrays of integers only, padding written out:
                // every bit pattern is a value and there are no uninitialised bytes.
                unsafe impl aya::Pod for $ty {}
            )+
        };
    }

    pod!(
        failure::ClosedListener,
        failure::FailureKey,
        failure::FailureCount,
        failure::ListenerStats,
        layout::Counters,
        layout::KernelFilter,
        layout::Offsets,
        layout::Settings,
        layout::SyscallLayout,
    );
}
