//! What an agent and its engine child say to each other: one JSON object a line, each way over its own pipe.
//!
//! ```text
//! agent ──(sealed memfd, fd 3)──► EngineConfig          once, before the child runs
//! agent ──(child's stdin)───────► Command                drain, access, stop; end of input = the agent died = exit
//! agent ◄─(child's stdout)─────── Event                  loading, ready, stats, draining, failed
//! ```
//!
//! The child dups its stdout away at start and points fd 1 at stderr, which is its log, so that nothing a library
//! prints can break the line protocol. A line is at most [`LINE_BYTES_MAX`]; a reader logs and skips what it does not know.

mod command;
mod config;
mod event;
mod failure;
mod line;

pub use command::Command;
pub use config::{Access, EngineConfig};
pub use event::Event;
pub use failure::FailureReason;
pub use line::{LineError, parse_command, parse_event, to_line};

/// Longest line either side may write, newline included. An event is well under 1 KiB; the limit bounds a broken peer.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
