//! The HTTP surface over the real engine and a tiny checkpoint of random weights: what one client does to another.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails is a failed test")]

mod gate;
mod harness;
mod limits;
