//! Where it goes: lines for people, and the writer of standard output.

pub mod name;
pub mod stdout;
pub mod text;
