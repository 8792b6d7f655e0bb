use tokio::sync::mpsc;

use super::{Ends, GenerationEvent, LogprobOptions, Sampling, SubmitError, Usage, error::out_of_range};
use crate::{grammar::Grammar, handle::ModelInfo, text::SpecialTokenText};

/// One generation, as a server asks for it. The engine checks it against the model's limits in `Reservation::submit`.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationRequest {
    pub prompt_tokens: Vec<u32>,
    /// Most tokens to generate; clamped so that prompt and answer fit the context.
    pub max_tokens: u32,
    pub sampling: Sampling,
    pub ends: Ends,
    pub logprobs: LogprobOptions,
    /// What the answer follows, from `EngineHandle::compile_grammar`.
    pub grammar: Option<Grammar>,
    /// Which tokens such as `<|im_end|>` are in the text.
    pub special_tokens: SpecialTokenText,
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
    pub(crate) ends: Ends,
    pub(crate) logprobs: LogprobOptions,
    pub(crate) grammar: Option<Grammar>,
    pub(crate) special_tokens: SpecialTokenText,
    pub(crate) usage: Usage,
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
        let Self { prompt_tokens: prompt, max_tokens, sampling, ends, logprobs, grammar, special_tokens } =
            self;
        if !info.generates {
            return Err(SubmitError::NoOutputHead);
        }
        if prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let too_long = || SubmitError::PromptTooLong { prompt_tokens: prompt.len(), context: info.context };
        let prompt_tokens = u32::try_from(prompt.len()).map_err(|_| too_long())?;
        if prompt_tokens >= info.context {
            return Err(too_long());
        }
        info.check_tokens(&prompt)?;
        if max_tokens == 0 {
            return Err(out_of_range("max_tokens", &max_tokens, "at least 1"));
        }
        sampling.check(info)?;
        ends.check(max_tokens, info)?;
        logprobs.check()?;
        Ok(ValidRequest {
            max_tokens: max_tokens.min(info.context - prompt_tokens),
            seed: sampling.seed.unwrap_or(random_seed),
            usage: Usage { prompt_tokens, ..Usage::default() },
            prompt,
            sampling,
            ends,
            logprobs,
            grammar,
            special_tokens,
        })
    }
}
