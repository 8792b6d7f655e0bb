//! A JSON object whose values stay text until a parameter of a known type is taken from it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::ApiError;

/// One object of a request. What is left when all known parameters have been taken was ignored.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// Where this object lies, e.g. `messages[2].`; empty for the body itself.
    prefix: String,
    values: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, ApiError> {
        let values = serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data => ApiError::NotAnObject,
            // Syntax errors name a place, not a value.
            Category::Syntax | Category::Eof | Category::Io => {
                ApiError::BadJson { detail: error.to_string() }
            }
        })?;
        Ok(Self { prefix: String::new(), values })
    }

    /// An object inside another: `path` is its own place.
    pub(super) fn of_value(path: &str, value: &'a RawValue) -> Result<Self, ApiError> {
        let values = serde_json::from_str(value.get()).map_err(|_| invalid(path, "an object"))?;
        Ok(Self { prefix: format!("{path}."), values })
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn invalid(&self, name: &str, expected: impl Display) -> ApiError {
        invalid(&self.path(name), expected)
    }

    /// Takes a value as it stands; `null` counts as absent, as OpenAI's own clients send it.
    pub(super) fn take_raw(&mut self, name: &str) -> Option<&'a RawValue> {
        #[cfg(test)]
        note_asked(self.path(name));
        self.values.remove(name).filter(|value| value.get() != "null")
    }

    pub(super) fn take<T: Deserialize<'a>>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        match self.take_raw(name) {
            None => Ok(None),
            Some(value) => {
                serde_json::from_str(value.get()).map(Some).map_err(|_| self.invalid(name, expected))
            }
        }
    }

    pub(super) fn take_required<T: Deserialize<'a>>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<T, ApiError> {
        self.take(name, expected)?.ok_or_else(|| ApiError::Missing { param: self.path(name) })
    }

    pub(super) fn take_flag(&mut self, name: &str) -> Result<bool, ApiError> {
        Ok(self.take(name, "true or false")?.unwrap_or(false))
    }

    /// A number within `range`. Infinities and NaN cannot be written in JSON and are refused with the range.
    pub(super) fn take_number(
        &mut self,
        name: &str,
        range: RangeInclusive<f32>,
    ) -> Result<Option<f32>, ApiError> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let value: Option<f32> = self.take(name, &expected)?;
        if value.is_some_and(|value| !range.contains(&value)) {
            return Err(self.invalid(name, expected));
        }
        Ok(value)
    }

    /// A whole number of at least `least`. What is larger than `u32` counts as `u32::MAX`: the caller clamps further.
    pub(super) fn take_count(&mut self, name: &str, least: u32) -> Result<Option<u32>, ApiError> {
        let expected = format!("a whole number of at least {least}");
        match self.take::<u64>(name, &expected)? {
            None => Ok(None),
            Some(value) if value < u64::from(least) => Err(self.invalid(name, expected)),
            Some(value) => Ok(Some(u32::try_from(value).unwrap_or(u32::MAX))),
        }
    }

    /// Full names of what nobody took.
    pub(super) fn left_over(self) -> impl Iterator<Item = String> {
        let Self { prefix, values } = self;
        values.into_keys().map(move |name| format!("{prefix}{name}"))
    }
}

pub(super) fn invalid(path: &str, expected: impl Display) -> ApiError {
    ApiError::Invalid { param: path.to_owned(), expected: expected.to_string() }
}

#[cfg(test)]
thread_local! {
    static ASKED: std::cell::RefCell<Option<std::collections::BTreeSet<String>>> = const { std::cell::RefCell::new(None) };
}

#[cfg(test)]
fn note_asked(path: String) {
    ASKED.with_borrow_mut(|asked| asked.as_mut().map(|asked| asked.insert(path)));
}

/// Full names of all that is asked for while `parse` runs on this thread.
#[cfg(test)]
pub(super) fn asked(parse: impl FnOnce()) -> std::collections::BTreeSet<String> {
    ASKED.set(Some(std::collections::BTreeSet::new()));
    parse();
    ASKED.take().unwrap_or_default()
}
