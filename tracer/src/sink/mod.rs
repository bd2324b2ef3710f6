//! Where it goes: lines for people, and the writer of standard output.

pub mod holdings;
pub mod name;
pub mod stdout;
mod summary;
pub mod text;
