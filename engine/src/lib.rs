//! The inference engine. One thread owns the device; everything else is data in, data out.
//!
//! ```text
//! server ─► EngineHandle ─(bounded channel)─► worker: take in ─► schedule ─► forward ─► sample ─► emit
//!              │                                 │           │            │
//!              └ text: encode, template          kv pool     Batch        logits ─► Generation (a stream of events)
//! ```

mod admission;
pub mod backend;
pub mod batch;
mod clock;
mod embedding_output;
mod failure;
pub mod grammar;
pub mod handle;
mod heap;
pub mod kv;
pub mod layers;
mod limits;
pub mod load;
pub mod model;
mod output;
pub mod request;
mod reservation;
pub mod sample;
pub mod schedule;
mod shared;
mod stats;
pub mod text;
pub mod weights;
mod worker;

pub use admission::QueueLimits;
pub use batch::{Batch, BatchSequence, Choice, ForwardError, ForwardPass, Rows, StepOutput, Wants};
pub use clock::Clock;
pub use failure::{EngineFailure, FailureKind};
pub use grammar::{Grammar, GrammarError, GrammarSource};
pub use handle::{Engine, EngineHandle, ModelInfo, StartError};
pub use limits::{CacheSize, EngineLimits, Timeouts};
pub use load::{
    BackendChoice, GpuChoice, GpuError, LoadConfig, LoadError, LoadProgress, LoadedModel, OpenGpu,
    load_model, load_model_on_device,
};
pub use request::{
    Caller, ClientKey, Embedding, EmbeddingRequest, Ends, FinishReason, Generation, GenerationError,
    GenerationEvent, GenerationRequest, LogprobOptions, PendingEmbedding, Piece, Priority, SampledToken,
    Sampling, Start, SubmitError, TimeoutPhase, TokenLogprob, Usage,
};
pub use reservation::Reservation;
pub use sample::{Pooling, TokenRequest, TokenRequests};
pub use stats::EngineStats;
pub use text::{
    ChatDelta, ChatFormat, ChatParser, ChatPrompt, ParserOptions, ReasoningStart, SpecialTokenText,
    TemplateError, Text, TextError, Tool, ToolChoice, ToolDialect,
};
