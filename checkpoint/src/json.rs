//! JSON as an adversary may write it: an object that says a key twice is refused, because readers differ in which of
//! the two counts.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// What is wrong with some JSON text and where. Escaped and cut, because the parser repeats parts of its input.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct JsonError(String);

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self(escaped(&error.to_string(), 2 * SHOWN_CHARS_MAX))
    }
}

/// An object whose keys are all different.
pub(crate) struct UniqueMap<V>(pub(crate) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueMapVisitor(PhantomData))
    }
}

struct UniqueMapVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueMapVisitor<V> {
    type Value = UniqueMap<V>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = access.next_entry::<String, V>()? {
            if entries.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key {} occurs twice", shown_name(&key))));
            }
            entries.insert(key, value);
        }
        Ok(UniqueMap(entries))
    }
}

/// Any value, with the rule of [`UniqueMap`] at every depth.
pub(crate) struct UniqueValue(pub(crate) Value);

impl<'de> Deserialize<'de> for UniqueValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueValueVisitor).map(UniqueValue)
    }
}

struct UniqueValueVisitor;

impl<'de> Visitor<'de> for UniqueValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(UniqueValue(value)) = access.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let UniqueMap(entries) = UniqueMapVisitor(PhantomData::<UniqueValue>).visit_map(access)?;
        Ok(Value::Object(entries.into_iter().map(|(key, value)| (key, value.0)).collect::<Map<_, _>>()))
    }
}

/// Longest piece of hostile text repeated in a message: messages end up in status fields and terminals.
const SHOWN_CHARS_MAX: usize = 80;

/// Text that may repeat parts of the checkpoint, escaped and cut; quotes stay as they are.
pub(crate) fn escaped(text: &str, chars_max: usize) -> String {
    let mut escaped = String::new();
    for letter in text.chars().take(chars_max) {
        match letter {
            '"' | '\'' | '\\' => escaped.push(letter),
            _ => escaped.extend(letter.escape_debug()),
        }
    }
    if text.chars().nth(chars_max).is_some() {
        escaped.push('…');
    }
    escaped
}

/// A name from the checkpoint, quoted, escaped and cut, fit for a message.
pub(crate) fn shown_name(name: &str) -> String {
    let mut shown: String = name.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// A value from the checkpoint, as JSON, escaped and cut, fit for a message.
pub(crate) fn shown_value(value: &Value) -> String {
    match value {
        Value::String(text) => shown_name(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(values) => format!("a list of {} values", values.len()),
        Value::Object(entries) => {
            let keys: Vec<String> = entries.keys().take(3).map(|key| shown_name(key)).collect();
            let more = if entries.len() > keys.len() { ", …" } else { "" };
            format!("an object with {}{more}", keys.join(", "))
        }
    }
}
