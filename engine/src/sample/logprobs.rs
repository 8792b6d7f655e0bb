use super::SampleError;
use crate::request::TokenLogprob;

/// What is told of a token that cannot be: OpenAI's own value, and one that JSON can write.
const LEAST_LOGPROB: f32 = -9999.0;

/// The log-probability of `token`, and of the `top` likeliest, by log-softmax of a row of logits as the model gave it. Among
/// equal logits the lower token is the likelier.
pub fn token_logprob(logits: &[f32], token: u32, top: u32) -> Result<TokenLogprob, SampleError> {
    let total = log_sum_exp(logits)?;
    let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let top = likeliest(logits, top as usize);
    Ok(TokenLogprob {
        token,
        logprob: logprob(logit, total),
        top: top.into_iter().map(|(token, logit)| (token, logprob(logit, total))).collect(),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "rounded for telling, after the sum")]
fn logprob(logit: f32, total: f64) -> f32 {
    ((f64::from(logit) - total) as f32).max(LEAST_LOGPROB)
}

/// log Σ exp, summed in `f64`: over 128 thousand terms `f32` would lose the last three digits.
fn log_sum_exp(logits: &[f32]) -> Result<f64, SampleError> {
    let (_, highest) = super::sampler::largest(logits)?;
    let highest = f64::from(highest);
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - highest).exp()).sum();
    Ok(highest + sum.ln())
}

/// The `count` largest with their tokens, largest first: one pass, and room for `count` only.
fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (token, &logit) in (0..).zip(logits) {
        if best.len() == count && best.last().is_none_or(|(_, least)| logit <= *least) {
            continue;
        }
        let place = best.partition_point(|(_, other)| *other >= logit);
        best.insert(place, (token, logit));
        best.truncate(count);
    }
    best
}
