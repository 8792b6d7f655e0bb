use super::{Adjustments, Draw, Penalties, SampleError, Sampler, TokenMask, token_logprob};
use crate::request::{Ends, Sampling, TokenLogprob};

/// One request's sampling: its settings, and what of its own tokens they depend on.
#[derive(Clone, Debug)]
pub struct RequestSampler {
    sampling: Sampling,
    penalties: Penalties,
    seed: u64,
    /// Place of the next token in the sequence, prompt included.
    position: u64,
    /// How many tokens the answer still has to have before it may end.
    tokens_before_end: u32,
    /// What may not be chosen until then.
    ends: Vec<u32>,
    /// Log-probabilities of each token, with those of so many likeliest.
    top_logprobs: Option<u32>,
}

/// A token of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    pub token: u32,
    /// If the request asked for it.
    pub logprob: Option<TokenLogprob>,
}

impl RequestSampler {
    pub fn new(
        sampling: &Sampling,
        seed: u64,
        prompt: &[u32],
        ends: &Ends,
        eos_token_ids: &[u32],
        top_logprobs: Option<u32>,
    ) -> Self {
        Self {
            penalties: Penalties::new(sampling, prompt),
            sampling: sampling.clone(),
            seed,
            position: prompt.len() as u64,
            tokens_before_end: ends.min_tokens,
            ends: if ends.min_tokens == 0 {
                Vec::new()
            } else {
                [eos_token_ids, &ends.stop_token_ids].concat()
            },
            top_logprobs,
        }
    }

    /// The next token of the answer. A grammar that allows nothing but an end overrules `min_tokens`.
    pub fn choose(
        &mut self,
        sampler: &mut Sampler,
        logits: &[f32],
        mask: Option<&TokenMask>,
    ) -> Result<Chosen, SampleError> {
        let draw = Draw { seed: self.seed, position: self.position };
        let banned: &[u32] = if self.tokens_before_end > 0 { &self.ends } else { &[] };
        let penalties = Some(&self.penalties).filter(|penalties| !penalties.is_idle());
        let adjustments = Adjustments { penalties, banned, mask };
        let mut token = sampler.choose(logits, adjustments, &self.sampling, draw);
        if token == Err(SampleError::NothingAllowed) && mask.is_some() {
            token = sampler.choose(logits, Adjustments { banned: &[], ..adjustments }, &self.sampling, draw);
        }
        let token = token?;
        let logprob = self.top_logprobs.map(|top| token_logprob(logits, token, top)).transpose()?;
        self.penalties.observe(token);
        self.position += 1;
        self.tokens_before_end = self.tokens_before_end.saturating_sub(1);
        Ok(Chosen { token, logprob })
    }
}
