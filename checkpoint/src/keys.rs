//! The keys of one JSON object, each taken once; what nobody takes is an error.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::{ConfigError, bound};
use crate::json::{JsonError, UniqueMap, UniqueValue, shown_name, shown_value};
use crate::known_keys::{self, Fixed};

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
    pub(crate) fn present(&mut self, key: &str) -> Option<Value> {
        self.take(key).filter(|value| !value.is_null())
    }

    /// Whether there is a value that is not null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| !value.is_null())
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

    pub(crate) fn flag(&mut self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.present(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(invalid(&self.named(key), &other, "true or false")),
        }
    }

    pub(crate) fn token(&mut self, key: &str, vocab_size: u32) -> Result<Option<u32>, ConfigError> {
        self.present(key).map(|value| token_id(key, &value, vocab_size)).transpose()
    }

    /// Keys that change the arithmetic unless they have the one value that is implemented.
    pub(crate) fn require_fixed(&mut self, fixed: &[(&str, Fixed)]) -> Result<(), ConfigError> {
        for (key, implemented) in fixed {
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
