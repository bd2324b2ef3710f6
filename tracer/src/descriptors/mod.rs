//! How full tables of descriptors and files are (pure): a record for each level that is crossed, and
//! one when there is room again.

mod gauge;
mod pressure;

pub use gauge::{Change, Gauge, LEVELS};
pub use pressure::{Look, Pressure, Told};
