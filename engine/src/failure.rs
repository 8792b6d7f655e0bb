use crate::batch::ForwardError;

/// Why an engine can never answer again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFailure {
    pub kind: FailureKind,
    pub message: String,
}

/// What another process can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The GPU is lost to this process, and may be whole for another.
    GpuFault,
    OutOfMemory,
    Other,
}

impl EngineFailure {
    /// A failure of our own making.
    pub fn other(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Other, message: message.into() }
    }
}

impl From<&ForwardError> for EngineFailure {
    fn from(error: &ForwardError) -> Self {
        let kind = match error {
            ForwardError::Fault(_) => FailureKind::GpuFault,
            ForwardError::OutOfMemory(_) => FailureKind::OutOfMemory,
            ForwardError::BatchTooLarge { .. }
            | ForwardError::TooManyLogits { .. }
            | ForwardError::Inconsistent(_)
            | ForwardError::Device(_) => FailureKind::Other,
        };
        Self { kind, message: error.to_string() }
    }
}
