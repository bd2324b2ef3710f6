//! turnaway against real servers and real kernels.
//!
//! turnaway is a black box here: a program that is run and whose records are read. What they are
//! compared with comes from elsewhere: a [`workload`] counts what its own calls returned, a real
//! [server](servers) is watched with strace, and /proc tells who is who.

pub mod apart;
pub mod cgroup;
pub mod checks;
pub mod cost;
pub mod daemon;
pub mod disk;
pub mod few;
pub mod lines;
pub mod live;
pub mod load;
pub mod measure;
pub mod programs;
pub mod records;
pub mod scenario;
pub mod servers;
pub mod soak;
pub mod sys;
pub mod terminal;
pub mod tracer;
pub mod truth;
pub mod wait;
pub mod workload;
