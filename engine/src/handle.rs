//! The engine as a server sees it: cheap to clone, safe to call from any task.

use thiserror::Error;

/// What clients may know about the served model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Tokens one sequence may hold.
    pub context: u32,
    pub vocab_size: u32,
    pub has_chat_template: bool,
}

/// Counters and gauges of the worker, read without waiting for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineStats {
    pub running: u32,
    pub waiting: u32,
    pub prompt_tokens: u64,
    pub generated_tokens: u64,
    pub preemptions: u64,
    pub steps: u64,
    /// Used share of the KV pool, 0 to 1.
    pub kv_used: f64,
    /// Milliseconds since the last finished step while sequences ran; 0 when idle.
    pub last_step_age_ms: u64,
    pub held_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    #[error("prompt is empty")]
    EmptyPrompt,
    #[error("prompt of {prompt_tokens} tokens leaves no room for an answer in the context of {context}")]
    PromptTooLong { prompt_tokens: usize, context: u32 },
    #[error("token {token} is not below the vocabulary size {vocab_size}")]
    UnknownToken { token: u32, vocab_size: u32 },
    #[error("{name} is {value}, must be {allowed}")]
    OutOfRange { name: &'static str, value: String, allowed: &'static str },
    #[error("queue is full: {waiting} requests wait")]
    QueueFull { waiting: u32 },
    #[error("engine is draining")]
    Draining,
    #[error("engine has stopped")]
    Stopped,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct EngineHandle {}
