//! Metadata as a model's configuration. The keys below the architecture's name are its hyperparameters: each is read, or
//! refused by name. Other prefixes (`general.`, `tokenizer.`, those of who made the file) describe, and change no sum.

use std::collections::BTreeMap;

use super::metadata::{List, Metadata, Value};
use super::text::{BOS, ENDS};
use crate::config::{ConfigError, bound, served_context};
use crate::header::Tensor;
use crate::json::shown_name;
use crate::rope::{Rope, RopeScaling};
use crate::{Architecture, ModelConfig, OutputHead, TensorIndex};

/// Divisors of the rotation's frequencies, one for each pair, as a tensor: how Llama 3.1 and later say their scaling.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

const SUPPORTED: &str = "llama, qwen2 and qwen3";
/// The one layout of quantised blocks that was ever published with K-quants.
const QUANTIZATION_VERSION: i128 = 2;

/// The configuration of a file with these tensors. `rope_factors` are the values of [`ROPE_FACTORS`], where it has them.
pub(crate) fn config(
    metadata: &Metadata,
    index: &TensorIndex,
    rope_factors: Option<Vec<f32>>,
) -> Result<ModelConfig, ConfigError> {
    let (architecture, prefix) = architecture(metadata)?;
    let mut keys = Keys::of(metadata, prefix);
    refuse_other_kinds(metadata)?;
    let layers = keys.count("block_count", bound::LAYERS)?;
    let hidden_size = keys.count("embedding_length", bound::HIDDEN_SIZE)?;
    let intermediate_size = keys.count("feed_forward_length", bound::INTERMEDIATE_SIZE)?;
    let heads = keys.count("attention.head_count", bound::HEADS)?;
    let kv_heads = keys.count_or("attention.head_count_kv", heads, bound::HEADS)?;
    let head_dim = keys.count_or("attention.key_length", hidden_size / heads, bound::HEAD_DIM)?;
    if !heads.is_multiple_of(kv_heads) {
        let allowed = format!("a divisor of {heads} query heads");
        return Err(keys.invalid("attention.head_count_kv", &kv_heads.to_string(), &allowed));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(keys.invalid("attention.key_length", &head_dim.to_string(), "even"));
    }
    keys.require("attention.value_length", head_dim)?;
    keys.require("rope.dimension_count", head_dim)?;
    let trained_context = keys.count("context_length", bound::CONTEXT)?;
    let rope = rope(&mut keys, trained_context, head_dim, rope_factors)?;
    let window = keys.optional_count("attention.sliding_window", bound::CONTEXT)?;
    let rms_norm_eps = keys.number("attention.layer_norm_rms_epsilon", None, 1.0)?;
    let vocab_size = vocab_size(&mut keys, index)?;
    // A pooling type is written for embedding models; 0 is "none".
    let pools = keys.take("pooling_type").is_some_and(|value| value != Value::Integer(0));
    keys.finish()?;
    let head = match (index.get("lm_head.weight").is_some(), pools) {
        (true, _) => OutputHead::Own,
        (false, true) => OutputHead::Absent,
        (false, false) => OutputHead::Tied,
    };
    Ok(ModelConfig {
        architecture,
        layers,
        hidden_size,
        intermediate_size,
        heads,
        kv_heads,
        head_dim,
        vocab_size,
        max_context: served_context(trained_context, &rope).min(window.unwrap_or(u32::MAX)),
        rms_norm_eps,
        rope,
        head,
        bos_token_id: token(metadata, BOS, vocab_size)?,
        eos_token_ids: eos_token_ids(metadata, vocab_size)?,
    })
}

fn architecture(metadata: &Metadata) -> Result<(Architecture, &'static str), ConfigError> {
    let unsupported = |found: String| ConfigError::Architecture { found, supported: SUPPORTED };
    match metadata.get("general.architecture") {
        // Mistral's files say llama too.
        Some(Value::Text(name)) if name == "llama" => Ok((Architecture::Llama, "llama")),
        Some(Value::Text(name)) if name == "qwen2" => Ok((Architecture::Qwen2, "qwen2")),
        Some(Value::Text(name)) if name == "qwen3" => Ok((Architecture::Qwen3, "qwen3")),
        Some(other) => Err(unsupported(other.shown())),
        None => Err(ConfigError::Missing { key: "general.architecture".to_owned() }),
    }
}

/// What outside the architecture's keys would make this another kind of file.
fn refuse_other_kinds(metadata: &Metadata) -> Result<(), ConfigError> {
    let fixed = [
        ("general.type", Value::Text("model".to_owned())),
        ("general.quantization_version", Value::Integer(QUANTIZATION_VERSION)),
        ("split.count", Value::Integer(1)),
    ];
    for (key, wanted) in fixed {
        match metadata.get(key) {
            Some(Value::Integer(0)) if key == "split.count" => {}
            Some(found) if *found != wanted => {
                return Err(ConfigError::Value {
                    key: key.to_owned(),
                    value: found.shown(),
                    allowed: wanted.shown(),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

fn rope(
    keys: &mut Keys,
    trained_context: u32,
    head_dim: u32,
    factors: Option<Vec<f32>>,
) -> Result<Rope, ConfigError> {
    let theta = keys.number("rope.freq_base", Some(10_000.0), crate::rope::THETA_MAX)?;
    keys.take("rope.scaling.finetuned");
    let kind = keys.take("rope.scaling.type");
    let factor = keys.optional_number("rope.scaling.factor", crate::rope::FACTOR_MAX)?;
    let original = keys.optional_count("rope.scaling.original_context_length", bound::CONTEXT)?;
    let scaling = match (&kind, factor, factors) {
        (None, None, Some(factors)) => pair_factors(factors, head_dim)?,
        (None, None, None) => RopeScaling::None,
        (Some(Value::Text(kind)), _, None) if kind == "none" => RopeScaling::None,
        (Some(Value::Text(kind)), Some(factor), None) if kind == "linear" => RopeScaling::Linear { factor },
        (Some(Value::Text(kind)), Some(factor), None) if kind == "yarn" => {
            yarn(keys, factor, original.unwrap_or(trained_context))?
        }
        (kind, _, factors) => {
            let found = kind.as_ref().map_or_else(|| "absent beside a factor".to_owned(), Value::shown);
            let beside = if factors.is_some() { format!(" beside {ROPE_FACTORS}") } else { String::new() };
            let allowed = "\"none\", \"linear\" or \"yarn\" with a factor, or absent";
            return Err(keys.invalid("rope.scaling.type", &format!("{found}{beside}"), allowed));
        }
    };
    Ok(Rope { theta, scaling })
}

fn yarn(keys: &mut Keys, factor: f64, original_max_position: u32) -> Result<RopeScaling, ConfigError> {
    let max = crate::rope::FACTOR_MAX;
    let scale = keys.number("rope.scaling.attn_factor", Some(1.0), max)?;
    let beta_fast = keys.number("rope.scaling.yarn_beta_fast", Some(32.0), max)?;
    let beta_slow = keys.number("rope.scaling.yarn_beta_slow", Some(1.0), max)?;
    if beta_fast <= beta_slow {
        let allowed = format!("above yarn_beta_slow, {beta_slow}");
        return Err(keys.invalid("rope.scaling.yarn_beta_fast", &beta_fast.to_string(), &allowed));
    }
    let stretch = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position,
        beta_fast,
        beta_slow,
        attention_factor: scale * stretch,
        truncate: true,
    })
}

fn pair_factors(factors: Vec<f32>, head_dim: u32) -> Result<RopeScaling, ConfigError> {
    let all_usable = factors.iter().all(|factor| factor.is_finite() && *factor > 0.0);
    if factors.len() as u64 != u64::from(head_dim) / 2 || !all_usable {
        return Err(ConfigError::Value {
            key: ROPE_FACTORS.to_owned(),
            value: format!("a list of {} numbers", factors.len()),
            allowed: format!("{} numbers above 0", head_dim / 2),
        });
    }
    Ok(RopeScaling::Pairs { divisors: factors })
}

/// As many as the embedding has rows; the key, where there is one, must agree.
fn vocab_size(keys: &mut Keys, index: &TensorIndex) -> Result<u32, ConfigError> {
    let rows = index.get("model.embed_tokens.weight").and_then(Tensor::rows);
    let rows = rows
        .and_then(|rows| u32::try_from(rows).ok())
        .filter(|rows| (1..=bound::VOCAB_SIZE).contains(rows))
        .ok_or_else(|| ConfigError::Missing { key: "token_embd.weight".to_owned() })?;
    keys.require("vocab_size", rows)?;
    Ok(rows)
}

fn token(metadata: &Metadata, key: &str, vocab_size: u32) -> Result<Option<u32>, ConfigError> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let id = match value {
        Value::Integer(id) => u32::try_from(*id).ok().filter(|id| *id < vocab_size),
        _ => None,
    };
    let invalid = || ConfigError::Value {
        key: key.to_owned(),
        value: value.shown(),
        allowed: format!("a token id below the vocabulary size {vocab_size}"),
    };
    id.map(Some).ok_or_else(invalid)
}

/// Ascending, each once.
fn eos_token_ids(metadata: &Metadata, vocab_size: u32) -> Result<Vec<u32>, ConfigError> {
    let mut ids = Vec::new();
    for key in ENDS {
        ids.extend(token(metadata, key, vocab_size)?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// The hyperparameters nobody has read yet.
struct Keys {
    prefix: &'static str,
    entries: BTreeMap<String, Value>,
}

/// Hyperparameters with one value that changes nothing.
const NEUTRAL: [(&str, Value); 6] = [
    ("attention.causal", Value::Flag(true)),
    ("expert_count", Value::Integer(0)),
    ("expert_used_count", Value::Integer(0)),
    ("rope.scale_linear", Value::Float(1.0)),
    ("rope.scaling.yarn_log_multiplier", Value::Float(0.0)),
    ("use_parallel_residual", Value::Flag(false)),
];

impl Keys {
    fn of(metadata: &Metadata, prefix: &'static str) -> Self {
        let own = |(key, value): (&String, &Value)| {
            let name = key.strip_prefix(prefix)?.strip_prefix('.')?;
            Some((name.to_owned(), value.clone()))
        };
        Self { prefix, entries: metadata.0.iter().filter_map(own).collect() }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.entries.remove(key)
    }

    fn invalid(&self, key: &str, value: &str, allowed: &str) -> ConfigError {
        let key = format!("{}.{key}", self.prefix);
        ConfigError::Value { key, value: value.to_owned(), allowed: allowed.to_owned() }
    }

    fn optional_count(&mut self, key: &str, max: u32) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = match &value {
            Value::Integer(number) => u32::try_from(*number).ok(),
            // One number per layer, for models whose layers differ; all must be the same here.
            Value::List(List::Integers(numbers)) => match numbers.split_first() {
                Some((first, rest)) if rest.iter().all(|number| number == first) => {
                    u32::try_from(*first).ok()
                }
                _ => None,
            },
            _ => None,
        };
        let number = number.filter(|number| (1..=max).contains(number));
        number
            .map(Some)
            .ok_or_else(|| self.invalid(key, &value.shown(), &format!("a whole number from 1 to {max}")))
    }

    fn count(&mut self, key: &str, max: u32) -> Result<u32, ConfigError> {
        let missing = ConfigError::Missing { key: format!("{}.{key}", self.prefix) };
        self.optional_count(key, max)?.ok_or(missing)
    }

    fn count_or(&mut self, key: &str, default: u32, max: u32) -> Result<u32, ConfigError> {
        Ok(self.optional_count(key, max)?.unwrap_or(default))
    }

    /// A count that may be left out, but not differ.
    fn require(&mut self, key: &str, wanted: u32) -> Result<(), ConfigError> {
        match self.take(key) {
            Some(value) if value != Value::Integer(wanted.into()) => {
                Err(self.invalid(key, &value.shown(), &wanted.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn optional_number(&mut self, key: &str, max: f64) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value {
            Value::Float(number) if number > 0.0 && number <= max => Ok(Some(number)),
            other => Err(self.invalid(key, &other.shown(), &format!("a number above 0 and at most {max}"))),
        }
    }

    fn number(&mut self, key: &str, default: Option<f64>, max: f64) -> Result<f64, ConfigError> {
        let missing = ConfigError::Missing { key: format!("{}.{key}", self.prefix) };
        self.optional_number(key, max)?.or(default).ok_or(missing)
    }

    /// All that is left must be neutral.
    fn finish(mut self) -> Result<(), ConfigError> {
        // Which tool permuted the rows for its own rotation; the order is the same in every file.
        self.take("tensor_data_layout");
        for (key, neutral) in NEUTRAL {
            if self.entries.get(key) == Some(&neutral) {
                self.take(key);
            }
        }
        match self.entries.iter().next() {
            None => Ok(()),
            Some((key, value)) => Err(ConfigError::Unknown {
                key: shown_name(&format!("{}.{key}", self.prefix)),
                value: value.shown(),
            }),
        }
    }
}
