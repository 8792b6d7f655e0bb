use super::{SampleError, token_logprob};
use crate::{batch::Rows, request::TokenLogprob};

/// The log-probabilities of a prompt's tokens, gathered over the steps that compute it.
///
/// Entry `i` is that of token `i + 1`, from the logits after token `i`: the first token has no distribution. A sequence that
/// starts over after a preemption gives rows a second time; those already there are passed over.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptLogprobs {
    prompt: Vec<u32>,
    top: u32,
    entries: Vec<TokenLogprob>,
}

impl PromptLogprobs {
    pub fn new(prompt: &[u32], top: u32) -> Self {
        Self { prompt: prompt.to_vec(), top, entries: Vec::with_capacity(prompt.len().saturating_sub(1)) }
    }

    /// Takes in the rows of a step whose first token has `position`. Rows after the prompt's last token have nothing to
    /// tell about the prompt.
    pub fn push(&mut self, position: u32, rows: Rows<'_>) -> Result<(), SampleError> {
        for (row, position) in rows.iter().zip(position as usize..) {
            let Some(&token) = self.prompt.get(position + 1) else { break };
            if position == self.entries.len() {
                self.entries.push(token_logprob(row, token, self.top)?);
            }
        }
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.entries.len() + 1 >= self.prompt.len()
    }

    /// One entry for each token of the prompt but the first.
    pub fn into_entries(self) -> Vec<TokenLogprob> {
        self.entries
    }
}
