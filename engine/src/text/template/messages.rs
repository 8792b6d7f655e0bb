//! Messages as clients send them, made into what templates were written for.
//!
//! Templates read the form of transformers' own API, which differs from OpenAI's: content is one string, a call's
//! arguments are an object, what is absent is not null. The differences are settled here, once, as vLLM and transformers
//! settle them, and nothing else is changed.

use serde_json::{Map, Value};

use crate::text::format::{ToolDialect, mistral_id};

/// The names under which reasoning of past answers is sent; templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// What a template can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reads {
    /// Content that is a list of parts.
    pub(super) parts: bool,
    /// OpenAI's newer name of the system role.
    pub(super) developer: bool,
    pub(super) dialect: ToolDialect,
}

pub(super) fn for_template(messages: &[Value], reads: Reads) -> Vec<Value> {
    messages.iter().map(|message| one(message, reads)).collect()
}

fn one(message: &Value, reads: Reads) -> Value {
    let Value::Object(fields) = message else { return message.clone() };
    let mut fields: Map<String, Value> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !reads.developer && fields.get("role").is_some_and(|role| role == "developer") {
        fields.insert("role".to_owned(), "system".into());
    }
    if let Some(reasoning) = REASONING.iter().find_map(|name| fields.get(*name)).cloned() {
        fields.entry("thinking").or_insert_with(|| reasoning.clone());
        fields.insert(REASONING[0].to_owned(), reasoning);
    }
    if let Some(Value::Array(parts)) = fields.get("content").filter(|_| !reads.parts) {
        fields.insert("content".to_owned(), joined(parts).into());
    }
    calls(&mut fields, reads.dialect);
    // Null beside calls is OpenAI's way; templates that print the content whatever it is would fail.
    fields.entry("content").or_insert_with(|| "".into());
    Value::Object(fields)
}

/// The texts of parts, on lines of their own. Others are not for a text model, and the server refuses them.
fn joined(parts: &[Value]) -> String {
    let text = |part: &Value| part.as_str().or_else(|| part["text"].as_str()).map(str::to_owned);
    parts.iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

/// A template asks whether there are calls by whether there is the field.
fn calls(fields: &mut Map<String, Value>, dialect: ToolDialect) {
    if fields.get("tool_calls").is_some_and(|calls| calls.as_array().is_some_and(Vec::is_empty)) {
        fields.shift_remove("tool_calls");
    }
    if let Some(Value::Array(calls)) = fields.get_mut("tool_calls") {
        for call in calls {
            if let Some(arguments) = call.pointer_mut("/function/arguments") {
                parse_arguments(arguments);
            }
            for_dialect(call.get_mut("id"), dialect);
        }
    }
    for_dialect(fields.get_mut("tool_call_id"), dialect);
}

/// A text that is no object stays what it is: it is the model's own mistake, shown to it again.
fn parse_arguments(arguments: &mut Value) {
    let Value::String(text) = &*arguments else { return };
    if text.trim().is_empty() {
        *arguments = Value::Object(Map::new());
    } else if let Ok(object @ Value::Object(_)) = serde_json::from_str(text) {
        *arguments = object;
    }
}

fn for_dialect(id: Option<&mut Value>, dialect: ToolDialect) {
    if let (Some(Value::String(id)), ToolDialect::Mistral) = (id, dialect) {
        *id = mistral_id(id);
    }
}
