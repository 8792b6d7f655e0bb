use sparkherd_footprint::{Buffer, Workspace};

use super::{AttentionLimits, SamplingLimits};
use crate::{backend::BackendError, model::StepLimits};

/// What is allocated, and what a step has at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaLimits {
    pub weights_bytes: usize,
    pub workspace_bytes: usize,
    /// Of what steps are told in numbers.
    pub numbers_bytes: usize,
    /// Values that are written or read at once.
    pub transfer_elements: usize,
    /// Rows of the largest step that is recorded.
    pub recorded_rows: usize,
    /// How few rows share the positions of each.
    pub attention: Option<AttentionLimits>,
    /// How many tokens are chosen on the device.
    pub sampling: Option<SamplingLimits>,
}

/// Steps of more sequences are bound by arithmetic, and launch each kernel by itself.
const RECORDED_ROWS_MAX: usize = 32;

impl CudaLimits {
    /// Those of a model's steps.
    pub fn of_steps(
        steps: &StepLimits,
        workspace: &Workspace,
        weights_bytes: u64,
    ) -> Result<Self, BackendError> {
        let bytes = |buffer: Buffer| size("buffer", buffer.bytes());
        let all = size("workspace", workspace.bytes().ok())?;
        let beside = bytes(workspace.partial)? + bytes(workspace.numbers)? + bytes(workspace.sampling)?;
        // What a step's answer is read from, at most.
        let read = workspace.logits.elements.saturating_add(workspace.residual.elements);
        Ok(Self {
            weights_bytes: size("weights", Some(weights_bytes))?,
            workspace_bytes: all.saturating_sub(beside),
            numbers_bytes: bytes(workspace.numbers)?,
            transfer_elements: size("transfer", Some(read))?,
            recorded_rows: steps.sequences.min(RECORDED_ROWS_MAX),
            attention: AttentionLimits::of_steps(steps, workspace),
            sampling: SamplingLimits::of_steps(steps, workspace),
        })
    }
}

/// Bytes as this machine counts them.
fn size(what: &'static str, bytes: Option<u64>) -> Result<usize, BackendError> {
    let size = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let limit = usize::MAX;
    size.ok_or(BackendError::OutOfRange { operation: "allocate", what, got: limit, limit })
}
