//! What may be asked of an engine, and what comes back.
//!
//! [`GenerationRequest`] is checked once, on submission; the worker sees only [`ValidRequest`]s, which cannot fail on
//! their own content.

use thiserror::Error;
use tokio::sync::mpsc;

use crate::handle::{ModelInfo, SubmitError};

/// Stop strings of one request. OpenAI allows 4; the margin is for clients of other engines.
const STOPS_MAX: usize = 16;

/// Bytes of one stop string: as much text is withheld from the stream while it may be the beginning of one.
const STOP_BYTES_MAX: usize = 1024;

/// The hottest sampling OpenAI's API allows; above it output is noise.
const TEMPERATURE_MAX: f32 = 2.0;

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

/// A request within the model's limits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValidRequest {
    pub(crate) prompt: Vec<u32>,
    /// At least 1; prompt and answer fit the context.
    pub(crate) max_tokens: u32,
    pub(crate) sampling: Sampling,
    /// The client's, or a random one.
    pub(crate) seed: u64,
    pub(crate) stop: Vec<String>,
    pub(crate) usage: Usage,
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
    /// Tokens sampled, an end-of-sequence token included.
    pub completion_tokens: u32,
}

/// Each accepted request ends in exactly one `Finished` or `Failed` (I19).
#[derive(Clone, Debug, PartialEq)]
pub enum GenerationEvent {
    /// Text that is sure: whole UTF-8, and no prefix of a stop string. Never empty.
    Text(String),
    Finished {
        reason: FinishReason,
        usage: Usage,
    },
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

impl GenerationRequest {
    /// Checks every field against the model's limits and clamps `max_tokens` to the context: clients routinely ask for
    /// more than fits, and mean "as much as there is".
    pub(crate) fn validate(self, info: &ModelInfo, random_seed: u64) -> Result<ValidRequest, SubmitError> {
        let Self { prompt_tokens: prompt, max_tokens, sampling, stop } = self;
        if prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let too_long = || SubmitError::PromptTooLong { prompt_tokens: prompt.len(), context: info.context };
        let prompt_tokens = u32::try_from(prompt.len()).map_err(|_| too_long())?;
        if prompt_tokens >= info.context {
            return Err(too_long());
        }
        if let Some(&token) = prompt.iter().find(|token| **token >= info.vocab_size) {
            return Err(SubmitError::UnknownToken { token, vocab_size: info.vocab_size });
        }
        if max_tokens == 0 {
            return Err(out_of_range("max_tokens", &max_tokens, "at least 1"));
        }
        sampling.check()?;
        check_stops(&stop)?;
        Ok(ValidRequest {
            max_tokens: max_tokens.min(info.context - prompt_tokens),
            seed: sampling.seed.unwrap_or(random_seed),
            usage: Usage { prompt_tokens, completion_tokens: 0 },
            prompt,
            sampling,
            stop,
        })
    }
}

impl Sampling {
    /// A range test is false for NaN.
    fn check(&self) -> Result<(), SubmitError> {
        if !(0.0..=TEMPERATURE_MAX).contains(&self.temperature) {
            return Err(out_of_range("temperature", &self.temperature, "between 0 and 2"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(out_of_range("top_p", &self.top_p, "above 0 and at most 1"));
        }
        Ok(())
    }
}

/// The strings themselves are the client's text and stay out of the error.
fn check_stops(stop: &[String]) -> Result<(), SubmitError> {
    if stop.len() > STOPS_MAX {
        return Err(out_of_range("number of stop strings", &stop.len(), "at most 16"));
    }
    match stop.iter().map(String::len).find(|bytes| !(1..=STOP_BYTES_MAX).contains(bytes)) {
        Some(bytes) => Err(out_of_range("length of a stop string", &bytes, "1 to 1024 bytes")),
        None => Ok(()),
    }
}

fn out_of_range(name: &'static str, value: &dyn std::fmt::Display, allowed: &'static str) -> SubmitError {
    SubmitError::OutOfRange { name, value: value.to_string(), allowed }
}
