//! A conversation as the text the model was trained on, by the Jinja template that came with it.
//!
//! The template is a stranger's program. Its steps, its recursion and its output are bounded. What one of its values may
//! grow to is not (doubling a string takes few steps); that is left to the memory limit of the process.

use std::io::{self, Write};

use minijinja::{
    Environment, Error, ErrorKind, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use thiserror::Error;

use super::{Clock, json, special::SpecialTokens};

/// Instructions of one rendering. A template takes some hundred a message, so this is ten thousand messages and more; used
/// up, it is below a second.
const FUEL: u64 = 10_000_000;

/// Bytes of a rendered prompt: twice the largest body the HTTP server takes.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// Spaces a level of indented JSON; more serves nobody and costs memory.
const INDENT_MAX: usize = 16;

const NAME: &str = "chat_template";

/// A conversation to be rendered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatPrompt {
    /// As the client sent them: objects with `role` and `content`.
    pub messages: Vec<serde_json::Value>,
    /// Whether the text ends with the beginning of an answer.
    pub add_generation_prompt: bool,
}

/// The first two are the client's fault, the others the model's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    #[error("the model has no chat template")]
    Missing,
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

#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

/// Marks the errors that a template raises itself.
#[derive(Debug, Error)]
#[error("raised by the template")]
struct Raised;

impl ChatTemplate {
    pub(super) fn parse(source: &str, special: &SpecialTokens, clock: Clock) -> Result<Self, TemplateError> {
        let invalid = |error: Error| TemplateError::Invalid(error.to_string());
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(invalid)?);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(false);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: &str| strftime(format, &clock()));
        environment.add_filter("tojson", to_json);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(invalid)?;
        Ok(Self { environment, bos_token: special.bos_token.clone(), eos_token: special.eos_token.clone() })
    }

    pub(super) fn render(&self, prompt: &ChatPrompt) -> Result<String, TemplateError> {
        let failed = |error: Error| TemplateError::Failed(error.to_string());
        let mut context = vec![
            ("messages", Value::from(Serde(&prompt.messages))),
            ("add_generation_prompt", Value::from(prompt.add_generation_prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ];
        // A token that a model does not have is undefined, as in transformers, not null: it prints as nothing.
        context.extend(self.bos_token.as_deref().map(|token| ("bos_token", Value::from(token))));
        context.extend(self.eos_token.as_deref().map(|token| ("eos_token", Value::from(token))));
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let mut output = BoundedOutput::default();
        let rendered = template.render_captured_to(Value::from_pairs(context), &mut output).map(drop);
        if output.overflowed {
            return Err(TemplateError::TooLong { bytes_max: OUTPUT_BYTES_MAX });
        }
        rendered.map_err(|error| match raised(&error) {
            Some(message) => TemplateError::Refused(message),
            None => failed(error),
        })?;
        String::from_utf8(output.bytes).map_err(|error| TemplateError::Failed(error.to_string()))
    }
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

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
}

/// The message of a `raise_exception` somewhere below `error`.
fn raised(error: &Error) -> Option<String> {
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
    let indent: Option<usize> = options.get("indent")?;
    // Our JSON is never ASCII-only nor re-ordered, which is what templates ask for when they say so.
    let _: (Option<bool>, Option<bool>) = (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    json::dumps(value, indent.map(|width| width.min(INDENT_MAX)))
        .map(Value::from_safe_string)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// `{% generation %}` marks the parts a trainer learns from and means nothing here; it becomes a condition that holds, which
/// keeps the tag's white-space control.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, (tag, after))) =
        rest.split_once("{%").and_then(|(before, from)| from.split_once("%}").map(|tag| (before, tag)))
    {
        let replacement = match tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        };
        out.extend([before, "{%", &replacement, "%}"]);
        rest = after;
    }
    out.push_str(rest);
    out
}
