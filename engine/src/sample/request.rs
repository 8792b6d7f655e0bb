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
    /// What may not be chosen until then, ascending.
    ends: Vec<u32>,
    /// Log-probabilities of each token, with those of so many likeliest.
    top_logprobs: Option<u32>,
}

/// What one token is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct TokenRequest<'a> {
    pub adjustments: Adjustments<'a>,
    pub sampling: &'a Sampling,
    pub draw: Draw,
    /// As in [`RequestSampler`].
    pub top_logprobs: Option<u32>,
}

/// Who knows what tokens are chosen by.
pub trait TokenRequests {
    /// Of a sequence of the batch whose next token is chosen, or `None` if nobody chooses one. Asked once for each, when the
    /// step's other work is under way: a grammar's mask may have to be waited for.
    fn of(&mut self, sequence: usize) -> Option<TokenRequest<'_>>;
}

/// Of steps whose logits are wanted themselves.
#[derive(Clone, Copy, Debug)]
pub struct NoTokens;

impl TokenRequests for NoTokens {
    fn of(&mut self, _sequence: usize) -> Option<TokenRequest<'_>> {
        None
    }
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
            ends: if ends.min_tokens == 0 { Vec::new() } else { all_ends(ends, eos_token_ids) },
            top_logprobs,
        }
    }

    /// What the next token is chosen by.
    pub fn next<'a>(&'a self, mask: Option<&'a TokenMask>) -> TokenRequest<'a> {
        let banned: &[u32] = if self.tokens_before_end > 0 { &self.ends } else { &[] };
        let penalties = Some(&self.penalties).filter(|penalties| !penalties.is_idle());
        TokenRequest {
            adjustments: Adjustments { penalties, banned, mask },
            sampling: &self.sampling,
            draw: Draw { seed: self.seed, position: self.position },
            top_logprobs: self.top_logprobs,
        }
    }

    /// Goes on by a token of the answer.
    pub fn observe(&mut self, token: u32) {
        self.penalties.observe(token);
        self.position += 1;
        self.tokens_before_end = self.tokens_before_end.saturating_sub(1);
    }

    /// The next token of the answer, after which it goes on.
    pub fn choose(
        &mut self,
        sampler: &mut Sampler,
        logits: &[f32],
        mask: Option<&TokenMask>,
    ) -> Result<Chosen, SampleError> {
        let chosen = self.next(mask).choose(sampler, logits)?;
        self.observe(chosen.token);
        Ok(chosen)
    }
}

impl TokenRequest<'_> {
    /// The token. A grammar that allows nothing but an end overrules `min_tokens`.
    pub fn choose(&self, sampler: &mut Sampler, logits: &[f32]) -> Result<Chosen, SampleError> {
        let Self { adjustments, sampling, draw, top_logprobs } = *self;
        let mut token = sampler.choose(logits, adjustments, sampling, draw);
        if token == Err(SampleError::NothingAllowed) && adjustments.mask.is_some() {
            token = sampler.choose(logits, Adjustments { banned: &[], ..adjustments }, sampling, draw);
        }
        let token = token?;
        let logprob = top_logprobs.map(|top| token_logprob(logits, token, top)).transpose()?;
        Ok(Chosen { token, logprob })
    }
}

fn all_ends(ends: &Ends, eos_token_ids: &[u32]) -> Vec<u32> {
    let mut all = [eos_token_ids, &ends.stop_token_ids].concat();
    all.sort_unstable();
    all.dedup();
    all
}
