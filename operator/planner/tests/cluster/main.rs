//! The planner against a small simulated cluster: scenarios as text with golden answers, and properties.

mod arbitrary;
mod properties;
mod scenarios;
mod script;
mod simulator;
