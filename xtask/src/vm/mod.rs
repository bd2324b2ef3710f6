//! Test kernels and the virtual machines that run them.
//!
//! A guest is one of Debian's kernels under QEMU with an initramfs made for the run. Its first
//! program is `guest-init`, which runs one command and powers off.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use xtask::vm::{self, Guest};
//!
//! for kernel in vm::kernels() {
//!     let Some(kernel) = vm::for_test(kernel.name) else {
//!         continue;
//!     };
//!     let mut guest = Guest::new(kernel, ["/bin/turnaway", "doctor"]);
//!     guest.file("target/release/turnaway", "/bin/turnaway");
//!     let exit = guest.run(|line| println!("{line}"))?;
//!     assert_eq!(exit.code, 0, "{}", exit.console);
//! }
//! # Ok(())
//! # }
//! ```

pub mod cli;
mod console;
mod fetch;
mod guest;
mod initramfs;
mod kernel;
mod libraries;
mod modules;
mod packages;
mod wanted;

pub use fetch::fetch;
pub(crate) use guest::INIT;
pub use guest::{Guest, GuestExit};
pub(crate) use kernel::by_name as kernel_by_name;
pub use kernel::{Archive, Kernel, UnpackedKernel, is_unpacked, kernels, kernels_dir, locate};
pub use libraries::shared_libraries;
pub use wanted::for_test;
pub(crate) use wanted::{NO_GUESTS, ONE_KERNEL};
