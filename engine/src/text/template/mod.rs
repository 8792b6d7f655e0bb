//! A conversation as the text the model was trained on, by the Jinja template that came with it.
//!
//! The template is a stranger's program. Its steps, its recursion and its output are bounded. What one of its values may
//! grow to is not (doubling a string takes few steps); that is left to the memory limit of the process.

mod functions;
mod json;
mod messages;
mod source;

use std::io::{self, Write};

use minijinja::{Environment, Error, Value, syntax::SyntaxConfig, value::Serde};
use serde_json::json;
use thiserror::Error;

use super::{
    Clock,
    files::NamedTemplate,
    format::{ChatFormat, ToolDialect},
    special::SpecialTokens,
};
use messages::Reads;

/// Instructions of one rendering. A template takes some hundred a message, so this is ten thousand messages and more; used
/// up, it is below a second.
const FUEL: u64 = 10_000_000;

/// Bytes of a rendered prompt: twice the largest body the HTTP server takes.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

const DEFAULT: &str = "default";
/// The template for requests with tools, in checkpoints that have several.
const TOOL_USE: &str = "tool_use";

/// Stands where the model goes on; the blank shows whether the template trims.
const CONTINUE: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// A conversation to be rendered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatPrompt {
    /// As the client sent them: objects with `role` and `content`.
    pub messages: Vec<serde_json::Value>,
    /// As the client sent them: `{"type": "function", "function": {…}}`. None of them is as good as no tools at all.
    pub tools: Vec<serde_json::Value>,
    /// Objects with `title` and `text`, for templates that quote them.
    pub documents: Vec<serde_json::Value>,
    /// Further variables of the template, such as `enable_thinking`.
    pub template_kwargs: serde_json::Map<String, serde_json::Value>,
    /// Whether the text ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// Whether the text ends within the last message, which the model goes on with. Not together with a generation prompt.
    pub continue_final_message: bool,
}

/// The first four are the client's fault, the others the model's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    #[error("the model has no chat template")]
    Missing,
    #[error("the conversation has no messages")]
    Empty,
    #[error("the last message cannot be continued: {0}")]
    NotContinuable(&'static str),
    /// The template's own words, by `raise_exception`.
    #[error("{0}")]
    Refused(String),
    #[error("the chat template is not valid: {0}")]
    Invalid(String),
    #[error("the chat template failed: {0}")]
    Failed(String),
    #[error("the chat template wrote more than {bytes_max} bytes")]
    TooLong { bytes_max: usize },
}

/// All of a model's templates.
#[derive(Debug)]
pub(super) struct ChatTemplates {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
    reads: Reads,
}

impl ChatTemplates {
    pub(super) fn parse(
        templates: &[NamedTemplate],
        special: &SpecialTokens,
        clock: Clock,
    ) -> Result<Self, TemplateError> {
        let invalid = |error: Error| TemplateError::Invalid(error.to_string());
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(invalid)?);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(false);
        functions::add(&mut environment, clock);
        for NamedTemplate { name, source } in templates {
            let source = source::with_python_strings(&source::without_generation_tags(source));
            environment.add_template_owned(name.clone(), source).map_err(invalid)?;
        }
        let developer = templates.iter().any(|template| template.source.contains("developer"));
        let reads = Reads { parts: false, developer, dialect: ToolDialect::Hermes };
        let (bos_token, eos_token) = (special.bos_token.clone(), special.eos_token.clone());
        let mut parsed = Self { environment, bos_token, eos_token, reads };
        parsed.reads.parts = parsed.reads_parts();
        Ok(parsed)
    }

    /// Tells which dialect's ids the template wants.
    pub(super) fn set_dialect(&mut self, format: &ChatFormat) {
        self.reads.dialect = format.dialect();
    }

    pub(super) fn has_default(&self) -> bool {
        self.has(DEFAULT)
    }

    fn has(&self, name: &str) -> bool {
        self.environment.get_template(name).is_ok()
    }

    pub(super) fn know_tools(&self) -> bool {
        self.environment.templates().any(|(name, template)| {
            name == TOOL_USE || template.undeclared_variables(false).contains("tools")
        })
    }

    pub(super) fn render(&self, prompt: &ChatPrompt) -> Result<String, TemplateError> {
        let mut messages = messages::for_template(&prompt.messages, self.reads);
        let has_any = self.has_default() || (self.has(TOOL_USE) && !prompt.tools.is_empty());
        if !has_any {
            return Err(TemplateError::Missing);
        }
        if messages.is_empty() {
            return Err(TemplateError::Empty);
        }
        if !prompt.continue_final_message {
            return self.render_messages(&messages, prompt);
        }
        if prompt.add_generation_prompt {
            return Err(TemplateError::NotContinuable("a generation prompt begins another one"));
        }
        let content = text_of(messages.last_mut())?;
        let before = content.trim().to_owned();
        content.push_str(CONTINUE);
        let rendered = self.render_messages(&messages, prompt)?;
        let place = rendered.rfind(CONTINUE.trim_end()).filter(|_| rendered.contains(&before));
        let place =
            place.ok_or(TemplateError::NotContinuable("the chat template does not show all of it"))?;
        let head = &rendered[..place];
        Ok(if rendered[place..].starts_with(CONTINUE) { head } else { head.trim_end() }.to_owned())
    }

    fn render_messages(
        &self,
        messages: &[serde_json::Value],
        prompt: &ChatPrompt,
    ) -> Result<String, TemplateError> {
        let ChatPrompt {
            messages: _,
            tools,
            documents,
            template_kwargs,
            add_generation_prompt,
            continue_final_message: _,
        } = prompt;
        let none_if_empty = |values: &Vec<serde_json::Value>| {
            if values.is_empty() { Value::from(()) } else { Value::from(Serde(values)) }
        };
        // A token that a model does not have is undefined, as in transformers, not null: it prints as nothing.
        let tokens = [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)];
        let tokens =
            tokens.into_iter().filter_map(|(name, token)| Some((name, Value::from(token.as_deref()?))));
        let mut context: Vec<(&str, Value)> = tokens.collect();
        context
            .extend(template_kwargs.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        context.extend([
            ("messages", Value::from(Serde(messages))),
            ("add_generation_prompt", Value::from(*add_generation_prompt)),
            ("tools", none_if_empty(tools)),
            ("documents", none_if_empty(documents)),
        ]);
        let tool_use = (!tools.is_empty()).then(|| self.environment.get_template(TOOL_USE).ok()).flatten();
        let template = tool_use.or_else(|| self.environment.get_template(DEFAULT).ok());
        let template = template.ok_or(TemplateError::Missing)?;
        let mut output = BoundedOutput::default();
        let rendered = template.render_captured_to(Value::from_pairs(context), &mut output).map(drop);
        if output.overflowed {
            return Err(TemplateError::TooLong { bytes_max: OUTPUT_BYTES_MAX });
        }
        rendered.map_err(|error| match functions::raised(&error) {
            Some(message) => TemplateError::Refused(message),
            None => TemplateError::Failed(error.to_string()),
        })?;
        String::from_utf8(output.bytes).map_err(|error| TemplateError::Failed(error.to_string()))
    }

    /// Whether the template takes content as a list of parts, by trying: one that does not prints the list itself, or
    /// fails, or prints nothing.
    fn reads_parts(&self) -> bool {
        let (first, second) = ("first part of a probe", "second part of a probe");
        let parts = json!([{"type": "text", "text": first}, {"type": "text", "text": second}]);
        let prompt = ChatPrompt::default();
        let rendered = self.render_messages(&[json!({"role": "user", "content": parts})], &prompt);
        rendered.is_ok_and(|text| {
            text.contains(first)
                && text.contains(second)
                && !text.contains("'text'")
                && !text.contains("\"text\"")
        })
    }
}

/// The text of a message's content, or of the last of its parts that has one.
fn text_of(message: Option<&mut serde_json::Value>) -> Result<&mut String, TemplateError> {
    let content = message.and_then(|message| message.get_mut("content"));
    match content {
        Some(serde_json::Value::String(text)) => Some(text),
        Some(serde_json::Value::Array(parts)) => {
            parts.iter_mut().rev().find_map(|part| match part.get_mut("text") {
                Some(serde_json::Value::String(text)) => Some(text),
                _ => None,
            })
        }
        _ => None,
    }
    .ok_or(TemplateError::NotContinuable("it has no text"))
}

#[derive(Default)]
struct BoundedOutput {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Write for BoundedOutput {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > OUTPUT_BYTES_MAX {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
