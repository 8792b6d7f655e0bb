//! The inference engine. One thread owns the device; everything else is data in, data out.
//!
//! ```text
//! server ─► EngineHandle ─(bounded channel)─► worker: take in ─► schedule ─► forward ─► sample ─► emit
//!              │                                 │           │            │
//!              └ text: encode, template          kv pool     Batch        logits ─► Generation (a stream of events)
//! ```

pub mod backend;
pub mod batch;
pub mod handle;
pub mod kv;
pub mod layers;
pub mod load;
pub mod model;
mod output;
pub mod request;
pub mod sample;
pub mod schedule;
mod shared;
mod stats;
pub mod text;
pub mod weights;
mod worker;

pub use batch::{Batch, BatchSequence, ForwardError, ForwardPass, Logits};
pub use handle::{Engine, EngineHandle, EngineLimits, ModelInfo, StartError, SubmitError};
pub use load::{BackendChoice, LoadConfig, LoadError, LoadProgress, LoadedModel, load_model};
pub use request::{
    FinishReason, Generation, GenerationError, GenerationEvent, GenerationRequest, Sampling, Usage,
};
pub use stats::EngineStats;
pub use text::{ChatPrompt, TemplateError, Text, TextError};
