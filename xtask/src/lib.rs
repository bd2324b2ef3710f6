//! turnaway's chores, as a library: `cargo xtask` is a thin command line over
//! it, and the guest tests call [`vm`] directly.

mod apt;
pub mod bench;
pub mod budget;
pub mod build;
mod cache;
mod command;
pub mod debian;
pub mod demo;
pub mod fuzz;
pub mod lint;
pub mod man;
pub mod package;
mod packages;
pub mod plot;
pub mod run;
pub mod schema;
pub mod setup;
pub mod soak;
mod steps;
pub mod test;
mod toolchain;
pub mod unpacked;
pub mod vm;
mod workspace;
