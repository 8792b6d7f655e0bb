use std::time::Duration;

use thiserror::Error;

/// Why a request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    #[error("model has no output head: it makes vectors of texts and generates none")]
    NoOutputHead,
    #[error("prompt is empty")]
    EmptyPrompt,
    #[error("prompt of {prompt_tokens} tokens leaves no room for an answer in the context of {context}")]
    PromptTooLong { prompt_tokens: usize, context: u32 },
    #[error("token {token} is not below the vocabulary size {vocab_size}")]
    UnknownToken { token: u32, vocab_size: u32 },
    #[error("{name} is {value}, must be {allowed}")]
    OutOfRange { name: &'static str, value: String, allowed: &'static str },
    /// As many requests, or prompt tokens, wait as may. A retry after `retry_after` is likely to find room.
    #[error("queue is full: {waiting} requests wait")]
    QueueFull { waiting: u32, retry_after: Duration },
    /// This client has its share already; others may still find room.
    #[error("client has {running_or_waiting} requests running or waiting, of {limit} it may have")]
    ClientLimit { running_or_waiting: u32, limit: u32, retry_after: Duration },
    /// As many prompt tokens of this client wait as may.
    #[error("client has {waiting_tokens} prompt tokens waiting, of {limit} it may have")]
    ClientTokenLimit { waiting_tokens: u64, limit: u64, retry_after: Duration },
    #[error("engine is draining")]
    Draining,
    #[error("engine has stopped")]
    Stopped,
}

pub(super) fn out_of_range(
    name: &'static str,
    value: &dyn std::fmt::Display,
    allowed: &'static str,
) -> SubmitError {
    SubmitError::OutOfRange { name, value: value.to_string(), allowed }
}
