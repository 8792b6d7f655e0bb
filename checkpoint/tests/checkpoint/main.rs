//! The crate from outside: each file of a checkpoint, and a directory as a whole.

#![expect(clippy::expect_used, reason = "a helper that fails is a failed test")]

mod config;
mod families;
mod gguf;
mod gguf_file;
mod read;
mod requantize;
mod support;
mod weights;
