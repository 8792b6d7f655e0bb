use sparkherd_footprint::{ATTENTION_SPLITS_MAX, Buffer, Workspace};

use super::SamplingLimits;
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

/// Steps of few rows, as when every sequence decodes: the positions of each row are shared among blocks. A row gets the same
/// whatever the others of such a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionLimits {
    pub rows: usize,
    /// Positions of one block, at least.
    pub run_min: u32,
    /// Blocks for each row.
    pub splits: u32,
    /// What they write, in all.
    pub partial_elements: usize,
}

/// Fewer positions than this are not worth a block of their own: its eight warps have 32 each.
const RUN_MIN: u32 = 256;

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

impl AttentionLimits {
    /// None where one block is enough for any sequence, or there is no room.
    fn of_steps(steps: &StepLimits, workspace: &Workspace) -> Option<Self> {
        let partial_elements = usize::try_from(workspace.partial.elements).ok()?;
        let is_long = u32::try_from(steps.context).is_ok_and(|context| context > RUN_MIN);
        (is_long && partial_elements > 0).then_some(Self {
            rows: steps.sequences,
            run_min: RUN_MIN,
            splits: ATTENTION_SPLITS_MAX,
            partial_elements,
        })
    }
}
