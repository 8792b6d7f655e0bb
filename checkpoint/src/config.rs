use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use crate::json::{JsonError, UniqueMap, UniqueValue, shown_name, shown_value};
use crate::rope::Rope;
use crate::{Architecture, known_keys};

/// Largest sizes that are read. Each is several times what any published dense model uses, and together they keep every
/// later product (parameters, KV bytes per token) far inside 64 bits.
mod bound {
    pub(super) const LAYERS: u32 = 1024;
    pub(super) const HIDDEN_SIZE: u32 = 1 << 17;
    pub(super) const INTERMEDIATE_SIZE: u32 = 1 << 20;
    pub(super) const HEADS: u32 = 1024;
    pub(super) const HEAD_DIM: u32 = 1024;
    pub(super) const VOCAB_SIZE: u32 = 1 << 22;
    pub(super) const CONTEXT: u32 = 1 << 24;
    pub(super) const EOS_TOKENS: usize = 64;
}

/// What `config.json` says, in full: no field is optional because every default of transformers is filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    /// Transformer blocks.
    pub layers: u32,
    /// Width of the residual stream, elements.
    pub hidden_size: u32,
    /// Width of the feed-forward layer, elements.
    pub intermediate_size: u32,
    /// Query heads per layer; a multiple of `kv_heads`.
    pub heads: u32,
    /// Key and value heads per layer.
    pub kv_heads: u32,
    /// Width of one head, elements; even, because the rotation works on pairs. `heads × head_dim` may differ from `hidden_size`.
    pub head_dim: u32,
    /// Rows of the embedding.
    pub vocab_size: u32,
    /// Longest sequence the model was made for, tokens.
    pub max_context: u32,
    /// Added to the mean square before the root, in every normalisation.
    pub rms_norm_eps: f64,
    pub rope: Rope,
    /// Whether the output projection is the embedding itself.
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer; may be empty.
    pub eos_token_ids: Vec<u32>,
}

/// Why a `config.json` is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("not valid JSON: {0}")]
    Json(#[from] JsonError),
    #[error("architecture {found} is not supported; supported: {supported}")]
    Architecture { found: String, supported: &'static str },
    #[error("key {key} is missing")]
    Missing { key: String },
    #[error("{key} is {value}; must be {allowed}")]
    Value { key: String, value: String, allowed: String },
    #[error("key {key} = {value} is unknown and could change the arithmetic")]
    Unknown { key: String, value: String },
    #[error("auto_map asks to run code that ships with the model; sparkherd never does")]
    Code,
    #[error("weights are quantised with {method}; supported: weights stored as F32, F16 or BF16")]
    Quantised { method: String },
}

impl ConfigError {
    /// Whether the bytes themselves are damaged, as opposed to saying something that is not supported.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Json(_))
    }
}

impl ModelConfig {
    /// Reads the bytes of `config.json`. Every key is either understood, known not to change the result, or an error.
    pub fn parse(config_json: &[u8]) -> Result<Self, ConfigError> {
        let mut keys = Keys::parse(config_json)?;
        if keys.take("auto_map").is_some() {
            return Err(ConfigError::Code);
        }
        let architecture = architecture(&mut keys)?;
        refuse_quantisation(&mut keys)?;
        let config = match architecture {
            Architecture::Llama => llama(&mut keys)?,
        };
        keys.finish()?;
        Ok(config)
    }
}

const SUPPORTED: &str = "LlamaForCausalLM";

fn architecture(keys: &mut Keys) -> Result<Architecture, ConfigError> {
    let unsupported =
        |found: &Value| ConfigError::Architecture { found: shown_value(found), supported: SUPPORTED };
    let named = keys.take("architectures").ok_or_else(|| missing("architectures"))?;
    let architecture = match named.as_array().map(Vec::as_slice) {
        Some([Value::String(name)]) if name == "LlamaForCausalLM" => Architecture::Llama,
        Some([other]) => return Err(unsupported(other)),
        _ => return Err(unsupported(&named)),
    };
    match keys.take("model_type") {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) if name == "llama" => {}
        Some(other) => return Err(invalid("model_type", &other, "\"llama\"")),
    }
    Ok(architecture)
}

fn refuse_quantisation(keys: &mut Keys) -> Result<(), ConfigError> {
    for key in ["quantization_config", "quantization", "compression_config"] {
        match keys.take(key) {
            None | Some(Value::Null) => {}
            Some(value) => {
                let method = value.get("quant_method").unwrap_or(&value);
                return Err(ConfigError::Quantised { method: shown_value(method) });
            }
        }
    }
    Ok(())
}

fn llama(keys: &mut Keys) -> Result<ModelConfig, ConfigError> {
    let hidden_size = keys.count("hidden_size", None, bound::HIDDEN_SIZE)?;
    let heads = keys.count("num_attention_heads", None, bound::HEADS)?;
    let kv_heads = keys.count("num_key_value_heads", Some(heads), bound::HEADS)?;
    let head_dim = keys.count("head_dim", Some(hidden_size / heads), bound::HEAD_DIM)?;
    let vocab_size = keys.count("vocab_size", None, bound::VOCAB_SIZE)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(invalid(
            "num_key_value_heads",
            &kv_heads.into(),
            &format!("a divisor of {heads} query heads"),
        ));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(invalid("head_dim", &head_dim.into(), "even"));
    }
    let max_context = keys.count("max_position_embeddings", Some(2048), bound::CONTEXT)?;
    keys.require_fixed()?;
    Ok(ModelConfig {
        architecture: Architecture::Llama,
        layers: keys.count("num_hidden_layers", None, bound::LAYERS)?,
        hidden_size,
        intermediate_size: keys.count("intermediate_size", None, bound::INTERMEDIATE_SIZE)?,
        heads,
        kv_heads,
        head_dim,
        vocab_size,
        max_context,
        rms_norm_eps: keys.number("rms_norm_eps", Some(1e-6), 0.0, 1.0)?,
        rope: Rope::parse(keys)?,
        tie_word_embeddings: keys.flag("tie_word_embeddings", false)?,
        bos_token_id: keys.token("bos_token_id", vocab_size)?,
        eos_token_ids: token_ids(keys.take("eos_token_id").as_ref(), vocab_size)?,
    })
}

/// One id, a list of ids, or none; sorted and without repetition.
pub(crate) fn token_ids(value: Option<&Value>, vocab_size: u32) -> Result<Vec<u32>, ConfigError> {
    let values = match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
    };
    if values.len() > bound::EOS_TOKENS {
        let allowed = format!("at most {} ids", bound::EOS_TOKENS);
        return Err(invalid("eos_token_id", &values.len().into(), &allowed));
    }
    let mut ids = values
        .iter()
        .map(|value| token_id("eos_token_id", value, vocab_size))
        .collect::<Result<Vec<u32>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn token_id(key: &str, value: &Value, vocab_size: u32) -> Result<u32, ConfigError> {
    value
        .as_u64()
        .and_then(|id| u32::try_from(id).ok())
        .filter(|id| *id < vocab_size)
        .ok_or_else(|| invalid(key, value, &format!("a token id below the vocabulary size {vocab_size}")))
}

pub(crate) fn missing(key: &str) -> ConfigError {
    ConfigError::Missing { key: key.to_owned() }
}

pub(crate) fn invalid(key: &str, value: &Value, allowed: &str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), value: shown_value(value), allowed: allowed.to_owned() }
}

/// The keys of one object that nobody has claimed yet. What is left at the end is an error.
pub(crate) struct Keys {
    entries: BTreeMap<String, Value>,
    /// Put before a key in messages: empty, or `rope_scaling.`
    prefix: String,
}

impl Keys {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let UniqueMap(entries) =
            serde_json::from_slice::<UniqueMap<UniqueValue>>(json).map_err(JsonError::from)?;
        let entries = entries.into_iter().map(|(key, value)| (key, value.0)).collect();
        Ok(Self { entries, prefix: String::new() })
    }

    /// The keys of the object under `key`; `None` where it is absent or null.
    pub(crate) fn nested(&mut self, key: &str) -> Result<Option<Self>, ConfigError> {
        match self.take(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(entries)) => {
                Ok(Some(Self { entries: entries.into_iter().collect(), prefix: format!("{key}.") }))
            }
            Some(other) => Err(invalid(key, &other, "an object or null")),
        }
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.entries.remove(key)
    }

    /// A value that is present and not null.
    fn present(&mut self, key: &str) -> Option<Value> {
        self.take(key).filter(|value| !value.is_null())
    }

    pub(crate) fn named(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A whole number from 1 to `max`.
    pub(crate) fn count(&mut self, key: &str, default: Option<u32>, max: u32) -> Result<u32, ConfigError> {
        let value = match (self.present(key), default) {
            (Some(value), _) => value,
            (None, Some(default)) => default.into(),
            (None, None) => return Err(missing(&self.named(key))),
        };
        value
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| (1..=max).contains(count))
            .ok_or_else(|| invalid(&self.named(key), &value, &format!("a whole number from 1 to {max}")))
    }

    /// A finite number above `above` and at most `max`.
    pub(crate) fn number(
        &mut self,
        key: &str,
        default: Option<f64>,
        above: f64,
        max: f64,
    ) -> Result<f64, ConfigError> {
        let value = match (self.present(key), default) {
            (Some(value), _) => value,
            (None, Some(default)) => return Ok(default),
            (None, None) => return Err(missing(&self.named(key))),
        };
        value.as_f64().filter(|number| number.is_finite() && *number > above && *number <= max).ok_or_else(
            || invalid(&self.named(key), &value, &format!("a number above {above} and at most {max}")),
        )
    }

    fn flag(&mut self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.present(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(invalid(&self.named(key), &other, "true or false")),
        }
    }

    fn token(&mut self, key: &str, vocab_size: u32) -> Result<Option<u32>, ConfigError> {
        self.present(key).map(|value| token_id(key, &value, vocab_size)).transpose()
    }

    /// Keys that change the arithmetic unless they have the one value that is implemented.
    fn require_fixed(&mut self) -> Result<(), ConfigError> {
        for (key, implemented) in known_keys::FIXED {
            if let Some(value) = self.present(key)
                && !implemented.matches(&value)
            {
                return Err(invalid(key, &value, &implemented.to_string()));
            }
        }
        Ok(())
    }

    /// All that is left must be harmless.
    pub(crate) fn finish(self) -> Result<(), ConfigError> {
        let prefix = self.prefix;
        match self.entries.iter().find(|(key, _)| !known_keys::is_harmless(key)) {
            None => Ok(()),
            Some((key, value)) => {
                let quoted = shown_name(&format!("{prefix}{key}"));
                Err(ConfigError::Unknown { key: quoted, value: shown_value(value) })
            }
        }
    }

    /// All keys must have been claimed: for objects in which nothing is harmless.
    pub(crate) fn finish_empty(self) -> Result<(), ConfigError> {
        match self.entries.iter().next() {
            None => Ok(()),
            Some((key, value)) => Err(ConfigError::Unknown {
                key: shown_name(&format!("{}{key}", self.prefix)),
                value: shown_value(value),
            }),
        }
    }
}
