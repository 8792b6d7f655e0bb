//! `tools`, `tool_choice` and `parallel_tool_calls`.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sparkherd_engine::text::{Tool, ToolChoice};

use super::super::ApiError;
use super::super::fields::{Fields, invalid};
use super::super::parameters::is_empty;

/// OpenAI's limit.
const TOOLS_MAX: usize = 128;
/// All tools together: they are part of every prompt, and become trees and a grammar.
const TOOLS_BYTES_MAX: usize = 256 << 10;
/// OpenAI's limit.
const NAME_BYTES_MAX: usize = 64;

/// The tools of a request, as the model is shown them and as calls are checked against them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tools {
    /// OpenAI's objects, without what nobody looked at.
    pub(crate) shown: Vec<Value>,
    pub(crate) callable: Vec<Tool>,
    pub(crate) choice: ToolChoice,
    pub(crate) parallel: bool,
}

pub(super) fn take_tools(fields: &mut Fields<'_>, ignored: &mut Vec<String>) -> Result<Tools, ApiError> {
    let parallel = fields.take("parallel_tool_calls", "true or false")?.unwrap_or(true);
    let path = fields.path("tools");
    let raw = fields.take_raw("tools").filter(|tools| !is_empty(tools));
    let choice = fields.take_raw("tool_choice");
    let mut tools = Tools { parallel, ..Tools::default() };
    let expected = format!("an array of at most {TOOLS_MAX} tools and {TOOLS_BYTES_MAX} bytes");
    let raw: Vec<&RawValue> = match raw {
        None => Vec::new(),
        Some(raw) if raw.get().len() > TOOLS_BYTES_MAX => return Err(invalid(&path, expected)),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| invalid(&path, &expected))?,
    };
    if raw.len() > TOOLS_MAX {
        return Err(invalid(&path, expected));
    }
    for (index, value) in raw.iter().enumerate() {
        let (shown, callable) = tool(Fields::of_value(&format!("{path}[{index}]"), value)?, ignored)?;
        tools.shown.push(shown);
        tools.callable.push(callable);
    }
    tools.choice = take_choice(fields, choice, &tools.callable)?;
    if tools.choice == ToolChoice::None {
        // What may not be called is not shown either: a model cannot be tempted by what it does not know.
        tools.shown.clear();
        tools.callable.clear();
    }
    Ok(tools)
}

fn tool(mut fields: Fields<'_>, ignored: &mut Vec<String>) -> Result<(Value, Tool), ApiError> {
    let kind: String = fields.take_required("type", "\"function\"")?;
    if kind != "function" {
        return Err(ApiError::Unsupported { param: fields.path("type"), allowed: "\"function\"" });
    }
    let function: &RawValue = fields.take_required("function", "an object")?;
    let mut function = Fields::of_value(&fields.path("function"), function)?;
    let name: String = function.take_required("name", "a string")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        let expected = format!("1 to {NAME_BYTES_MAX} letters, digits, dots, underscores or dashes");
        return Err(function.invalid("name", expected));
    }
    let description: Option<String> = function.take("description", "a string")?;
    let parameters: Option<Map<String, Value>> =
        function.take("parameters", "a JSON schema, as an object")?;
    let strict = function.take_flag("strict")?;
    ignored.extend(function.left_over());
    ignored.extend(fields.left_over());
    let mut shown = Map::from_iter([("name".to_owned(), Value::from(name.clone()))]);
    shown.extend(description.map(|description| ("description".to_owned(), description.into())));
    shown.extend(parameters.clone().map(|parameters| ("parameters".to_owned(), parameters.into())));
    let callable = Tool { name, parameters: parameters.map(Value::Object), strict };
    Ok((json!({"type": "function", "function": shown}), callable))
}

/// `"none"`, `"auto"`, `"required"`, or `{"type": "function", "function": {"name": …}}`.
fn take_choice(
    fields: &Fields<'_>,
    choice: Option<&RawValue>,
    tools: &[Tool],
) -> Result<ToolChoice, ApiError> {
    let expected = "\"none\", \"auto\", \"required\" or one of 'tools' as {\"type\": \"function\", \"function\": {\"name\": …}}";
    let wrong = || fields.invalid("tool_choice", expected);
    let Some(choice) = choice else { return Ok(ToolChoice::Auto) };
    if let Ok(word) = serde_json::from_str::<String>(choice.get()) {
        return match word.as_str() {
            "none" => Ok(ToolChoice::None),
            "auto" => Ok(ToolChoice::Auto),
            "required" if !tools.is_empty() => Ok(ToolChoice::Required),
            "required" => Err(fields.invalid("tool_choice", "\"none\" or \"auto\" where there are no tools")),
            _ => Err(wrong()),
        };
    }
    let mut named = Fields::of_value(&fields.path("tool_choice"), choice).map_err(|_| wrong())?;
    let function: &RawValue = named.take_required("function", expected)?;
    let mut function = Fields::of_value(&named.path("function"), function)?;
    let name: String = function.take_required("name", "a string")?;
    if tools.iter().any(|tool| tool.name == name) {
        Ok(ToolChoice::Named(name))
    } else {
        Err(function.invalid("name", "the name of one of 'tools'"))
    }
}
