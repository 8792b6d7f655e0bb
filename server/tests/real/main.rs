//! The HTTP surface over the real engine: what one client does to another, and what grammars make of answers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails is a failed test")]

mod forms;
mod gate;
mod grammars;
mod harness;
mod limits;
