use super::{SubmitError, error::out_of_range};

/// Most likely tokens told beside one: OpenAI's limit.
const TOP_LOGPROBS_MAX: u32 = 20;

/// Which probabilities are told; `Some(n)` is a token's own, and those of the `n` likeliest at its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogprobOptions {
    /// Of the answer's tokens.
    pub sampled: Option<u32>,
    /// Of the prompt's tokens. Such a prompt is computed whole, whatever the prefix cache holds.
    pub prompt: Option<u32>,
}

/// The natural logarithm of a token's probability, before temperature and penalties.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    pub token: u32,
    pub logprob: f32,
    /// Likeliest first.
    pub top: Vec<(u32, f32)>,
}

impl LogprobOptions {
    pub(super) fn check(self) -> Result<(), SubmitError> {
        let Self { sampled, prompt } = self;
        match sampled.max(prompt) {
            Some(top) if top > TOP_LOGPROBS_MAX => Err(out_of_range("top_logprobs", &top, "at most 20")),
            _ => Ok(()),
        }
    }
}
