//! What may be asked of an engine, and what comes back.
//!
//! ```text
//! Caller ─► EngineHandle::reserve ─► Reservation::submit(GenerationRequest) ─► ValidRequest ─► worker
//!               counts a place            checks every field, once                │
//!                                                      Generation ◄─ GenerationEvent, GenerationEvent, …
//! ```
//!
//! A server reserves before it tokenises, so that a request there is no room for costs nothing. The worker sees only
//! [`ValidRequest`]s, which cannot fail on their own content.

mod caller;
mod embedding;
mod ends;
mod error;
mod event;
mod generation;
mod logprobs;
mod sampling;

pub use caller::{Caller, ClientKey, Priority};
pub(crate) use embedding::ValidEmbedding;
pub use embedding::{Embedding, EmbeddingRequest, PendingEmbedding};
pub use ends::Ends;
pub use error::SubmitError;
pub use event::{
    FinishReason, GenerationError, GenerationEvent, Piece, SampledToken, Start, TimeoutPhase, Usage,
};
pub(crate) use generation::ValidRequest;
pub use generation::{Generation, GenerationRequest};
pub use logprobs::{LogprobOptions, TokenLogprob};
pub use sampling::Sampling;
