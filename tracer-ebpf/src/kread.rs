//! The only reads of memory: the kernel's, and that of the program it works for. Every one
//! can fail and says so.

use core::num::NonZeroU64;

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_user, generated};

/// A kernel address that was read or handed to a program; never null, so that an
/// `Option<Addr>` is one word, with no half that was never written.
#[derive(Clone, Copy)]
pub(crate) struct Addr(NonZeroU64);

impl Addr {
    /// An address, unless it is null.
    #[inline(always)]
    pub(crate) fn new(raw: u64) -> Option<Self> {
        NonZeroU64::new(raw).map(Self)
    }

    /// The address as a number.
    #[inline(always)]
    pub(crate) fn raw(self) -> u64 {
        self.0.get()
    }

    /// The address `offset` bytes further on.
    #[inline(always)]
    pub(crate) fn at(self, offset: usize) -> Self {
        Self(self.0.saturating_add(offset as u64))
    }

    /// Reads a value.
    #[inline(always)]
    pub(crate) fn read<T>(self) -> Option<T> {
        // SAFETY: the helper checks the address and fails instead of faulting; the types
        // read here are integers and integer arrays, for which any bytes are a value.
        unsafe { bpf_probe_read_kernel(self.0.get() as *const T) }.ok()
    }

    /// Reads a field, if this kernel has it.
    #[inline(always)]
    pub(crate) fn field<T>(self, offset: Option<usize>) -> Option<T> {
        self.at(offset?).read()
    }

    /// Follows a pointer field, if this kernel has it and it is not null.
    #[inline(always)]
    pub(crate) fn follow(self, offset: Option<usize>) -> Option<Self> {
        Self::new(self.field(offset)?)
    }

    /// Copies a field to `to`, if this kernel has it.
    #[inline(always)]
    pub(crate) fn copy_field<T>(self, offset: Option<usize>, to: &mut T) -> bool {
        let Some(offset) = offset else { return false };
        self.at(offset)
            .copy_to((&raw mut *to).cast(), size_of::<T>() as u32)
    }

    /// Copies `len` bytes to `to`; `len` must be bounded in a way the verifier can see.
    #[inline(always)]
    pub(crate) fn copy_to(self, to: *mut u8, len: u32) -> bool {
        // SAFETY: the verifier checks `to` and `len`, the helper checks the source.
        unsafe { generated::bpf_probe_read_kernel(to.cast(), len, self.0.get() as *const _) == 0 }
    }
}

/// An address of the program that runs now.
#[derive(Clone, Copy)]
pub(crate) struct UserAddr(NonZeroU64);

impl UserAddr {
    /// An address, unless it is null.
    #[inline(always)]
    pub(crate) fn new(raw: u64) -> Option<Self> {
        NonZeroU64::new(raw).map(Self)
    }

    /// The address `offset` bytes further on.
    #[inline(always)]
    pub(crate) fn at(self, offset: usize) -> Self {
        Self(self.0.saturating_add(offset as u64))
    }

    /// Reads a value.
    #[inline(always)]
    pub(crate) fn read<T>(self) -> Option<T> {
        // SAFETY: as for `Addr::read`.
        unsafe { bpf_probe_read_user(self.0.get() as *const T) }.ok()
    }

    /// Copies `len` bytes to `to`; `len` must be bounded in a way the verifier can see.
    #[inline(always)]
    pub(crate) fn copy_to(self, to: *mut u8, len: u32) -> bool {
        // SAFETY: the verifier checks `to` and `len`, the helper checks the source.
        unsafe { generated::bpf_probe_read_user(to.cast(), len, self.0.get() as *const _) == 0 }
    }
}
