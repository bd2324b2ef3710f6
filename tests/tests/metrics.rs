//! Metrics as Prometheus sees them, and what is shipped to be used with them.
//!
//! The truth is what a test has told: it counts that itself.

#[path = "metrics/packaging.rs"]
mod packaging;
#[path = "metrics/prometheus.rs"]
mod prometheus;
#[path = "metrics/requests.rs"]
mod requests;
#[path = "metrics/served.rs"]
mod served;
