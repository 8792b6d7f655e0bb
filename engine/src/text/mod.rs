//! Words to tokens and back: tokenizer, chat template, and the text of a running generation.
//!
//! ```text
//! messages ─► ChatTemplates ─► prompt text ─► encode ─► tokens ─┐
//!                                                             (engine)
//! ChatDelta ◄─ ChatParser ◄─ text ◄─ StopMatcher ◄─ Detokenizer ◄─┘
//! ```
//!
//! All of it is made of files that came with the weights, so they are taken for hostile: sizes are bounded when read, and
//! a template runs with a limit on its steps and on its output.

mod detokenizer;
mod files;
mod format;
mod parser;
mod special;
mod stop;
mod template;
#[cfg(test)]
mod tests;
mod withhold;

use std::path::Path;

use thiserror::Error;
use tokenizers::Tokenizer;

pub use files::TextFiles;
pub use format::{ChatFormat, ReasoningStart, Tool, ToolChoice, ToolDialect};
pub use parser::{ArgumentDelivery, ChatDelta, ChatParser, ParserOptions};
pub use template::{ChatPrompt, TemplateError};

pub(crate) use detokenizer::Detokenizer;
use special::SpecialTokens;
pub(crate) use stop::StopMatcher;
use template::ChatTemplates;

/// Tells the local date and time: the only thing in a prompt that is neither the request's nor the model's.
pub type Clock = fn() -> jiff::Zoned;

/// What a model directory says about text.
pub struct Text {
    tokenizer: Tokenizer,
    templates: ChatTemplates,
    format: ChatFormat,
    special: SpecialTokens,
}

#[derive(Debug, Error)]
pub enum TextError {
    #[error("cannot read {file}: {reason}")]
    Read { file: &'static str, reason: std::io::Error },
    #[error("{file} has {bytes} bytes, more than the {bytes_max} allowed")]
    TooLarge { file: &'static str, bytes: u64, bytes_max: u64 },
    #[error("{file} is not valid: {reason}")]
    Invalid { file: &'static str, reason: String },
    #[error("tokenizer failed: {0}")]
    Tokenizer(String),
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl Text {
    /// Reads tokenizer, chat template and end-of-sequence tokens of a model directory in Hugging Face's layout.
    pub fn load(model_dir: &Path) -> Result<Self, TextError> {
        Self::from_files(&TextFiles::read(model_dir)?, jiff::Zoned::now)
    }

    /// As [`Text::load`], from the files' bytes; `clock` is for templates that write the date.
    pub fn from_files(files: &TextFiles, clock: Clock) -> Result<Self, TextError> {
        let invalid = |reason: String| TextError::Invalid { file: files::TOKENIZER, reason };
        let mut tokenizer =
            Tokenizer::from_bytes(&files.tokenizer).map_err(|error| invalid(error.to_string()))?;
        // Some checkpoints ship the settings of their training pipeline, which would cut or fill prompts silently.
        tokenizer.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
        tokenizer.with_padding(None);
        let special = SpecialTokens::parse(files, &tokenizer)?;
        let sources = files.templates()?;
        let mut templates = ChatTemplates::parse(&sources, &special, clock)?;
        let all: Vec<&str> = sources.iter().map(|template| template.source.as_str()).collect();
        let format = ChatFormat::detect(&all.join("\n"), templates.know_tools(), &tokenizer);
        templates.set_dialect(&format);
        Ok(Self { tokenizer, templates, format, special })
    }

    /// The tokens of `text`. With `add_special_tokens` the tokenizer frames it as the model was trained (usually one
    /// beginning-of-sequence token); a text that begins with that token already does not get it twice.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, add_special_tokens)
            .map_err(|error| TextError::Tokenizer(error.to_string()))?;
        let tokens = encoding.get_ids();
        match (tokens, self.special.bos_token_id) {
            ([first, second, ..], Some(bos)) if add_special_tokens && *first == bos && *second == bos => {
                Ok(tokens[1..].to_vec())
            }
            _ => Ok(tokens.to_vec()),
        }
    }

    /// The prompt of a conversation, as text. A template writes the special tokens itself: encode the result without.
    pub fn render_chat(&self, prompt: &ChatPrompt) -> Result<String, TemplateError> {
        self.templates.render(prompt)
    }

    /// The prompt of a conversation, as tokens.
    pub fn encode_chat(&self, prompt: &ChatPrompt) -> Result<Vec<u32>, TextError> {
        self.encode(&self.render_chat(prompt)?, false)
    }

    /// The text of `tokens` without special ones; what cannot be decoded is U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        self.decode_with(tokens, true)
    }

    fn decode_with(&self, tokens: &[u32], skip_special_tokens: bool) -> Result<String, TextError> {
        self.tokenizer
            .decode(tokens, skip_special_tokens)
            .map_err(|error| TextError::Tokenizer(error.to_string()))
    }

    pub fn has_chat_template(&self) -> bool {
        self.templates.has_default()
    }

    /// How this model calls tools and reasons.
    pub fn chat_format(&self) -> &ChatFormat {
        &self.format
    }

    pub fn bos_token(&self) -> Option<&str> {
        self.special.bos_token.as_deref()
    }

    pub fn eos_token(&self) -> Option<&str> {
        self.special.eos_token.as_deref()
    }

    /// Tokens that end an answer: those named by `generation_config.json`, `config.json` and `tokenizer_config.json`
    /// together, because checkpoints disagree with themselves and each is right somewhere. Sorted.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.special.eos_token_ids
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("special", &self.special).finish_non_exhaustive()
    }
}
