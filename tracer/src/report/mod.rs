//! `turnaway report`: incidents as people read them (pure, but for [`gather`]).
//!
//! [`gather`] finds what is to be told, in the history or in recorded lines; [`tell`] makes one
//! document of it, which [`text`], [`markdown`] and [`html`] write, each in its way. JSON has the facts
//! themselves.

mod document;
mod facts;
pub mod gather;
pub mod html;
pub mod markdown;
mod plot;
mod remedy;
mod tell;
pub mod text;

#[cfg(test)]
mod tests;

pub use crate::context::Explanation;
pub use document::Block;
pub use facts::{Again, Entry, Facts};
pub use remedy::{Remedy, remedies};
pub use tell::tell;
