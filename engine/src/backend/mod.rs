//! What a model needs of a device, at the grain of operations.
//!
//! ```text
//! model ── Linear { x, weight, out } ──► Backend ──► oracle: plain loops, the reference
//!          (names of tensors)                   ├──► cpu: threads and SIMD
//!                                               └──► cuda: launches of kernels
//! ```
//!
//! A backend owns three arenas (weights, keys and values, workspace) and every operation names its tensors by their
//! place in them, so the same model code drives host and device memory. Shapes are checked before anything is computed.

pub mod arena;
pub mod blocks;
pub mod cases;
mod check;
pub mod cpu;
pub mod cuda;
mod kv_view;
mod operands;
mod operations;
pub mod oracle;
mod unfused;

use sparkherd_checkpoint::RowError;
use thiserror::Error;

pub use operands::{Activation, KvShape, SequenceRows, StepNumbers, TokenRow, Weight};
pub use operations::{
    Add, AddBias, AddRmsNorm, Answer, Attention, AttentionInputs, AttentionOptions, Embed, GateMultiply,
    Gated, GatherRows, HeadNorms, HeadRmsNorm, KvWrite, Linear, RmsNorm, Rope,
};

use arena::Arena;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BackendError {
    #[error("{operation}: {what} is {got}, must be {wanted}")]
    Shape { operation: &'static str, what: &'static str, got: usize, wanted: usize },
    #[error("{operation}: {what} {got} is not below {limit}")]
    OutOfRange { operation: &'static str, what: &'static str, got: usize, limit: usize },
    #[error(
        "{operation}: weight of {rows} × {columns} at byte {offset_bytes} leaves the arena of {arena_bytes} bytes"
    )]
    Weight { operation: &'static str, rows: usize, columns: usize, offset_bytes: usize, arena_bytes: usize },
    #[error("{operation}: {source}")]
    Row { operation: &'static str, source: RowError },
    #[error("{operation}: operands overlap or leave the arena of {elements} elements")]
    Overlap { operation: &'static str, elements: usize },
    #[error("keys and values as {0} are not supported here")]
    KvDtype(&'static str),
    #[error("attention with {0} is not supported here")]
    AttentionOption(&'static str),
    #[error("arena of keys and values has {got} bytes, its shape needs {wanted}")]
    KvBytes { got: usize, wanted: usize },
    #[error("buffer for packed rows has {got} bytes, an operation needs {wanted}")]
    Packed { got: usize, wanted: usize },
    #[error(transparent)]
    Device(#[from] sparkherd_kernels::DeviceError),
    #[error("no memory for what goes to the device: {0}")]
    Staging(String),
    #[error("a compute thread panicked")]
    WorkerPanicked,
    #[error("cannot start a compute thread: {0}")]
    Thread(String),
}

impl BackendError {
    /// Whether there was less memory than was asked for.
    pub const fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Staging(_) => true,
            Self::Device(error) => error.is_out_of_memory(),
            _ => false,
        }
    }

    /// Whether the device is lost to this process: only another one can use it again.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Device(error) if error.is_fault())
    }
}

/// The memory of a backend that computes on the host.
#[derive(Debug)]
pub struct HostMemory {
    pub weights: Arena,
    pub kv: Arena,
    pub workspace: Arena,
    /// An operation's rows as the kernels read them; the workspace's last buffer.
    pub packed: Arena,
}

/// A device with a loaded model's arenas. Operations run in the order they are called.
pub trait Backend: Send {
    /// Says which weights there are, once, before the first operation: a backend may reorder a weight within its bytes.
    fn prepare(&mut self, weights: &[Weight]) -> Result<(), BackendError>;
    /// What a step is told in numbers, before its operations ask for them one by one.
    fn begin_step(&mut self, _numbers: StepNumbers<'_>) -> Result<(), BackendError> {
        Ok(())
    }
    /// The most rows of a step that is worth recording: one token of each sequence.
    fn recorded_rows_max(&self) -> usize {
        0
    }
    /// From now on operations are recorded instead of run, as those of a step of so many rows: one more than the step recorded before.
    fn begin_recording(&mut self, _rows: usize) -> Result<(), BackendError> {
        Ok(())
    }
    /// Ends what was begun.
    fn end_recording(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
    /// Runs what was recorded for so many rows on the numbers of this step; false where nothing was.
    fn replay(&mut self, _rows: usize) -> Result<bool, BackendError> {
        Ok(false)
    }
    /// Copies host values into an activation.
    fn write(&mut self, to: Activation, values: &[f32]) -> Result<(), BackendError>;
    /// An activation's values on the host, after all operations called so far.
    fn read(&mut self, from: Activation) -> Result<&[f32], BackendError> {
        Ok(self.read_pair([from, from])?[0])
    }
    /// Two activations' values on the host, waited for once.
    fn read_pair(&mut self, from: [Activation; 2]) -> Result<[&[f32]; 2], BackendError>;
    /// The logits and the hidden states of a step on the host. A backend that chooses tokens itself does so where there is a
    /// request that it covers, and leaves out those rows of logits.
    fn answer(&mut self, args: Answer<'_>) -> Result<[&[f32]; 2], BackendError> {
        self.read_pair([args.logits, args.hidden])
    }
    fn embed(&mut self, args: Embed<'_>) -> Result<(), BackendError>;
    fn gather_rows(&mut self, args: GatherRows<'_>) -> Result<(), BackendError>;
    fn rms_norm(&mut self, args: RmsNorm) -> Result<(), BackendError>;
    fn add_rms_norm(&mut self, args: AddRmsNorm) -> Result<(), BackendError>;
    fn add(&mut self, args: Add) -> Result<(), BackendError>;
    fn linear(&mut self, args: Linear) -> Result<(), BackendError>;
    fn add_bias(&mut self, args: AddBias) -> Result<(), BackendError>;
    fn head_rms_norm(&mut self, args: HeadRmsNorm) -> Result<(), BackendError>;
    /// Several products of the same rows, as if each were a [`Backend::linear`].
    fn linears(&mut self, x: Activation, parts: &[(Weight, Activation)]) -> Result<(), BackendError> {
        parts.iter().try_for_each(|(weight, out)| self.linear(Linear { x, weight: *weight, out: *out }))
    }
    fn rope(&mut self, args: Rope) -> Result<(), BackendError>;
    fn kv_write(&mut self, args: KvWrite<'_>) -> Result<(), BackendError>;
    fn attention(&mut self, args: Attention<'_>) -> Result<(), BackendError>;
    fn gate_multiply(&mut self, args: GateMultiply) -> Result<(), BackendError>;
    /// One by one, where a backend has nothing better.
    fn attention_inputs(&mut self, args: &AttentionInputs<'_>) -> Result<(), BackendError> {
        unfused::attention_inputs(self, args)
    }
    /// One by one, where a backend has nothing better.
    fn gated(&mut self, args: Gated) -> Result<(), BackendError> {
        unfused::gated(self, args)
    }
}
