use std::collections::BTreeMap;

use super::{SubmitError, error::out_of_range};
use crate::handle::ModelInfo;

/// The hottest sampling OpenAI's API allows; above it output is noise.
const TEMPERATURE_MAX: f32 = 2.0;

/// OpenAI's bound of both additive penalties, either way.
const PENALTY_MAX: f32 = 2.0;

/// Twice the logit's distance from zero: models repeat nothing at 1.3 already, not even the words they need.
const REPETITION_PENALTY_MAX: f32 = 2.0;
/// A logit divided by it stays a number: logits are below 10³⁶ by far.
const REPETITION_PENALTY_MIN: f32 = 0.01;

/// OpenAI's bound, either way: it bans a token or leaves no other.
const LOGIT_BIAS_MAX: f32 = 100.0;

/// Biased tokens of one request. OpenAI allows 300; each is looked at for every token of the answer.
const LOGIT_BIASES_MAX: usize = 1024;

/// How to choose the next token. The default is greedy, with everything else off.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Smallest set of tokens whose probabilities reach this; 1 is all.
    pub top_p: f32,
    /// Only the most likely `top_k`; 0 is all.
    pub top_k: u32,
    /// Only tokens at least this likely, relative to the likeliest; 0 is all.
    pub min_p: f32,
    /// Divides positive logits of tokens that occur in prompt or answer, and multiplies negative ones; 1 is off.
    pub repetition_penalty: f32,
    /// Taken off the logits of tokens that occur in the answer.
    pub presence_penalty: f32,
    /// Taken off once for each time a token occurs in the answer.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Same seed, same prompt, same settings: same tokens, whatever else is in the batch.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: None,
        }
    }
}

impl Sampling {
    /// A range test is false for NaN.
    pub(super) fn check(&self, info: &ModelInfo) -> Result<(), SubmitError> {
        let Self {
            temperature,
            top_p,
            top_k: _,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            logit_bias,
            seed: _,
        } = self;
        if !(0.0..=TEMPERATURE_MAX).contains(temperature) {
            return Err(out_of_range("temperature", temperature, "between 0 and 2"));
        }
        if !(*top_p > 0.0 && *top_p <= 1.0) {
            return Err(out_of_range("top_p", top_p, "above 0 and at most 1"));
        }
        if !(0.0..=1.0).contains(min_p) {
            return Err(out_of_range("min_p", min_p, "between 0 and 1"));
        }
        if !(REPETITION_PENALTY_MIN..=REPETITION_PENALTY_MAX).contains(repetition_penalty) {
            return Err(out_of_range("repetition_penalty", repetition_penalty, "between 0.01 and 2"));
        }
        let additive = [("presence_penalty", presence_penalty), ("frequency_penalty", frequency_penalty)];
        for (name, penalty) in additive {
            if !(-PENALTY_MAX..=PENALTY_MAX).contains(penalty) {
                return Err(out_of_range(name, penalty, "between -2 and 2"));
            }
        }
        check_bias(logit_bias, info)
    }
}

fn check_bias(logit_bias: &BTreeMap<u32, f32>, info: &ModelInfo) -> Result<(), SubmitError> {
    if logit_bias.len() > LOGIT_BIASES_MAX {
        return Err(out_of_range("number of logit_bias tokens", &logit_bias.len(), "at most 1024"));
    }
    if let Some(bias) = logit_bias.values().find(|bias| !(-LOGIT_BIAS_MAX..=LOGIT_BIAS_MAX).contains(*bias)) {
        return Err(out_of_range("logit_bias", bias, "between -100 and 100"));
    }
    info.check_tokens(logit_bias.keys())
}
