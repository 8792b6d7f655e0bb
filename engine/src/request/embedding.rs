use std::time::Duration;

use tokio::sync::oneshot;

use super::{GenerationError, SubmitError, Usage};
use crate::{handle::ModelInfo, sample::Pooling};

/// One text to embed, as a server asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingRequest {
    /// Fills the context at most.
    pub prompt_tokens: Vec<u32>,
    pub pooling: Pooling,
}

/// A request within the model's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValidEmbedding {
    pub(crate) prompt: Vec<u32>,
    pub(crate) pooling: Pooling,
    pub(crate) usage: Usage,
}

/// A text's vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// `[hidden]`, of Euclidean length 1.
    pub values: Vec<f32>,
    pub usage: Usage,
    /// How long its place was counted before its first step.
    pub waited: Duration,
}

/// A running embedding; exactly one answer comes. Dropping it cancels.
#[derive(Debug)]
pub struct PendingEmbedding {
    pub prompt_tokens: u32,
    pub answer: oneshot::Receiver<Result<Embedding, GenerationError>>,
}

impl EmbeddingRequest {
    pub(crate) fn validate(self, info: &ModelInfo) -> Result<ValidEmbedding, SubmitError> {
        let Self { prompt_tokens: prompt, pooling } = self;
        if prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let context = info.context;
        let too_long = SubmitError::PromptTooLong { prompt_tokens: prompt.len(), context };
        let Some(prompt_tokens) = u32::try_from(prompt.len()).ok().filter(|tokens| *tokens <= context) else {
            return Err(too_long);
        };
        info.check_tokens(&prompt)?;
        Ok(ValidEmbedding { prompt, pooling, usage: Usage { prompt_tokens, ..Usage::default() } })
    }
}
