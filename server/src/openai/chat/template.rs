//! What a request tells the chat template beside its messages.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::ApiError;
use super::super::fields::Fields;

/// Variables of a template are flags and words.
const KWARGS_BYTES_MAX: usize = 16 << 10;
/// Documents become trees and are part of the prompt.
const DOCUMENTS_BYTES_MAX: usize = 256 << 10;
/// OpenAI's words for how long to think.
const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];

/// How the prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PromptEnd {
    pub(super) add_generation_prompt: bool,
    pub(super) continue_final_message: bool,
}

/// `chat_template_kwargs`, and the parameters that are another way to write one of them.
///
/// `reasoning_effort` becomes the variable of this name, and `enable_thinking` says whether it is not `none`: templates read
/// one or the other. What was written in `chat_template_kwargs` itself counts more.
pub(super) fn take_kwargs(fields: &mut Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    let mut kwargs = Map::new();
    let effort: Option<String> = fields.take("reasoning_effort", "a string")?;
    if let Some(effort) = effort {
        if !EFFORTS.contains(&effort.as_str()) {
            return Err(fields.invalid("reasoning_effort", format!("one of {}", EFFORTS.join(", "))));
        }
        kwargs.insert("enable_thinking".to_owned(), (effort != "none").into());
        kwargs.insert("reasoning_effort".to_owned(), effort.into());
    }
    if let Some(thinking) = fields.take::<bool>("enable_thinking", "true or false")? {
        kwargs.insert("enable_thinking".to_owned(), thinking.into());
    }
    kwargs.extend(take_bounded::<Map<String, Value>>(fields, "chat_template_kwargs", KWARGS_BYTES_MAX)?);
    Ok(kwargs)
}

pub(super) fn take_documents(fields: &mut Fields<'_>) -> Result<Vec<Value>, ApiError> {
    let documents: Vec<Map<String, Value>> = take_bounded(fields, "documents", DOCUMENTS_BYTES_MAX)?;
    Ok(documents.into_iter().map(Value::Object).collect())
}

pub(super) fn take_prompt_end(fields: &mut Fields<'_>) -> Result<PromptEnd, ApiError> {
    let continue_final_message = fields.take_flag("continue_final_message")?;
    let add: Option<bool> = fields.take("add_generation_prompt", "true or false")?;
    let add_generation_prompt = add.unwrap_or(!continue_final_message);
    if add_generation_prompt && continue_final_message {
        return Err(fields.invalid("add_generation_prompt", "false where 'continue_final_message' is true"));
    }
    Ok(PromptEnd { add_generation_prompt, continue_final_message })
}

fn take_bounded<T: Default + serde::de::DeserializeOwned>(
    fields: &mut Fields<'_>,
    name: &str,
    bytes_max: usize,
) -> Result<T, ApiError> {
    let expected = format!("JSON of the documented form and at most {bytes_max} bytes");
    let Some(raw) = fields.take::<&RawValue>(name, &expected)? else { return Ok(T::default()) };
    if raw.get().len() > bytes_max {
        return Err(fields.invalid(name, expected));
    }
    serde_json::from_str(raw.get()).map_err(|_| fields.invalid(name, expected))
}
