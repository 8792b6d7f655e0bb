//! The inference engine. One thread owns the device; everything else is data in, data out.
//!
//! ```text
//! server ─► EngineHandle ─(bounded channel)─► worker: take in ─► schedule ─► forward ─► sample ─► emit
//!              │                                 │           │            │
//!              └ text: encode, template          kv pool     Batch        logits ─► Generation (a stream of events)
//! ```

pub mod batch;
pub mod handle;
pub mod request;

pub use batch::{Batch, BatchSequence, ForwardPass, ForwardError, Logits};
pub use handle::{EngineHandle, EngineStats, ModelInfo, SubmitError};
pub use request::{FinishReason, Generation, GenerationError, GenerationEvent, GenerationRequest, Sampling, Usage};
