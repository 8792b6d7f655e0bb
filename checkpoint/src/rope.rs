use serde_json::Value;

use crate::config::ConfigError;
use crate::keys::{Keys, invalid};

/// Rotary position embedding: pair `i` of a head turns by `position × theta^(−2i / head_dim)`, scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How the frequencies are stretched for contexts longer than the model was first trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// Every frequency divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Llama 3.1: with `w = 2π / frequency`, kept where `w < original / high`, divided by `factor` where
    /// `w > original / low`, and between the two mixed by `s = (original / w − low) / (high − low)` as
    /// `(1 − s) · frequency / factor + s · frequency`.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        /// Context of the first training, tokens.
        original_max_position: u32,
    },
    /// Pair `i` divided by its own `divisors[i]`: what a GGUF makes of `Llama3` and its like.
    Pairs {
        divisors: Vec<f32>,
    },
    /// `YaRN` (Peng et al., 2023): pair `i` is kept where `i ≤ low`, divided by `factor` where `i ≥ high`, mixed linearly
    /// between; `low` and `high` are the pairs that make `beta_fast` and `beta_slow` whole turns within the first
    /// training's context, `i(β) = head_dim · ln(original / (2π·β)) / (2·ln theta)`.
    Yarn {
        factor: f64,
        /// Context of the first training, tokens.
        original_max_position: u32,
        beta_fast: f64,
        beta_slow: f64,
        /// Cosines and sines are multiplied by it, so scores grow with its square.
        attention_factor: f64,
        /// Whether `low` is rounded down and `high` up to whole pairs.
        truncate: bool,
    },
}

/// Largest base and factor that are read: published models end at 10^9 and 64. Beyond 10^12 `f32` frequencies underflow to
/// nothing useful.
pub(crate) const THETA_MAX: f64 = 1e12;
pub(crate) const FACTOR_MAX: f64 = 1e6;
const ORIGINAL_CONTEXT_MAX: u32 = 1 << 24;
/// transformers' default of `rope_theta`.
const THETA_DEFAULT: f64 = 10_000.0;

impl Rope {
    /// Reads `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5, theta inside).
    /// `trained_context` is what `max_position_embeddings` says, the default of where the scaling starts.
    pub(crate) fn parse(keys: &mut Keys, trained_context: u32) -> Result<Self, ConfigError> {
        let outer = keys.take("rope_theta").filter(|value| !value.is_null());
        let version_4 = keys.nested("rope_scaling")?;
        let version_5 = keys.nested("rope_parameters")?;
        let nested = match (version_4, version_5) {
            (Some(scaling), Some(_)) => {
                let key = scaling.named("rope_type");
                let both = Value::from("given beside rope_parameters");
                return Err(invalid(&key, &both, "given in one of rope_scaling and rope_parameters"));
            }
            (Some(nested), None) | (None, Some(nested)) => Some(nested),
            (None, None) => None,
        };
        let Some(mut nested) = nested else {
            return Ok(Self { theta: theta(outer, None)?, scaling: RopeScaling::None });
        };
        let theta = theta(outer, nested.take("rope_theta").filter(|value| !value.is_null()))?;
        if let Some(value) = nested.take("partial_rotary_factor")
            && value.as_f64() != Some(1.0)
        {
            return Err(invalid(&nested.named("partial_rotary_factor"), &value, "1"));
        }
        let scaling = scaling(&mut nested, trained_context)?;
        nested.finish_empty()?;
        Ok(Self { theta, scaling })
    }
}

fn theta(outer: Option<Value>, inner: Option<Value>) -> Result<f64, ConfigError> {
    if let (Some(outer), Some(inner)) = (&outer, &inner)
        && outer.as_f64() != inner.as_f64()
    {
        return Err(invalid(
            "rope_theta",
            outer,
            &format!("the same as rope_parameters.rope_theta, {inner}"),
        ));
    }
    let Some(value) = inner.or(outer) else { return Ok(THETA_DEFAULT) };
    value
        .as_f64()
        .filter(|theta| *theta > 1.0 && *theta <= THETA_MAX)
        .ok_or_else(|| invalid("rope_theta", &value, &format!("a number above 1 and at most {THETA_MAX}")))
}

/// `rope_type`, spelled `type` by older files; both may be there and must then agree.
fn scaling(nested: &mut Keys, trained_context: u32) -> Result<RopeScaling, ConfigError> {
    let old = nested.take("type");
    let new = nested.take("rope_type");
    let kind = match (new, old) {
        (Some(new), Some(old)) if new != old => {
            return Err(invalid(
                &nested.named("rope_type"),
                &new,
                &format!("the same as its old spelling, {old}"),
            ));
        }
        (Some(kind), _) | (None, Some(kind)) => kind,
        (None, None) => return Err(ConfigError::Missing { key: nested.named("rope_type") }),
    };
    match kind.as_str() {
        Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: factor(nested, "factor")? }),
        Some("llama3") => llama3(nested),
        Some("yarn") => yarn(nested, trained_context),
        _ => {
            let allowed = "\"default\", \"linear\", \"llama3\" or \"yarn\"";
            Err(invalid(&nested.named("rope_type"), &kind, allowed))
        }
    }
}

fn llama3(nested: &mut Keys) -> Result<RopeScaling, ConfigError> {
    let low_freq_factor = factor(nested, "low_freq_factor")?;
    let high_freq_factor = factor(nested, "high_freq_factor")?;
    if high_freq_factor <= low_freq_factor {
        let allowed = format!("above low_freq_factor, {low_freq_factor}");
        return Err(invalid(&nested.named("high_freq_factor"), &high_freq_factor.into(), &allowed));
    }
    Ok(RopeScaling::Llama3 {
        factor: factor(nested, "factor")?,
        low_freq_factor,
        high_freq_factor,
        original_max_position: nested.count(
            "original_max_position_embeddings",
            None,
            ORIGINAL_CONTEXT_MAX,
        )?,
    })
}

fn yarn(nested: &mut Keys, trained_context: u32) -> Result<RopeScaling, ConfigError> {
    let factor = factor(nested, "factor")?;
    let beta_fast = nested.number("beta_fast", Some(32.0), 0.0, FACTOR_MAX)?;
    let beta_slow = nested.number("beta_slow", Some(1.0), 0.0, FACTOR_MAX)?;
    if beta_fast <= beta_slow {
        let allowed = format!("above beta_slow, {beta_slow}");
        return Err(invalid(&nested.named("beta_fast"), &beta_fast.into(), &allowed));
    }
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position: nested.count(
            "original_max_position_embeddings",
            Some(trained_context),
            ORIGINAL_CONTEXT_MAX,
        )?,
        beta_fast,
        beta_slow,
        attention_factor: attention_factor(nested, factor)?,
        truncate: nested.flag("truncate", true)?,
    })
}

/// As given, or `0.1·ln(factor) + 1`; with `mscale` and `mscale_all_dim` the ratio of that for the two, where each
/// multiplies the logarithm.
fn attention_factor(nested: &mut Keys, factor: f64) -> Result<f64, ConfigError> {
    let mut optional =
        |key: &str| nested.has(key).then(|| nested.number(key, None, 0.0, FACTOR_MAX)).transpose();
    let (given, numerator, denominator) =
        (optional("attention_factor")?, optional("mscale")?, optional("mscale_all_dim")?);
    let of = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    Ok(match (given, numerator, denominator) {
        (Some(given), ..) => given,
        (None, Some(numerator), Some(denominator)) => of(numerator) / of(denominator),
        (None, ..) => of(1.0),
    })
}

fn factor(nested: &mut Keys, key: &str) -> Result<f64, ConfigError> {
    nested.number(key, None, 0.0, FACTOR_MAX)
}
