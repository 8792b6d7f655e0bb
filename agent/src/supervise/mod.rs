//! Engine children: spawn, listen, command, kill. Thin: every decision is in `plan.rs` and `record.rs`.
//!
//! ```text
//! Spawner (one thread as long as the agent) ── fork+exec ──► child in its own process group
//! ProcessGroup (one thread a child)         ── waits, kills the whole group, then reaps the leader
//! EngineHandle                              ── commands to stdin; events from stdout ──► the loop's channel
//! ```

mod config_fd;
mod engine_child;
mod environment;
mod ledger;
mod lines;
mod process_group;
mod spawner;

pub use engine_child::{EngineHandle, EngineNews, EngineProgram, News, Supervisor};
pub use environment::child_environment;
pub use ledger::Ledger;
pub use process_group::ProcessGroup;
pub use spawner::{SpawnError, Spawner};
