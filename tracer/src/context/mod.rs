//! What went on around an incident.

mod types;

pub use types::{
    Busy, Cause, Explanation, Files, Healthy, Held, Level, Levels, Memory, Peer, Pressures, Reading,
    Started, Strength, User, VictimState,
};
