use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::FailureReason;

/// Engine to agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Weights are being read. `held_bytes`: what the arenas have touched so far.
    Loading {
        bytes_done: u64,
        bytes_total: u64,
        held_bytes: u64,
    },
    /// A real generation at start has produced tokens, and the port answers.
    Ready {
        address: SocketAddr,
        incarnation: String,
        held_bytes: u64,
        tokens_per_second: f64,
    },
    /// Each second, dropped rather than queued when the agent does not read.
    Stats {
        running: u32,
        waiting: u32,
        generated_tokens: u64,
        /// Used share of the KV pool, 0 to 1.
        kv_used: f64,
        /// Milliseconds since the last finished step while sequences ran; 0 when idle.
        last_step_age_ms: u64,
        held_bytes: u64,
    },
    Draining,
    /// The engine gives up; the process exits with a status other than 0 right after.
    Failed {
        reason: FailureReason,
        message: String,
    },
}
