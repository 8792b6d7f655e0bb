use std::io;
use std::net::SocketAddr;

use sparkherd_engine::{EngineFailure, FailureKind};
use sparkherd_protocol::FailureReason;
use thiserror::Error;

use crate::access::AccessError;

/// Status of a child that gave up; the `failed` event before it says why.
pub(super) const EXIT_STATUS: u8 = 1;

/// Why a child gives up. Its text goes into the replica's status.
#[derive(Debug, Error)]
pub enum ChildError {
    #[error("cannot die with the agent: {0}")]
    Parent(io::Error),
    #[error("cannot read the engine's configuration: {0}")]
    ConfigRead(io::Error),
    #[error("engine's configuration is not valid: {0}")]
    ConfigInvalid(#[from] serde_json::Error),
    #[error("access is not valid: {0}")]
    Access(#[from] AccessError),
    #[error("cannot start threads: {0}")]
    Runtime(io::Error),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("{message}")]
    Load { reason: FailureReason, message: String },
    #[error("start-up generation failed: {0}")]
    Probe(String),
    #[error("engine failed: {}", .0.message)]
    Engine(EngineFailure),
    #[error("metrics cannot be made: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl ChildError {
    /// For programs, as in `failed`.
    pub(super) const fn reason(&self) -> FailureReason {
        match self {
            Self::ConfigRead(_) | Self::ConfigInvalid(_) | Self::Access(_) => FailureReason::ConfigInvalid,
            Self::Parent(_) | Self::Runtime(_) | Self::Metrics(_) => FailureReason::SystemError,
            Self::Listen { .. } => FailureReason::AddressUnavailable,
            Self::Load { reason, .. } => *reason,
            Self::Probe(_) => FailureReason::ProbeFailed,
            Self::Engine(EngineFailure { kind, .. }) => match kind {
                FailureKind::GpuFault => FailureReason::GpuFault,
                FailureKind::OutOfMemory => FailureReason::OutOfMemory,
                FailureKind::Other => FailureReason::EngineFailed,
            },
        }
    }
}
