//! What may be asked of an engine, and what comes back.

use thiserror::Error;
use tokio::sync::mpsc;

/// How to choose the next token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Smallest set of tokens whose probabilities reach this; 1 is all.
    pub top_p: f32,
    /// Only the most likely `top_k`; 0 is all.
    pub top_k: u32,
    /// Same seed, same prompt, same settings: same tokens, whatever else is in the batch.
    pub seed: Option<u64>,
}

/// One generation, as a server asks for it. The engine checks it against the model's limits in `EngineHandle::submit`.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationRequest {
    pub prompt_tokens: Vec<u32>,
    /// Most tokens to generate; clamped so that prompt and answer fit the context.
    pub max_tokens: u32,
    pub sampling: Sampling,
    /// Strings that end the answer and are not part of it.
    pub stop: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence token or a stop string.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
}

/// Each accepted request ends in exactly one `Finished` or `Failed` (I19).
#[derive(Clone, Debug, PartialEq)]
pub enum GenerationEvent {
    /// Text that is sure: whole UTF-8, and no prefix of a stop string.
    Text(String),
    Finished { reason: FinishReason, usage: Usage },
    Failed(GenerationError),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GenerationError {
    #[error("engine is draining")]
    Draining,
    #[error("reader fell behind by more than {events} events")]
    SlowReader { events: usize },
    #[error("engine failed: {0}")]
    Engine(String),
}

/// A running generation. Dropping it cancels: its blocks are free in the engine's next step.
#[derive(Debug)]
pub struct Generation {
    pub prompt_tokens: u32,
    pub events: mpsc::Receiver<GenerationEvent>,
}
