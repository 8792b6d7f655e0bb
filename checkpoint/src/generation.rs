use serde_json::Value;

use crate::config::{ConfigError, ModelConfig};
use crate::keys::{Keys, invalid, token_ids};

/// What `generation_config.json` suggests where a request says nothing. `None` = it says nothing either.
///
/// Keys beyond these are suggestions that no request type here has a field for, so they are not read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end an answer: the union of this file's and `config.json`'s, ascending.
    pub eos_token_ids: Vec<u32>,
    /// `false` asks for the most likely token each time.
    pub do_sample: Option<bool>,
    pub temperature: Option<f64>,
    /// 0 and below mean "all tokens" in the file, which is `None` here.
    pub top_k: Option<u32>,
    pub top_p: Option<f64>,
}

impl GenerationConfig {
    /// What holds for a checkpoint without the file.
    pub fn of_config(config: &ModelConfig) -> Self {
        Self { eos_token_ids: config.eos_token_ids.clone(), ..Self::default() }
    }

    /// Reads the bytes of `generation_config.json`.
    pub fn parse(generation_json: &[u8], config: &ModelConfig) -> Result<Self, ConfigError> {
        let mut keys = Keys::parse(generation_json)?;
        let mut eos_token_ids = token_ids(keys.take("eos_token_id").as_ref(), config.vocab_size)?;
        eos_token_ids.extend(&config.eos_token_ids);
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        Ok(Self {
            eos_token_ids,
            do_sample: typed(&mut keys, "do_sample", "true or false", Value::as_bool)?,
            temperature: typed(&mut keys, "temperature", "a number of at least 0", |value| {
                value.as_f64().filter(|temperature| *temperature >= 0.0)
            })?,
            top_k: typed(&mut keys, "top_k", "a whole number", Value::as_i64)?
                .and_then(|top_k| u32::try_from(top_k).ok())
                .filter(|top_k| *top_k > 0),
            top_p: typed(&mut keys, "top_p", "a number above 0 and at most 1", |value| {
                value.as_f64().filter(|top_p| *top_p > 0.0 && *top_p <= 1.0)
            })?,
        })
    }
}

fn typed<T>(
    keys: &mut Keys,
    key: &str,
    allowed: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, ConfigError> {
    keys.take(key)
        .filter(|value| !value.is_null())
        .map(|value| read(&value).ok_or_else(|| invalid(key, &value, allowed)))
        .transpose()
}
