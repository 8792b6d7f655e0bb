use serde_json::value::RawValue;

use super::ApiError;
use super::fields::{Fields, invalid};
use crate::engine::{ChatMessage, Role};

/// A conversation of more messages is refused: rendering one template over them would take longer than the answer.
const MESSAGES_MAX: usize = 4096;

/// Reads `messages`, and appends the names of what was not looked at to `ignored`.
pub(super) fn take_messages(
    fields: &mut Fields<'_>,
    ignored: &mut Vec<String>,
) -> Result<Vec<ChatMessage>, ApiError> {
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

fn message(mut fields: Fields<'_>, ignored: &mut Vec<String>) -> Result<ChatMessage, ApiError> {
    let role: String = fields.take_required("role", "a string")?;
    let role = match role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => {
            let param = fields.path("role");
            return Err(ApiError::Unsupported { param, allowed: "\"system\", \"user\" or \"assistant\"" });
        }
        _ => return Err(fields.invalid("role", "\"system\", \"developer\", \"user\" or \"assistant\"")),
    };
    for name in ["tool_calls", "function_call", "audio"] {
        if fields.take_raw(name).is_some_and(|value| value.get() != "[]") {
            return Err(ApiError::Unsupported { param: fields.path(name), allowed: "null" });
        }
    }
    // Not part of any prompt: what a client keeps beside the message, and a `null` refusal of our own answers.
    for name in ["name", "refusal", "annotations", "reasoning", "reasoning_content"] {
        fields.take_raw(name);
    }
    let content = match fields.take_raw("content") {
        Some(content) => content_text(&fields.path("content"), content, ignored)?,
        None => return Err(ApiError::Missing { param: fields.path("content") }),
    };
    ignored.extend(fields.left_over());
    Ok(ChatMessage { role, content })
}

/// A string, or text parts, which are joined by line breaks as vLLM and llama.cpp do.
fn content_text(path: &str, content: &RawValue, ignored: &mut Vec<String>) -> Result<String, ApiError> {
    if let Ok(text) = serde_json::from_str(content.get()) {
        return Ok(text);
    }
    let parts: Vec<&RawValue> = serde_json::from_str(content.get())
        .map_err(|_| invalid(path, "a string or an array of text parts"))?;
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::of_value(&format!("{path}[{index}]"), part)?;
        let kind: String = part.take_required("type", "a string")?;
        if kind != "text" {
            return Err(ApiError::Unsupported { param: part.path("type"), allowed: "\"text\"" });
        }
        texts.push(part.take_required::<String>("text", "a string")?);
        ignored.extend(part.left_over());
    }
    Ok(texts.join("\n"))
}
