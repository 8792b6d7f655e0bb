//! One engine process as the agent sees it, from spawn until its memory is measured back.
//!
//! ```text
//!            ready              drain
//! Loading ─────────► Serving ─────────► Draining
//!    │                  │                  │  late
//!    └──── kill ────────┴──── kill ────────┴──────► Killed
//!    └───────── exit, from any of them ───────────► Returning ──(measured back, or 120 s)──► gone
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use sparkherd_protocol::{Access, Event, FailureReason};
use thiserror::Error;

use crate::bytes::readable;
use crate::memory::PoolBytes;
use crate::wanted::Wanted;

/// Tells engines of one agent apart; never used twice in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineId(pub u64);

/// Why the agent killed an engine.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KillReason {
    #[error("no replica asks for it any more")]
    Orphan,
    #[error("stopped while loading")]
    Stopped,
    #[error("still running {seconds} s after it was asked to drain")]
    DrainOverdue { seconds: u64 },
    #[error("load made no progress for {seconds} s")]
    NoProgress { seconds: u64 },
    #[error("no step finished for {seconds} s while sequences ran")]
    Stalled { seconds: u64 },
    #[error("said nothing for {seconds} s")]
    Silent { seconds: u64 },
    #[error(
        "memory guard: {} available, less than half the reserve of {}",
        readable(*available_bytes),
        readable(*reserve_bytes)
    )]
    Guard { available_bytes: u64, reserve_bytes: u64 },
    #[error("agent is ending")]
    AgentEnding,
}

impl KillReason {
    /// Whether the end counts as a failure of the replica's attempt.
    pub const fn is_failure(&self) -> bool {
        match self {
            Self::NoProgress { .. } | Self::Stalled { .. } | Self::Silent { .. } | Self::Guard { .. } => true,
            Self::Orphan | Self::Stopped | Self::DrainOverdue { .. } | Self::AgentEnding => false,
        }
    }

    /// Whether the engine hung rather than ended.
    pub const fn is_stall(&self) -> bool {
        matches!(self, Self::Stalled { .. } | Self::Silent { .. } | Self::NoProgress { .. })
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// `code 3` or `signal 9`.
    pub status: String,
    /// Set when the agent killed it.
    pub killed: Option<KillReason>,
}

/// Why an engine gave up, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub reason: FailureReason,
    pub message: String,
}

/// What an engine said when it became ready, and lately.
#[derive(Clone, Debug, PartialEq)]
pub struct Answering {
    pub address: SocketAddr,
    pub incarnation: String,
    pub tokens_per_second: f64,
    /// Bytes its arenas had touched when it became ready.
    pub held_bytes: u64,
    pub heard_at: Duration,
    pub running: u32,
    pub last_step_age: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    Loading {
        bytes_done: u64,
        bytes_total: u64,
        held_bytes: u64,
        advanced_at: Duration,
    },
    Serving(Answering),
    Draining {
        asked_at: Duration,
        kill_at: Duration,
    },
    Killed {
        was_loading: bool,
    },
    /// The process is gone, its memory is not yet measured back.
    Returning {
        exited_at: Duration,
        /// What is enough to be shown by the pools.
        floor: PoolBytes,
        /// What the pools show when all is back.
        whole: PoolBytes,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    pub id: EngineId,
    pub pid: u32,
    pub port: u16,
    /// Bytes promised to it, by pool.
    pub footprint: PoolBytes,
    /// Bytes promised to it on the GPU, in whatever pool they lie.
    pub device_footprint_bytes: u64,
    pub spawned_at: Duration,
    pub stage: Stage,
    /// Bytes the process holds, measured; of the last look once it is gone.
    pub held: PoolBytes,
    /// What the pools had beside this engine when that was measured: available, and held by our other engines.
    unclaimed: PoolBytes,
    /// What it said before it gave up.
    pub failure: Option<Said>,
    /// The access it was last told.
    pub access: Access,
    pub served_names: Vec<String>,
}

/// A tenth of the bytes held at exit may be out still: shared pages, and what the kernel frees late.
const STILL_OUT_DIVISOR: u64 = 10;

impl Engine {
    /// `footprint`: what is promised to it of each pool.
    pub fn spawned(
        id: EngineId,
        pid: u32,
        port: u16,
        wanted: &Wanted,
        footprint: PoolBytes,
        now: Duration,
    ) -> Self {
        Self {
            id,
            pid,
            port,
            footprint,
            device_footprint_bytes: wanted.footprint.device_bytes,
            spawned_at: now,
            stage: Stage::Loading { bytes_done: 0, bytes_total: 0, held_bytes: 0, advanced_at: now },
            held: PoolBytes::default(),
            unclaimed: PoolBytes::default(),
            failure: None,
            access: wanted.access.clone(),
            served_names: wanted.served_names.clone(),
        }
    }

    /// Takes in what the child said. True when this made it ready.
    pub fn heard(&mut self, event: Event, now: Duration) -> bool {
        match (event, &mut self.stage) {
            (
                Event::Loading { bytes_done: done, bytes_total: total, held_bytes: held },
                Stage::Loading { bytes_done, bytes_total, held_bytes, advanced_at },
            ) => {
                if done > *bytes_done || held > *held_bytes {
                    *advanced_at = now;
                }
                (*bytes_done, *bytes_total, *held_bytes) = (done, total, held);
            }
            (Event::Ready { address, incarnation, held_bytes, tokens_per_second }, Stage::Loading { .. }) => {
                self.stage = Stage::Serving(Answering {
                    address,
                    incarnation,
                    tokens_per_second,
                    held_bytes,
                    heard_at: now,
                    running: 0,
                    last_step_age: Duration::ZERO,
                });
                return true;
            }
            (Event::Stats { running, last_step_age_ms, .. }, Stage::Serving(answering)) => {
                answering.heard_at = now;
                answering.running = running;
                answering.last_step_age = Duration::from_millis(last_step_age_ms);
            }
            (Event::Failed { reason, message }, _) => self.failure = Some(Said { reason, message }),
            // Out of turn: it cannot move the engine to a stage the agent did not ask for.
            _ => {}
        }
        false
    }

    /// Notes what was measured while it runs.
    ///
    /// A process that is being torn down reads as holding nothing long before its memory is back: such a sample, and any
    /// of one that was killed, says nothing of what has to come back.
    pub const fn measured(&mut self, held: PoolBytes, unclaimed: PoolBytes) {
        if held.total() > 0 && !matches!(self.stage, Stage::Returning { .. } | Stage::Killed { .. }) {
            self.held = held;
            self.unclaimed = unclaimed;
        }
    }

    pub fn drain(&mut self, now: Duration, kill_at: Duration) {
        self.stage = Stage::Draining { asked_at: now, kill_at };
    }

    pub fn killed(&mut self) {
        self.stage = Stage::Killed { was_loading: matches!(self.stage, Stage::Loading { .. }) };
    }

    /// The process is gone. `grain`: noise of the pools, below which nothing can be told apart.
    pub fn exited(&mut self, now: Duration, grain: PoolBytes) {
        let whole = self.unclaimed.plus(self.held);
        let still_out = PoolBytes {
            host: self.held.host / STILL_OUT_DIVISOR,
            device: self.held.device / STILL_OUT_DIVISOR,
        };
        let floor = whole.minus(still_out).minus(grain);
        self.stage = Stage::Returning { exited_at: now, floor, whole };
    }

    /// Bytes its arenas have touched, by its own account; after `ready` that does not change (I18).
    pub const fn said_held_bytes(&self) -> u64 {
        match &self.stage {
            Stage::Loading { held_bytes, .. } => *held_bytes,
            Stage::Serving(answering) => answering.held_bytes,
            Stage::Draining { .. } | Stage::Killed { .. } | Stage::Returning { .. } => self.held.total(),
        }
    }

    /// From spawn to ready or exit: only one engine of a node may be in this (I1).
    pub const fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Loading { .. } | Stage::Killed { was_loading: true })
    }

    /// Whether there is still a process.
    pub const fn is_alive(&self) -> bool {
        !matches!(self.stage, Stage::Returning { .. })
    }

    pub const fn answering(&self) -> Option<&Answering> {
        match &self.stage {
            Stage::Serving(answering) => Some(answering),
            _ => None,
        }
    }
}
