//! The HTTP surface over the fake engine, on loopback.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails is a failed test")]

mod answers;
mod bad_input;
mod harness;
mod life;
mod streams;
