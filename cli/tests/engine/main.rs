//! `sparkherd engine` as its agent and its clients see it: the real binary as a child process.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails is a failed test")]

mod bench_serve;
mod checkpoint;
mod child;
mod clients;
mod embedding;
mod fuzz;
mod gguf;
mod harness;
mod memory;
mod soak;
mod structured;
