//! `messages`, checked and made what a chat template takes: OpenAI's own shape, with nothing in it that was not looked at.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::ApiError;
use super::super::fields::{Fields, invalid};

/// A conversation of more messages is refused: rendering one template over them would take longer than the answer.
const MESSAGES_MAX: usize = 4096;
/// Each part becomes a tree of some hundred bytes; no client cuts one message into more.
const PARTS_MAX: usize = 256;
/// Calls in one message: as many as there may be tools.
const CALLS_MAX: usize = 128;

/// Reads `messages`, and appends the names of what was not looked at to `ignored`.
pub(super) fn take_messages(
    fields: &mut Fields<'_>,
    ignored: &mut Vec<String>,
) -> Result<Vec<Value>, ApiError> {
    let expected = format!("an array of 1 to {MESSAGES_MAX} messages");
    let raw: Vec<&RawValue> = fields.take_required("messages", &expected)?;
    if raw.is_empty() || raw.len() > MESSAGES_MAX {
        return Err(fields.invalid("messages", expected));
    }
    raw.iter()
        .enumerate()
        .map(|(index, value)| message(Fields::of_value(&format!("messages[{index}]"), value)?, ignored))
        .collect()
}

fn message(mut fields: Fields<'_>, ignored: &mut Vec<String>) -> Result<Value, ApiError> {
    let roles = "\"system\", \"developer\", \"user\", \"assistant\" or \"tool\"";
    let role: String = fields.take_required("role", "a string")?;
    let mut message = Map::new();
    match role.as_str() {
        "system" | "developer" | "user" => {}
        "assistant" => take_assistant(&mut fields, &mut message, ignored)?,
        "tool" => {
            let call: String = fields.take_required("tool_call_id", "a string")?;
            message.insert("tool_call_id".to_owned(), call.into());
        }
        "function" => {
            let allowed = "role \"tool\" with 'tool_call_id'";
            return Err(ApiError::Unsupported { param: fields.path("role"), allowed });
        }
        _ => return Err(fields.invalid("role", roles)),
    }
    message.insert("role".to_owned(), role.into());
    if let Some(name) = fields.take::<String>("name", "a string")? {
        message.insert("name".to_owned(), name.into());
    }
    for name in ["function_call", "audio"] {
        if fields.take_raw(name).is_some() {
            return Err(ApiError::Unsupported { param: fields.path(name), allowed: "null" });
        }
    }
    // A `null` refusal of our own answers, and what other servers add to theirs: no part of any prompt.
    for name in ["refusal", "annotations"] {
        fields.take_raw(name);
    }
    let content = match fields.take_raw("content") {
        Some(content) => content_value(&fields.path("content"), content, ignored)?,
        // What an assistant says beside its calls, or says only to itself.
        None if message.contains_key("tool_calls") || message.contains_key("reasoning_content") => "".into(),
        None => return Err(ApiError::Missing { param: fields.path("content") }),
    };
    message.insert("content".to_owned(), content);
    ignored.extend(fields.left_over());
    Ok(message.into())
}

/// Calls and thoughts of an earlier answer. Thoughts have one name in templates and two on the wire.
fn take_assistant(
    fields: &mut Fields<'_>,
    message: &mut Map<String, Value>,
    ignored: &mut Vec<String>,
) -> Result<(), ApiError> {
    let expected = format!("an array of at most {CALLS_MAX} calls");
    let calls: Vec<&RawValue> = fields.take("tool_calls", &expected)?.unwrap_or_default();
    if calls.len() > CALLS_MAX {
        return Err(fields.invalid("tool_calls", expected));
    }
    let path = fields.path("tool_calls");
    let calls = calls
        .iter()
        .enumerate()
        .map(|(index, value)| call(Fields::of_value(&format!("{path}[{index}]"), value)?, ignored));
    let calls: Vec<Value> = calls.collect::<Result<_, _>>()?;
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), calls.into());
    }
    let reasoning: Option<String> = fields.take("reasoning", "a string")?;
    let thoughts = fields.take("reasoning_content", "a string")?.or(reasoning);
    if let Some(thoughts) = thoughts.filter(|thoughts| !thoughts.is_empty()) {
        message.insert("reasoning_content".to_owned(), thoughts.into());
    }
    Ok(())
}

fn call(mut fields: Fields<'_>, ignored: &mut Vec<String>) -> Result<Value, ApiError> {
    let id: String = fields.take_required("id", "a string")?;
    let kind: Option<String> = fields.take("type", "\"function\"")?;
    if kind.is_some_and(|kind| kind != "function") {
        return Err(ApiError::Unsupported { param: fields.path("type"), allowed: "\"function\"" });
    }
    let function: &RawValue = fields.take_required("function", "an object")?;
    let mut function = Fields::of_value(&fields.path("function"), function)?;
    let name: String = function.take_required("name", "a string")?;
    let arguments: String = function.take("arguments", "a string of JSON")?.unwrap_or_default();
    // Streams number their calls, and clients send them back with the numbers.
    fields.take_raw("index");
    ignored.extend(function.left_over());
    ignored.extend(fields.left_over());
    Ok(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}

/// A string, or text parts.
fn content_value(path: &str, content: &RawValue, ignored: &mut Vec<String>) -> Result<Value, ApiError> {
    if let Ok(text) = serde_json::from_str::<String>(content.get()) {
        return Ok(text.into());
    }
    let expected = format!("a string, or an array of at most {PARTS_MAX} text parts");
    let parts: Vec<&RawValue> = serde_json::from_str(content.get()).map_err(|_| invalid(path, &expected))?;
    if parts.len() > PARTS_MAX {
        return Err(invalid(path, expected));
    }
    let mut values = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::of_value(&format!("{path}[{index}]"), part)?;
        let kind: String = part.take_required("type", "a string")?;
        if kind != "text" {
            return Err(ApiError::Unsupported { param: part.path("type"), allowed: "\"text\"" });
        }
        let text: String = part.take_required("text", "a string")?;
        values.push(json!({"type": "text", "text": text}));
        ignored.extend(part.left_over());
    }
    Ok(values.into())
}
