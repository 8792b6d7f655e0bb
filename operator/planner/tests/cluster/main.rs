//! The planner against a small simulated cluster: scenarios as text with golden answers, and properties.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod arbitrary;
mod properties;
mod scenarios;
mod script;
mod simulator;
