use super::{TokenCounts, sampler::Candidate};
use crate::request::Sampling;

/// What a request adds to logits because of its settings and its own tokens.
///
/// `logit_bias` first, then, for each token seen: `repetition_penalty` divides a positive logit and multiplies a negative
/// one (Keskar et al., "CTRL", 2019) if the token is in the prompt *or* the answer; `frequency_penalty` is taken off once
/// for each time it is in the *answer*, and `presence_penalty` once if it is there at all. Which tokens count, and the order,
/// are vLLM's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Penalties {
    bias: Vec<(u32, f32)>,
    repetition: f32,
    presence: f32,
    frequency: f32,
    /// Empty where no penalty reads it.
    counts: TokenCounts,
    /// Whether some penalty reads `counts`.
    counted: bool,
}

impl Penalties {
    #[expect(clippy::float_cmp, reason = "the values that mean off are exact")]
    pub fn new(sampling: &Sampling, prompt: &[u32]) -> Self {
        let repetition = sampling.repetition_penalty;
        let (presence, frequency) = (sampling.presence_penalty, sampling.frequency_penalty);
        let repeats = repetition != 1.0;
        Self {
            bias: sampling.logit_bias.iter().map(|(token, bias)| (*token, *bias)).collect(),
            repetition,
            presence,
            frequency,
            counts: if repeats { TokenCounts::of_prompt(prompt) } else { TokenCounts::default() },
            counted: repeats || presence != 0.0 || frequency != 0.0,
        }
    }

    /// Whether logits stay as they are.
    pub fn is_idle(&self) -> bool {
        self.bias.is_empty() && !self.counted
    }

    /// Counts a token of the answer.
    pub fn observe(&mut self, token: u32) {
        if self.counted {
            self.counts.add(token);
        }
    }

    /// Tokens in order, with what is added to the logit of each.
    pub fn bias(&self) -> &[(u32, f32)] {
        &self.bias
    }

    /// Tokens in order that some penalty looks at, with their counts in the answer.
    pub fn counts(&self) -> &[(u32, u32)] {
        self.counts.entries()
    }

    /// Changes the logits of the candidates, which are all tokens in order.
    pub(super) fn apply(&self, candidates: &mut [Candidate]) {
        for (token, bias) in &self.bias {
            if let Some((_, logit)) = candidates.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        for &(token, count) in self.counts.entries() {
            let Some((_, logit)) = candidates.get_mut(token as usize) else { continue };
            if *logit > 0.0 {
                *logit /= self.repetition;
            } else {
                *logit *= self.repetition;
            }
            if count > 0 {
                *logit -= self.frequency * count as f32 + self.presence;
            }
        }
    }
}
