//! Memory that is free here, and that the allocator keeps from others.

/// Gives it back to the kernel: what was needed for a moment only, such as by a burst of failures, or to read the
/// kernel's type information.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number; safe to call at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
