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
mod token;
mod withhold;

use std::path::Path;

use thiserror::Error;
use tokenizers::Tokenizer;

use crate::heap::return_freed_pages;

pub use files::TextFiles;
pub use format::{ChatFormat, ReasoningStart, Tool, ToolChoice, ToolDialect};
pub use parser::{ChatDelta, ChatParser, ParserOptions};
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
    /// [`ChatFormat::marker_tokens`].
    marker_tokens: Vec<u32>,
    special: SpecialTokens,
}

/// Which special tokens, such as `<|im_end|>`, are part of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecialTokenText {
    /// None.
    #[default]
    Hidden,
    /// Those that [`ChatParser`] needs to see.
    Markers,
    /// All.
    Shown,
}

#[derive(Debug, Error)]
pub enum TextError {
    #[error("cannot read {file}: {reason}")]
    Read { file: &'static str, reason: std::io::Error },
    #[error("{file} has {bytes} bytes, more than the {bytes_max} allowed")]
    TooLarge { file: &'static str, bytes: u64, bytes_max: u64 },
    #[error("{file} is not valid: {reason}")]
    Invalid { file: &'static str, reason: String },
    #[error(transparent)]
    Gguf(#[from] sparkherd_checkpoint::CheckpointError),
    #[error("tokenizer failed: {0}")]
    Tokenizer(String),
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl Text {
    /// Reads tokenizer, chat template and end-of-sequence tokens of a model directory in Hugging Face's layout, or of the
    /// GGUF in it.
    pub fn load(model_dir: &Path) -> Result<Self, TextError> {
        let text = Self::from_files(&TextFiles::read(model_dir)?, jiff::Zoned::now);
        return_freed_pages();
        text
    }

    /// As [`Text::load`], from the files' bytes; `clock` is for templates that write the date.
    pub fn from_files(files: &TextFiles, clock: Clock) -> Result<Self, TextError> {
        let invalid = |reason: String| TextError::Invalid { file: files::TOKENIZER, reason };
        let mut tokenizer =
            Tokenizer::from_bytes(&files.tokenizer).map_err(|error| invalid(error.to_string()))?;
        // Some checkpoints ship the settings of their training pipeline, which would cut or fill prompts silently.
        tokenizer.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
        tokenizer.with_padding(None);
        bound_cache(&mut tokenizer);
        let special = SpecialTokens::parse(files, &tokenizer)?;
        let sources = files.templates()?;
        let mut templates = ChatTemplates::parse(&sources, &special, clock)?;
        let all: Vec<&str> = sources.iter().map(|template| template.source.as_str()).collect();
        let format = ChatFormat::detect(&all.join("\n"), templates.know_tools(), &tokenizer);
        templates.set_dialect(&format);
        let marker_tokens = format.marker_tokens();
        Ok(Self { tokenizer, templates, format, marker_tokens, special })
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

    /// The text of `tokens`; what cannot be decoded is U+FFFD.
    pub fn decode(&self, tokens: &[u32], special: SpecialTokenText) -> Result<String, TextError> {
        let shown: Vec<u32> = tokens.iter().copied().filter(|token| self.shows(*token, special)).collect();
        self.tokenizer.decode(&shown, false).map_err(|error| TextError::Tokenizer(error.to_string()))
    }

    /// The bytes that a token adds to a text, which need not be whole characters; `None` if there is no such token.
    pub fn token_bytes(&self, token: u32) -> Option<Vec<u8>> {
        token::bytes(&self.tokenizer, token)
    }

    /// How a token reads by itself; where it is no whole characters, with U+FFFD. `None` if there is no such token.
    pub fn token_text(&self, token: u32) -> Option<String> {
        Some(String::from_utf8_lossy(&self.token_bytes(token)?).into_owned())
    }

    /// Whether a token is part of a text. One that the tokenizer does not know is not.
    pub(crate) fn shows(&self, token: u32, special: SpecialTokenText) -> bool {
        let hidden = match special {
            SpecialTokenText::Shown => false,
            SpecialTokenText::Markers if self.marker_tokens.binary_search(&token).is_ok() => false,
            SpecialTokenText::Hidden | SpecialTokenText::Markers => token::is_special(&self.tokenizer, token),
        };
        !hidden && self.tokenizer.id_to_token(token).is_some()
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

/// Words that a thread remembers the tokens of. One of up to 255 letters takes 8 kB (32 bytes a letter), and they are
/// whatever a stranger writes: 2 MiB for each of the few threads that tokenise, where the library's own 10 000 would be 80.
const CACHED_WORDS: usize = 256;

/// The library lets nobody change a model in its place.
fn bound_cache(tokenizer: &mut Tokenizer) {
    let mut model = tokenizer.get_model().clone();
    model.resize_cache(CACHED_WORDS);
    tokenizer.with_model(model);
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("special", &self.special).finish_non_exhaustive()
    }
}
