use std::cmp::Ordering;

use thiserror::Error;

use super::{Penalties, TokenMask, uniform};
use crate::request::Sampling;

/// Candidates first sorted for `top_p`: at usual temperatures the nucleus is tens of tokens, and sorting a whole vocabulary
/// of 128 thousand costs more than the rest of the step's host work.
const NUCLEUS_GUESS: usize = 256;

/// Which random number a choice gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    pub seed: u64,
    /// Place of the chosen token in the sequence, prompt included.
    pub position: u64,
}

/// What changes a row of logits before a token is drawn from it. The default changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adjustments<'a> {
    pub penalties: Option<&'a Penalties>,
    /// Tokens that may not be chosen.
    pub banned: &'a [u32],
    /// The only ones that may.
    pub mask: Option<&'a TokenMask>,
}

#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum SampleError {
    #[error("logit of token {token} is not a number")]
    NotANumber { token: u32 },
    #[error("the largest of {count} logits is not finite")]
    NoFinite { count: usize },
    #[error("no token may follow: those that are allowed have no probability")]
    NothingAllowed,
    #[error("embedding of length {length} has no direction")]
    Embedding { length: f64 },
}

/// A token and its weight: first its logit, later its probability up to a common factor.
pub(super) type Candidate = (u32, f32);

/// Chooses tokens; keeps its scratch between them.
#[derive(Debug, Default)]
pub struct Sampler {
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// The token to go on with. Among equal logits the lower token is the more likely one.
    pub fn choose(
        &mut self,
        logits: &[f32],
        adjustments: Adjustments<'_>,
        sampling: &Sampling,
        draw: Draw,
    ) -> Result<u32, SampleError> {
        let (mut best, mut highest) = largest(logits)?;
        let adjusted = adjustments.is_some();
        if sampling.temperature <= 0.0 && !adjusted {
            return Ok(best);
        }
        self.candidates.clear();
        self.candidates.extend((0..).zip(logits.iter().copied()));
        if adjusted {
            adjustments.apply(&mut self.candidates);
            let likeliest = self.candidates.iter().copied().min_by(likelier_first);
            (best, highest) = likeliest
                .filter(|(_, logit)| *logit > f32::NEG_INFINITY)
                .ok_or(SampleError::NothingAllowed)?;
            if !highest.is_finite() {
                return Err(SampleError::NoFinite { count: self.candidates.len() });
            }
        }
        if sampling.temperature <= 0.0 {
            return Ok(best);
        }
        let kept = usize::try_from(sampling.top_k).unwrap_or(usize::MAX);
        if kept > 0 && kept < self.candidates.len() {
            self.candidates.select_nth_unstable_by(kept - 1, likelier_first);
            self.candidates.truncate(kept);
            // Selection leaves the kept ones in an order of its own; sums below must not depend on it.
            self.candidates.sort_unstable_by_key(|(token, _)| *token);
        }
        for (_, weight) in &mut self.candidates {
            *weight = ((*weight - highest) / sampling.temperature).exp();
        }
        if sampling.min_p > 0.0 {
            // The likeliest has weight 1.
            self.candidates.retain(|(_, weight)| *weight >= sampling.min_p);
        }
        if sampling.top_p < 1.0 {
            self.keep_nucleus(f64::from(sampling.top_p));
        }
        Ok(self.at(uniform(draw.seed, draw.position)).unwrap_or(best))
    }

    /// Keeps the fewest likeliest candidates whose weights reach `top_p` of all, the one that reaches it included.
    fn keep_nucleus(&mut self, top_p: f64) {
        let wanted = top_p * mass(&self.candidates);
        let mut sorted = NUCLEUS_GUESS;
        loop {
            sorted = sorted.min(self.candidates.len());
            if sorted < self.candidates.len() {
                self.candidates.select_nth_unstable_by(sorted, likelier_first);
            }
            let head = &mut self.candidates[..sorted];
            head.sort_unstable_by(likelier_first);
            let mut reached = 0.0;
            let crossing = head.iter().position(|(_, weight)| {
                reached += f64::from(*weight);
                reached >= wanted
            });
            match crossing {
                Some(last) => return self.candidates.truncate(last + 1),
                // Rounding may leave the sum of all just below what was wanted.
                None if sorted == self.candidates.len() => return,
                None => sorted *= 8,
            }
        }
    }

    /// The candidate at `fraction` of the cumulated weights.
    fn at(&self, fraction: f64) -> Option<u32> {
        let target = fraction * mass(&self.candidates);
        let mut reached = 0.0;
        let possible = || self.candidates.iter().filter(|(_, weight)| *weight > 0.0);
        let chosen = possible().find(|(_, weight)| {
            reached += f64::from(*weight);
            reached > target
        });
        chosen.or_else(|| possible().next_back()).map(|(token, _)| *token)
    }
}

impl Adjustments<'_> {
    /// Whether there is anything to change.
    pub(crate) const fn is_some(&self) -> bool {
        let Self { penalties, banned, mask } = self;
        penalties.is_some() || !banned.is_empty() || mask.is_some()
    }

    /// Changes the candidates, which are all tokens in order, and leaves those that may be chosen, in order.
    fn apply(&self, candidates: &mut Vec<Candidate>) {
        if let Some(penalties) = self.penalties {
            penalties.apply(candidates);
        }
        for token in self.banned {
            if let Some((_, logit)) = candidates.get_mut(*token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        if let Some(mask) = self.mask {
            candidates.retain(|(token, _)| mask.allows(*token));
        }
    }
}

fn mass(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

/// Token and value of the largest logit, the lowest token on ties. Minus infinity is a token that cannot be; anything else
/// that is not finite is a fault.
pub(super) fn largest(logits: &[f32]) -> Result<Candidate, SampleError> {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0..).zip(logits) {
        if logit.is_nan() {
            return Err(SampleError::NotANumber { token });
        }
        if logit > best.1 {
            best = (token, logit);
        }
    }
    if best.1.is_finite() { Ok(best) } else { Err(SampleError::NoFinite { count: logits.len() }) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what sorting calls it with")]
fn likelier_first(left: &Candidate, right: &Candidate) -> Ordering {
    right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
}
