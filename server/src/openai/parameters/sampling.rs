use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use sparkherd_engine::Sampling;

use super::super::ApiError;
use super::super::fields::Fields;

/// OpenAI's range.
const TEMPERATURE_MAX: f32 = 2.0;
/// OpenAI's range of `presence_penalty` and `frequency_penalty`, on both sides of 0.
const PENALTY_MAX: f32 = 2.0;
/// vLLM has no bounds; above these only tokens not yet seen are left, and below them a logit might be no number any more.
const REPETITION_PENALTIES: RangeInclusive<f32> = 0.01..=2.0;
/// OpenAI's range, on both sides of 0: a ban or a command.
const LOGIT_BIAS_MAX: f32 = 100.0;
/// Far more than a ban list of words needs; each costs time at every token.
const LOGIT_BIASES_MAX: usize = 1024;

pub(super) fn take_sampling(fields: &mut Fields<'_>) -> Result<Sampling, ApiError> {
    let penalties = -PENALTY_MAX..=PENALTY_MAX;
    Ok(Sampling {
        temperature: fields.take_number("temperature", 0.0..=TEMPERATURE_MAX)?.unwrap_or(1.0),
        top_p: take_top_p(fields)?,
        top_k: take_top_k(fields)?,
        min_p: fields.take_number("min_p", 0.0..=1.0)?.unwrap_or(0.0),
        repetition_penalty: fields.take_number("repetition_penalty", REPETITION_PENALTIES)?.unwrap_or(1.0),
        presence_penalty: fields.take_number("presence_penalty", penalties.clone())?.unwrap_or(0.0),
        frequency_penalty: fields.take_number("frequency_penalty", penalties)?.unwrap_or(0.0),
        logit_bias: take_logit_bias(fields)?,
        seed: take_seed(fields)?,
    })
}

fn take_top_p(fields: &mut Fields<'_>) -> Result<f32, ApiError> {
    let value = fields.take_number("top_p", 0.0..=1.0)?.unwrap_or(1.0);
    if value > 0.0 { Ok(value) } else { Err(fields.invalid("top_p", "a number above 0 and at most 1")) }
}

fn take_top_k(fields: &mut Fields<'_>) -> Result<u32, ApiError> {
    match fields.take::<i64>("top_k", "a whole number of at least -1")? {
        // vLLM writes "all" as -1, others as 0.
        None | Some(-1 | 0) => Ok(0),
        Some(top_k) if top_k > 0 => Ok(u32::try_from(top_k).unwrap_or(u32::MAX)),
        Some(_) => Err(fields.invalid("top_k", "a whole number of at least -1")),
    }
}

/// Any 64-bit whole number; a negative one counts by its bits, so that distinct seeds stay distinct.
fn take_seed(fields: &mut Fields<'_>) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.take_raw("seed") else { return Ok(None) };
    let unsigned = serde_json::from_str::<u64>(value.get());
    let seed = unsigned.or_else(|_| serde_json::from_str::<i64>(value.get()).map(i64::cast_unsigned));
    seed.map(Some).map_err(|_| fields.invalid("seed", "a whole number of 64 bits"))
}

/// Token numbers as JSON's keys, which are strings.
fn take_logit_bias(fields: &mut Fields<'_>) -> Result<BTreeMap<u32, f32>, ApiError> {
    let expected = format!(
        "an object of up to {LOGIT_BIASES_MAX} token numbers, each with a number from -{LOGIT_BIAS_MAX} to {LOGIT_BIAS_MAX}"
    );
    let biases: BTreeMap<u32, f32> = fields.take("logit_bias", &expected)?.unwrap_or_default();
    let in_range = |bias: &f32| (-LOGIT_BIAS_MAX..=LOGIT_BIAS_MAX).contains(bias);
    if biases.len() > LOGIT_BIASES_MAX || !biases.values().all(in_range) {
        return Err(fields.invalid("logit_bias", expected));
    }
    Ok(biases)
}
