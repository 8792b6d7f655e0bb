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
    /// Those that `tool_choice` allows: a call of another is none.
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
    let choice = choice.map(|choice| take_choice(fields, choice, &mut tools.callable)).transpose()?;
    tools.choice = choice.unwrap_or_default();
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

/// `"none"`, `"auto"`, `"required"`, `{"type": "function", "function": {"name": …}}`, or `{"type": "allowed_tools", …}`.
fn take_choice(
    fields: &Fields<'_>,
    choice: &RawValue,
    tools: &mut Vec<Tool>,
) -> Result<ToolChoice, ApiError> {
    let expected = "\"none\", \"auto\", \"required\", or an object of type \"function\" or \"allowed_tools\"";
    let wrong = || fields.invalid("tool_choice", expected);
    if let Ok(word) = serde_json::from_str::<String>(choice.get()) {
        return choice_of(&word, tools).ok_or_else(|| match word.as_str() {
            "required" => fields.invalid("tool_choice", "\"none\" or \"auto\" where there are no tools"),
            _ => wrong(),
        });
    }
    let mut choice = Fields::of_value(&fields.path("tool_choice"), choice).map_err(|_| wrong())?;
    let kind: Option<String> = choice.take("type", "a string")?;
    match kind.as_deref() {
        None | Some("function") => Ok(ToolChoice::Named(take_name(&mut choice, tools)?)),
        Some("allowed_tools") => take_allowed(&mut choice, tools),
        Some(_) => {
            let allowed = "\"function\" or \"allowed_tools\"";
            Err(ApiError::Unsupported { param: choice.path("type"), allowed })
        }
    }
}

fn choice_of(word: &str, tools: &[Tool]) -> Option<ToolChoice> {
    match word {
        "none" => Some(ToolChoice::None),
        "auto" => Some(ToolChoice::Auto),
        "required" if !tools.is_empty() => Some(ToolChoice::Required),
        _ => None,
    }
}

/// `{"allowed_tools": {"mode": "auto" | "required", "tools": [{"type": "function", "function": {"name": …}}, …]}}`: all tools
/// are shown, so that prompts stay the same, and only these may be called.
fn take_allowed(choice: &mut Fields<'_>, tools: &mut Vec<Tool>) -> Result<ToolChoice, ApiError> {
    let allowed: &RawValue = choice.take_required("allowed_tools", "an object")?;
    let mut allowed = Fields::of_value(&choice.path("allowed_tools"), allowed)?;
    let mode: String = allowed.take_required("mode", "\"auto\" or \"required\"")?;
    let expected = format!("an array of 1 to {TOOLS_MAX} tools");
    let raw: Vec<&RawValue> = allowed.take_required("tools", &expected)?;
    if raw.is_empty() || raw.len() > TOOLS_MAX {
        return Err(allowed.invalid("tools", expected));
    }
    let path = allowed.path("tools");
    let allowed_names = raw
        .iter()
        .enumerate()
        .map(|(index, value)| take_name(&mut Fields::of_value(&format!("{path}[{index}]"), value)?, tools));
    let names: Vec<String> = allowed_names.collect::<Result<_, _>>()?;
    tools.retain(|tool| names.contains(&tool.name));
    match choice_of(&mode, tools) {
        Some(choice) if choice != ToolChoice::None => Ok(choice),
        _ => Err(allowed.invalid("mode", "\"auto\" or \"required\"")),
    }
}

/// The name of one of `tools`.
fn take_name(choice: &mut Fields<'_>, tools: &[Tool]) -> Result<String, ApiError> {
    let function: &RawValue = choice.take_required("function", "an object with a 'name'")?;
    let mut function = Fields::of_value(&choice.path("function"), function)?;
    let name: String = function.take_required("name", "a string")?;
    if tools.iter().any(|tool| tool.name == name) {
        Ok(name)
    } else {
        Err(function.invalid("name", "the name of one of 'tools'"))
    }
}
