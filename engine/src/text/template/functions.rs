//! What transformers gives to templates beyond Jinja's own filters and functions.

use minijinja::{Environment, Error, ErrorKind, Value, value::Kwargs};
use thiserror::Error;

use super::json::{self, Style};
use crate::text::Clock;

/// Spaces a level of indented JSON; more serves nobody and costs memory.
const INDENT_MAX: usize = 16;

/// Marks the errors that a template raises itself.
#[derive(Debug, Error)]
#[error("raised by the template")]
struct Raised;

pub(super) fn add(environment: &mut Environment<'static>, clock: Clock) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| strftime(format, &clock()));
    environment.add_filter("tojson", to_json);
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
}

/// The message of a `raise_exception` somewhere below `error`.
pub(super) fn raised(error: &Error) -> Option<String> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut message = None;
    while let Some(error) = next {
        if error.is::<Raised>() {
            return message;
        }
        message = error.downcast_ref::<Error>().and_then(Error::detail).map(str::to_owned);
        next = error.source();
    }
    None
}

fn strftime(format: &str, time: &jiff::Zoned) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, time)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "what minijinja calls a filter with")]
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let bad = |error: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, error.to_string());
    // Python's would be an error too; ours would print null.
    if value.is_undefined() {
        return Err(bad(&"undefined is no JSON"));
    }
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let separators = match separators.as_deref() {
        None => None,
        Some([items, keys]) => Some((items.clone(), keys.clone())),
        Some(_) => return Err(bad(&"separators are two strings")),
    };
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let style = Style {
        indent: indent.map(|width| width.min(INDENT_MAX)),
        separators,
        sort_keys: sort_keys.unwrap_or(false),
        ascii: ascii.unwrap_or(false),
    };
    let value = serde_json::to_value(value).map_err(|error| bad(&error))?;
    json::dumps(&value, style).map(Value::from_safe_string).map_err(|error| bad(&error))
}
