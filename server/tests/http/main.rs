//! The HTTP surface over the fake engine, on loopback.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails is a failed test")]

mod answers;
mod bad_input;
mod connections;
mod embeddings;
mod front;
mod fuzz;
mod harness;
mod life;
mod metrics;
mod parameters;
mod streams;
mod tokens;
mod tools;
mod usage;
