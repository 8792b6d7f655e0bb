//! The real engine behind the seam.

use std::thread::JoinHandle;

use sparkherd_engine::text::{ChatFormat, ChatPrompt};
use sparkherd_engine::{
    CacheSize, Caller, ClientKey, EmbeddingRequest, EngineFailure, EngineHandle, EngineStats, Generation,
    GenerationRequest, Grammar, GrammarError, GrammarSource, ModelInfo, PendingEmbedding, Reservation,
    SpecialTokenText, SubmitError, TemplateError, TextError,
};

use crate::engine::{ChatEngine, EncodedChat, Place, PromptError};

/// Tokenising takes some 200 bytes a byte of text: a piece takes a few megabytes.
const PIECE_BYTES: usize = 16 << 10;
/// Tokens that cutting a text at one place can add at most. Merges reach no farther than a token, and the longest tokens in
/// use have 128 bytes, so a cut can spoil no more than those of one.
const CUT_TOKENS: usize = 128;

/// A started engine and the thread it runs on.
#[derive(Debug)]
pub struct RealEngine {
    handle: EngineHandle,
    worker: JoinHandle<()>,
}

impl ChatEngine for RealEngine {
    fn info(&self) -> ModelInfo {
        self.handle.info().clone()
    }

    fn cache_size(&self) -> CacheSize {
        self.handle.cache_size()
    }

    fn stats(&self) -> EngineStats {
        self.handle.stats()
    }

    fn chat_format(&self) -> &ChatFormat {
        self.handle.text().chat_format()
    }

    fn encode_chat(&self, prompt: &ChatPrompt) -> Result<EncodedChat, PromptError> {
        let text = self.handle.text().render_chat(prompt).map_err(TextError::Template)?;
        let reasoning_start = self.chat_format().reasoning_start(&text);
        Ok(EncodedChat { tokens: self.encode(&text, false)?, reasoning_start })
    }

    fn encode_text(&self, text: &str, framed: bool) -> Result<Vec<u32>, PromptError> {
        self.encode(text, framed)
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, PromptError> {
        Ok(self.handle.text().decode(tokens, SpecialTokenText::Shown)?)
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.handle.text().token_bytes(token).unwrap_or_default()
    }

    fn compile_grammar(&self, source: &GrammarSource, account: ClientKey) -> Result<Grammar, GrammarError> {
        self.handle.compile_grammar(source, account)
    }

    fn reserve(&self, caller: &Caller) -> Result<Box<dyn Place>, SubmitError> {
        Ok(Box::new(self.handle.reserve(caller)?))
    }

    fn drain(&self) {
        self.handle.drain();
    }

    /// A worker that has ended without a reason of its own has panicked: while this handle lives it has none to end.
    fn failed(&self) -> Option<EngineFailure> {
        let ended = || self.worker.is_finished().then(|| EngineFailure::other("worker thread has ended"));
        self.handle.failed().or_else(ended)
    }
}

impl Place for Reservation {
    fn submit(self: Box<Self>, request: GenerationRequest) -> Result<Generation, SubmitError> {
        Reservation::submit(*self, request)
    }

    fn embed(self: Box<Self>, request: EmbeddingRequest) -> Result<PendingEmbedding, SubmitError> {
        Reservation::embed(*self, request)
    }
}

impl RealEngine {
    /// What `Engine::start` gave.
    pub const fn new(handle: EngineHandle, worker: JoinHandle<()>) -> Self {
        Self { handle, worker }
    }

    /// Tokenises the whole text, whose every split the tokenizer must see, only when its pieces say that it may fit.
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, PromptError> {
        let encode = |text: &str, special| Ok::<_, PromptError>(self.handle.text().encode(text, special)?);
        check_length(text, self.handle.info().context, |piece| Ok(encode(piece, false)?.len()))?;
        encode(text, add_special_tokens)
    }
}

/// Refuses a text whose pieces together have more tokens than the whole could have and fit. `count` gives a piece's tokens.
fn check_length(
    text: &str,
    context: u32,
    count: impl Fn(&str) -> Result<usize, PromptError>,
) -> Result<(), PromptError> {
    let context = usize::try_from(context).unwrap_or(usize::MAX);
    let mut tokens = 0_usize;
    let mut rest = text;
    while rest.len() > PIECE_BYTES {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
        tokens = tokens.saturating_add(count(piece)?.saturating_sub(CUT_TOKENS));
        if tokens > context {
            return Err(PromptError::TooLong { tokens });
        }
        rest = after;
    }
    Ok(())
}

impl From<TextError> for PromptError {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Template(TemplateError::Missing) => Self::NoChatTemplate,
            TextError::Template(error) => Self::Template(error.to_string()),
            error => Self::Tokenizer(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, context: u32) -> Result<(), PromptError> {
        check_length(text, context, |piece| {
            assert!(piece.len() <= PIECE_BYTES, "a piece of {} bytes", piece.len());
            Ok(piece.chars().count())
        })
    }

    #[test]
    fn short_texts_are_not_counted() {
        let uncounted = |_: &str| -> Result<usize, PromptError> { Err(PromptError::NoChatTemplate) };
        assert_eq!(check_length(&"x".repeat(PIECE_BYTES), 1, uncounted), Ok(()));
    }

    #[test]
    fn counting_ends_where_the_context_does() {
        let long = "x".repeat(100 * PIECE_BYTES);
        let context = u32::try_from(3 * PIECE_BYTES).unwrap();
        let tokens = 4 * (PIECE_BYTES - CUT_TOKENS);
        assert_eq!(check(&long, context), Err(PromptError::TooLong { tokens }));
        assert_eq!(check(&long, u32::MAX), Ok(()));
    }

    #[test]
    fn characters_are_not_cut() {
        let long = "€".repeat(PIECE_BYTES);
        assert_eq!(check(&long, u32::MAX), Ok(()));
    }
}
